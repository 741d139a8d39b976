// Test vectors of the fixed structures: superblock, pointers, pages, free map, advisory areas, keys.
//
// Invariants
//   1. Nothing is random or read from a clock: equal code gives equal vectors.
//   2. Each malformed case breaks one rule; where a sum covers the damage, the sum is made right again,
//      so that the rule itself is what refuses it.

import {
  CHUNK_BYTES_DEFAULT,
  MEMBER_IN_SYNC,
  MEMBER_STALE,
  UNUSED_MEMBER,
  crc64,
  encodeBranch,
  encodeDeferred,
  encodeHeartbeat,
  encodeHints,
  encodeLargeValue,
  encodeLeaf,
  encodePointer,
  encodeRegion,
  encodeSumLeafPage,
  encodeSuperblock,
  encodeUtf8,
  encodeValueIndex,
  encodeValuePiece,
  inSyncBits,
  regionKey,
  deferredKey,
  runKey,
  stepKey,
  tagKey,
  versionKey,
  extentKey,
  JOB_RESILVER,
  JOB_SCRUB,
  jobKey,
  memberKey,
  runVersionKey,
  toHex,
} from '../../format/index.js';
import type { LargeValue, MemberEntry, PagePointer, Superblock, ValuePiece } from '../../format/index.js';
import type { Json, VectorContext } from './evaluate.js';
import { toJson } from './evaluate.js';

export interface VectorCase {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly context?: VectorContext;
  /** The StoreError code that a decoder must give instead of a value. */
  readonly error?: string;
}
export interface VectorFile {
  readonly structure: string;
  readonly note: string;
  readonly cases: readonly VectorCase[];
}

const uuid = (seed: number): Uint8Array =>
  Uint8Array.from({ length: 16 }, (_, index) => (seed * 17 + index * 29 + 3) & 0xff);
export const STORE_UUID = uuid(1);
export const patched = (
  bytes: Uint8Array,
  ...changes: readonly (readonly [number, number])[]
): Uint8Array => {
  const copy = bytes.slice();
  for (const [at, value] of changes) copy[at] = value;
  return copy;
};
export const pointer = (change: Partial<PagePointer> = {}): PagePointer => ({
  sum: 0x0123_4567_89ab_cdefn,
  birth: 3,
  storedBytes: 8_192,
  level: 0,
  kind: 1,
  copies: [
    { member: 0, sector: 256 },
    { member: 1, sector: 0x1_2345_6789 },
  ],
  ...change,
});

function member(index: number, change: Partial<MemberEntry> = {}): MemberEntry {
  return {
    uuid: uuid(10 + index),
    failureDomain: index + 1,
    formattedBytes: 2 ** 36,
    syncedSequence: 0,
    syncedRootSum: 0n,
    syncedBranchId: 0n,
    allocatedSectors: 1_000,
    state: MEMBER_IN_SYNC,
    flags: 0,
    birthSequence: 1,
    leftSequence: 0,
    leftRootSum: 0n,
    ...change,
  };
}

export function sampleSuperblock(): Superblock {
  const members = [
    member(0),
    UNUSED_MEMBER,
    member(2),
    member(3, {
      state: MEMBER_STALE,
      syncedSequence: 40,
      syncedRootSum: 0x1111_2222_3333_4444n,
      syncedBranchId: 0x5555n,
      flags: 3,
      leftSequence: 41,
      leftRootSum: 0x6666_7777_8888_9999n,
    }),
  ];
  const place = {
    copies: [
      { member: 0, sector: 300 },
      { member: 2, sector: 400 },
    ],
  };
  return {
    storeUuid: STORE_UUID,
    formatMajor: 1,
    formatMinor: 0,
    incompatFeatures: 0n,
    readOnlyCompatFeatures: 0n,
    sequence: 41,
    parentRootSum: 0xfeed_0000_0000_0001n,
    branchId: 0xb0b0_b0b0_0000_0001n,
    inSyncMembers: inSyncBits(members),
    createdAtMs: 1_700_000_000_000,
    committedAtMs: 1_700_000_123_456,
    membershipEpoch: 2,
    nextId: 77,
    nextVersionId: 5,
    defaultChunkBytes: CHUNK_BYTES_DEFAULT,
    defaultSegmentBytes: 65_536,
    defaultRedundancy: 2,
    catalogCopies: 2,
    seal: null,
    versionCount: 4,
    treeRoots: [
      pointer({ ...place, birth: 41 }),
      pointer({ ...place, level: 1, kind: 2 }),
      pointer(place),
      null,
      pointer(place),
      null,
      null,
      null,
    ],
    treeItemCounts: [9, 8, 60, 0, 3, 0, 0, 0],
    members,
  };
}

