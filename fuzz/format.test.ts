// Property tests of every structure of the format: what is encoded decodes to itself; what was damaged,
// also by someone who makes the sums right again, decodes to a value of the right form or a StoreError,
// never to a crash, a hang or an allocation that the input sizes.
//
// INGOT_FUZZ_RUNS sets the runs of each property.

import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import {
  BranchPage,
  HINTS_BYTES,
  LeafPage,
  SLOT_BYTES,
  chooseMemberTip,
  crc64,
  crc64Combine,
  decodeDeferred,
  decodeExtent,
  decodeFreeKey,
  decodeHeartbeat,
  decodeHints,
  decodeLargeValue,
  decodeManifest,
  decodeMember,
  decodePage,
  decodePointer,
  decodeRegion,
  decodeRun,
  decodeRunsKey,
  decodeSlot,
  decodeSumLeaf,
  decodeSumLeafPage,
  decodeTag,
  decodeValueIndex,
  decodeVersion,
  encodeBranch,
  encodeDeferred,
  encodeExtent,
  encodeHeartbeat,
  encodeHints,
  encodeLargeValue,
  encodeLeaf,
  encodeManifest,
  encodeMember,
  encodePointer,
  encodeRegion,
  encodeRun,
  encodeSumLeaf,
  encodeSumLeafPage,
  encodeSuperblock,
  encodeTag,
  encodeValueIndex,
  encodeVersion,
  isStoreError,
  parseRef,
  formatRef,
  runKey,
  slotOf,
  stepKey,
  tagKey,
  runVersionKey,
  pageStoredBytes,
} from '../format/index.js';
import type { PagePointer, SlotResult, ValuePiece } from '../format/index.js';
import * as arbitrary from './format_arbitraries.js';

const { FUZZ_RUNS: numRuns, record } = arbitrary;
const UUID = Uint8Array.from({ length: 16 }, (_, index) => index + 1);

/** A few changes to bytes: overwrite, cut, extend, copy a stretch over another. */
type Damage = { readonly edits: readonly (readonly [number, number, number])[]; readonly cut: number };
const damage: fc.Arbitrary<Damage> = record({
  edits: fc.array(
    fc.tuple(fc.nat(2 ** 31 - 1), fc.nat(3), fc.oneof(fc.constantFrom(0, 1, 0x7f, 0x80, 0xff), fc.nat(255))),
    { minLength: 1, maxLength: 6 },
  ),
  cut: fc.oneof({ arbitrary: fc.constant(0), weight: 4 }, { arbitrary: fc.nat(2 ** 31 - 1), weight: 1 }),
});

function damaged(bytes: Uint8Array, { edits, cut }: Damage, keepLength: boolean): Uint8Array {
  const copy = keepLength || cut === 0 ? bytes.slice() : bytes.slice(0, cut % (bytes.length + 1));
  if (copy.length === 0) return copy;
  // Most of a structure is padding; half of the edits go to its first 256 bytes.
  for (const [place, sort, value] of edits) {
    const at = place % (place % 2 === 0 ? copy.length : Math.min(copy.length, 256));
    if (sort === 0) copy[at] = value;
    else if (sort === 1) copy[at]! ^= 1 << (value & 7);
    else if (sort === 2) copy.fill(value, at, at + 4);
    else copy.copyWithin(at, value, value + 8);
  }
  return copy;
}

/** Runs a decoder on hostile bytes: its value, or null for a StoreError; anything else fails the test. */
function survive<T>(decode: () => T): T | null {
  try {
    return decode();
  } catch (error) {
    if (isStoreError(error)) return null;
    throw error;
  }
}

/** Round trip, then damage. `keepLength`: readers always hand over the full length (pages, slots). */
function property<T>(
  name: string,
  values: fc.Arbitrary<T>,
  codec: {
    readonly encode: (value: T) => Uint8Array;
    readonly decode: (bytes: Uint8Array) => T | null;
    readonly fix?: (bytes: Uint8Array) => void;
    readonly keepLength?: boolean;
    readonly again?: boolean;
  },
): void {
  test(`${name}: what is encoded decodes to itself, and damage to a right value or a StoreError`, () => {
    fc.assert(
      fc.property(values, damage, (value, harm) => {
        const bytes = codec.encode(value);
        assert.deepEqual(codec.decode(bytes), value);
        const hostile = damaged(bytes, harm, codec.keepLength ?? false);
        codec.fix?.(hostile);
        const decoded = survive(() => codec.decode(hostile));
        // A value that was accepted obeys every rule, so the encoder takes it, and it means the same again.
        if (decoded !== null && codec.again !== false)
          assert.deepEqual(codec.decode(codec.encode(decoded)), decoded);
      }),
      { numRuns },
    );
  });
}

