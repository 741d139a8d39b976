// Known answers and properties of the format that vectors do not show: sums, areas, keys, refs, pages
// under search, records against the generated FlatBuffers classes.

import assert from 'node:assert/strict';
import test from 'node:test';
import { ByteBuffer } from 'flatbuffers';
import { Extent as ExtentTable } from '../../format/catalog/extent.js';
import { Manifest as ManifestTable } from '../../format/catalog/manifest.js';
import {
  BranchPage,
  LeafPage,
  MEMBER_BYTES_MIN,
  RING_BYTES,
  checkFeatures,
  compareBytes,
  crc64,
  crc64Combine,
  crc64Continue,
  crc64ZeroExtend,
  dataAreaSectors,
  dataEndSector,
  decodeExtent,
  decodeManifest,
  decodePage,
  decodePointer,
  decodeRunsKey,
  decodeSlot,
  decodeSlotBeside,
  dtypeCode,
  encodeBranch,
  encodeExtent,
  encodeLeaf,
  encodeManifest,
  encodePointer,
  encodeSuperblock,
  encodeUtf8,
  formatRef,
  formattedBytesFor,
  hintsCopyOffset,
  parseRef,
  prefixEnd,
  regionCount,
  regionDataSectors,
  ringCopyOffset,
  rootSumOf,
  runKey,
  runKindRange,
  runRange,
  runVersionKey,
  slotOffset,
  stepKey,
  tagKey,
  validateObjectName,
  validateRunName,
  validateTagName,
} from '../../format/index.js';
import type { Extent, LeafItem, Manifest } from '../../format/index.js';
import { STORE_UUID, memberEntryOf, pointerOf, superblockOf } from './format_samples.js';

const MIB = 1_024 * 1_024;
const noise = (length: number, seed: number): Uint8Array => {
  let state = seed | 1;
  return Uint8Array.from({ length }, () => (state = Math.imul(state, 1_664_525) + 1_013_904_223) >>> 24);
};

test('crc64 gives the published check value and that of simple strings', () => {
  assert.equal(crc64(encodeUtf8('123456789')), 0xae8b_1486_0a79_9888n);
  assert.equal(crc64(new Uint8Array()), 0n);
  // Published for CRC-64/NVME over 4 KiB of zeros and of ones (NVM Command Set Specification).
  assert.equal(crc64(new Uint8Array(4_096)), 0x6482_d367_eb22_b64en);
  assert.equal(crc64(new Uint8Array(4_096).fill(0xff)), 0xc0dd_ba73_02ec_a3acn);
});

test('sums continue, combine and extend by zeros like the bytes they stand for', () => {
  const bytes = noise(70_001, 7);
  const whole = crc64(bytes);
  for (const split of [0, 1, 7, 8, 15, 16, 17, 4_096, 65_536, 70_000, 70_001]) {
    const a = crc64(bytes, 0, split);
    const b = crc64(bytes, split);
    assert.equal(crc64Combine(a, b, bytes.length - split), whole);
    assert.equal(crc64Continue(a, bytes, split), whole);
    assert.equal(crc64ZeroExtend(a, 12_345), crc64Continue(a, new Uint8Array(12_345)));
  }
  assert.equal(
    crc64ZeroExtend(crc64ZeroExtend(whole, 2 ** 40), 2 ** 52),
    crc64ZeroExtend(whole, 2 ** 52 + 2 ** 40),
  );
});

test('the areas of a member do not overlap and fill the head and tail', () => {
  for (const size of [MEMBER_BYTES_MIN, 1_234 * MIB, 2 ** 53 - 2 ** 20]) {
    const areas = [0, 1, 2, 3].map((copy) => [ringCopyOffset(copy, size), RING_BYTES] as const);
    for (const copy of [0, 1]) areas.push([hintsCopyOffset(copy, size), 64 * 1_024]);
    areas.push([MIB, dataAreaSectors(size) * 4_096]);
    areas.sort((a, b) => a[0] - b[0]);
    for (let index = 1; index < areas.length; index += 1) {
      assert.ok(areas[index - 1]![0] + areas[index - 1]![1] <= areas[index]![0]);
    }
    assert.equal(dataEndSector(size) * 4_096, size - MIB);
  }
  assert.equal(slotOffset(1, 33, MEMBER_BYTES_MIN), 320 * 1_024 + 8_192);
  assert.equal(formattedBytesFor(4 * MIB - 1), 0);
  assert.equal(formattedBytesFor(5 * MIB + 17), 5 * MIB);
});