/** Makes both sums right again after a patch. */
export function resum(image: Uint8Array): Uint8Array {
  const view = new DataView(image.buffer, image.byteOffset);
  view.setBigUint64(24, crc64(image, 64), true);
  view.setBigUint64(8, crc64(image, 24, 64), true);
  return image;
}

function superblockFile(): VectorFile {
  const root = sampleSuperblock();
  const context = { copy: 2, slot: 41 % 32 };
  const good = encodeSuperblock(root, 2, 2);
  const bad = (name: string, ...changes: readonly (readonly [number, number])[]): VectorCase => ({
    name,
    context,
    bytes: resum(patched(good, ...changes)),
  });
  return {
    structure: 'Superblock',
    note: 'A slot is valid, empty, invalid (with the first rule that it breaks) or of another version.',
    cases: [
      { name: 'valid', context, bytes: good },
      {
        name: 'same root, copy 0 of member 0',
        context: { copy: 0, slot: 9 },
        bytes: encodeSuperblock(root, 0, 0),
      },
      { name: 'empty', context, bytes: new Uint8Array(8_192) },
      { name: 'magic damaged', context, bytes: patched(good, [0, 0]) },
      { name: 'bit flipped in the root part', context, bytes: patched(good, [8_000, 1]) },
      { name: 'bit flipped in the member part', context, bytes: patched(good, [40, 0]) },
      { name: 'copy index of another ring', context, bytes: patched(good, [16, 1]) },
      { name: 'slot of another sequence', context: { copy: 2, slot: 10 }, bytes: good },
      bad('sequence 0', [104, 0]),
      bad('other major version', [80, 2]),
      bad('unknown incompatible feature', [95, 0x80]),
      bad('sum algorithm 2', [36, 2]),
      bad('reserved byte set', [1_500, 1]),
      bad('member index not in the table', [32, 9]),
      bad('member index of an unused entry', [32, 1]),
      bad('in-sync bit of a stale member', [128, 0x0d]),
      bad('member size of 1 byte too much', [2_048 + 24, 1]),
      bad('unused entry not zero', [2_048 + 96 + 50, 1]),
      bad('unknown flag of a member', [2_048 + 3 * 96 + 65, 4]),
      bad('member state 6', [2_048 + 3 * 96 + 64, 6]),
      bad('holder of roots that has left one', [2_048 + 80, 7]),
      bad('tree root with 4 copies', [256 + 20, 4]),
      bad('item count of a null root', [896 + 3 * 8, 1]),
      bad('branch id 0', ...Array.from({ length: 8 }, (_, index) => [120 + index, 0] as const)),
    ],
  };
}

