// Goal: coded chunks come back bit for bit, in both implementations, and damage is refused.
// Method: the portable codec against itself, against the native one in both directions, against lz4-napi;
// the vectors in front of the native decoder; cuts and flipped bits in front of the portable one.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { compressSync, uncompressSync } from 'lz4-napi';
import {
  crc64,
  decodeChunk,
  decodeLz4Block,
  elementBytes,
  encodeChunk,
  encodeLz4Block,
  isStoreError,
  PLANE_CODEC,
  TRANSFORM,
} from '../../format/index.js';
import { loadNative } from '../../native/index.js';
import { bytesOf } from '../../tools/gen_vectors.js';
import { patternBase } from '../../tools/vectors/cases_codec.js';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const TRANSFORMS = Object.values(TRANSFORM).filter((transform) => elementBytes(transform) > 0);
const native = loadNative();
const KERNELS = ['scalar', 'avx2', 'avx512', 'neon'].filter((name) => native.codec.kernel(name) !== null);

/** xorshift, seeded: the same data in every run. */
function random(seed: number): () => number {
  let state = seed || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}
type Make = (next: () => number, index: number) => number;
const KINDS: readonly Make[] = [
  (next) => next(),
  (next) => Math.clz32(next() | 1) + 100,
  (next, index) => (index % 2 === 0 ? next() : 0x3c | (next() & 3)),
  (next) => (next() % 5_000 === 0 ? next() : 7),
  (_, index) => (index >>> 9) * 31,
  () => 0,
];
function make(kind: number, length: number, seed: number): Uint8Array {
  const next = random(seed + kind * 7_919);
  return Uint8Array.from({ length }, (_, index) => KINDS[kind]!(next, index));
}

function nativeDecode(stream: Uint8Array, rawBytes: number, base?: Uint8Array): Uint8Array {
  const out = base === undefined ? new Uint8Array(rawBytes) : base.slice();
  native.codec.decode(stream, 0, out, base !== undefined);
  return out;
}
function nativeEncode(raw: Uint8Array, transform: number, profile: number, shift = 0): Uint8Array | null {
  const out = new Uint8Array(raw.length);
  const bytes = native.codec.encode(raw, out, transform, profile, shift);
  return bytes === 0 ? null : out.slice(0, bytes);
}

test('portable streams come back from the portable and from every native decoder', () => {
  let streams = 0;
  for (const transform of TRANSFORMS) {
    for (const elements of [1, 255, 4_097, 8_193, 20_000]) {
      for (const kind of KINDS.keys()) {
        const size = elementBytes(transform);
        const raw = make(kind, elements * size + (elements % size), elements);
        const stream = encodeChunk(raw, { transform });
        if (stream === null) continue;
        streams += 1;
        assert.ok(stream.length < raw.length);
        assert.deepEqual(decodeChunk(stream, { rawBytes: raw.length }), raw);
        for (const kernel of KERNELS) {
          native.codec.kernel(kernel);
          assert.deepEqual(nativeDecode(stream, raw.length), raw, `${kernel}, transform ${transform}`);
        }
      }
    }
  }
  assert.ok(streams > 60, `${streams} streams`);
});

test('native streams come back from the portable decoder; RANS32 sections are equal', () => {
  for (const transform of [TRANSFORM.BF16E, TRANSFORM.FP32E, TRANSFORM.BYTE]) {
    const raw = make(transform === TRANSFORM.BYTE ? 1 : 2, 50_000 * elementBytes(transform), 3);
    const stream = nativeEncode(raw, transform, 1);
    assert.ok(stream !== null);
    assert.deepEqual(decodeChunk(stream, { rawBytes: raw.length }), raw);
    const codecs = [...Array(elementBytes(transform)).keys()].map((plane) => stream[64 + 16 * plane]!);
    assert.deepEqual(encodeChunk(raw, { transform, codecs }), stream);
  }
});

test('a delta needs its base, and a wrong base is seen by the sum', () => {
  const base = make(0, 40_001, 5);
  const raw = base.slice();
  for (let i = 0; i < raw.length; i += 501) raw[i] = raw[i]! ^ 4;
  const stream = encodeChunk(raw, { transform: TRANSFORM.BF16E, base });
  assert.ok(stream !== null && stream.length < raw.length / 8);
  assert.deepEqual(decodeChunk(stream, { rawBytes: raw.length, base }), raw);
  assert.deepEqual(nativeDecode(stream, raw.length, base), raw);
  assert.throws(
    () => decodeChunk(stream, { rawBytes: raw.length }),
    (error) => isStoreError(error, 'E_FORMAT'),
  );
  const wrong = base.slice();
  wrong[77] = wrong[77]! ^ 1;
  assert.notEqual(crc64(decodeChunk(stream, { rawBytes: raw.length, base: wrong })), crc64(raw));
});

