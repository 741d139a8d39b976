// Generators of valid structures of the format, for the property tests of fuzz/.
//
// Invariants
//   1. What they generate obeys the format: the encoders accept it.
//   2. Sizes stay small, so that a thousand runs take seconds; bounds themselves are generated too.

import fc from 'fast-check';
import {
  DTYPES,
  EXTENT_BYTES_MAX,
  FORMAT_MAJOR,
  FORMAT_MINOR,
  MEMBER_IN_SYNC,
  MEMBER_RESILVERING,
  UNUSED_MEMBER,
  compareBytes,
  dtypeCode,
  inSyncBits,
  runNameProblem,
  tagNameProblem,
  tensorByteLength,
} from '../format/index.js';
import type {
  DeferredRange,
  Extent,
  Heartbeat,
  Hints,
  LeafItem,
  Manifest,
  MemberEntry,
  PageCopy,
  PagePointer,
  RegionRuns,
  Superblock,
  Tensor,
  VersionRecord,
} from '../format/index.js';

/** Runs of each property: INGOT_FUZZ_RUNS, small by default. */
export const FUZZ_RUNS = Math.max(1, Number(process.env['INGOT_FUZZ_RUNS'] ?? '100') || 100);

/** Plain objects, which compare equal to what decoders return. */
export function record<T extends object>(model: { [Key in keyof T]: fc.Arbitrary<T[Key]> }): fc.Arbitrary<T> {
  return fc.record(model, { noNullPrototype: true }) as unknown as fc.Arbitrary<T>;
}

export const uuid = fc
  .uint8Array({ minLength: 16, maxLength: 16 })
  .filter((bytes) => bytes.some((byte) => byte !== 0));
export const sum = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
export const size = fc.oneof(fc.nat(1_000_000), fc.maxSafeNat());
export const sequence = fc.oneof(
  fc.integer({ min: 1, max: 100 }),
  fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
);
export const text = fc.string({ maxLength: 40, unit: 'grapheme' });
const name = fc
  .string({ minLength: 1, maxLength: 60, unit: 'grapheme' })
  .filter((value) => !value.includes('\0'));
export const runName = fc
  .oneof(fc.constantFrom('a', 'llama-3-8b', 'exp42/ckpt'), name)
  .filter((value) => runNameProblem(value) === null);
export const tagName = fc
  .oneof(fc.constantFrom('latest', 'best'), name)
  .filter((value) => tagNameProblem(value) === null);

export const pageCopy: fc.Arbitrary<PageCopy> = record({
  member: fc.nat(63),
  sector: fc.oneof(fc.integer({ min: 256, max: 100_000 }), fc.integer({ min: 256, max: 2 ** 40 })),
});
export const pageCopies = fc.array(pageCopy, { minLength: 1, maxLength: 3 });

export function pointerOf(
  shape: { readonly kind: number; readonly level: number },
  birthMax = 2 ** 50,
): fc.Arbitrary<PagePointer> {
  return record({
    sum,
    birth: fc.integer({ min: 1, max: birthMax }),
    storedBytes: fc.integer({ min: 1, max: 64 }).map((sectors) => sectors * 4_096),
    level: fc.constant(shape.level),
    kind: fc.constant(shape.kind),
    copies: pageCopies,
  });
}
export const pointer: fc.Arbitrary<PagePointer> = fc.oneof(
  fc.constantFrom(1, 3, 4, 5).chain((kind) => pointerOf({ kind, level: 0 })),
  fc.integer({ min: 1, max: 12 }).chain((level) => pointerOf({ kind: 2, level })),
);

const memberEntry: fc.Arbitrary<MemberEntry> = fc.oneof(
  { arbitrary: fc.constant(UNUSED_MEMBER), weight: 1 },
  {
    arbitrary: record({
      uuid,
      failureDomain: size,
      formattedBytes: fc.constantFrom(4, 64, 4_096, 2 ** 33 - 1).map((mib) => mib * 2 ** 20),
      syncedSequence: size,
      syncedRootSum: sum,
      syncedBranchId: sum,
      allocatedSectors: size,
      state: fc.integer({ min: MEMBER_IN_SYNC, max: MEMBER_RESILVERING }),
      flags: fc.constantFrom(0, 1, 2, 3),
      birthSequence: size,
      leftSequence: fc.constant(0),
      leftRootSum: fc.constant(0n),
    }),
    weight: 4,
  },
);