function pointerFile(): VectorFile {
  const encode = (value: PagePointer | null): Uint8Array => {
    const bytes = new Uint8Array(80);
    encodePointer(value, bytes, 0);
    return bytes;
  };
  const good = encode(pointer());
  const bad = (name: string, ...changes: readonly (readonly [number, number])[]): VectorCase => ({
    name,
    bytes: patched(good, ...changes),
    error: 'E_FORMAT',
  });
  return {
    structure: 'PagePointer',
    note: 'format.md F5.',
    cases: [
      { name: 'null', bytes: encode(null) },
      { name: 'two copies', bytes: good },
      {
        name: 'branch with three copies',
        bytes: encode(
          pointer({
            kind: 2,
            level: 12,
            storedBytes: 262_144,
            copies: [0, 1, 63].map((index) => ({ member: index, sector: 2 ** 40 })),
          }),
        ),
      },
      bad('no copies', [20, 0]),
      bad('four copies', [20, 4]),
      bad('sum algorithm 0', [23, 0]),
      bad('birth 0', [8, 0]),
      bad('birth of 2^53', [14, 0x20]),
      bad('length no multiple of 4096', [16, 1]),
      bad('length 0', [17, 0]),
      bad('kind 6', [22, 6]),
      bad('leaf of level 1', [21, 1]),
      bad('member 64', [30, 64]),
      bad('sector in the head area', [24, 255], [25, 0]),
      bad('unused copy not all ones', [40, 0]),
      bad('nonce set', [48, 1]),
    ],
  };
}

export const FIELDS = { treeId: 0, birth: 3, storeUuid: STORE_UUID };
export const PAGE_CONTEXT = { storeUuid: toHex(STORE_UUID), treeId: 0, rootSequence: 5 };
export const pagePointer = (bytes: Uint8Array, change: Partial<PagePointer> = {}): PagePointer =>
  pointer({ sum: crc64(bytes), storedBytes: bytes.length, ...change });

function pageFile(): VectorFile {
  const value: LargeValue = {
    rawBytes: 3_000,
    pieceCount: 1,
    pointer: pointer({ kind: 3, storedBytes: 4_096 }),
  };
  const leaf = encodeLeaf(
    [
      { key: runKey('a'), value: Uint8Array.of(1, 2, 3), isLarge: false },
      { key: stepKey('a', 1_200, 7), value: new Uint8Array(), isLarge: false },
      { key: encodeUtf8('zz'), value: encodeLargeValue(value), isLarge: true },
    ],
    FIELDS,
  );
  const branch = encodeBranch(
    [
      { key: new Uint8Array(), pointer: pointer({ birth: 2 }) },
      { key: encodeUtf8('m'), pointer: pointer() },
    ],
    1,
    FIELDS,
  );
  const ofPage = (bytes: Uint8Array, change: Partial<PagePointer> = {}): VectorContext => ({
    ...PAGE_CONTEXT,
    pointer: toJson(pagePointer(bytes, change)),
  });
  const branchShape = { level: 1, kind: 2 };
  const bad = (
    name: string,
    page: Uint8Array,
    change: Partial<PagePointer>,
    ...changes: readonly (readonly [number, number])[]
  ): VectorCase => {
    const bytes = patched(page, ...changes);
    return { name, bytes, context: ofPage(bytes, change), error: 'E_FORMAT' };
  };
  const last = leaf[20]! + leaf[21]! * 256;
  return {
    structure: 'Page',
    note: 'Kinds 1 and 2 (F6, F7). The sum in the pointer is right unless the error is E_CORRUPT.',
    cases: [
      { name: 'leaf', bytes: leaf, context: ofPage(leaf) },
      { name: 'branch', bytes: branch, context: ofPage(branch, branchShape) },
      {
        name: 'leaf with a flipped bit',
        bytes: patched(leaf, [100, 0x62]),
        context: ofPage(leaf),
        error: 'E_CORRUPT',
      },
      bad('magic', leaf, {}, [3, 0x32]),
      bad('kind of the pointer', leaf, branchShape),
      bad('birth of the pointer', leaf, { birth: 2 }),
      bad('birth after the root', leaf, { birth: 9 }, [8, 9]),
      bad('other tree', leaf, {}, [5, 1]),
      bad('other store', leaf, {}, [30, 0]),
      bad('no items', leaf, {}, [16, 0]),
      bad('more items than fit', leaf, {}, [18, 1]),
      bad('flags', leaf, {}, [64 + 10, 2]),
      bad('item offset leaves a gap', leaf, {}, [64 + 12, 0]),
      bad('key of 0 bytes', leaf, {}, [64 + 8, 0]),
      bad('keys do not ascend', leaf, {}, [100, 0x7e]),
      bad('padding', leaf, {}, [last + 1, 1]),
      bad('usedBytes', leaf, {}, [20, 0], [21, 0]),
      bad('owner of a leaf', leaf, {}, [40, 1]),
      bad('large value of 3 bytes', leaf, {}, [64 + 10, 1]),
      bad('first key of a branch not empty', branch, branchShape, [64 + 4, 1]),
      bad('child of the wrong level', branch, { level: 2, kind: 2 }, [6, 2]),
      bad('child younger than its parent', branch, branchShape, [80 + 8, 4]),
      bad(
        'null child',
        branch,
        branchShape,
        ...Array.from({ length: 80 }, (_, index) => [80 + index, 0] as const),
      ),
    ],
  };
}

