// Goal: a part of a coded chunk is read from the blocks that it touches, and from nothing else.
// Method: excerpts of streams of every transform and codec against the whole, by both decoders; directories that lie;
// then stores of small segments, plain, mirrored, encrypted and of deltas, with the reads of the port counted, and
// damage inside and outside of what a part needs.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ReadBatch } from '../../engine/io/port.js';
import type { Store } from '../../engine/index.js';
import type { StoreKey } from '../../engine/types.js';
import {
  type Excerpt,
  PLANE_CODEC,
  TRANSFORM,
  directoryStretch,
  elementBytes,
  encodeChunk,
  excerptOf,
  isStoreError,
  parseStream,
} from '../../format/index.js';
import { loadNative } from '../../native/index.js';
import { Prng } from '../sim/prng.js';
import { type Rig, MEBIBYTE, contents, makeRig } from './store_harness.js';

const native = loadNative();
const SEGMENT_BYTES = 4_096;
const KEY: StoreKey = { kind: 'key-file', secret: contents(99, 64) };

/** Bytes with few values, a run here and there: every codec has something to do. */
function bytesOf(seed: number, length: number): Uint8Array {
  const noise = new Prng(seed + 1).bytes(length);
  return noise.map((byte, index) => ((index >>> 12) % 3 === 0 ? 7 : 100 + Math.clz32((byte << 24) | 1)));
}

function cut(stream: Uint8Array, offset: number, length: number): { excerpt: Excerpt; bytes: Uint8Array } {
  const header = parseStream(stream.subarray(0, 256), undefined, stream.length);
  const directories = header.planes.map((plane) => {
    const { fromBytes, lengthBytes } = directoryStretch(plane, header.elementCount);
    return stream.subarray(fromBytes, fromBytes + lengthBytes);
  });
  const excerpt = excerptOf(header, directories, offset, length);
  const bytes = new Uint8Array(excerpt.streamBytes).fill(0xa5);
  for (const { toBytes, bytes: made } of excerpt.made) bytes.set(made, toBytes);
  for (const { fromBytes, toBytes, lengthBytes } of excerpt.stretches) {
    assert.ok(
      lengthBytes > 0 && fromBytes + lengthBytes <= stream.length && toBytes + lengthBytes <= bytes.length,
    );
    bytes.set(stream.subarray(fromBytes, fromBytes + lengthBytes), toBytes);
  }
  return { excerpt, bytes };
}

function checkCut(stream: Uint8Array, raw: Uint8Array, offset: number, length: number): number {
  const { excerpt, bytes } = cut(stream, offset, length);
  const out = new Uint8Array(length);
  native.codec.decode(bytes, offset - excerpt.rawOffsetBytes, out, false);
  assert.deepEqual(out, raw.subarray(offset, offset + length), `[${offset}, +${length})`);
  return bytes.length;
}

/** Ends, block borders and places between. */
function rangesOf(length: number): [number, number][] {
  const next = new Prng(length);
  const random = (below: number): number => next.below(below);
  const ranges: [number, number][] = [
    [0, 1],
    [length - 1, 1],
    [0, length],
    [length - 9, 9],
    [8_191, 2],
    [16_383, 2],
  ];
  for (let i = 0; i < 12; i += 1) {
    const from = random(length);
    ranges.push([from, 1 + random(Math.min(length - from, 40_000))]);
  }
  return ranges;
}

test('an excerpt decodes to its part of the whole: every transform and codec', () => {
  let smallest = 1;
  for (const transform of Object.values(TRANSFORM).filter((each) => elementBytes(each) > 0)) {
    const size = elementBytes(transform);
    const raw = bytesOf(transform, 150_000 * Math.min(size, 4) + size - 1);
    const codings: { codecs?: number[]; blockShifts?: number[] }[] = [{}];
    for (const codec of [PLANE_CODEC.RANS32, PLANE_CODEC.LZ4])
      codings.push({ codecs: Array<number>(size).fill(codec), blockShifts: Array<number>(size).fill(12) });
    if (size > 1)
      codings.push({
        codecs: Array.from(
          { length: size },
          (_, p) => [PLANE_CODEC.LZ4, PLANE_CODEC.RAW, PLANE_CODEC.RANS32][p % 3]!,
        ),
        blockShifts: Array.from({ length: size }, (_, p) => [14, 0, 13][p % 3]!),
      });
    for (const coding of codings) {
      const stream = encodeChunk(raw, { transform, always: true, ...coding });
      assert.ok(stream !== null, `transform ${transform}`);
      for (const [offset, length] of rangesOf(raw.length)) {
        const bytes = checkCut(stream, raw, offset, length);
        if (length === 1) smallest = Math.min(smallest, bytes / stream.length);
      }
    }
  }
  assert.ok(smallest < 0.1, `one byte took ${smallest} of a stream`);
});