/** A superblock, and the index of a member in use to encode it for. */
export const superblock: fc.Arbitrary<{ readonly root: Superblock; readonly memberIndex: number }> = record({
  members: fc
    .uniqueArray(memberEntry, {
      minLength: 1,
      maxLength: 6,
      selector: (entry) => (entry.state === 0 ? Symbol() : entry.uuid.join()),
    })
    .filter((entries) => entries.some((entry) => entry.state !== 0)),
  storeUuid: uuid,
  sequence,
  parentRootSum: sum,
  branchId: sum.map((value) => value || 1n),
  createdAtMs: size,
  committedAtMs: size,
  membershipEpoch: size,
  nextId: sequence,
  nextVersionId: sequence,
  defaultChunkBytes: fc.nat(),
  defaultSegmentBytes: fc.nat(),
  defaultRedundancy: fc.nat(255),
  catalogCopies: fc.nat(255),
  seal: fc.constant(null),
  versionCount: size,
  readOnlyCompatFeatures: sum,
  rootCounts: fc.array(fc.nat(1_000), { minLength: 8, maxLength: 8 }),
  level: fc.nat(3),
}).map(({ rootCounts, level, ...fields }) => {
  const memberIndex = fields.members.findIndex((entry) => entry.state !== 0);
  const root: PagePointer = {
    sum: 1n,
    birth: fields.sequence,
    storedBytes: 4_096,
    level,
    kind: level === 0 ? 1 : 2,
    copies: [{ member: memberIndex, sector: 256 }],
  };
  return {
    memberIndex,
    root: {
      ...fields,
      formatMajor: FORMAT_MAJOR,
      formatMinor: FORMAT_MINOR,
      incompatFeatures: 0n,
      inSyncMembers: inSyncBits(fields.members),
      treeRoots: rootCounts.map((count) => (count === 0 ? null : root)),
      treeItemCounts: rootCounts,
    },
  };
});

const key = fc.uint8Array({ minLength: 1, maxLength: 40 });
/** Leaf items without large values. */
export const leafItems: fc.Arbitrary<LeafItem[]> = fc
  .uniqueArray(record({ key, value: fc.uint8Array({ maxLength: 80 }), isLarge: fc.constant(false) }), {
    minLength: 1,
    maxLength: 40,
    selector: (item) => item.key.join(),
  })
  .map((items) => items.sort((a, b) => compareBytes(a.key, b.key)));

export const branchKeys: fc.Arbitrary<Uint8Array[]> = fc
  .uniqueArray(key, { maxLength: 20, selector: (bytes) => bytes.join() })
  .map((keys) => [new Uint8Array(), ...keys.sort(compareBytes)]);

export const extent: fc.Arbitrary<Extent> = record({
  copies: fc.array(
    record({ member: fc.nat(63), sector: fc.integer({ min: 256, max: 2 ** 40 }), placementBirth: sequence }),
    { minLength: 1, maxLength: 3 },
  ),
  wantedCopies: fc.integer({ min: 1, max: 3 }),
  rawBytes: fc.oneof(fc.integer({ min: 1, max: 300_000 }), fc.integer({ min: 1, max: EXTENT_BYTES_MAX })),
  contentBirth: sequence,
  segmentShift: fc.integer({ min: 12, max: 20 }),
  rawSum: sum,
  sumLeafId: sequence,
  slot: fc.nat(503),
  referenceCount: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
  dtype: fc.constantFrom(255, ...DTYPES.map(dtypeCode)),
  seed: sum,
}).map(({ seed, slot, ...fields }) => {
  const storedBytes = Math.ceil(fields.rawBytes / 4_096) * 4_096;
  const count = Math.ceil(storedBytes / 2 ** fields.segmentShift);
  if (count <= 32) {
    return {
      ...fields,
      storedBytes,
      segmentSums: new BigUint64Array(count).fill(seed),
      sumLeafId: 0,
      sumLeafSlot: 0,
    };
  }
  const sumLeafSlot = count > 504 ? 0 : Math.min(slot, 504 - count);
  return { ...fields, storedBytes, segmentSums: new BigUint64Array(0), sumLeafSlot };
});

