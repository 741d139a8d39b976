// Tampering with an encrypted store by somebody who can write to its drives and makes every checksum match: refused.
//
// The attacker here is the engine itself: changes of extents' records are committed like any other, and altered
// ciphertext gets the sums that fit it. So nothing but tags stands between the change and a reader. What is done to
// pages and roots is in sealed_pages.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { StoreKey } from '../../engine/index.js';
import type { CatalogChange } from '../../engine/contract.js';
import {
  type Extent,
  type Sealing,
  dataKeyKey,
  decodeDataKey,
  decodeExtent,
  decodeExtentKey,
  decodeVersion,
  encodeDataKey,
  encodeExtent,
  extentKey,
  extentTreeRecordKind,
  isStoreError,
  versionKey,
} from '../../format/index.js';
import { MEBIBYTE, type Rig, contents, makeRig, openRig } from './store_harness.js';

const KEY: StoreKey = { kind: 'key-file', secret: contents(99, 64) };
const BYTES = 300_000;
const NAMES = ['a', 'b'];
const U8 = { dtype: 'U8' as const, shape: [BYTES] };

async function encryptedRig(seed: number): Promise<Rig> {
  const rig = await makeRig({
    members: 1,
    memberBytes: 32 * MEBIBYTE,
    key: KEY,
    seed,
    encrypt: { key: KEY, onRecoveryKey: () => undefined },
  });
  for (const run of ['one', 'two']) {
    const tx = await rig.store.begin(run, { redundancy: 1 });
    for (const [index, name] of NAMES.entries()) await tx.put(name, contents(index + run.length, BYTES), U8);
    await tx.commit();
  }
  return rig;
}

const commit = (rig: Rig, change: (change: CatalogChange) => Promise<void>): Promise<void> =>
  rig.store.catalog.commit(change);

async function extentsOf(rig: Rig): Promise<{ id: number; extent: Extent; sealing: Sealing }[]> {
  const found = [];
  const snapshot = rig.store.catalog.snapshot();
  for await (const { key, value } of snapshot.range(2, new Uint8Array(0), null)) {
    if (extentTreeRecordKind(value) !== 'extent') continue;
    const extent = decodeExtent(value);
    assert.ok(extent.sealing !== undefined);
    found.push({ id: decodeExtentKey(key), extent, sealing: extent.sealing });
  }
  snapshot.close();
  return found;
}

async function read(rig: Rig, run: string): Promise<Uint8Array[]> {
  await rig.store.close();
  rig.store = await openRig(rig.world, rig.io, rig.paths, { mode: 'rw', key: KEY });
  const version = await rig.store.get(run);
  return Promise.all(NAMES.map((name) => version.tensor(name).read()));
}

/** Reading run `one` is refused by a tag, as a whole and in part, and `verify` says so too. */
async function refused(rig: Rig, what: string): Promise<void> {
  await assert.rejects(read(rig, 'one'), { code: 'E_AUTH' }, what);
}

const slotOf = (rig: Rig): number => rig.store.catalog.members[0]?.device?.slot ?? -1;

/** Writes other ciphertext over an extent's copy and gives its record the sums that fit. */
async function overwrite(rig: Rig, id: number, extent: Extent, bytes: Uint8Array): Promise<void> {
  const [copy] = extent.copies;
  assert.ok(copy !== undefined && extent.sumLeafId === 0);
  await rig.io.writeRaw(slotOf(rig), copy.sector * 4096, bytes);
  const segment = 2 ** extent.segmentShift;
  const segmentSums = extent.segmentSums.map((_, index) =>
    rig.io.checksum.crc64(bytes.subarray(index * segment, (index + 1) * segment)),
  );
  await commit(rig, (change) => change.put(2, extentKey(id), encodeExtent({ ...extent, segmentSums })));
}

async function storedOf(rig: Rig, extent: Extent): Promise<Uint8Array> {
  return (
    await rig.io.readRaw(slotOf(rig), (extent.copies[0]?.sector ?? 0) * 4096, extent.storedBytes)
  ).slice();
}

test('every bit of ciphertext, tag, ordinal and head counts', async () => {
  const rig = await encryptedRig(1);
  const [first] = await extentsOf(rig);
  assert.ok(first !== undefined);
  const { id, extent, sealing } = first;
  const bytes = await storedOf(rig, extent);
  const places = contents(7, 400);
  for (let round = 0; round < 40; round += 1) {
    const changed = bytes.slice();
    const at = new DataView(places.buffer).getUint32(round * 8, true) % changed.length;
    changed[at] = (changed[at] ?? 0) ^ (1 << ((places[round * 8 + 4] ?? 0) % 8));
    await overwrite(rig, id, extent, changed);
    await refused(rig, `byte ${at}`);
  }
  await overwrite(rig, id, extent, bytes);
  assert.deepEqual((await read(rig, 'one'))[0], contents(3, BYTES));
  const bend = (field: Uint8Array, at: number): Uint8Array =>
    field.map((byte, index) => (index === at ? byte ^ 1 : byte));
  const bent: Partial<Sealing>[] = [
    ...Array.from({ length: 16 }, (_, at) => ({ headTag: bend(sealing.headTag, at) })),
    ...Array.from({ length: 16 }, (_, at) => ({ tags: bend(sealing.tags, at * 5) })),
    { ordinal: sealing.ordinal + 1 },
  ];
  for (const change of bent) {
    const record = { ...extent, sealing: { ...sealing, ...change } };
    await commit(rig, (to) => to.put(2, extentKey(id), encodeExtent(record)));
    await refused(rig, Object.keys(change).join());
  }
  for (const change of [{ rawSum: extent.rawSum ^ 1n }, { dtype: 8 }, { rawBytes: extent.rawBytes - 1 }]) {
    await commit(rig, (to) => to.put(2, extentKey(id), encodeExtent({ ...extent, ...change })));
    await refused(rig, Object.keys(change).join());
  }
  await rig.store.close();
});

