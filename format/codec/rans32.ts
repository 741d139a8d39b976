// RANS32 in plain arithmetic: the oracle of the faster decoders (spec/codecs.md section 5).
//
// Invariants
//   1. decodeRans32 gives the plane's bytes or E_FORMAT; it reads only the section.
//   2. encodeRans32 gives the same section as the native encoder: the choice of frequencies, padding and
//      words is fixed by section 5.3.
//   3. States are unsigned 32-bit numbers; products stay below 2^53.

import { readU16, readU32, refuse, type FormatContext } from '../binary.js';
import { assert } from '../errors.js';
import { roundUp, STATE_ALIGNMENT_BYTES, WORD_ALIGNMENT_BYTES } from './ids.js';
import type { StreamPlane } from './stream.js';

const LANES = 32;
const LANE_RUN = 8;
const GROUP_SYMBOLS = LANES * LANE_RUN;
const PROBABILITY_BITS = 11;
const SLOTS = 1 << PROBABILITY_BITS;
const STATE_LOW = 0x1_0000;
const WORDS_IN_UNIT = WORD_ALIGNMENT_BYTES / 2;
const TABLE_ENTRY_BYTES = 4;

/** Frequencies that add up to 2,048, at least 1 for each byte that occurs; at least two do. */
export function normaliseFrequencies(counts: Uint32Array): Uint16Array {
  const total = counts.reduce((sum, count) => sum + count, 0);
  const frequencies = new Uint16Array(256);
  let sum = 0;
  for (let symbol = 0; symbol < 256; symbol += 1) {
    if (counts[symbol] === 0) continue;
    const share = Math.floor((counts[symbol]! * SLOTS + Math.floor(total / 2)) / total);
    frequencies[symbol] = Math.max(1, share);
    sum += frequencies[symbol]!;
  }
  while (sum !== SLOTS) {
    const change = sum < SLOTS ? 1 : -1;
    let best = -1;
    for (let symbol = 0; symbol < 256; symbol += 1) {
      const frequency = frequencies[symbol]!;
      if (frequency === 0 || (change < 0 && frequency === 1)) continue;
      if (best < 0) {
        best = symbol;
        continue;
      }
      // count / (2 f + change), compared crosswise: 2^26 x 2^12 fits a double exactly.
      const mine = counts[symbol]! * (2 * frequencies[best]! + change);
      const other = counts[best]! * (2 * frequency + change);
      if (change > 0 ? mine > other : mine < other) best = symbol;
    }
    assert(best >= 0, 'some frequency can change');
    frequencies[best] = frequencies[best]! + change;
    sum += change;
  }
  return frequencies;
}

interface Layout {
  readonly blockCount: number;
  readonly directoryAt: number;
  readonly statesAt: number;
  readonly wordsAt: number;
}
function layoutOf(symbolCount: number, elementCount: number, blockShift: number): Layout {
  const blockCount = Math.ceil(elementCount / 2 ** blockShift);
  const directoryAt = roundUp(symbolCount * TABLE_ENTRY_BYTES, WORD_ALIGNMENT_BYTES);
  const statesAt = roundUp(directoryAt + 4 * (blockCount + 1), STATE_ALIGNMENT_BYTES);
  return { blockCount, directoryAt, statesAt, wordsAt: statesAt + 4 * LANES * blockCount };
}