function valueFiles(): VectorFile[] {
  const stored = encodeUtf8('a value piece');
  const piecePage = encodeValuePiece(stored, FIELDS);
  const piece: ValuePiece = {
    pointer: pagePointer(piecePage, { kind: 4 }),
    storedBytes: stored.length,
    rawBytes: stored.length,
    codec: 0,
  };
  const full: ValuePiece = {
    pointer: pointer({ kind: 4, storedBytes: 4_096 }),
    storedBytes: 1_000,
    rawBytes: 245_760,
    codec: 1,
  };
  const index = encodeValueIndex([full, piece], FIELDS);
  const value: LargeValue = {
    rawBytes: 245_760 + stored.length,
    pieceCount: 2,
    pointer: pagePointer(index, { kind: 3 }),
  };
  const descriptor = encodeLargeValue(value);
  const badValue = (name: string, ...changes: readonly (readonly [number, number])[]): VectorCase => ({
    name,
    bytes: patched(descriptor, ...changes),
    error: 'E_FORMAT',
  });
  const badIndex = (name: string, ...changes: readonly (readonly [number, number])[]): VectorCase => {
    const bytes = patched(index, ...changes);
    const changed = { ...value, pointer: pagePointer(bytes, { kind: 3 }) };
    return { name, bytes, context: { ...PAGE_CONTEXT, largeValue: toJson(changed) }, error: 'E_FORMAT' };
  };
  return [
    {
      structure: 'LargeValue',
      note: 'format.md F8.',
      cases: [
        { name: 'two pieces', bytes: descriptor },
        badValue('raw bytes 0', [0, 0], [2, 0], [1, 0]),
        badValue('over 512 MiB', [3, 0x20]),
        badValue('three pieces', [8, 3]),
        badValue('reserved', [16, 1]),
        badValue('pointer to a leaf', [32 + 22, 1]),
        { name: 'cut short', bytes: descriptor.slice(0, 111), error: 'E_FORMAT' },
      ],
    },
    {
      structure: 'ValueIndexPage',
      note: 'Kind 3; context.largeValue is the descriptor that led here.',
      cases: [
        { name: 'two pieces', bytes: index, context: { ...PAGE_CONTEXT, largeValue: toJson(value) } },
        badIndex('one entry too few', [16, 1]),
        badIndex('codec 2', [64 + 88, 2]),
        badIndex('first piece not full', [64 + 84, 1]),
        badIndex('raw piece with another stored length', [160 + 80, 1]),
        badIndex('reserved', [64 + 95, 1]),
      ],
    },
    {
      structure: 'ValuePiecePage',
      note: 'Kind 4; context.piece is the entry that led here; the value is the stored bytes.',
      cases: [
        { name: 'raw', bytes: piecePage, context: { ...PAGE_CONTEXT, piece: toJson(piece) } },
        {
          name: 'length of the entry',
          bytes: piecePage,
          error: 'E_FORMAT',
          context: { ...PAGE_CONTEXT, piece: toJson({ ...piece, storedBytes: 5, rawBytes: 5 }) },
        },
      ],
    },
  ];
}