test('regions cover the data area exactly', () => {
  for (const size of [4 * MIB, 1_024 * MIB, 1_025 * MIB, 3_000 * MIB]) {
    let sectors = 0;
    for (let region = 0; region < regionCount(size); region += 1) {
      const { from, to } = regionDataSectors(region, size);
      assert.ok(from < to);
      sectors += to - from;
    }
    assert.equal(sectors, dataAreaSectors(size));
  }
});

test('keys sort by run, kind, step and version, and every range holds exactly its own', () => {
  const sorted = [
    runKey('a'),
    tagKey('a', 'best'),
    tagKey('a', 'latest'),
    stepKey('a', 1, 9),
    stepKey('a', 256, 2),
    stepKey('a', 2 ** 40, 1),
    runVersionKey('a', 3),
    runVersionKey('a', 300),
    runKey('a/b'),
    tagKey('a/b', 'x'),
    runKey('ab'),
    runKey('b'),
  ];
  for (let index = 1; index < sorted.length; index += 1)
    assert.ok(compareBytes(sorted[index - 1]!, sorted[index]!) < 0);
  const inside = (range: { from: Uint8Array; to: Uint8Array }): number =>
    sorted.filter((key) => compareBytes(key, range.from) >= 0 && compareBytes(key, range.to) < 0).length;
  assert.equal(inside(runRange('a')), 8);
  assert.equal(inside(runKindRange('a', 3)), 3);
  assert.deepEqual(decodeRunsKey(sorted[4]!), { kind: 'step', run: 'a', step: 256, versionId: 2 });
  assert.equal(prefixEnd(Uint8Array.of(0xff, 0xff)), null);
  assert.deepEqual(prefixEnd(Uint8Array.of(1, 0xff)), Uint8Array.of(2));
});

test('names that would break keys, refs or paths are refused', () => {
  for (const bad of ['', '/a', 'a/', 'a//b', 'a/./b', '..', 'a@b', 'a\nb', 'x'.repeat(513), '\ud800']) {
    assert.throws(() => validateRunName(bad), { code: 'E_USAGE' }, JSON.stringify(bad));
  }
  for (const bad of ['', '12', 'a/b', 'a@b', 'x'.repeat(129), 'ä'.repeat(65)])
    assert.throws(() => validateTagName(bad), { code: 'E_USAGE' });
  for (const bad of ['', 'a\0b', 'ä'.repeat(501)])
    assert.throws(() => validateObjectName(bad), { code: 'E_USAGE' });
  assert.equal(validateRunName('ä'.repeat(256)), 'ä'.repeat(256));
  assert.equal(validateTagName('1a'), '1a');
});

test('refs parse to what they are written from', () => {
  for (const ref of ['exp/a@best', 'a@1200', 'a@latest', 'v:17']) assert.equal(formatRef(parseRef(ref)), ref);
  assert.deepEqual(parseRef('exp/a'), { kind: 'tag', run: 'exp/a', tag: 'latest' });
  assert.deepEqual(parseRef('a@0'), { kind: 'step', run: 'a', step: 0 });
  for (const bad of ['', '@', 'a@', '@x', 'a@b@c', 'v:0', 'a@99999999999999999999']) {
    assert.throws(() => parseRef(bad), { code: 'E_USAGE' }, bad);
  }
});

test('a leaf finds every key it holds and the place of every key it does not', () => {
  const items: LeafItem[] = Array.from({ length: 120 }, (_, index) => ({
    key: encodeUtf8(`key/${String(index * 2).padStart(6, '0')}`),
    value: noise(index, index),
    isLarge: false,
  }));
  const bytes = encodeLeaf(items, { treeId: 0, birth: 4, storeUuid: STORE_UUID });
  const page = decodePage(bytes, pointerOf({ birth: 4, storedBytes: bytes.length }), {
    storeUuid: STORE_UUID,
    treeId: 0,
  });
  assert.ok(page instanceof LeafPage);
  items.forEach((item, index) => {
    assert.equal(page.find(item.key), index);
    assert.deepEqual(page.value(index), item.value);
    assert.equal(page.find(encodeUtf8(`key/${String(index * 2 + 1).padStart(6, '0')}`)), ~(index + 1));
  });
  assert.equal(page.find(encodeUtf8('a')), ~0);
});