test('special floats keep their bits', () => {
  const raw = new Uint8Array(2 ** 16 * 2 * 2);
  const view = new DataView(raw.buffer);
  for (let i = 0; i < 2 ** 17; i += 1) view.setUint16(2 * i, i < 2 ** 16 ? i : 0x7fc1, true);
  for (const transform of TRANSFORMS) {
    const stream = encodeChunk(raw, { transform, always: true }) ?? nativeEncode(raw, transform, 1);
    if (stream === null) continue;
    assert.deepEqual(decodeChunk(stream, { rawBytes: raw.length }), raw);
    assert.deepEqual(nativeDecode(stream, raw.length), raw);
  }
});

test('damaged streams give bytes or E_FORMAT, the same in both decoders', () => {
  const next = random(11);
  const host = { decodeZstd: () => null };
  let refused = 0;
  for (const transform of TRANSFORMS) {
    const raw = make(transform === TRANSFORM.BG2 ? 4 : 1, 9_000 * elementBytes(transform), 21);
    const stream = encodeChunk(raw, { transform, always: true });
    assert.ok(stream !== null);
    for (let round = 0; round < 120; round += 1) {
      let bad = stream.slice();
      const span = round % 2 === 0 ? Math.min(1_000, bad.length) : bad.length;
      bad[next() % span] = next();
      if (round % 6 === 0) bad = bad.slice(0, next() % bad.length);
      const view = new DataView(bad.buffer);
      const rawBytes = bad.length >= 12 ? Math.min(view.getUint32(8, true), 2 ** 20) : raw.length;
      let portable: Uint8Array | null = null;
      try {
        portable = decodeChunk(bad, { rawBytes, host });
      } catch (error) {
        assert.ok(isStoreError(error, 'E_FORMAT'), String(error));
        refused += 1;
      }
      let got: Uint8Array | null = null;
      try {
        got = nativeDecode(bad, rawBytes);
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'E_FORMAT');
      }
      // Only the native decoder knows zstd, and the extent record, not it, knows delta and length.
      const comparable = bad[5] === 0 && bad[64] !== PLANE_CODEC.ZSTD;
      if (comparable) assert.deepEqual(got, portable, `transform ${transform}, round ${round}`);
    }
  }
  assert.ok(refused > 200, `${refused} refused`);
});

test('LZ4 blocks are exchanged with lz4-napi both ways', () => {
  for (const kind of [1, 3, 4, 5]) {
    for (const length of [20, 100, 4_097, 100_000]) {
      const raw = make(kind, length, 9);
      const theirs = compressSync(Buffer.from(raw));
      assert.deepEqual(decodeLz4Block(theirs.subarray(4), length), raw);
      const block = encodeLz4Block(raw);
      if (block === null) continue;
      const prefix = Buffer.alloc(4);
      prefix.writeUInt32LE(length);
      assert.deepEqual(new Uint8Array(uncompressSync(Buffer.concat([prefix, block]))), raw);
      assert.deepEqual(decodeLz4Block(block, length), raw);
      assert.equal(decodeLz4Block(block, length - 1), null);
      assert.equal(decodeLz4Block(block.subarray(0, block.length - 1), length), null);
      // And the blocks of liblz4, which the native encoder links.
      const stream = nativeEncode(raw, TRANSFORM.BYTE, 1);
      if (stream !== null && stream[64] === PLANE_CODEC.LZ4)
        assert.deepEqual(decodeChunk(stream, { rawBytes: length }), raw);
    }
  }
});

test('every vector is decoded, or refused, by every native kernel', () => {
  interface Case {
    readonly name: string;
    readonly lengthBytes: number;
    readonly segments: readonly (readonly [number, string])[];
    readonly context?: { readonly baseModulus?: number };
    readonly value?: { readonly rawBytes: number; readonly rawSum: string };
  }
  const file = JSON.parse(readFileSync(join(ROOT, 'spec', 'vectors', 'stream.json'), 'utf8')) as {
    cases: Case[];
  };
  for (const kernel of KERNELS) {
    native.codec.kernel(kernel);
    for (const one of file.cases) {
      const stream = bytesOf(one);
      // Whether a delta is meant is the record's word, which the native call takes from its caller.
      if (one.name === 'delta without a base') continue;
      if (one.value === undefined) {
        const rawBytes =
          stream.length < 12 ? 0 : Math.min(new DataView(stream.buffer).getUint32(8, true), 2 ** 20);
        assert.throws(() => nativeDecode(stream, rawBytes), { code: 'E_FORMAT' }, `${kernel}: ${one.name}`);
        continue;
      }
      const base = one.context?.baseModulus === undefined ? undefined : patternBase(one.value.rawBytes);
      const raw = nativeDecode(stream, one.value.rawBytes, base);
      const sum = `0x${crc64(raw).toString(16).padStart(16, '0')}`;
      assert.equal(sum, one.value.rawSum, `${kernel}: ${one.name}`);
    }
  }
});
