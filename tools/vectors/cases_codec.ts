// Test vectors of coded chunks: every transform with every plane codec, and streams that break each rule.
//
// Invariants as in cases_fixed.ts. The zstd frames hold stored and repeated blocks only (zstd_frames.ts).

import { encodeChunk, elementBytes, PLANE_CODEC, PLANE_CODEC_NAMES, TRANSFORM } from '../../format/index.js';
import { TRANSFORM_NAMES } from '../../format/index.js';
import type { VectorCase, VectorFile } from './cases_fixed.js';
import { patched } from './cases_fixed.js';
import { encodeSimpleZstd } from './zstd_frames.js';

const HOST = { encodeZstd: encodeSimpleZstd };
const { RAW, RANS32, LZ4, ZSTD } = PLANE_CODEC;
/** Delta vectors have a base of this pattern: byte i is i modulo 251. */
export const BASE_MODULUS = 251;

export const patternBase = (length: number): Uint8Array =>
  Uint8Array.from({ length }, (_, index) => index % BASE_MODULUS);

/** A small generator, so that the files are the same everywhere (Steele and Vigna's splitmix, 32 bits). */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e37_79b9) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0_aaad) >>> 0;
    z = Math.imul(z ^ (z >>> 15), 0x735a_2d97) >>> 0;
    return (z ^ (z >>> 15)) >>> 0;
  };
}

/** Elements whose planes are compressible: a few values of geometric weight in each byte. */
function sample(bytes: number, seed: number): Uint8Array {
  const next = generator(seed);
  return Uint8Array.from({ length: bytes }, () => 120 + Math.clz32(next() | 1));
}

interface Options {
  readonly codecs?: readonly number[];
  readonly blockShifts?: readonly number[];
  readonly base?: Uint8Array;
}
function coded(raw: Uint8Array, transform: number, options: Options = {}): Uint8Array {
  const stream = encodeChunk(raw, { transform, host: HOST, always: true, ...options });
  if (stream === null) throw new Error('a vector is a stream');
  return stream;
}

/** Small blocks, so that a short stream has several. */
const shiftOf = (codec: number): number => (codec === RANS32 || codec === LZ4 ? 12 : codec === ZSTD ? 16 : 0);
const shifts = (codecs: readonly number[]): readonly number[] => codecs.map(shiftOf);

function everyCombination(): VectorCase[] {
  const cases: VectorCase[] = [];
  for (const transform of Object.values(TRANSFORM)) {
    const size = elementBytes(transform);
    if (size === 0) continue;
    for (const codec of [RANS32, LZ4, ZSTD]) {
      const elements = codec === RANS32 ? 4_400 : 700;
      const codecs = Array.from({ length: size }, (_, plane) =>
        plane === 0 ? codec : plane === 1 ? RAW : codec,
      );
      const raw = sample(elements * size + (size - 1), transform * 16 + codec);
      const name = `${TRANSFORM_NAMES[transform]} with ${PLANE_CODEC_NAMES[codec]} planes and a tail of ${size - 1}`;
      cases.push({ name, bytes: coded(raw, transform, { codecs, blockShifts: shifts(codecs) }) });
    }
    const constant = new Uint8Array(300 * size + (size - 1)).fill(0x81);
    cases.push({
      name: `${TRANSFORM_NAMES[transform]} of one byte: all CONST`,
      bytes: coded(constant, transform),
    });
  }
  return cases;
}