function sumLeafPageFile(): VectorFile {
  const fields = { storeUuid: STORE_UUID, birth: 4, ownerId: 99 };
  const page = encodeSumLeafPage({ ...fields, sums: [1n, 0xffff_ffff_ffff_ffffn, 0xae8b_1486_0a79_9888n] });
  const context = { storeUuid: toHex(STORE_UUID), birth: 4, ownerId: 99, sumCount: 3 };
  const bad = (name: string, ...changes: readonly (readonly [number, number])[]): VectorCase => ({
    name,
    context,
    bytes: patched(page, ...changes),
    error: 'E_FORMAT',
  });
  return {
    structure: 'SumLeafPage',
    note: 'Kind 5; context is what its SumLeaf record says.',
    cases: [
      { name: 'three sums', bytes: page, context },
      { name: 'of another leaf', bytes: page, context: { ...context, ownerId: 98 }, error: 'E_FORMAT' },
      { name: 'other count', bytes: page, context: { ...context, sumCount: 2 }, error: 'E_FORMAT' },
      bad('used bytes', [20, 80]),
      bad('tree 1', [5, 1]),
      bad('kind 4', [4, 4]),
    ],
  };
}

function freeFiles(): VectorFile[] {
  const runs = encodeRegion({ starts: Uint32Array.of(0, 300, 262_143), counts: Uint32Array.of(256, 1, 1) });
  const many = Uint32Array.from({ length: 4_097 }, (_, index) => index * 3);
  const bitmap = encodeRegion({ starts: many, counts: new Uint32Array(4_097).fill(1) });
  const deferred = encodeDeferred([
    { member: 0, sector: 256, sectorCount: 4 },
    { member: 0, sector: 2 ** 33, sectorCount: 1 },
    { member: 5, sector: 256, sectorCount: 262_144 },
  ]);
  const bad = (
    name: string,
    bytes: Uint8Array,
    ...changes: readonly (readonly [number, number])[]
  ): VectorCase => ({ name, bytes: patched(bytes, ...changes), error: 'E_FORMAT' });
  return [
    {
      structure: 'Region',
      note: 'Section 7; starts and counts of the free runs. The bitmap case has 4,097 runs of one sector, every third.',
      cases: [
        { name: 'runs', bytes: runs },
        { name: 'full', bytes: encodeRegion({ starts: new Uint32Array(), counts: new Uint32Array() }) },
        { name: 'bitmap', bytes: bitmap },
        bad('encoding 2', runs, [0, 2]),
        bad('free sectors', runs, [4, 3]),
        bad('run count', runs, [8, 2]),
        bad('runs touch', runs, [12 + 8, 0]),
        bad('run of no sectors', runs, [12 + 12, 0]),
        bad('run past the region', runs, [12 + 20, 2], [4, 3]),
        bad('reserved', runs, [1, 1]),
        {
          name: 'bitmap of few runs',
          error: 'E_FORMAT',
          bytes: (() => {
            const few = new Uint8Array(32_776);
            return patched(few, [0, 1], [4, 1], [8, 1]);
          })(),
        },
      ],
    },
    {
      structure: 'Deferred',
      note: 'format.md F19.',
      cases: [
        { name: 'three ranges', bytes: deferred },
        bad('count', deferred, [0, 2]),
        bad('no ranges', new Uint8Array(8)),
        bad('member 64', deferred, [8 + 6, 64]),
        bad('not ascending', deferred, [8 + 16 + 4, 0]),
        bad('reserved', deferred, [8 + 12, 1]),
        bad('range of no sectors', deferred, [8 + 8, 0]),
      ],
    },
  ];
}

