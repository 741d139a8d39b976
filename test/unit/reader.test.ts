// Reading through faults: the next copy is taken and the bad one named; what has no good copy is an error.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ReadFault } from '../../engine/types.js';
import { MEBIBYTE, collect, contents, makeRig, openRig, reopen, type Rig } from './store_harness.js';

const SIZE = 9 * MEBIBYTE + 100;
const U8 = (length: number) => ({ dtype: 'U8' as const, shape: [length] });

async function rigWith(redundancy: 1 | 2 | 3, members = 3): Promise<Rig> {
  const rig = await makeRig({ members, redundancy });
  const tx = await rig.store.begin('run');
  await tx.put('t', contents(1, SIZE), U8(SIZE));
  await tx.put('s', contents(2, 9000), U8(9000));
  await tx.commit();
  return rig;
}

for (const redundancy of [2, 3] as const) {
  test(`redundancy ${redundancy}: rot in one copy is passed over, named by tensor, member and offset`, async () => {
    const rig = await rigWith(redundancy);
    const version = await rig.store.get('run');
    const place = (await version.tensor('t').extents()).find((each) => each.copy === 0);
    assert.ok(place !== undefined);
    rig.world.flipBits(place.member, place.offset + 70_000, 0x10);
    const faults: ReadFault[] = [];
    assert.deepEqual(
      await version.tensor('t').read({ onFault: (fault) => faults.push(fault) }),
      contents(1, SIZE),
    );
    assert.equal(faults.length, 1);
    const [fault] = faults;
    assert.equal(fault?.tensor, 't');
    assert.equal(fault?.object, version.id);
    assert.equal(fault?.member, place.member);
    assert.equal(fault?.kind, 'checksum');
    assert.equal(fault?.offsetBytes, place.offset + 65_536);
    assert.equal(rig.store.stats().copiesPassedOver, 1);
    await rig.store.healed();
    assert.equal(rig.store.stats().repairs, 1);
    const findings = (await collect(version.verify())).filter((event) => event.type === 'finding');
    assert.deepEqual(findings, []);
    await rig.store.close();
  });
}

test('verify finds rot in a second copy that no read would meet, and heals it', async () => {
  const rig = await rigWith(2);
  const version = await rig.store.get('run');
  const place = (await version.tensor('s').extents()).find((each) => each.copy === 1);
  assert.ok(place !== undefined);
  rig.world.flipBits(place.member, place.offset + 5, 1);
  assert.deepEqual(await version.tensor('s').read(), contents(2, 9000));
  const findings = (await collect(version.verify())).filter((event) => event.type === 'finding');
  assert.deepEqual(
    findings.map((each) => [each.error.code, each.severity, each.action, each.error.where.tensor]),
    [['E_CORRUPT_REPAIRED', 'warn', 'repaired', 's']],
  );
  await rig.store.close();
});

test('no good copy: E_CORRUPT names the place, other tensors are not affected, verify says unrepairable', async () => {
  const rig = await rigWith(2);
  const version = await rig.store.get('run');
  const places = await version.tensor('t').extents();
  for (const place of places.slice(0, 2)) rig.world.flipBits(place.member, place.offset + 100, 1);
  await assert.rejects(
    version.tensor('t').read(),
    (error: Error & { code: string; where: Record<string, unknown> }) => {
      assert.equal(error.code, 'E_CORRUPT');
      assert.equal(error.where['tensor'], 't');
      assert.equal(error.where['object'], version.id);
      assert.ok([places[0]?.member, places[1]?.member].includes(error.where['member'] as string));
      return true;
    },
  );
  const beyond = new Uint8Array(MEBIBYTE);
  await version.tensor('t').readInto(beyond, { offset: 5 * MEBIBYTE, length: MEBIBYTE });
  assert.deepEqual(beyond, contents(1, SIZE).slice(5 * MEBIBYTE, 6 * MEBIBYTE));
  assert.deepEqual(await version.tensor('s').read(), contents(2, 9000));
  const landed: string[] = [];
  await assert.rejects(
    async () => {
      for await (const tensor of version.load((each) => new Uint8Array(each.byteLength)))
        landed.push(tensor.name);
    },
    { code: 'E_CORRUPT' },
  );
  assert.ok(!landed.includes('t'));
  const events = await collect(version.verify());
  assert.ok(
    events.some(
      (event) => event.type === 'finding' && event.action === 'unrepairable' && event.severity === 'fatal',
    ),
  );
  assert.ok(events.some((event) => event.type === 'done' && event.unrepairable === 1));
  await rig.store.close();
});

test('a read error on one member takes the other copy; on all, E_IO with the errno', async () => {
  const rig = await rigWith(2, 2);
  const version = await rig.store.get('run');
  rig.world.faults.add({ operation: 'read', action: 'errno', errno: 5, sticky: true, path: 'a.member' });
  assert.deepEqual(await version.tensor('t').read(), contents(1, SIZE));
  assert.ok(rig.store.stats().copiesPassedOver > 0);
  rig.world.faults.add({ operation: 'read', action: 'errno', errno: 5, sticky: true, path: 'b.member' });
  await assert.rejects(
    version.tensor('t').read(),
    (error: Error & { code: string; where: { errno?: number } }) =>
      error.code === 'E_IO' && error.where.errno === 5,
  );
  await rig.store.close();
});