test('segments, extents and tails cannot be exchanged or cut off', async () => {
  const rig = await encryptedRig(2);
  const [a, b, c] = await extentsOf(rig);
  assert.ok(a !== undefined && b !== undefined && c !== undefined);
  const segment = 65_536;
  const bytes = await storedOf(rig, a.extent);
  const swapped = bytes.slice();
  swapped.set(bytes.subarray(segment, 2 * segment), 0);
  swapped.set(bytes.subarray(0, segment), segment);
  const tags = a.sealing.tags.slice();
  tags.set(a.sealing.tags.subarray(16, 32), 0);
  tags.set(a.sealing.tags.subarray(0, 16), 16);
  await overwrite(rig, a.id, { ...a.extent, sealing: { ...a.sealing, tags } }, swapped);
  await refused(rig, 'two segments exchanged with their tags');
  await overwrite(rig, a.id, a.extent, bytes);
  for (const other of [b, c]) {
    await commit(rig, async (to) => {
      await to.put(2, extentKey(a.id), encodeExtent(other.extent));
      await to.put(2, extentKey(other.id), encodeExtent(a.extent));
    });
    await refused(rig, `records of extents ${a.id} and ${other.id} exchanged`);
    await commit(rig, async (to) => {
      await to.put(2, extentKey(a.id), encodeExtent(a.extent));
      await to.put(2, extentKey(other.id), encodeExtent(other.extent));
    });
  }
  const cut = {
    ...a.extent,
    storedBytes: segment,
    rawBytes: segment,
    segmentSums: a.extent.segmentSums.slice(0, 1),
    sealing: { ...a.sealing, tags: a.sealing.tags.slice(0, 16) },
  };
  await commit(rig, (to) => to.put(2, extentKey(a.id), encodeExtent(cut)));
  await assert.rejects(
    read(rig, 'one'),
    (error) => isStoreError(error, 'E_AUTH') || isStoreError(error, 'E_FORMAT'),
  );
  const { sealing: _none, ...plain } = a.extent;
  await commit(rig, (to) => to.put(2, extentKey(a.id), encodeExtent(plain)));
  await refused(rig, 'an extent in the clear');
  await rig.store.close();
});

test('a data key of another store, or a bent one, opens nothing, though it stands in a sealed page', async () => {
  const rig = await encryptedRig(3);
  const other = await encryptedRig(4);
  const get = async (from: Rig, tree: 1 | 5, key: Uint8Array): Promise<Uint8Array> => {
    const snapshot = from.store.catalog.snapshot();
    const bytes = await snapshot.get(tree, key);
    snapshot.close();
    assert.ok(bytes !== undefined);
    return bytes;
  };
  const { keyId } = decodeVersion(await get(rig, 1, versionKey(1, 0)));
  const keyRecord = await get(rig, 5, dataKeyKey(keyId));
  const key = decodeDataKey(keyRecord);
  const wrapped = key.wrapped.map((byte, index) => (index === 20 ? byte ^ 1 : byte));
  const attacks: [string, Uint8Array][] = [
    ['the data key of another store', await get(other, 5, dataKeyKey(keyId))],
    ['a bent data key', encodeDataKey({ ...key, wrapped })],
  ];
  for (const [what, bytes] of attacks) {
    await commit(rig, (to) => to.put(5, dataKeyKey(keyId), bytes));
    await refused(rig, what);
    await commit(rig, (to) => to.put(5, dataKeyKey(keyId), keyRecord));
    await read(rig, 'one');
  }
  await rig.store.close();
  await other.store.close();
});

test('verify reports what a tag refuses, and goes on', async () => {
  const rig = await encryptedRig(5);
  const [a] = await extentsOf(rig);
  assert.ok(a !== undefined);
  const bytes = await storedOf(rig, a.extent);
  bytes[100] = (bytes[100] ?? 0) ^ 1;
  await overwrite(rig, a.id, a.extent, bytes);
  const version = await rig.store.get('one');
  const codes: string[] = [];
  for await (const event of version.verify()) if (event.type === 'finding') codes.push(event.error.code);
  assert.deepEqual(codes, ['E_AUTH']);
  await rig.store.close();
});
