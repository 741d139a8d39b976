// Tags, refs, removal and listing: what names lead to, and what protects a version.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MEBIBYTE, collect, contents, fsckFindings, makeRig, reopen, type Rig } from './store_harness.js';

async function put(rig: Rig, run: string, step?: number, size = 100, tags: string[] = []): Promise<string> {
  const tx = await rig.store.begin(run, step === undefined ? {} : { step });
  await tx.put('t', contents(step ?? 0, size), { dtype: 'U8', shape: [size] });
  return (await tx.commit({ tags })).id;
}

test('a ref finds a version by tag, by step, by id and by run; what is not there is E_NOT_FOUND', async () => {
  const rig = await makeRig();
  const first = await put(rig, 'exp/a', 10, 100, ['best']);
  const second = await put(rig, 'exp/a', 20);
  const again = await put(rig, 'exp/a', 10);
  await put(rig, 'exp/ab', 10);
  const id = async (ref: string): Promise<string> => (await rig.store.get(ref)).id;
  assert.equal(await id('exp/a'), again);
  assert.equal(await id('exp/a@latest'), again);
  assert.equal(await id('exp/a@best'), first);
  assert.equal(await id('exp/a@20'), second);
  assert.equal(await id('exp/a@10'), again);
  assert.equal(await id(second), second);
  for (const ref of ['exp/a@30', 'exp/a@none', 'exp', 'exp/b', 'v:999']) {
    await assert.rejects(async () => rig.store.lookup(ref), { code: 'E_NOT_FOUND' });
    await assert.rejects(rig.store.get(ref), { code: 'E_NOT_FOUND' });
  }
  for (const ref of ['', '/a', 'a@', 'a@b@c', 'v:0'])
    await assert.rejects(rig.store.get(ref), { code: 'E_USAGE' });
  await rig.store.close();
});

test('a lookup by step, tag or id whose pages are cached makes no promise', async () => {
  const rig = await makeRig();
  for (let step = 1; step <= 20; step += 1) await put(rig, 'exp/a', step);
  for (const ref of ['exp/a', 'exp/a@latest', 'exp/a@7', 'v:7']) {
    await rig.store.lookup(ref);
    assert.ok(!(rig.store.lookup(ref) instanceof Promise), ref);
  }
  await rig.store.close();
});

test('a tag moves by compare-and-swap only from where it is expected to be', async () => {
  const rig = await makeRig();
  const first = await put(rig, 'run', 1);
  const second = await put(rig, 'run', 2);
  await rig.store.tag('run@1', 'best', { expect: null });
  await assert.rejects(rig.store.tag('run@2', 'best', { expect: null }), { code: 'E_CONFLICT' });
  await assert.rejects(rig.store.tag('run@2', 'best', { expect: second }), { code: 'E_CONFLICT' });
  await rig.store.tag('run@2', 'best', { expect: first });
  assert.equal((await rig.store.get('run@best')).id, second);
  const racing = await Promise.allSettled(
    ['run@1', 'run@2', 'run@1'].map((ref) => rig.store.tag(ref, 'race', { expect: null })),
  );
  assert.equal(racing.filter((result) => result.status === 'fulfilled').length, 1);
  await rig.store.untag('run', 'best');
  await assert.rejects(rig.store.untag('run', 'best'), { code: 'E_NOT_FOUND' });
  await assert.rejects(rig.store.untag('run', 'latest'), { code: 'E_USAGE' });
  await rig.store.close();
});

test('a tagged version is removed only by force; latest moves to the newest left in the same commit', async () => {
  const rig = await makeRig();
  const first = await put(rig, 'run', 1);
  const second = await put(rig, 'run', 2, 5 * MEBIBYTE, ['keep']);
  const third = await put(rig, 'run', 3);
  await assert.rejects(
    rig.store.remove(second),
    (error: Error & { code: string }) => error.code === 'E_CONFLICT' && /keep/.test(error.message),
  );
  await rig.store.remove('run');
  await assert.rejects(rig.store.get(third), { code: 'E_NOT_FOUND' });
  assert.equal((await rig.store.get('run')).id, second);
  const gone = await rig.store.get(second);
  await rig.store.remove(second, { force: true });
  await assert.rejects(rig.store.get('run@keep'), { code: 'E_NOT_FOUND' });
  await assert.rejects(gone.tensor('t').read(), { code: 'E_NOT_FOUND' });
  assert.equal((await rig.store.get('run')).id, first);
  await rig.store.remove(first);
  await assert.rejects(rig.store.get('run'), { code: 'E_NOT_FOUND' });
  assert.deepEqual(await collect(rig.store.list()), []);
  assert.deepEqual(await fsckFindings(rig.store), []);
  await reopen(rig);
  assert.equal(rig.store.info.versionCount, 0);
  await rig.store.close();
});