test('a branch leads each key to the child whose range holds it', () => {
  const keys = ['', 'c', 'cc', 'm'].map(encodeUtf8);
  const bytes = encodeBranch(
    keys.map((key) => ({ key, pointer: pointerOf() })),
    1,
    { treeId: 0, birth: 4, storeUuid: STORE_UUID },
  );
  const pointer = pointerOf({ birth: 4, storedBytes: bytes.length, kind: 2, level: 1 });
  const page = decodePage(bytes, pointer, { storeUuid: STORE_UUID, treeId: 0 });
  assert.ok(page instanceof BranchPage);
  const found = ['a', 'c', 'cb', 'cc', 'ccc', 'lzz', 'm', 'zz'].map((key) => page.findChild(encodeUtf8(key)));
  assert.deepEqual(found, [0, 1, 1, 2, 2, 2, 3, 3]);
});

test('a pointer outside its member, or to a member that is not there, is refused', () => {
  const bytes = new Uint8Array(80);
  encodePointer(pointerOf({ copies: [{ member: 1, sector: 700 }] }), bytes, 0);
  assert.notEqual(decodePointer(bytes, 0, { formattedBytes: [0, 4 * MIB] }), null);
  encodePointer(pointerOf({ copies: [{ member: 1, sector: 768 }] }), bytes, 0);
  assert.throws(() => decodePointer(bytes, 0, { formattedBytes: [0, 4 * MIB] }), { code: 'E_FORMAT' });
  assert.throws(() => decodePointer(bytes, 0, { formattedBytes: [4 * MIB, 0] }), { code: 'E_FORMAT' });
});

test('the root sum is one for all members and copies, and feature bits open read-only', () => {
  const root = superblockOf(9, { members: [memberEntryOf(0), memberEntryOf(1)], readOnlyCompatFeatures: 4n });
  const slots = [
    [0, 0],
    [0, 3],
    [1, 2],
  ].map(([index, copy]) => decodeSlot(encodeSuperblock(root, index!, copy!), { copy: copy!, slot: 9 }));
  for (const slot of slots) {
    assert.ok(slot.kind === 'valid');
    assert.equal(slot.rootSum, rootSumOf(root));
    assert.deepEqual(slot.superblock, root);
  }
  assert.deepEqual(checkFeatures(root), { writable: false, unknownReadOnly: 4n });
  assert.throws(() => checkFeatures({ ...root, incompatFeatures: 4n }), { code: 'E_VERSION' });
});

test('a slot that is decoded beside its twin in another ring gives what it gives alone, whatever was changed', () => {
  const root = superblockOf(9, { members: [memberEntryOf(0), memberEntryOf(1)] });
  const bytes = encodeSuperblock(root, 0, 0);
  const twin = { bytes, result: decodeSlot(bytes, { copy: 0, slot: 9 }) };
  const others = [
    encodeSuperblock(root, 0, 2),
    encodeSuperblock(root, 1, 2),
    encodeSuperblock(superblockOf(41, { members: root.members }), 0, 2),
    new Uint8Array(bytes.length),
  ];
  // One bit in every byte of the part that differs between copies, and here and there behind it.
  for (let at = 0; at < bytes.length; at += at < 80 ? 1 : 61) {
    const changed = encodeSuperblock(root, 0, 2);
    changed[at] = changed[at]! ^ 4;
    others.push(changed);
  }
  let valid = 0;
  for (const other of others) {
    for (const place of [
      { copy: 2, slot: 9 },
      { copy: 1, slot: 9 },
      { copy: 2, slot: 8 },
    ]) {
      const alone = decodeSlot(other, place);
      valid += Number(alone.kind === 'valid');
      assert.deepEqual(decodeSlotBeside(other, place, twin), alone);
      const spoilt = { bytes: other, result: alone };
      assert.deepEqual(decodeSlotBeside(bytes, { copy: 0, slot: 9 }, spoilt), twin.result);
    }
  }
  assert.ok(valid >= 3, 'some of them are good');
});