test('an excerpt of a native stream of zstd blocks decodes, too', () => {
  const text = new TextEncoder().encode('one two three four five six seven eight nine ten eleven twelve ');
  const raw = Uint8Array.from({ length: 3_500_001 }, (_, i) => text[(i * 7 + (i >>> 9)) % text.length]!);
  const out = new Uint8Array(raw.length);
  const stream = out.slice(0, native.codec.encode(raw, out, TRANSFORM.BYTE, 2, 0));
  assert.equal(stream[64], PLANE_CODEC.ZSTD);
  for (const [offset, length] of rangesOf(raw.length)) checkCut(stream, raw, offset, length);
});

test('a directory that lies is refused, or leads nowhere outside its section', () => {
  const raw = bytesOf(5, 200_000);
  let refused = 0;
  for (const codec of [PLANE_CODEC.RANS32, PLANE_CODEC.LZ4]) {
    const stream = encodeChunk(raw, {
      transform: TRANSFORM.BYTE,
      codecs: [codec],
      blockShifts: [12],
      always: true,
    })!;
    const { fromBytes, lengthBytes } = directoryStretch(parseStream(stream).planes[0]!, raw.length);
    for (let at = fromBytes; at < fromBytes + lengthBytes; at += 1) {
      const wrong = stream.slice();
      wrong[at] = wrong[at]! ^ 0x80;
      try {
        // checkCut's cut asserts that no stretch leaves the stream.
        const { excerpt, bytes } = cut(wrong, 90_000, 5_000);
        native.codec.decode(bytes, 90_000 - excerpt.rawOffsetBytes, new Uint8Array(5_000), false);
      } catch (error) {
        assert.ok(
          isStoreError(error, 'E_FORMAT') || !(error instanceof assert.AssertionError),
          String(error),
        );
        refused += 1;
      }
    }
  }
  assert.ok(refused > 20, `${refused} were refused`);
});

/** bf16 of small weights. */
function weights(seed: number, elements: number): Uint8Array {
  const noise = new Prng(seed + 1).bytes(2 * elements);
  const bytes = new Uint8Array(2 * elements);
  for (let i = 0; i < elements; i += 1) {
    bytes[2 * i] = noise[2 * i]!;
    const exponent = 118 - Math.clz32((noise[2 * i + 1]! << 24) | (1 << 23));
    bytes[2 * i + 1] = (noise[2 * i]! & 0x80) | (exponent >>> 1);
  }
  return bytes;
}

interface Counted {
  bytes: number;
  ops: number;
}
/** Counts what the port's verified reads ask for, in whole segments. */
function countReads(rig: Rig): Counted {
  const counted: Counted = { bytes: 0, ops: 0 };
  const read = rig.io.read.bind(rig.io);
  rig.io.read = (batch: ReadBatch) => {
    for (let op = 0; op < batch.count; op += 1) {
      const segment = batch.segmentBytes[op]!;
      const from = Math.floor(batch.wantedOffsetBytes[op]! / segment);
      const to = Math.ceil((batch.wantedOffsetBytes[op]! + batch.wantedBytes[op]!) / segment);
      counted.bytes += (to - from) * segment;
      counted.ops += 1;
    }
    return read(batch);
  };
  return counted;
}

async function put(store: Store, run: string, bytes: Uint8Array, base?: string): Promise<string> {
  const against = base === undefined ? { codec: 'auto' as const } : { base, delta: true };
  const tx = await store.begin(run, { chunkBytes: MEBIBYTE, ...against });
  await tx.put('w', bytes, { dtype: 'BF16', shape: [bytes.length / 2] });
  return (await tx.commit()).id;
}

