// Transactions: nothing before commit, nothing left after abort, one failure hurts one transaction.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MEBIBYTE, collect, contents, fsckFindings, makeRig, reopen, type Rig } from './store_harness.js';

function freeSectors(rig: Rig): number {
  return rig.store.catalog.members.reduce(
    (sum, member) => sum + rig.store.catalog.freeSectors(member.index),
    0,
  );
}
const U8 = (length: number) => ({ dtype: 'U8' as const, shape: [length] });

test('nothing of an uncommitted transaction is visible, and abort gives all its space back', async () => {
  const rig = await makeRig();
  const before = freeSectors(rig);
  const tx = await rig.store.begin('run');
  await tx.put('t', contents(1, 9 * MEBIBYTE), U8(9 * MEBIBYTE));
  await tx.put('small', contents(2, 9000), U8(9000));
  await assert.rejects(rig.store.get('run'), { code: 'E_NOT_FOUND' });
  assert.deepEqual(await collect(rig.store.list()), []);
  await tx.abort();
  await assert.rejects(tx.commit(), { code: 'E_CLOSED' });
  await assert.rejects(tx.put('u', new Uint8Array(1), U8(1)), { code: 'E_CLOSED' });
  assert.equal(freeSectors(rig), before);
  assert.equal(rig.store.stats().openTransactions, 0);
  await rig.store.close();
});

test('leaving the scope without commit aborts', async () => {
  const rig = await makeRig();
  const before = freeSectors(rig);
  const tx = await rig.store.begin('run');
  await tx.put('t', contents(1, 5 * MEBIBYTE), U8(5 * MEBIBYTE));
  await tx[Symbol.asyncDispose]();
  assert.equal(freeSectors(rig), before);
  const again = await rig.store.begin('run');
  await again.put('t', contents(1, 100_000), U8(100_000));
  const version = await again.commit();
  await again[Symbol.asyncDispose]();
  assert.deepEqual(await version.tensor('t').read(), contents(1, 100_000));
  await rig.store.close();
});

test('a copy put gives the memory back when it settles; later changes of it are not stored', async () => {
  const rig = await makeRig();
  const tx = await rig.store.begin('run');
  for (const [name, size] of [
    ['inline', 100],
    ['small', 20_000],
    ['large', 40 * MEBIBYTE],
  ] as const) {
    const bytes = contents(size, size);
    await tx.put(name, bytes, U8(size));
    bytes.fill(0);
  }
  const version = await tx.commit();
  for (const [name, size] of [
    ['inline', 100],
    ['small', 20_000],
    ['large', 40 * MEBIBYTE],
  ] as const) {
    assert.deepEqual(await version.tensor(name).read(), contents(size, size));
  }
  await rig.store.close();
});

test('typed arrays and streams of uneven pieces are stored as their bytes', async () => {
  const rig = await makeRig();
  const tx = await rig.store.begin('run');
  const floats = Float32Array.from({ length: 3000 }, (_, index) => index / 7);
  await tx.put('f', floats.subarray(1000, 2000), { dtype: 'F32', shape: [1000] });
  const bytes = contents(3, 9 * MEBIBYTE + 77);
  async function* pieces(): AsyncGenerator<Uint8Array> {
    for (let at = 0, size = 1; at < bytes.length; at += size, size = (size * 7) % 900_001)
      yield bytes.subarray(at, at + size);
  }
  await tx.putStream('s', pieces(), U8(bytes.length));
  await tx.putBlob('b', pieces());
  async function* few(): AsyncGenerator<Uint8Array> {
    yield contents(4, 30_000);
  }
  await tx.putBlob('few', few());
  const version = await tx.commit();
  assert.deepEqual(new Float32Array((await version.tensor('f').read()).buffer), floats.slice(1000, 2000));
  assert.deepEqual(await version.tensor('s').read(), bytes);
  assert.deepEqual(await version.blob('b').bytes(), bytes);
  assert.deepEqual(await version.blob('few').bytes(), contents(4, 30_000));
  await rig.store.close();
});

