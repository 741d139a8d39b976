// Sealed pages of any shape and any damage: taken apart and joined they are the same, and what an attacker or a bad
// writer makes of them is refused with a code, never an assertion and never another page.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { nodeCrypt } from '../engine/io/node_crypt.js';
import { PageSeals } from '../engine/keys/page_seals.js';
import {
  INCOMPAT_ENCRYPTION,
  PAGE_HEADER_BYTES,
  PAGE_TAG_BYTES,
  PageBase,
  type PagePointer,
  crc64,
  decodePage,
  decodeSealedPage,
  encodeBranch,
  encodeLargeValue,
  encodeLeaf,
  isStoreError,
  joinPage,
  sealedParts,
  splitPage,
} from '../format/index.js';
import * as arbitrary from './format_arbitraries.js';

const { FUZZ_RUNS: numRuns } = arbitrary;
const storeUuid = new Uint8Array(16).fill(7);
const FIELDS = { treeId: 0, birth: 5, storeUuid, tagBytes: PAGE_TAG_BYTES };
const CONTEXT = { storeUuid, treeId: 0, isSealed: true };
const KEY = Uint8Array.from({ length: 32 }, (_, index) => index + 1);
const copies = [{ member: 1, sector: 512 }];

let draws = 0;
const random = { bytes: (count: number) => new Uint8Array(count).fill((draws += 1) % 255 || 1) };
const seals = new PageSeals(nodeCrypt, random, { storeUuid, incompatFeatures: INCOMPAT_ENCRYPTION });

const large = (rawBytes: number): Uint8Array =>
  encodeLargeValue({
    rawBytes,
    pieceCount: 1,
    pointer: { sum: 5n, birth: 3, storedBytes: 4_096, level: 0, kind: 3, copies, key: KEY },
  });

/** A plain page, some of a leaf's values large ones. */
const plainPages = fc.oneof(
  fc.tuple(arbitrary.leafItems, fc.nat(255)).map(([items, mask]) => ({
    level: 0,
    bytes: encodeLeaf(
      items.map((item, index) =>
        ((mask >> (index % 8)) & 1) === 1 ? { ...item, value: large(3_000 + index), isLarge: true } : item,
      ),
      FIELDS,
    ),
  })),
  fc.tuple(arbitrary.branchKeys, fc.integer({ min: 1, max: 12 })).map(([keys, level]) => {
    const kind = level === 1 ? 1 : 2;
    const pointer = { sum: 5n, birth: 3, storedBytes: 4_096, level: level - 1, kind, copies, key: KEY };
    return {
      level,
      bytes: encodeBranch(
        keys.map((key) => ({ key, pointer })),
        level,
        FIELDS,
      ),
    };
  }),
);
const edits = fc.array(fc.tuple(fc.nat(2 ** 20), fc.integer({ min: 1, max: 255 })), {
  minLength: 1,
  maxLength: 4,
});

const pointerTo = (bytes: Uint8Array, level: number, key?: Uint8Array): PagePointer => ({
  sum: crc64(bytes),
  birth: 5,
  storedBytes: bytes.length,
  level,
  kind: level === 0 ? 1 : 2,
  copies,
  ...(key === undefined ? {} : { key }),
});

/** The result, or null when it was refused as the world's error. */
function survive<T>(task: () => T, codes: readonly string[]): T | null {
  try {
    return task();
  } catch (error) {
    assert.ok(isStoreError(error) && codes.includes(error.code), String(error));
    return null;
  }
}

function bent(
  bytes: Uint8Array,
  changes: readonly (readonly [number, number])[],
  from: number,
  to: number,
): Uint8Array {
  const copy = bytes.slice();
  for (const [place, value] of changes) copy[from + (place % (to - from))]! ^= value;
  return copy;
}

test('any page, taken apart and joined, is itself; its clear pointers are its pointers', () => {
  fc.assert(
    fc.property(plainPages, ({ level, bytes }) => {
      const { bytes: stored } = splitPage(new PageBase(bytes));
      const pointer = pointerTo(stored, level);
      const parts = sealedParts(stored, pointer, CONTEXT);
      assert.deepEqual(joinPage(parts, parts.sealed, CONTEXT), bytes);
      for (const each of decodeSealedPage(stored, pointer, CONTEXT).pointers)
        assert.equal(each.key, undefined);
    }),
    { numRuns },
  );
});

test('a stored page that was changed shows bounded structure or is refused, and opens never', () => {
  fc.assert(
    fc.property(plainPages, edits, ({ level, bytes }, changes) => {
      const { bytes: stored, key } = seals.sealPage(new PageBase(bytes));
      assert.deepEqual(seals.openPage(stored, pointerTo(stored, level, key), CONTEXT), bytes);
      const hostile = bent(stored, changes, 0, new PageBase(stored).usedBytes);
      const seen = survive(() => decodeSealedPage(hostile, pointerTo(hostile, level), CONTEXT), ['E_FORMAT']);
      if (seen !== null) assert.ok(seen.pointers.length <= seen.itemCount);
      const opened = survive(
        () => seals.openPage(hostile, pointerTo(hostile, level, key), CONTEXT),
        ['E_FORMAT', 'E_AUTH'],
      );
      // Clear pointers are no part of what is sealed: what opens differs in them alone.
      if (opened === null) return;
      const page = survive(() => decodePage(opened, pointerTo(hostile, level), CONTEXT), ['E_FORMAT']);
      if (page !== null) assert.equal(page.itemCount, new PageBase(bytes).itemCount);
    }),
    { numRuns },
  );
});

test('what a bad writer sealed is checked like any page: a code, or a page that is searchable whole', () => {
  fc.assert(
    fc.property(plainPages, edits, ({ level, bytes }, changes) => {
      const { bytes: stored, sealed } = splitPage(new PageBase(bytes));
      const pointer = pointerTo(stored, level);
      const parts = sealedParts(stored, pointer, CONTEXT);
      const joined = survive(
        () => joinPage(parts, bent(sealed, changes, 0, sealed.length), CONTEXT),
        ['E_FORMAT'],
      );
      if (joined === null) return;
      assert.equal(joined.length, bytes.length);
      assert.deepEqual(joined.subarray(0, PAGE_HEADER_BYTES), bytes.subarray(0, PAGE_HEADER_BYTES));
      const page = survive(() => decodePage(joined, pointer, CONTEXT), ['E_FORMAT']);
      if (page !== null) for (let index = 0; index < page.itemCount; index += 1) page.key(index);
    }),
    { numRuns },
  );
});