/** The whole section for a plane with at least two different bytes. */
export function encodeRans32(
  plane: Uint8Array,
  blockShift: number,
): { section: Uint8Array; symbolCount: number } {
  const counts = new Uint32Array(256);
  for (const symbol of plane) counts[symbol] = counts[symbol]! + 1;
  const frequencies = normaliseFrequencies(counts);
  const starts = new Uint16Array(256);
  let start = 0;
  let padding = 0;
  let symbolCount = 0;
  for (let symbol = 0; symbol < 256; symbol += 1) {
    starts[symbol] = start;
    start += frequencies[symbol]!;
    if (frequencies[symbol]! > 0) symbolCount += 1;
    if (frequencies[symbol]! > frequencies[padding]!) padding = symbol;
  }
  assert(symbolCount >= 2, 'a plane of one byte is CONST');
  const layout = layoutOf(symbolCount, plane.byteLength, blockShift);
  const blocks: { states: Uint32Array; words: Uint16Array }[] = [];
  for (let block = 0; block < layout.blockCount; block += 1) {
    const symbols = plane.subarray(block << blockShift, (block + 1) << blockShift);
    blocks.push(encodeBlock(symbols, frequencies, starts, padding));
  }
  const units = blocks.map(({ words }) => Math.ceil(words.length / WORDS_IN_UNIT));
  const total = units.reduce((sum, count) => sum + count, 0);
  const section = new Uint8Array(layout.wordsAt + total * WORD_ALIGNMENT_BYTES);
  const view = new DataView(section.buffer);
  let at = 0;
  for (let symbol = 0; symbol < 256; symbol += 1) {
    if (frequencies[symbol] === 0) continue;
    view.setUint8(at, symbol);
    view.setUint16(at + 2, frequencies[symbol]!, true);
    at += TABLE_ENTRY_BYTES;
  }
  let unit = 0;
  for (const [index, { states, words }] of blocks.entries()) {
    for (let lane = 0; lane < LANES; lane += 1)
      view.setUint32(layout.statesAt + 4 * (index * LANES + lane), states[lane]!, true);
    for (let word = 0; word < words.length; word += 1)
      view.setUint16(layout.wordsAt + unit * WORD_ALIGNMENT_BYTES + 2 * word, words[word]!, true);
    unit += units[index]!;
    view.setUint32(layout.directoryAt + 4 * (index + 1), unit, true);
  }
  return { section, symbolCount };
}

function encodeBlock(
  symbols: Uint8Array,
  frequencies: Uint16Array,
  starts: Uint16Array,
  padding: number,
): { states: Uint32Array; words: Uint16Array } {
  const groupCount = Math.ceil(symbols.length / GROUP_SYMBOLS);
  const words = new Uint16Array(groupCount * GROUP_SYMBOLS);
  let top = words.length;
  const states = new Uint32Array(LANES).fill(STATE_LOW);
  for (let group = groupCount - 1; group >= 0; group -= 1) {
    for (let step = LANE_RUN - 1; step >= 0; step -= 1) {
      for (let lane = LANES - 1; lane >= 0; lane -= 1) {
        const symbol = symbols[group * GROUP_SYMBOLS + lane * LANE_RUN + step] ?? padding;
        const frequency = frequencies[symbol]!;
        let state = states[lane]!;
        if (state >= frequency * 2 ** (32 - PROBABILITY_BITS)) {
          top -= 1;
          words[top] = state;
          state >>>= 16;
        }
        states[lane] = Math.floor(state / frequency) * SLOTS + (state % frequency) + starts[symbol]!;
      }
    }
  }
  return { states, words: words.subarray(top) };
}