test('space of removed versions is used again, many times over', async () => {
  const rig = await makeRig({ members: 2, memberBytes: 24 * MEBIBYTE, redundancy: 2 });
  for (let round = 0; round < 12; round++) {
    await put(rig, 'run', round, 8 * MEBIBYTE);
    if (round > 0) await rig.store.remove(`run@${round - 1}`);
  }
  assert.deepEqual(await (await rig.store.get('run')).tensor('t').read(), contents(11, 8 * MEBIBYTE));
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test('list filters by run, prefix, tag and time, in order, with tags', async () => {
  const rig = await makeRig();
  await put(rig, 'a/x', 1, 10, ['best']);
  await put(rig, 'a/x', 2);
  await put(rig, 'a/xy', 1);
  await put(rig, 'b', 1, 10, ['best']);
  const names = async (query: Parameters<typeof rig.store.list>[0]): Promise<string[]> =>
    (await collect(rig.store.list(query))).map(
      (version) => `${version.run}@${version.step}[${version.tags.join()}]`,
    );
  assert.deepEqual(await names({}), ['a/x@1[best]', 'a/x@2[latest]', 'a/xy@1[latest]', 'b@1[best,latest]']);
  assert.deepEqual(await names({ run: 'a/x' }), ['a/x@1[best]', 'a/x@2[latest]']);
  assert.deepEqual(await names({ prefix: 'a/' }), ['a/x@1[best]', 'a/x@2[latest]', 'a/xy@1[latest]']);
  assert.deepEqual(await names({ tag: 'best' }), ['a/x@1[best]', 'b@1[best,latest]']);
  assert.deepEqual(await names({ since: new Date(Date.now() + 1e12) }), []);
  assert.deepEqual(await collect(rig.store.runs()), ['a/x', 'a/xy', 'b']);
  await rig.store.close();
});

test('prune keeps what any rule keeps, says why, and removes the rest', async () => {
  const rig = await makeRig();
  for (let step = 1; step <= 10; step++) {
    const tx = await rig.store.begin('run', { step, metrics: { loss: Math.abs(step - 4) } });
    await tx.put('t', contents(step, 100_000), { dtype: 'U8', shape: [100_000] });
    await tx.commit(step === 2 ? { tags: ['keep'] } : {});
  }
  const policy = { last: 2, everySteps: 5, best: { n: 1, metric: 'loss', mode: 'min' as const } };
  const planned = await rig.store.prune('run', policy, { dryRun: true });
  assert.equal((await collect(rig.store.list())).length, 10);
  const done = await rig.store.prune('run', policy);
  assert.deepEqual(
    done.map((each) => each.action),
    planned.map((each) => each.action),
  );
  const left = (await collect(rig.store.list({ run: 'run' }))).map((version) => version.step);
  assert.deepEqual(left, [2, 4, 5, 9, 10]);
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test('a read-only store refuses every change, and a closed one every call', async () => {
  const rig = await makeRig();
  await put(rig, 'run', 1);
  await reopen(rig, 'r');
  const { store } = rig;
  assert.deepEqual(await (await store.get('run')).tensor('t').read(), contents(1, 100));
  for (const change of [
    () => store.begin('run'),
    () => store.tag('run', 't'),
    () => store.remove('run'),
    () => store.untag('run', 'x'),
  ]) {
    await assert.rejects(change(), { code: 'E_READ_ONLY' });
  }
  const version = await store.get('run');
  await store.close();
  await store.close();
  await assert.rejects(store.get('run'), { code: 'E_CLOSED' });
  await assert.rejects(version.tensor('t').read(), { code: 'E_CLOSED' });
  assert.throws(() => store.info, { code: 'E_CLOSED' });
});