property('PagePointer', arbitrary.pointer, {
  encode: (value) => {
    const bytes = new Uint8Array(80);
    encodePointer(value, bytes, 0);
    return bytes;
  },
  decode: (bytes) => decodePointer(bytes, 0),
  keepLength: true,
});
property('Extent', arbitrary.extent, { encode: encodeExtent, decode: (bytes) => decodeExtent(bytes) });
property('Manifest', arbitrary.manifest, {
  encode: encodeManifest,
  decode: (bytes) => decodeManifest(bytes),
});
property('Version', arbitrary.version, { encode: encodeVersion, decode: (bytes) => decodeVersion(bytes) });
property(
  'Run',
  record({ createdAtMs: arbitrary.size, versionCount: arbitrary.size, lastVersionId: arbitrary.size }),
  {
    encode: encodeRun,
    decode: (bytes) => decodeRun(bytes),
  },
);
property(
  'Tag',
  record({
    versionId: arbitrary.sequence,
    movedAtMs: arbitrary.size,
    generation: arbitrary.size,
    protected: fc.boolean(),
  }),
  { encode: encodeTag, decode: (bytes) => decodeTag(bytes) },
);
property(
  'SumLeaf',
  record({
    copies: arbitrary.pageCopies,
    sum: arbitrary.sum,
    birth: arbitrary.sequence,
    sumCount: fc.integer({ min: 1, max: 504 }),
    referenceCount: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
  }),
  { encode: encodeSumLeaf, decode: (bytes) => decodeSumLeaf(bytes) },
);
property(
  'Member',
  record({
    uuid: arbitrary.uuid,
    path: arbitrary.text,
    failureDomain: arbitrary.text,
    serial: arbitrary.text,
    readErrors: arbitrary.size,
    writeErrors: arbitrary.size,
    checksumErrors: arbitrary.size,
    lastErrorAtMs: arbitrary.size,
    formattedBytes: arbitrary.size,
    addedAtMs: arbitrary.size,
  }),
  { encode: encodeMember, decode: (bytes) => decodeMember(bytes) },
);
property('Region', arbitrary.region, { encode: encodeRegion, decode: (bytes) => decodeRegion(bytes) });
property('Deferred', arbitrary.deferred, {
  encode: encodeDeferred,
  decode: (bytes) => decodeDeferred(bytes),
});
const resumAt =
  (sumAt: number, from: number) =>
  (bytes: Uint8Array): void => {
    if (bytes.length < from) return;
    new DataView(bytes.buffer).setBigUint64(sumAt, crc64(bytes, from), true);
  };
property('Hints', arbitrary.hints, { encode: encodeHints, decode: decodeHints, fix: resumAt(8, 16) });
property('Heartbeat', arbitrary.heartbeat, {
  encode: encodeHeartbeat,
  decode: decodeHeartbeat,
  fix: resumAt(8, 16),
});

test('Superblock: round trip; damage with the sums made right is valid and re-encodes, or is a named problem', () => {
  fc.assert(
    fc.property(arbitrary.superblock, fc.nat(3), damage, ({ root, memberIndex }, copy, harm) => {
      const image = encodeSuperblock(root, memberIndex, copy);
      const good = decodeSlot(image, { copy, slot: slotOf(root.sequence) });
      assert.ok(good.kind === 'valid');
      assert.deepEqual(good.superblock, root);
      const hostile = damaged(image, harm, true);
      const view = new DataView(hostile.buffer);
      view.setBigUint64(24, crc64(hostile, 64), true);
      view.setBigUint64(8, crc64(hostile, 24, 64), true);
      const result = decodeSlot(hostile, { copy, slot: slotOf(root.sequence) });
      if (result.kind !== 'valid') return;
      assert.deepEqual(encodeSuperblock(result.superblock, result.memberIndex, copy), hostile);
    }),
    { numRuns },
  );
});