function special(): VectorCase[] {
  const two = Uint8Array.from({ length: 4_096 }, (_, index) => (index === 2_000 ? 1 : 0));
  const all = Uint8Array.from({ length: 4_864 }, (_, index) => (index % 19 === 0 ? (index / 19) % 256 : 255));
  const floats = new Uint8Array(2 * 600);
  const view = new DataView(floats.buffer);
  // Zeros, denormals, infinities and NaNs with payloads of both signs, as bf16.
  const bits = [0, 0x8000, 1, 0x807f, 0x7f80, 0xff80, 0x7fc1, 0xffff, 0x3f80];
  for (let i = 0; i < 600; i += 1) view.setUint16(2 * i, bits[i % bits.length]!, true);
  const delta = patternBase(9_001);
  for (let i = 0; i < delta.length; i += 97) delta[i] = delta[i]! ^ 0x10;
  const noise = Uint8Array.from({ length: 5_000 }, (_, index) => (index < 4_096 ? generator(index)() : 9));
  return [
    {
      name: 'RANS32 of two symbols, one of frequency 2,047',
      bytes: coded(two, TRANSFORM.BYTE, { codecs: [RANS32] }),
    },
    {
      name: 'RANS32 of all 256 symbols',
      bytes: coded(all, TRANSFORM.BYTE, { codecs: [RANS32], blockShifts: [16] }),
    },
    { name: 'RANS32 of one element beyond a block', bytes: blocky(4_097) },
    { name: 'RANS32 of whole blocks', bytes: blocky(8_192) },
    { name: 'special floats', bytes: coded(floats, TRANSFORM.BF16E, { codecs: [RANS32, RANS32] }) },
    {
      name: 'CONST beside RAW',
      bytes: coded(
        noise.map((byte, i) => (i % 2 ? 7 : byte)),
        TRANSFORM.BG2,
      ),
    },
    {
      name: 'LZ4 with a block that is stored as it is',
      bytes: coded(noise, TRANSFORM.BYTE, { codecs: [LZ4], blockShifts: [12] }),
    },
    {
      name: 'XOR delta',
      context: { baseModulus: BASE_MODULUS },
      bytes: coded(delta, TRANSFORM.BF16E, { base: patternBase(9_001), codecs: [RANS32, RANS32] }),
    },
    {
      name: 'XOR delta of equal bytes',
      context: { baseModulus: BASE_MODULUS },
      bytes: coded(patternBase(999), TRANSFORM.FP32E, { base: patternBase(999) }),
    },
  ];
}

const blocky = (elements: number): Uint8Array =>
  coded(sample(elements, elements), TRANSFORM.BYTE, { codecs: [RANS32], blockShifts: [12] });

