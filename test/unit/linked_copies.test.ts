// Links into a version of higher redundancy (decisions/0024): it has the copies that it wants, or a durable root says
// which it lacks; it never shares one copy in silence.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeExtent, extentTreeRecordKind, isStoreError } from '../../format/index.js';
import type { Extent } from '../../format/index.js';
import { NativeIo } from '../../engine/io/native_io.js';
import type { Store } from '../../engine/store.js';
import { Prng } from '../sim/prng.js';
import {
  MEBIBYTE,
  type Rig,
  collect,
  contents,
  fsckFindings,
  makeRig,
  openRig,
  reopen,
} from './store_harness.js';

/** Simulated I/O codes by the native encoder. */
async function nativeMissing(): Promise<string | false> {
  try {
    await new NativeIo().close();
    return false;
  } catch (error) {
    return isStoreError(error) ? error.message : String(error);
  }
}

const SIZE = 3 * MEBIBYTE;
const U8 = { dtype: 'U8', shape: [SIZE] } as const;

function rigOf(members: number, memberBytes = 32 * MEBIBYTE): Promise<Rig> {
  return makeRig({ members, memberBytes, redundancy: 1, chunkBytes: 512 * 1024, segmentBytes: 16_384 });
}

async function putWeak(store: Store, redundancy: 1 | 2 = 1): Promise<void> {
  const tx = await store.begin('weak', { redundancy });
  await tx.put('t', contents(1, SIZE), U8);
  await tx.commit();
}

async function link(store: Store, run: string, redundancy: 1 | 2 | 3, base = 'weak'): Promise<void> {
  const tx = await store.begin(run, { redundancy, base });
  await tx.link('t');
  await tx.commit();
}

async function extentsOf(store: Store): Promise<Extent[]> {
  const snapshot = store.catalog.snapshot();
  const found: Extent[] = [];
  for await (const { value } of snapshot.range(2, new Uint8Array(0), null))
    if (extentTreeRecordKind(value) === 'extent') found.push(decodeExtent(value));
  snapshot.close();
  return found;
}

const copiesOf = async (store: Store): Promise<string> =>
  [
    ...new Set(
      (await extentsOf(store)).map(({ copies, wantedCopies }) => `${copies.length}/${wantedCopies}`),
    ),
  ].join();

const healthOf = async (store: Store): Promise<string> =>
  (await collect(store.versionHealth())).map(({ state }) => state).join();

async function expectBytes(store: Store, run: string): Promise<void> {
  assert.deepEqual(await (await store.get(run)).tensor('t').read(), contents(1, SIZE));
}

test('a version of two copies that links one of one copy survives the loss of either member', async () => {
  for (const lost of [0, 1]) {
    const rig = await rigOf(2);
    await putWeak(rig.store);
    assert.equal(await copiesOf(rig.store), '1/1');
    await link(rig.store, 'strong', 2);
    assert.equal(await copiesOf(rig.store), '2/2');
    assert.deepEqual(await fsckFindings(rig.store), []);
    const { storedBytes } = await rig.store.get('strong');
    assert.equal(storedBytes, 2 * SIZE);
    await rig.store.close();
    const paths = rig.paths.filter((_path, index) => index !== lost);
    const store = await openRig(rig.world, rig.io, paths, { mode: 'r' });
    await expectBytes(store, 'strong');
    await store.close();
  }
});