test('Superblock: any 8,192 bytes are judged, and any four rings give a tip or a StoreError', () => {
  fc.assert(
    fc.property(
      arbitrary.superblock,
      fc.array(fc.tuple(fc.nat(3), fc.nat(31), damage), { maxLength: 6 }),
      ({ root, memberIndex }, harms) => {
        const empty: SlotResult = { kind: 'empty' };
        const rings = Array.from({ length: 4 }, () => new Array<SlotResult>(32).fill(empty));
        const slot = slotOf(root.sequence);
        for (let copy = 0; copy < 4; copy += 1)
          rings[copy]![slot] = decodeSlot(encodeSuperblock(root, memberIndex, copy), { copy, slot });
        for (const [copy, place, harm] of harms) {
          const bytes = damaged(encodeSuperblock(root, memberIndex, copy), harm, true);
          assert.equal(bytes.length, SLOT_BYTES);
          rings[copy]![place] = decodeSlot(bytes, { copy, slot: place });
        }
        const tip = survive(() => chooseMemberTip(rings));
        if (tip !== null) assert.ok(tip.copies.length >= 2);
      },
    ),
    { numRuns },
  );
});

const pageOf = (bytes: Uint8Array, shape: Partial<PagePointer> = {}): PagePointer => ({
  sum: 0n,
  birth: 9,
  storedBytes: bytes.length,
  level: 0,
  kind: 1,
  copies: [{ member: 0, sector: 256 }],
  ...shape,
});
const CONTEXT = { storeUuid: UUID, treeId: 2 };
const FIELDS = { treeId: 2, birth: 9, storeUuid: UUID };

function readAll(page: LeafPage | BranchPage): void {
  for (let index = 0; index < page.itemCount; index += 1) {
    const key = page.key(index);
    if (page instanceof LeafPage) {
      assert.equal(page.find(key), index);
      assert.ok(page.value(index).length <= 2_048);
    } else {
      assert.equal(page.findChild(key), index);
      assert.ok(page.child(index).level === page.level - 1);
    }
  }
}

test('leaf pages: round trip; a damaged page that is accepted is searchable whole', () => {
  fc.assert(
    fc.property(arbitrary.leafItems, damage, (items, harm) => {
      const bytes = encodeLeaf(items, FIELDS);
      const page = decodePage(bytes, pageOf(bytes), CONTEXT);
      assert.ok(page instanceof LeafPage);
      assert.deepEqual(
        items.map((_, index) => page.key(index)),
        items.map((item) => item.key),
      );
      assert.deepEqual(
        items.map((_, index) => page.value(index)),
        items.map((item) => item.value),
      );
      const hostile = damaged(bytes, harm, true);
      const accepted = survive(() => decodePage(hostile, pageOf(hostile), CONTEXT));
      if (accepted !== null) readAll(accepted);
    }),
    { numRuns },
  );
});

test('branch pages: round trip; a damaged page that is accepted is searchable whole', () => {
  fc.assert(
    fc.property(arbitrary.branchKeys, fc.integer({ min: 1, max: 12 }), damage, (keys, level, harm) => {
      const child = {
        sum: 5n,
        birth: 3,
        storedBytes: 4_096,
        level: level - 1,
        kind: level === 1 ? 1 : 2,
        copies: [{ member: 1, sector: 512 }],
      };
      const bytes = encodeBranch(
        keys.map((key) => ({ key, pointer: child })),
        level,
        FIELDS,
      );
      const shape = { level, kind: 2 };
      const page = decodePage(bytes, pageOf(bytes, shape), CONTEXT);
      assert.ok(page instanceof BranchPage);
      assert.deepEqual(
        keys.map((_, index) => page.key(index)),
        keys,
      );
      assert.deepEqual(page.child(0), child);
      const hostile = damaged(bytes, harm, true);
      const accepted = survive(() => decodePage(hostile, pageOf(hostile, shape), CONTEXT));
      if (accepted !== null) readAll(accepted);
    }),
    { numRuns },
  );
});