function malformed(): VectorCase[] {
  // Exponents only: the raw plane is zeros, which take no room in the file.
  const exponents = new Uint8Array(2 * 4_400 + 1);
  for (const [index, byte] of sample(4_400, 5).entries()) {
    exponents[2 * index] = (byte & 1) << 7;
    exponents[2 * index + 1] = byte >> 1;
  }
  const good = coded(exponents, TRANSFORM.BF16E, { codecs: [RANS32, RAW], blockShifts: [12, 0] });
  const view = new DataView(good.buffer);
  const plane = 64;
  const section = view.getUint32(plane + 4, true);
  const symbolCount = view.getUint16(plane + 2, true);
  const directory = section + Math.ceil((symbolCount * 4) / 16) * 16;
  const states = section + Math.ceil((directory - section + 12) / 128) * 128;
  const words = states + 256;
  const lz4 = coded(sample(700, 6), TRANSFORM.BYTE, { codecs: [LZ4] });
  const zstd = coded(new Uint8Array(700).fill(3), TRANSFORM.BYTE, { codecs: [ZSTD] });
  const fault = (name: string, bytes: Uint8Array): VectorCase => ({ name, bytes, error: 'E_FORMAT' });
  const flip = (at: number, bits = 1): readonly [number, number] => [at, good[at]! ^ bits];
  const block = new DataView(lz4.buffer).getUint32(68, true) + 16;
  return [
    fault('shorter than a header', good.slice(0, 63)),
    fault('cut short by a byte', good.slice(0, good.length - 1)),
    fault('magic', patched(good, [0, 0x58])),
    fault('transform 0', patched(good, [4, 0])),
    fault('transform 4 is reserved', patched(good, [4, 4])),
    fault('transform 9 is reserved', patched(good, [4, 9])),
    fault('delta 2 is reserved', patched(good, [5, 2])),
    fault('delta without a base', patched(good, [5, 1])),
    fault('planeCount', patched(good, [6, 1])),
    fault('tailBytes', patched(good, [7, 0])),
    fault('rawBytes is larger', patched(good, [9, good[9]! ^ 2])),
    fault('rawBytes beyond 64 MiB', patched(good, [11, 4])),
    fault('streamBytes beyond the bytes', patched(good, [14, 1])),
    fault('a byte after the tail', patched(good, [18, 1])),
    fault('a reserved byte of the header', patched(good, [63, 1])),
    fault('codec 3 is reserved', patched(good, [plane, 3])),
    fault('codec 128', patched(good, [plane, 128])),
    fault('blockShift 11', patched(good, [plane + 1, 11])),
    fault('blockShift 17', patched(good, [plane + 1, 17])),
    fault('symbolCount 1', patched(good, [plane + 2, 1])),
    fault('symbolCount 257', patched(good, [plane + 2, 1], [plane + 3, 1])),
    fault('offset off by 16', patched(good, flip(plane + 4, 16))),
    fault('sectionBytes off by 16', patched(good, flip(plane + 8, 16))),
    fault('constant of a coded plane', patched(good, [plane + 12, 1])),
    fault('a reserved byte of the directory', patched(good, [plane + 15, 1])),
    fault('blockShift of a raw plane', patched(good, [plane + 17, 12])),
    fault('all planes raw', allRaw()),
    fault('symbols do not ascend', patched(good, [section + 4, good[section]!])),
    fault('a zero byte of the table', patched(good, [section + 1, 1])),
    fault('frequencies do not add up', patched(good, flip(section + 2))),
    fault('a frequency of 0', patched(good, [section + 2, 0], [section + 3, 0])),
    fault('block directory does not start at 0', patched(good, [directory, 1])),
    fault('block directory falls', patched(good, [directory + 4, 255], [directory + 5, 255])),
    fault('block directory ends elsewhere', patched(good, flip(directory + 8))),
    fault('initial state below 65,536', patched(good, [states + 2, 0], [states + 3, 0])),
    fault('initial state of another value', patched(good, flip(states))),
    fault('a word of another value', patched(good, flip(words, 0x40))),
    fault('LZ4 directory', patched(lz4, flipOf(lz4, block - 16))),
    fault('LZ4 length 0', patched(lz4, [block - 12, 0], [block - 11, 0])),
    fault('LZ4 offset 0', lz4Offset(lz4, block, 0)),
    fault('LZ4 offset before the block', lz4Offset(lz4, block, 0xffff)),
    fault('zstd magic', patched(zstd, [block, 0])),
    fault('zstd content size', patched(zstd, flipOf(zstd, block + 5))),
  ];
}

const flipOf = (bytes: Uint8Array, at: number): readonly [number, number] => [at, bytes[at]! ^ 1];

/** The offset of the first match of a block, replaced. */
function lz4Offset(stream: Uint8Array, block: number, offset: number): Uint8Array {
  let literals = stream[block]! >> 4;
  let at = block + 1;
  if (literals === 15) {
    let more: number;
    do {
      more = stream[at]!;
      literals += more;
      at += 1;
    } while (more === 255);
  }
  return patched(stream, [at + literals, offset & 255], [at + literals + 1, offset >>> 8]);
}

function allRaw(): Uint8Array {
  const bytes = new Uint8Array(256 + 256 + 200);
  const view = new DataView(bytes.buffer);
  bytes.set([0x49, 0x47, 0x43, 0x31, TRANSFORM.BG2, 0, 2, 0]);
  view.setUint32(8, 400, true);
  view.setUint32(12, bytes.length, true);
  for (const [at, offset] of [
    [64, 256],
    [80, 512],
  ] as const) {
    view.setUint32(at + 4, offset, true);
    view.setUint32(at + 8, 200, true);
  }
  return bytes;
}

export function codecFiles(): VectorFile[] {
  const note =
    'rawSum is the sum of the raw bytes, after the delta. A base has byte i = i modulo baseModulus. ' +
    'The zstd frames hold stored and repeated blocks.';
  return [{ structure: 'Stream', note, cases: [...everyCombination(), ...special(), ...malformed()] }];
}