/** The plane's bytes. Errors: E_FORMAT. */
export function decodeRans32(
  section: Uint8Array,
  plane: StreamPlane,
  elementCount: number,
  where?: FormatContext,
): Uint8Array {
  const bad = (field: string, problem: string): never => refuse(where, 'RANS32', field, problem);
  const layout = layoutOf(plane.symbolCount, elementCount, plane.blockShift);
  if (layout.wordsAt > section.byteLength) bad('section', `has only ${section.byteLength} bytes`);
  const table = readTable(section, plane.symbolCount, bad);
  const unitAt = (index: number): number => readU32(section, layout.directoryAt + 4 * index);
  if (unitAt(0) !== 0) bad('directory', 'does not start at 0');
  for (let block = 0; block < layout.blockCount; block += 1)
    if (unitAt(block + 1) < unitAt(block)) bad('directory', `falls at block ${block}`);
  const end = layout.wordsAt + unitAt(layout.blockCount) * WORD_ALIGNMENT_BYTES;
  if (end !== section.byteLength) bad('directory', `ends at ${end} of ${section.byteLength}`);
  const out = new Uint8Array(elementCount);
  for (let block = 0; block < layout.blockCount; block += 1) {
    const states = new Uint32Array(LANES);
    for (let lane = 0; lane < LANES; lane += 1) {
      states[lane] = readU32(section, layout.statesAt + 4 * (block * LANES + lane));
      if (states[lane]! < STATE_LOW) bad('state', `of block ${block}, lane ${lane} is ${states[lane]}`);
    }
    const first = layout.wordsAt + unitAt(block) * WORD_ALIGNMENT_BYTES;
    const last = layout.wordsAt + unitAt(block + 1) * WORD_ALIGNMENT_BYTES;
    const target = out.subarray(block << plane.blockShift, (block + 1) << plane.blockShift);
    decodeBlock(section.subarray(first, last), states, table, target, (problem) =>
      bad('words', `block ${block} ${problem}`),
    );
  }
  return out;
}

/** symbol | frequency << 8 | (slot - start) << 20 would not fit an int for all; three arrays do. */
interface DecodeTable {
  readonly symbols: Uint8Array;
  readonly frequencies: Uint16Array;
  readonly biases: Uint16Array;
}
function readTable(
  section: Uint8Array,
  symbolCount: number,
  bad: (field: string, problem: string) => never,
): DecodeTable {
  const symbols = new Uint8Array(SLOTS);
  const frequencies = new Uint16Array(SLOTS);
  const biases = new Uint16Array(SLOTS);
  let slot = 0;
  let previous = -1;
  for (let index = 0; index < symbolCount; index += 1) {
    const at = index * TABLE_ENTRY_BYTES;
    const symbol = section[at]!;
    const frequency = readU16(section, at + 2);
    if (symbol <= previous || section[at + 1] !== 0) bad('table', `entry ${index} breaks the order`);
    if (frequency === 0 || frequency >= SLOTS || slot + frequency > SLOTS)
      bad('table', `frequency ${frequency} of symbol ${symbol}`);
    previous = symbol;
    for (let bias = 0; bias < frequency; bias += 1) {
      symbols[slot] = symbol;
      frequencies[slot] = frequency;
      biases[slot] = bias;
      slot += 1;
    }
  }
  if (slot !== SLOTS) bad('table', `frequencies add up to ${slot}`);
  return { symbols, frequencies, biases };
}

function decodeBlock(
  words: Uint8Array,
  states: Uint32Array,
  table: DecodeTable,
  out: Uint8Array,
  bad: (problem: string) => never,
): void {
  const { symbols, frequencies, biases } = table;
  const groupCount = Math.ceil(out.byteLength / GROUP_SYMBOLS);
  let at = 0;
  for (let group = 0; group < groupCount; group += 1) {
    for (let step = 0; step < LANE_RUN; step += 1) {
      for (let lane = 0; lane < LANES; lane += 1) {
        const state = states[lane]!;
        const slot = state & (SLOTS - 1);
        // A store beyond the end of `out` (padding) is dropped by the array itself.
        out[group * GROUP_SYMBOLS + lane * LANE_RUN + step] = symbols[slot]!;
        let next = frequencies[slot]! * (state >>> PROBABILITY_BITS) + biases[slot]!;
        if (next < STATE_LOW) {
          if (at + 2 > words.byteLength) bad('runs past its words');
          next = next * 0x1_0000 + words[at]! + words[at + 1]! * 256;
          at += 2;
        }
        states[lane] = next;
      }
    }
  }
  if (roundUp(at, WORD_ALIGNMENT_BYTES) !== words.byteLength) bad(`used ${at} of ${words.byteLength} bytes`);
  for (const state of states) if (state !== STATE_LOW) bad(`ends in state ${state}`);
}