test('large values: descriptor and index round trip; damage is a StoreError or a consistent list of pieces', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 1_000_000 }), damage, (rawBytes, harm) => {
      const pieceCount = Math.ceil(rawBytes / 245_760);
      const pieces: ValuePiece[] = Array.from({ length: pieceCount }, (_, index) => {
        const raw = Math.min(245_760, rawBytes - index * 245_760);
        const storedBytes = raw > 100 ? raw - 10 : raw;
        return {
          storedBytes,
          rawBytes: raw,
          codec: raw > 100 ? 1 : 0,
          pointer: pageOf(new Uint8Array(0), {
            kind: 4,
            birth: 2,
            storedBytes: pageStoredBytes(64 + storedBytes),
          }),
        };
      });
      const index = encodeValueIndex(pieces, FIELDS);
      const value = { rawBytes, pieceCount, pointer: pageOf(index, { kind: 3 }) };
      assert.deepEqual(decodeLargeValue(encodeLargeValue(value)), value);
      assert.deepEqual(decodeValueIndex(index, value, CONTEXT), pieces);
      survive(() => decodeLargeValue(damaged(encodeLargeValue(value), harm, false)));
      const hostile = damaged(index, harm, true);
      const accepted = survive(() => decodeValueIndex(hostile, value, CONTEXT));
      if (accepted !== null)
        assert.equal(
          accepted.reduce((total, piece) => total + piece.rawBytes, 0),
          rawBytes,
        );
    }),
    { numRuns },
  );
});

test('sum leaf pages: round trip, and damage in the header is a StoreError', () => {
  fc.assert(
    fc.property(fc.array(arbitrary.sum, { minLength: 1, maxLength: 504 }), damage, (sums, harm) => {
      const leaf = { storeUuid: UUID, birth: 3, ownerId: 7 };
      const page = encodeSumLeafPage({ ...leaf, sums });
      assert.deepEqual([...decodeSumLeafPage(page, { ...leaf, sumCount: sums.length })], sums);
      const accepted = survive(() =>
        decodeSumLeafPage(damaged(page, harm, true), { ...leaf, sumCount: sums.length }),
      );
      if (accepted !== null) assert.equal(accepted.length, sums.length);
    }),
    { numRuns },
  );
});

test('keys decode to what they were made of, and any bytes to a key or a StoreError', () => {
  fc.assert(
    fc.property(
      arbitrary.runName,
      arbitrary.tagName,
      arbitrary.size,
      arbitrary.size,
      (run, tag, step, versionId) => {
        assert.deepEqual(decodeRunsKey(runKey(run)), { kind: 'run', run });
        assert.deepEqual(decodeRunsKey(tagKey(run, tag)), { kind: 'tag', run, tag });
        assert.deepEqual(decodeRunsKey(stepKey(run, step, versionId)), {
          kind: 'step',
          run,
          step,
          versionId,
        });
        assert.deepEqual(decodeRunsKey(runVersionKey(run, versionId)), { kind: 'version', run, versionId });
        const ref = parseRef(`${run}@${tag}`);
        assert.equal(formatRef(ref), `${run}@${tag}`);
      },
    ),
    { numRuns },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 24 }), (bytes) => {
      survive(() => decodeRunsKey(bytes));
      survive(() => decodeFreeKey(bytes));
    }),
    { numRuns },
  );
});

test('random bytes are never a record, a region or hints by accident, and cost nothing', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 2_000 }), (bytes) => {
      for (const decode of [
        decodeExtent,
        decodeManifest,
        decodeVersion,
        decodeRun,
        decodeTag,
        decodeMember,
        decodeSumLeaf,
        decodeDeferred,
      ]) {
        assert.equal(
          survive(() => decode(bytes)),
          null,
        );
      }
      survive(() => decodeRegion(bytes));
      const area = new Uint8Array(HINTS_BYTES);
      area.set(bytes);
      assert.equal(decodeHints(area), null);
    }),
    { numRuns },
  );
});

test('sums of parts combine to the sum of the whole, wherever it is cut', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 6 }), (parts) => {
      const whole = Uint8Array.from(parts.flatMap((part) => [...part]));
      const combined = parts.reduce((total, part) => crc64Combine(total, crc64(part), part.length), 0n);
      assert.equal(combined, crc64(whole));
    }),
    { numRuns },
  );
});
