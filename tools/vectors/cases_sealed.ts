// Vectors of what an encrypted store has in its catalog: records of data keys, records of sealed extents, the clear
// part of sealed pages, superblocks with a root record. spec/vectors/encryption.json has the same under keys.
//
// Invariants
//   1. Nothing here is encrypted: ciphertext and tags are bytes that count up, since nobody needs a key to read this.
//   2. A malformed case breaks one rule of spec/encryption.md sections 5 and 6, or of F3, with sums that fit.

import { encodeDataKey } from '../../format/key_records.js';
import {
  type Extent,
  INCOMPAT_ENCRYPTION,
  PAGE_TAG_BYTES,
  PageBase,
  type RootSeal,
  dtypeCode,
  encodeBranch,
  encodeExtent,
  encodeLargeValue,
  encodeLeaf,
  encodeSuperblock,
  encodeUtf8,
  splitPage,
} from '../../format/index.js';
import type { PagePointer } from '../../format/pointer.js';
import {
  FIELDS,
  PAGE_CONTEXT,
  type VectorCase,
  type VectorFile,
  pagePointer,
  patched,
  pointer,
  resum,
  sampleSuperblock,
} from './cases_fixed.js';
import { toJson } from './evaluate.js';

const counting = (first: number, count: number): Uint8Array =>
  Uint8Array.from({ length: count }, (_, index) => (first + index) & 0xff);

/** The stored form, with bytes that count up for its ciphertext and its tag. */
function stored(plain: Uint8Array): Uint8Array {
  const { bytes, sealed, tag } = splitPage(new PageBase(plain));
  sealed.set(counting(1, sealed.length));
  tag.set(counting(200, tag.length));
  return bytes;
}

function sealedPages(): VectorFile {
  const fields = { ...FIELDS, tagBytes: PAGE_TAG_BYTES };
  const key = counting(9, 32);
  const large = encodeLargeValue({
    rawBytes: 3_000,
    pieceCount: 1,
    pointer: { ...pointer({ kind: 3, storedBytes: 4_096 }), key },
  });
  const leaf = stored(
    encodeLeaf(
      [
        { key: encodeUtf8('a'), value: counting(0, 9), isLarge: false },
        { key: encodeUtf8('b'), value: large, isLarge: true },
      ],
      fields,
    ),
  );
  const children = [new Uint8Array(0), encodeUtf8('m')].map((lower) => ({
    key: lower,
    pointer: { ...pointer(), key },
  }));
  const branch = stored(encodeBranch(children, 1, fields));
  const inBranch = { level: 1, kind: 2 };
  const one = (
    name: string,
    bytes: Uint8Array,
    change: Partial<PagePointer>,
    isBad: boolean,
  ): VectorCase => ({
    name,
    bytes,
    context: { ...PAGE_CONTEXT, pointer: toJson(pagePointer(bytes, change)) },
    ...(isBad ? { error: 'E_FORMAT' } : {}),
  });
  const bad = (
    name: string,
    page: Uint8Array,
    ...changes: readonly (readonly [number, number])[]
  ): VectorCase => one(name, patched(page, ...changes), page === branch ? inBranch : {}, true);
  return {
    structure: 'SealedPage',
    note: 'encryption.md S10, as it is seen without a key: the clear pointers.',
    cases: [
      one('a leaf with a large value', leaf, {}, false),
      one('a branch of two children', branch, inBranch, false),
      bad('not sealed', leaf, [48, 0]),
      bad('a sealed part that begins inside a pointer', leaf, [48, 81]),
      bad('a sealed part behind the page', leaf, [49, 0x20]),
      bad('a branch with fewer pointers than children', branch, [48, 128]),
      bad('a leaf with more pointers than items', leaf, [48, 80 + 3 * 48]),
      bad('a leaf whose pointer names a leaf', leaf, [80 + 22, 1]),
      bad('a child of the wrong level', branch, [80 + 21, 1], [80 + 22, 2]),
      bad('a child younger than its parent', branch, [80 + 9, 0xff]),
      bad('bytes after its end', branch, [branch.length - 1, 1]),
      bad('of another store', branch, [30, 0]),
    ],
  };
}

const SEAL: RootSeal = {
  keyEpoch: 3,
  sequence: 40,
  eraseBelow: 12,
  salt: counting(50, 32),
  record: counting(90, 176),
};

function sealedSuperblocks(): VectorFile {
  const root = { ...sampleSuperblock(), incompatFeatures: INCOMPAT_ENCRYPTION, seal: SEAL };
  const context = { copy: 2, slot: 41 % 32 };
  const good = encodeSuperblock(root, 2, 2);
  const bad = (name: string, ...changes: readonly (readonly [number, number])[]): VectorCase => ({
    name,
    context,
    bytes: resum(patched(good, ...changes)),
  });
  return {
    structure: 'SealedSuperblock',
    note: 'Superblock of a store with feature bit 1 (encryption.md S12); where it is invalid the rule that it breaks.',
    cases: [
      { name: 'with a root record', context, bytes: good },
      bad('no key epoch', [192, 0]),
      bad('a key epoch of 2^32', [192, 0], [196, 1]),
      bad('a record of a later root', [960, 42]),
      bad('a record of no root', [960, 0]),
      bad('erases roots to come', [968, 42]),
      bad('a reserved byte behind the record', [1_184, 1]),
      bad('a record without the feature', [88, 0]),
      bad('a member that may hold old keys', [2_048 + 65, 4]),
    ],
  };
}

function records(): VectorFile[] {
  const key = encodeDataKey({ wrapped: counting(7, 40), createdAtMs: 1_700_000_000_000, useCount: 12 });
  const extent: Extent = {
    copies: [{ member: 0, sector: 4_096, placementBirth: 9 }],
    wantedCopies: 1,
    storedBytes: 135_168,
    rawBytes: 135_000,
    contentBirth: 9,
    segmentShift: 16,
    rawSum: 0x8000_0000_0000_0001n,
    segmentSums: BigUint64Array.of(1n, 2n, 3n),
    sumLeafId: 0,
    sumLeafSlot: 0,
    referenceCount: 1,
    dtype: dtypeCode('BF16'),
    sealing: { keyId: 77, ordinal: 2 ** 40, headTag: counting(3, 16), tags: counting(20, 48) },
  };
  return [
    {
      structure: 'DataKey',
      note: 'IGKY (encryption.md S15)',
      cases: [
        { name: 'a data key', bytes: key },
        { name: 'cut in half', bytes: key.slice(0, key.length >> 1), error: 'E_FORMAT' },
        { name: 'identifier', bytes: patched(key, [4, 0x58]), error: 'E_FORMAT' },
      ],
    },
    {
      structure: 'SealedExtent',
      note: 'IGEX with cipher 1 (encryption.md S4 to S7)',
      cases: [{ name: 'three tags inside', bytes: encodeExtent(extent) }],
    },
  ];
}

export function sealedFiles(): VectorFile[] {
  return [sealedPages(), sealedSuperblocks(), ...records()];
}