async function readParts(store: Store, ref: string, bytes: Uint8Array): Promise<void> {
  const tensor = (await store.get(ref)).tensor('w');
  for (const [offset, length] of [
    [0, 1],
    [300_001, 9_000],
    [MEBIBYTE - 3, 6],
    [bytes.length - 5, 5],
  ] as const) {
    const part = new Uint8Array(length);
    await tensor.readInto(part, { offset, length });
    assert.deepEqual(part, bytes.subarray(offset, offset + length), `${ref} [${offset}, +${length})`);
  }
}

const BYTES = weights(1, MEBIBYTE + 12_345);

for (const encrypt of [false, true]) {
  test(`parts of coded chunks and of deltas fetch little${encrypt ? ', encrypted' : ''}`, async () => {
    const rig = await makeRig({
      segmentBytes: SEGMENT_BYTES,
      redundancy: 2,
      ...(encrypt ? { encrypt: { key: KEY, onRecoveryKey: () => undefined }, key: KEY } : {}),
    });
    const first = await put(rig.store, 'm', BYTES);
    const next = BYTES.slice();
    for (let i = 0; i < next.length; i += 50) next[i] = next[i]! ^ 3;
    const second = await put(rig.store, 'm', next, first);
    const places = await (await rig.store.get(second)).tensor('w').extents();
    assert.ok(places.every(({ coding }) => coding?.delta === 'XOR'));
    await readParts(rig.store, first, BYTES);
    await readParts(rig.store, second, next);
    const tensor = (await rig.store.get(second)).tensor('w');
    const counted = countReads(rig);
    const decoded = rig.world.streams.decoded;
    const part = new Uint8Array(9_000);
    await tensor.readInto(part, { offset: 500_000, length: part.length });
    assert.deepEqual(part, next.subarray(500_000, 509_000));
    assert.equal(rig.world.streams.decoded - decoded, 2, 'the delta and its base');
    assert.ok(counted.bytes < 2 * 140_000, `${counted.bytes} bytes fetched for a delta and its base`);
    await rig.store.close();
  });
}

test('damage outside of what a part needs is not met; inside it is an error', async () => {
  const rig = await makeRig({ segmentBytes: SEGMENT_BYTES, redundancy: 2 });
  await put(rig.store, 'm', BYTES);
  const tensor = (await rig.store.get('m')).tensor('w');
  const places = await tensor.extents();
  const copies = places.filter(({ extentId }) => extentId === places[0]!.extentId);
  assert.equal(copies.length, 2);
  const part = new Uint8Array(9_000);
  const faults: string[] = [];
  const read = (): Promise<unknown> =>
    tensor.readInto(part, { offset: 500_000, length: part.length, onFault: ({ kind }) => faults.push(kind) });
  // The raw plane ends the stream: its last segment is of elements that are not asked for.
  for (const { member, offset, length } of copies) rig.world.flipBits(member, offset + length - 5_000, 1);
  await read();
  assert.deepEqual(part, BYTES.subarray(500_000, 509_000));
  assert.deepEqual(faults, []);
  for (const { member, offset } of copies) rig.world.flipBits(member, offset + 9, 1);
  await assert.rejects(read(), (error) => isStoreError(error, 'E_CORRUPT') && error.where.tensor === 'w');
  assert.ok(faults.length > 0);
  await rig.store.close();
});

test('where one copy of what a part needs is damaged, the other serves', async () => {
  const rig = await makeRig({ segmentBytes: SEGMENT_BYTES, redundancy: 2 });
  await put(rig.store, 'm', BYTES);
  const tensor = (await rig.store.get('m')).tensor('w');
  const part = new Uint8Array(9_000);
  const [place] = await tensor.extents();
  rig.world.flipBits(place!.member, place!.offset + 9, 1);
  await tensor.readInto(part, { offset: 500_000, length: part.length });
  assert.deepEqual(part, BYTES.subarray(500_000, 509_000));
  await rig.store.close();
});