test('a member missing: a mirrored version is read whole; without redundancy it is E_DEVICE_LOST', async () => {
  for (const redundancy of [1, 2] as const) {
    const rig = await rigWith(redundancy, 2);
    await rig.store.close();
    rig.world.detach('b.member');
    rig.store = await openRig(rig.world, rig.io, ['a.member'], { mode: 'r' });
    assert.equal(rig.store.info.state, 'degraded');
    const version = await rig.store.get('run');
    if (redundancy === 2) assert.deepEqual(await version.tensor('t').read(), contents(1, SIZE));
    else await assert.rejects(version.tensor('t').read(), { code: 'E_DEVICE_LOST' });
    await rig.store.close();
  }
});

test('load holds no more than maxInFlight, keeps order, and survives an early break', async () => {
  const rig = await makeRig({ members: 2, redundancy: 1, memberBytes: 256 * MEBIBYTE });
  const tx = await rig.store.begin('run');
  for (let index = 0; index < 60; index++)
    await tx.put(`t${index}`, contents(index, 2 * MEBIBYTE), U8(2 * MEBIBYTE));
  await tx.commit();
  const version = await rig.store.get('run');
  let handedOut = 0;
  let taken = 0;
  let most = 0;
  const names: string[] = [];
  for await (const tensor of version.load(
    (each) => {
      handedOut += each.byteLength;
      most = Math.max(most, handedOut - taken);
      return new Uint8Array(each.byteLength);
    },
    { maxInFlight: 16 * MEBIBYTE },
  )) {
    taken += tensor.byteLength;
    names.push(tensor.name);
    await rig.io.clock.sleep(1);
  }
  assert.deepEqual(names, [...version.names]);
  assert.ok(most <= 20 * MEBIBYTE, `${most} bytes were out at once`);
  let seen = 0;
  for await (const _tensor of version.load((each) => new Uint8Array(each.byteLength)))
    if (++seen === 3) break;
  assert.equal(seen, 3);
  const some = await collect(
    version.load((each) => new Uint8Array(each.byteLength), { names: ['t7', 't3'] }),
  );
  assert.deepEqual(
    some.map((tensor) => tensor.name),
    ['t3', 't7'],
  );
  assert.throws(() => version.load(() => null, { names: ['nothing'] }), { code: 'E_NOT_FOUND' });
  assert.deepEqual(await collect(version.load(() => null)), []);
  const control = new AbortController();
  await assert.rejects(async () => {
    for await (const _tensor of version.load((each) => new Uint8Array(each.byteLength), {
      signal: control.signal,
    }))
      control.abort(new Error('enough'));
  }, /enough/);
  await rig.store.close();
});

test('an exception of the caller in `into` ends the load with it', async () => {
  const rig = await rigWith(1);
  const version = await rig.store.get('run');
  await assert.rejects(
    collect(
      version.load(() => {
        throw new Error('mine');
      }),
    ),
    /mine/,
  );
  await assert.rejects(collect(version.load(() => new Uint8Array(1))), { code: 'E_RANGE' });
  await rig.store.close();
});

test('cached places of a removed version are never read, also when its space has new bytes', async () => {
  const rig = await makeRig({ members: 2, redundancy: 1, memberBytes: 16 * MEBIBYTE });
  let old = null;
  for (let round = 0; round < 8; round++) {
    const tx = await rig.store.begin('run', { step: round });
    await tx.put('t', contents(round, 3 * MEBIBYTE), U8(3 * MEBIBYTE));
    const version = await tx.commit();
    assert.deepEqual(await version.tensor('t').read(), contents(round, 3 * MEBIBYTE));
    if (old !== null) {
      await rig.store.remove(old.id);
      await assert.rejects(old.tensor('t').read(), { code: 'E_NOT_FOUND' });
    }
    old = version;
  }
  await rig.store.close();
});

test('a reader in another process keeps its snapshot while the writer removes and reuses space', async () => {
  const rig = await makeRig({ members: 2, redundancy: 1, memberBytes: 32 * MEBIBYTE });
  const write = async (step: number): Promise<void> => {
    const tx = await rig.store.begin('run', { step });
    await tx.put('t', contents(step, 6 * MEBIBYTE), U8(6 * MEBIBYTE));
    await tx.commit();
  };
  await write(0);
  const reader = await openRig(rig.world, rig.world.process(), rig.paths, { mode: 'r' });
  const version = await reader.get('run@0');
  for (let step = 1; step < 4; step++) {
    await write(step);
    await rig.store.remove(`run@${step - 1}`);
  }
  assert.deepEqual(await version.tensor('t').read(), contents(0, 6 * MEBIBYTE));
  assert.equal(await reader.refresh(), true);
  await assert.rejects(version.tensor('t').read(), { code: 'E_NOT_FOUND' });
  assert.deepEqual(await (await reader.get('run')).tensor('t').read(), contents(3, 6 * MEBIBYTE));
  await reader.close();
  await reopen(rig);
  await rig.store.close();
});