test('what is linked again, or has its copies, is not copied again', async () => {
  const rig = await rigOf(3);
  await putWeak(rig.store, 2);
  const before = rig.io.stats().writtenBytes;
  await link(rig.store, 'same', 2);
  await link(rig.store, 'less', 1);
  assert.ok(rig.io.stats().writtenBytes - before < SIZE, 'no data was written');
  await link(rig.store, 'most', 3);
  assert.equal(await copiesOf(rig.store), '3/3');
  const after = rig.io.stats().writtenBytes;
  await link(rig.store, 'again', 3);
  assert.ok(rig.io.stats().writtenBytes - after < SIZE, 'the raised record is seen at once');
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test('with a member away the lack is on record, and is placed when it is back', async () => {
  const rig = await rigOf(2);
  await putWeak(rig.store);
  const [{ copies }] = (await extentsOf(rig.store)) as [Extent];
  const away = copies[0]?.member === 0 ? 1 : 0;
  await rig.store.offlineMember(away);
  await link(rig.store, 'strong', 2).catch((error: unknown) => {
    // Some chunks may have their only copy there: such a link is refused, not weakened.
    assert.ok(isStoreError(error, 'E_CORRUPT'), String(error));
  });
  await rig.store.onlineMember(away);
  const job = rig.store.resilver();
  while ((await job.next()).done !== true);
  await link(rig.store, 'strong-again', 2);
  assert.equal(await copiesOf(rig.store), '2/2');
  assert.equal(await healthOf(rig.store).then((text) => new Set(text.split(',')).size), 1);
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test('with one member writable the version is short, says so, and the resilver owes it', async () => {
  const rig = await makeRig({
    members: 2,
    memberBytes: 32 * MEBIBYTE,
    redundancy: 1,
    chunkBytes: 512 * 1024,
    segmentBytes: 16_384,
  });
  await rig.store.offlineMember(1);
  await putWeak(rig.store);
  await link(rig.store, 'strong', 2);
  assert.equal(await copiesOf(rig.store), '1/2');
  assert.equal(await healthOf(rig.store), 'short,short');
  await rig.store.onlineMember(1);
  await rig.store.settleMembers();
  const job = rig.store.resilver();
  while ((await job.next()).done !== true);
  assert.equal(await copiesOf(rig.store), '2/2');
  assert.equal(await healthOf(rig.store), 'whole,whole');
  await rig.store.close();
});

test('a link whose copies find no room is refused, and nothing of it stays', async () => {
  const rig = await rigOf(2, 12 * MEBIBYTE);
  await putWeak(rig.store);
  const fill = await rig.store.begin('fill', { redundancy: 2 });
  await fill.put('f', contents(2, 2 * MEBIBYTE), { dtype: 'U8', shape: [2 * MEBIBYTE] });
  await fill.commit();
  for (let filled = 0; filled < 8; filled += 1) {
    const tx = await rig.store.begin(`more-${filled}`, { redundancy: 2 });
    try {
      await tx.put('f', contents(3, MEBIBYTE), { dtype: 'U8', shape: [MEBIBYTE] });
      await tx.commit();
    } catch (error) {
      assert.ok(isStoreError(error, 'E_NO_SPACE'), String(error));
      await tx.abort();
    }
  }
  const free = rig.store.info.freeBytes;
  await assert.rejects(link(rig.store, 'strong', 2), (error) => isStoreError(error, 'E_NO_SPACE'));
  assert.equal(rig.store.info.freeBytes, free);
  await assert.rejects(rig.store.get('strong'), (error) => isStoreError(error, 'E_NOT_FOUND'));
  await expectBytes(rig.store, 'weak');
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});

test('a copy that cannot be verified is not multiplied: the link is refused', async () => {
  const rig = await rigOf(2);
  await putWeak(rig.store);
  const [first] = await extentsOf(rig.store);
  const place = first?.copies[0];
  assert.ok(place !== undefined);
  rig.world.overwrite(rig.paths[place.member] ?? '', place.sector * 4096 + 5, Uint8Array.of(1, 2, 3, 4));
  await assert.rejects(link(rig.store, 'strong', 2), (error) => isStoreError(error, 'E_CORRUPT'));
  assert.equal(await copiesOf(rig.store), '1/1');
  await rig.store.close();
});

test('a member that takes none of the copies is stale in the root that names the version', async () => {
  const rig = await rigOf(2);
  await rig.store.offlineMember(1);
  await putWeak(rig.store);
  await rig.store.onlineMember(1);
  await rig.store.settleMembers();
  const tx = await rig.store.begin('strong', { redundancy: 2, base: 'weak' });
  await tx.link('t');
  rig.world.faults.add({
    operation: 'write',
    action: 'errno',
    errno: 5,
    path: rig.paths[1] ?? '',
    probability: 1,
  });
  await tx.commit();
  assert.equal(rig.store.info.state, 'degraded');
  assert.equal(await healthOf(rig.store), 'short,short');
  rig.world.faults.clear();
  await reopen(rig);
  await expectBytes(rig.store, 'strong');
  await rig.store.close();
});

test('a linked difference brings its base along', { skip: await nativeMissing() }, async () => {
  const rig = await rigOf(2);
  const bytes = new Prng(7).weights(300_000);
  const meta = { dtype: 'BF16', shape: [bytes.length / 2] } as const;
  const first = await rig.store.begin('weak', { redundancy: 1, codec: 'auto' });
  await first.put('t', bytes, meta);
  await first.commit();
  const second = await rig.store.begin('near', { redundancy: 1, codec: 'auto', base: 'weak', delta: true });
  await second.put('t', new Prng(8).stepped(bytes, 50), meta);
  await second.commit();
  assert.ok(
    (await extentsOf(rig.store)).some(({ coding }) => coding?.base !== undefined),
    'there is a difference',
  );
  await link(rig.store, 'strong', 2, 'near');
  assert.equal(await copiesOf(rig.store), '2/2');
  assert.deepEqual(await fsckFindings(rig.store), []);
  await rig.store.close();
});