function advisoryFiles(): VectorFile[] {
  const hints = encodeHints({
    storeUuid: STORE_UUID,
    generation: 3,
    writtenAtMs: 1_700_000_000_000,
    entries: [
      { uuid: uuid(10), index: 0, path: '/data/a.ingot', lastSeenMs: 1_700_000_000_000 },
      { uuid: uuid(12), index: 2, path: '/dev/disk/by-id/ä', lastSeenMs: 0 },
    ],
  });
  const heartbeat = encodeHeartbeat({
    storeUuid: STORE_UUID,
    memberUuid: uuid(10),
    hostId: 'host-1',
    bootId: 'b00t',
    processId: 4_711,
    processStart: '123456',
    session: 0xfeed_f00d_0000_0001n,
    counter: 12,
    updatedAtMs: 1_700_000_005_000,
    closedCleanly: false,
  });
  return [
    {
      structure: 'Hints',
      note: 'Section 8; null when absent or damaged.',
      cases: [
        { name: 'two members', bytes: hints },
        { name: 'zero', bytes: new Uint8Array(65_536) },
        { name: 'sum', bytes: patched(hints, [100, 1]) },
      ],
    },
    {
      structure: 'Heartbeat',
      note: 'Section 8; null when absent or damaged.',
      cases: [
        { name: 'live writer', bytes: heartbeat },
        { name: 'zero', bytes: new Uint8Array(4_096) },
        { name: 'sum', bytes: patched(heartbeat, [256, 13]) },
      ],
    },
  ];
}

function keyFiles(): VectorFile[] {
  const list = (
    structure: string,
    good: Readonly<Record<string, Uint8Array>>,
    bad: Readonly<Record<string, Uint8Array>>,
  ): VectorFile => ({
    structure,
    note: 'Section 5.',
    cases: [
      ...Object.entries(good).map(([name, bytes]) => ({ name, bytes })),
      ...Object.entries(bad).map(([name, bytes]) => ({ name, bytes, error: 'E_FORMAT' })),
    ],
  });
  return [
    list(
      'RunsKey',
      {
        run: runKey('llama/3-8b'),
        tag: tagKey('a', 'best'),
        step: stepKey('a', 1_200, 7),
        version: runVersionKey('ä', 9),
      },
      {
        'no end': encodeUtf8('abc'),
        'kind 5': Uint8Array.of(97, 0, 5),
        'empty name': Uint8Array.of(0, 1),
        'tag of digits': tagWith('123'),
        'step cut short': stepKey('a', 1, 1).slice(0, -1),
        'name with @': Uint8Array.of(97, 64, 98, 0, 1),
      },
    ),
    list(
      'VersionKey',
      { summary: versionKey(1, 0), manifest: versionKey(2 ** 40, 1) },
      { 'part 2': patched(versionKey(1, 0), [8, 2]) },
    ),
    list('ExtentKey', { id: extentKey(123_456_789) }, { short: new Uint8Array(7) }),
    list(
      'FreeKey',
      { region: regionKey(63, 7), deferred: deferredKey(41) },
      { 'member 64': patched(regionKey(0, 0), [2, 64]), 'kind 3': Uint8Array.of(3) },
    ),
    list('MemberKey', { member: memberKey(63) }, { 'member 64': Uint8Array.of(0, 64) }),
    list(
      'JobKey',
      { scrub: jobKey(JOB_SCRUB), resilver: jobKey(JOB_RESILVER) },
      { 'kind 0': Uint8Array.of(0xff, 0xff, 0) },
    ),
  ];
}

const tagWith = (text: string): Uint8Array => Uint8Array.of(97, 0, 2, ...encodeUtf8(text));

export function fixedFiles(): VectorFile[] {
  const sums: VectorFile = {
    structure: 'Sum',
    note: 'CRC-64/NVME of the bytes.',
    cases: [
      { name: 'check', bytes: encodeUtf8('123456789') },
      { name: 'empty', bytes: new Uint8Array() },
      { name: '4096 zeros', bytes: new Uint8Array(4_096) },
      { name: 'all bytes', bytes: Uint8Array.from({ length: 256 }, (_, index) => index) },
    ],
  };
  return [
    sums,
    superblockFile(),
    pointerFile(),
    pageFile(),
    ...valueFiles(),
    sumLeafPageFile(),
    ...freeFiles(),
    ...advisoryFiles(),
    ...keyFiles(),
  ];
}

export type { Json };