test('a stream that is too long or too short fails its transaction and leaves no space behind', async () => {
  const rig = await makeRig();
  const before = freeSectors(rig);
  async function* two(): AsyncGenerator<Uint8Array> {
    yield contents(1, 5 * MEBIBYTE);
    yield contents(2, 5 * MEBIBYTE);
  }
  for (const size of [10 * MEBIBYTE - 1, 10 * MEBIBYTE + 1]) {
    const tx = await rig.store.begin('run');
    await assert.rejects(tx.putStream('s', two(), U8(size)), { code: 'E_RANGE' });
    await assert.rejects(tx.commit(), { code: 'E_RANGE' });
  }
  assert.equal(freeSectors(rig), before);
  await rig.store.close();
});

test('a put that is refused before any byte moved leaves no trace, and the transaction goes on', async () => {
  const rig = await makeRig();
  const tx = await rig.store.begin('run');
  await tx.put('t', contents(1, 10), U8(10));
  await assert.rejects(tx.put('t', contents(1, 10), U8(10)), { code: 'E_EXISTS' });
  await assert.rejects(tx.put('wrong', contents(1, 10), U8(11)), { code: 'E_RANGE' });
  await assert.rejects(tx.put('bad\0name', contents(1, 10), U8(10)), { code: 'E_USAGE' });
  const version = await tx.commit();
  assert.deepEqual([...version.names], ['t']);
  await rig.store.close();
});

test('a put that nobody awaited is part of the commit, and its failure fails the commit', async () => {
  const rig = await makeRig();
  const tx = await rig.store.begin('run');
  void tx.put('t', contents(1, 6 * MEBIBYTE), U8(6 * MEBIBYTE));
  const version = await tx.commit();
  assert.deepEqual(await version.tensor('t').read(), contents(1, 6 * MEBIBYTE));
  const bad = await rig.store.begin('run');
  bad.putFile('f', { path: 'no such file' }, U8(10)).catch(() => undefined);
  await assert.rejects(bad.commit());
  await rig.store.close();
});

test('a failed data write fails its own transaction only, by name and place, and is not visible', async () => {
  const rig = await makeRig({ members: 1 });
  const good = await rig.store.begin('good');
  await good.put('t', contents(1, 5 * MEBIBYTE), U8(5 * MEBIBYTE));
  await good.commit();
  const bad = await rig.store.begin('bad');
  rig.world.faults.add({ operation: 'write', action: 'errno', errno: 5, path: 'a.member', nth: 1 });
  await bad.put('t', contents(2, 5 * MEBIBYTE), U8(5 * MEBIBYTE)).catch(() => undefined);
  await assert.rejects(bad.commit(), (error: unknown) => {
    const { code, where } = error as { code: string; where: { member: string; tensor: string } };
    assert.deepEqual([code, where.member, where.tensor], ['E_IO', 'a.member', 't']);
    return true;
  });
  const next = await rig.store.begin('next');
  await next.put('t', contents(3, 64), U8(64));
  await next.commit();
  const runs = (await collect(rig.store.list())).map((version) => version.run);
  assert.deepEqual(runs, ['good', 'next']);
  await rig.store.close();
});

test('what one member does not take goes to another; past the threshold it is faulted and left alone', async () => {
  const rig = await makeRig({ members: 3, redundancy: 2 });
  rig.world.faults.add({ operation: 'write', action: 'errno', errno: 5, path: 'b.member', probability: 1 });
  for (let round = 1; round <= 4; round += 1) {
    const tx = await rig.store.begin('run');
    await tx.put('t', contents(round, 3 * MEBIBYTE), U8(3 * MEBIBYTE));
    const version = await tx.commit();
    assert.deepEqual(await version.tensor('t').read(), contents(round, 3 * MEBIBYTE));
    const info = (await collect(rig.store.list({ run: 'run' }))).at(-1);
    assert.equal(info?.storedBytes, 6 * MEBIBYTE, 'both copies were placed');
  }
  const states = rig.store.info.members.map((member) => member.state);
  assert.equal(states.filter((state) => state === 'online').length, 2);
  assert.ok(states[1] === 'faulted' || states[1] === 'stale', states.join());
  await rig.store.close();
});