const EXTENT: Extent = {
  copies: [
    { member: 0, sector: 1_000, placementBirth: 7 },
    { member: 9, sector: 2 ** 40, placementBirth: 2 ** 52 },
  ],
  wantedCopies: 2,
  storedBytes: 262_144,
  rawBytes: 262_000,
  contentBirth: 7,
  segmentShift: 16,
  rawSum: 0xffff_ffff_ffff_ffffn,
  segmentSums: BigUint64Array.of(1n, 2n ** 63n, 3n, 4n),
  sumLeafId: 0,
  sumLeafSlot: 0,
  referenceCount: 1,
  dtype: dtypeCode('BF16'),
};

test('our reader of extents agrees with the generated class', () => {
  const bytes = encodeExtent(EXTENT);
  const table = ExtentTable.getRootAsExtent(new ByteBuffer(bytes));
  const ours = decodeExtent(bytes);
  assert.deepEqual(ours, EXTENT);
  assert.equal(table.storedBytes(), ours.storedBytes);
  assert.equal(table.rawSum(), ours.rawSum);
  assert.equal(table.copies(1)?.sector(), BigInt(ours.copies[1]!.sector));
  assert.equal(table.copies(1)?.placementBirth(), BigInt(ours.copies[1]!.placementBirth));
  assert.deepEqual(
    [0, 1, 2, 3].map((index) => table.segmentSums(index)),
    [...ours.segmentSums],
  );
  assert.equal(table.dtype(), ours.dtype);
});

test('a manifest of 100,000 tensors decodes in time linear in it, and as the generated class reads it', () => {
  const tensors = Array.from({ length: 100_000 }, (_, index) => ({
    name: `model.layers.${index}.weight`,
    dtype: dtypeCode('BF16'),
    shape: [64, 32],
    rawBytes: 4_096,
    rawSum: BigInt(index),
    inlineBytes: new Uint8Array(0),
    pieces: [{ extentId: index + 1, rawOffset: 0, rawBytes: 4_096 }],
    fileIndex: -1,
    fileOffset: 0,
  }));
  const manifest: Manifest = { tensors, blobs: [], files: [] };
  const bytes = encodeManifest(manifest);
  const started = performance.now();
  const decoded = decodeManifest(bytes);
  const elapsedMs = performance.now() - started;
  // The target is 500 ms; ten times that still tells linear from quadratic on a busy machine.
  assert.ok(elapsedMs < 5_000, `${elapsedMs} ms`);
  assert.equal(decoded.tensors.length, 100_000);
  assert.deepEqual(decoded.tensors[77_777], tensors[77_777]);
  const table = ManifestTable.getRootAsManifest(new ByteBuffer(bytes));
  assert.equal(table.tensors(99_999)?.name(), 'model.layers.99999.weight');
  assert.equal(table.tensors(99_999)?.pieces(0)?.extentId(), 100_000n);
});

test('records that break the rules of the format are never encoded', () => {
  assert.throws(() => encodeExtent({ ...EXTENT, rawBytes: 1 }), { name: 'AssertionError' });
  assert.throws(() => encodeExtent({ ...EXTENT, segmentSums: BigUint64Array.of(1n) }), {
    name: 'AssertionError',
  });
  assert.throws(() => encodeExtent({ ...EXTENT, copies: [] }), { name: 'AssertionError' });
  const tensor = {
    name: 'a',
    dtype: dtypeCode('F32'),
    shape: [1],
    rawBytes: 4,
    rawSum: 0n,
    inlineBytes: new Uint8Array(4),
    pieces: [],
    fileIndex: -1,
    fileOffset: 0,
  };
  assert.throws(() => encodeManifest({ tensors: [tensor, tensor], blobs: [], files: [] }), {
    name: 'AssertionError',
    message: /twice/,
  });
  assert.throws(() => encodeManifest({ tensors: [{ ...tensor, shape: [2] }], blobs: [], files: [] }), {
    name: 'AssertionError',
  });
});