const tensor: fc.Arbitrary<Tensor> = record({
  name,
  dtype: fc.constantFrom(...DTYPES),
  shape: fc.array(fc.nat(40), { maxLength: 4 }),
  rawSum: sum,
  extentId: sequence,
  inline: fc.boolean(),
}).map(({ dtype, shape, extentId, inline, ...fields }) => {
  // Shapes of the types below a byte are made whole bytes by one more dimension.
  const whole = dtype.startsWith('F4') || dtype.startsWith('F6') ? [...shape, 4] : shape;
  const rawBytes = tensorByteLength(dtype, whole);
  const isInline = rawBytes === 0 || (inline && rawBytes <= 2_048);
  return {
    ...fields,
    dtype: dtypeCode(dtype),
    shape: whole,
    rawBytes,
    inlineBytes: new Uint8Array(isInline ? rawBytes : 0),
    pieces: isInline ? [] : [{ extentId, rawOffset: 0, rawBytes }],
    fileIndex: -1,
    fileOffset: 0,
  };
});
export const manifest: fc.Arbitrary<Manifest> = record({
  tensors: fc.uniqueArray(tensor, { maxLength: 12, selector: (one) => one.name }),
  blobs: fc
    .uniqueArray(
      record({
        name,
        contentType: fc.option(text),
        rawSum: sum,
        inlineBytes: fc.uint8Array({ maxLength: 60 }),
      }),
      { maxLength: 4, selector: (one) => one.name },
    )
    .map((blobs) =>
      blobs.map((blob) => ({ ...blob, rawBytes: blob.inlineBytes.length, pieces: [], fileIndex: -1 })),
    ),
  files: fc.constantFrom(
    [],
    [{ name: 'a/b.safetensors', sizeBytes: 100, sum: 5n, format: 1, prefix: new Uint8Array(8), mode: 420 }],
  ),
});

export const version: fc.Arbitrary<VersionRecord> = record({
  id: sequence,
  run: runName,
  step: fc.option(size),
  createdAtMs: size,
  tensorCount: fc.nat(),
  blobCount: fc.nat(),
  fileCount: fc.nat(),
  rawBytes: size,
  storedBytes: size,
  redundancy: fc.integer({ min: 1, max: 3 }),
  chunkBytes: fc.nat(),
  kind: fc.constant(0),
  flags: fc.constant(0),
  metadata: fc.dictionary(text, text, { maxKeys: 5, noNullPrototype: true }),
  metrics: fc.dictionary(text, fc.double(), { maxKeys: 5, noNullPrototype: true }),
  keyId: fc.constant(0),
  baseVersionId: size,
});

export const region: fc.Arbitrary<RegionRuns> = fc
  .oneof(
    {
      arbitrary: fc.array(fc.tuple(fc.integer({ min: 1, max: 500 }), fc.integer({ min: 1, max: 500 })), {
        maxLength: 60,
      }),
      weight: 9,
    },
    {
      arbitrary: fc
        .integer({ min: 4_090, max: 4_105 })
        .map((count) => new Array<[number, number]>(count).fill([2, 1])),
      weight: 1,
    },
  )
  .map((steps) => {
    let at = -1;
    const starts: number[] = [];
    const counts: number[] = [];
    for (const [gap, count] of steps) {
      starts.push(at + gap);
      counts.push(count);
      at += gap + count;
    }
    return { starts: Uint32Array.from(starts), counts: Uint32Array.from(counts) };
  });

export const deferred: fc.Arbitrary<DeferredRange[]> = fc
  .array(fc.tuple(fc.nat(2), fc.integer({ min: 1, max: 2 ** 32 }), fc.integer({ min: 1, max: 1_000 })), {
    minLength: 1,
    maxLength: 30,
  })
  .map((steps) => {
    let member = 0;
    let sector = 256;
    return steps.map(([skip, gap, sectorCount]) => {
      if (skip > 0) sector = 256;
      member += skip;
      const range = { member, sector: sector + gap, sectorCount };
      sector += gap + sectorCount;
      return range;
    });
  });

const hostText = fc.string({ maxLength: 20 }).filter((value) => !value.includes('\0'));
export const hints: fc.Arbitrary<Hints> = record({
  storeUuid: uuid,
  generation: size,
  writtenAtMs: size,
  entries: fc.array(record({ uuid, index: fc.nat(63), path: hostText, lastSeenMs: size }), { maxLength: 8 }),
});
export const heartbeat: fc.Arbitrary<Heartbeat> = record({
  storeUuid: uuid,
  memberUuid: uuid,
  hostId: hostText,
  bootId: hostText,
  processId: size,
  processStart: hostText,
  session: sum,
  counter: size,
  updatedAtMs: size,
  closedCleanly: fc.boolean(),
});