test('a store too full for a transaction says E_NO_SPACE, shows nothing of it, and takes the next one', async () => {
  const rig = await makeRig({ members: 2, memberBytes: 16 * MEBIBYTE, redundancy: 2 });
  const tx = await rig.store.begin('big');
  const failure = await (async () => {
    await tx.put('t', contents(1, 20 * MEBIBYTE), U8(20 * MEBIBYTE));
    await tx.commit();
  })().then(
    () => null,
    (error: unknown) => error as { code: string },
  );
  assert.equal(failure?.code, 'E_NO_SPACE');
  await tx.abort();
  assert.deepEqual(await collect(rig.store.list()), []);
  const next = await rig.store.begin('fits');
  await next.put('t', contents(2, 8 * MEBIBYTE), U8(8 * MEBIBYTE));
  await next.commit();
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test('many transactions at once, all with data, each hold only their own and all land', async () => {
  const rig = await makeRig({ members: 3, redundancy: 2, memberBytes: 256 * MEBIBYTE });
  await Promise.all(
    Array.from({ length: 40 }, async (_, index) => {
      const tx = await rig.store.begin(`run/${index % 7}`, { step: index });
      for (let t = 0; t < 5; t++)
        await tx.put(
          `t${t}`,
          contents(index * 10 + t, 30_000 * t + 500_000 * (index % 3)),
          U8(30_000 * t + 500_000 * (index % 3)),
        );
      if (index % 5 === 4) await tx.abort();
      else await tx.commit();
    }),
  );
  await reopen(rig);
  const versions = await collect(rig.store.list());
  assert.equal(versions.length, 32);
  for (const info of versions) {
    const version = await rig.store.get(info.id);
    const index = version.step ?? -1;
    for (let t = 0; t < 5; t++)
      assert.deepEqual(
        await version.tensor(`t${t}`).read(),
        contents(index * 10 + t, 30_000 * t + 500_000 * (index % 3)),
      );
  }
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test('an aborted signal rejects with its reason and gives everything back', async () => {
  const rig = await makeRig();
  const before = freeSectors(rig);
  const control = new AbortController();
  const tx = await rig.store.begin('run', { signal: control.signal });
  await tx.put('t', contents(1, 5 * MEBIBYTE), U8(5 * MEBIBYTE));
  const reason = new Error('stop');
  control.abort(reason);
  await assert.rejects(tx.put('u', contents(1, 10), U8(10)), reason);
  await assert.rejects(tx.commit(), reason);
  assert.equal(freeSectors(rig), before);
  await rig.store.close();
});

test('links reference the base version: nothing is written twice, and each version can go alone', async () => {
  const rig = await makeRig({ members: 2, redundancy: 2 });
  const first = await rig.store.begin('run');
  await first.put('big', contents(1, 6 * MEBIBYTE), U8(6 * MEBIBYTE));
  await first.put('small', contents(2, 5000), U8(5000));
  await first.put('tiny', contents(3, 50), U8(50));
  const base = await first.commit();
  const before = rig.store.stats().writtenBytes;
  const second = await rig.store.begin('run', { base: base.id });
  await second.link('big');
  await second.link('renamed', 'small');
  await second.link('tiny');
  await second.put('new', contents(4, 5000), U8(5000));
  await assert.rejects(second.link('nothing'), { code: 'E_NOT_FOUND' });
  const linked = await second.commit();
  assert.ok(rig.store.stats().writtenBytes - before < MEBIBYTE);
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.remove(base.id);
  assert.deepEqual(await fsckFindings(rig.store), []);
  await assert.rejects(
    base
      .tensor('big')
      .read()
      .then(() => rig.store.get(base.id)),
    { code: 'E_NOT_FOUND' },
  );
  assert.deepEqual(await linked.tensor('big').read(), contents(1, 6 * MEBIBYTE));
  assert.deepEqual(await linked.tensor('renamed').read(), contents(2, 5000));
  assert.deepEqual(await linked.tensor('tiny').read(), contents(3, 50));
  await rig.store.remove(linked.id);
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test('linkAll keeps files and blobs, so that the linked version is exported byte for byte', async () => {
  const rig = await makeRig({ members: 2, redundancy: 1 });
  const first = await rig.store.begin('run');
  const prefix = contents(9, 64);
  const file = first.addFile({ name: 'model.safetensors', prefix, mode: 0o600 });
  await first.put('b', contents(1, 100_000), U8(100_000), { file, fileOffset: 64 });
  await first.put('a', contents(2, 50), U8(50), { file, fileOffset: 100_064 });
  await first.put('empty', new Uint8Array(0), U8(0), { file, fileOffset: 100_114 });
  first.addFile({ name: 'config.json' });
  await first.putBlob('config.json', contents(3, 9000), { contentType: 'application/json' });
  const base = await first.commit();
  const written = rig.store.stats().writtenBytes;
  const second = await rig.store.begin('other', { base: base.id });
  await second.linkAll();
  await assert.rejects(second.linkAll(), { code: 'E_EXISTS' });
  await second.put('extra', contents(4, 10), U8(10));
  const linked = await second.commit();
  assert.ok(rig.store.stats().writtenBytes - written < MEBIBYTE);
  assert.deepEqual(linked.manifest.files, base.manifest.files);
  assert.deepEqual(linked.manifest.blobs, base.manifest.blobs);
  assert.deepEqual(
    linked.manifest.tensors.filter(({ name }) => name !== 'extra'),
    base.manifest.tensors,
  );
  // By name: all tensors of the file keep it, with one missing they are in no file.
  const third = await rig.store.begin('third', { base: base.id });
  for (const name of ['a', 'b', 'empty']) await third.link(name);
  const byName = await third.commit();
  assert.deepEqual(byName.manifest.files, [base.manifest.files[0]]);
  assert.deepEqual(byName.manifest.tensors, base.manifest.tensors);
  const fourth = await rig.store.begin('fourth', { base: base.id });
  await fourth.link('a');
  await fourth.link('empty');
  await fourth.put('b', contents(5, 100_000), U8(100_000));
  const part = await fourth.commit();
  assert.deepEqual(part.manifest.files, []);
  for (const id of [byName.id, part.id]) await rig.store.remove(id);
  await rig.store.remove(base.id);
  assert.deepEqual(await linked.blob('config.json').bytes(), contents(3, 9000));
  assert.deepEqual(await linked.tensor('b').read(), contents(1, 100_000));
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.remove(linked.id);
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test('a link to a version that was removed meanwhile is E_CONFLICT and leaves nothing', async () => {
  const rig = await makeRig();
  const first = await rig.store.begin('run');
  await first.put('t', contents(1, 100_000), U8(100_000));
  const base = await first.commit();
  const second = await rig.store.begin('run', { base: 'run@latest' });
  await second.link('t');
  await rig.store.remove(base.id);
  await assert.rejects(second.commit(), { code: 'E_CONFLICT' });
  assert.deepEqual(await collect(rig.store.list()), []);
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test('files are exported from prefix and tensors; a gap or a missing blob is refused', async () => {
  const rig = await makeRig();
  const prefix = contents(9, 100);
  const tx = await rig.store.begin('model');
  const file = tx.addFile({ name: 'model.safetensors', prefix, mode: 0o600 });
  await tx.put('b', contents(2, 70_000), U8(70_000), { file, fileOffset: 130 });
  await tx.put('a', contents(1, 30), U8(30), { file, fileOffset: 100 });
  tx.addFile({ name: 'config.json' });
  await tx.putBlob('config.json', contents(3, 5000));
  const version = await tx.commit();
  const [model, config] = version.files;
  assert.equal(model?.sizeBytes, 70_130);
  assert.deepEqual(
    model?.tensors.map((tensor) => tensor.name),
    ['a', 'b'],
  );
  const whole = Buffer.concat([prefix, contents(1, 30), contents(2, 70_000)]);
  assert.equal(model?.sum, rig.io.checksum.crc64(whole));
  assert.equal(config?.sum, rig.io.checksum.crc64(contents(3, 5000)));
  const gap = await rig.store.begin('model');
  const index = gap.addFile({ name: 'm', prefix });
  await gap.put('a', contents(1, 30), U8(30), { file: index, fileOffset: 101 });
  await assert.rejects(gap.commit(), { code: 'E_FORMAT' });
  const none = await rig.store.begin('model');
  none.addFile({ name: 'absent' });
  await assert.rejects(none.commit(), { code: 'E_USAGE' });
  await rig.store.close();
});

test('tensors from a file are read by the Io port; a file that changes or ends early fails the commit', async () => {
  const rig = await makeRig();
  const bytes = contents(1, 6 * MEBIBYTE);
  rig.world.addFile('/src/model', bytes);
  const tx = await rig.store.begin('model');
  await tx.putFile('large', { path: '/src/model', offset: 10 }, U8(5 * MEBIBYTE));
  await tx.putFile('small', { path: '/src/model', offset: 77 }, U8(9000));
  await tx.putFile('tiny', { path: '/src/model', offset: 99 }, U8(64));
  await tx.putBlobFile('whole', { path: '/src/model' });
  const version = await tx.commit();
  assert.deepEqual(await version.tensor('large').read(), bytes.slice(10, 10 + 5 * MEBIBYTE));
  assert.deepEqual(await version.tensor('small').read(), bytes.slice(77, 9077));
  assert.deepEqual(await version.tensor('tiny').read(), bytes.slice(99, 163));
  assert.deepEqual(await version.blob('whole').bytes(), bytes);
  const changing = await rig.store.begin('model');
  await changing.putFile('large', { path: '/src/model' }, U8(5 * MEBIBYTE));
  rig.world.addFile('/src/model', bytes);
  await assert.rejects(changing.commit(), { code: 'E_SOURCE_CHANGED' });
  const beyond = await rig.store.begin('model');
  await assert.rejects(beyond.putFile('t', { path: '/src/model', offset: 5 * MEBIBYTE }, U8(2 * MEBIBYTE)), {
    code: 'E_RANGE',
  });
  await beyond.abort();
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test('closing the store ends open transactions, and lets commits under way finish or fail whole', async () => {
  const rig = await makeRig({ members: 2, redundancy: 2 });
  const idle = await rig.store.begin('idle');
  await idle.put('t', contents(1, 5 * MEBIBYTE), U8(5 * MEBIBYTE));
  const committing = await Promise.all(
    Array.from({ length: 8 }, async (_, index) => {
      const tx = await rig.store.begin(`run${index}`);
      await tx.put('t', contents(index, 300_000), U8(300_000));
      return tx;
    }),
  );
  const outcomes = committing.map((tx) =>
    tx.commit().then(
      () => true,
      () => false,
    ),
  );
  await rig.io.clock.sleep(1);
  await rig.store.close();
  await idle.abort();
  await idle[Symbol.asyncDispose]();
  const landed = await Promise.all(outcomes);
  await reopen(rig);
  const runs = (await collect(rig.store.list())).map((version) => version.run);
  assert.deepEqual(
    runs,
    landed.flatMap((isLanded, index) => (isLanded ? [`run${index}`] : [])),
  );
  for (const run of runs)
    assert.deepEqual(
      await (await rig.store.get(run)).tensor('t').read(),
      contents(Number(run.slice(3)), 300_000),
    );
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test('a store nearly full of removed data finds room for sums without waiting for its own commit', async () => {
  const rig = await makeRig({ members: 1, memberBytes: 24 * MEBIBYTE, segmentBytes: 4096, redundancy: 1 });
  let refused = 0;
  for (let round = 0; round < 40; round++) {
    const tx = await rig.store.begin('run', { step: round });
    try {
      const size = (3 + (round % 9)) * MEBIBYTE;
      await tx.put('t', contents(round, size), U8(size));
      await tx.commit();
    } catch (error) {
      assert.equal((error as { code?: string }).code, 'E_NO_SPACE');
      await tx.abort();
      refused++;
      for (const version of await collect(rig.store.list())) await rig.store.remove(version.id);
    }
  }
  assert.ok(refused > 3);
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

for (const nth of [1, 2, 3, 4, 5, 6, 7, 8]) {
  test(`write ${nth} of a commit fails: refused or poisoned, never a false yes`, async () => {
    const rig = await makeRig({ members: 2, redundancy: 1, segmentBytes: 4096 });
    const tx = await rig.store.begin('run');
    await tx.put('t', contents(1, 3 * MEBIBYTE), U8(3 * MEBIBYTE));
    await rig.io.clock.sleep(1000);
    rig.world.faults.add({ operation: 'write', action: 'errno', errno: 5, nth });
    const done = await tx.commit().then(
      () => true,
      () => false,
    );
    const poisoned = rig.store.info.state === 'failed';
    await reopen(rig);
    const runs = (await collect(rig.store.list())).map((version) => version.run);
    if (done) assert.deepEqual(runs, ['run']);
    else if (!poisoned) assert.deepEqual(runs, []);
    assert.deepEqual(await fsckFindings(rig.store), []);
    await rig.store.close();
  });
}
