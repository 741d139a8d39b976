// LZ4 blocks in plain TypeScript: a total decoder, and an encoder that is small rather than good.
//
// The format is that of the LZ4 block specification (Yann Collet): token, literals, 2-byte offset,
// match of at least 4; the last 5 bytes are literals and no match starts in the last 12.
//
// Invariants
//   1. decodeLz4Block gives exactly rawBytes bytes or null; it reads and writes nothing else.
//   2. encodeLz4Block's blocks are decodable by every LZ4 decoder.

const MIN_MATCH = 4;
const LAST_LITERALS = 5;
const MATCH_LIMIT = 12;
const WINDOW_BYTES = 65_535;
const HASH_BITS = 14;

/** The bytes, or null when the block does not decode to exactly `rawBytes`. */
export function decodeLz4Block(block: Uint8Array, rawBytes: number): Uint8Array | null {
  const out = new Uint8Array(rawBytes);
  let at = 0;
  let written = 0;
  const length = (nibble: number): number => {
    let total = nibble;
    if (nibble !== 15) return total;
    for (;;) {
      if (at >= block.byteLength) return -1;
      const more = block[at]!;
      at += 1;
      total += more;
      if (total > rawBytes) return -1;
      if (more !== 255) return total;
    }
  };
  while (at < block.byteLength) {
    const token = block[at]!;
    at += 1;
    const literals = length(token >>> 4);
    if (literals < 0 || at + literals > block.byteLength || written + literals > rawBytes) return null;
    out.set(block.subarray(at, at + literals), written);
    at += literals;
    written += literals;
    if (at === block.byteLength) return written === rawBytes ? out : null;
    // The last match starts at least twelve bytes before the end.
    if (written > rawBytes - MATCH_LIMIT) return null;
    if (at + 2 > block.byteLength) return null;
    const distance = block[at]! | (block[at + 1]! << 8);
    at += 2;
    const extra = length(token & 15);
    if (extra < 0 || distance === 0 || distance > written) return null;
    const match = extra + MIN_MATCH;
    // The format keeps the last five bytes literal, so a match never reaches the end.
    if (written + match > rawBytes - LAST_LITERALS) return null;
    for (let i = 0; i < match; i += 1) out[written + i] = out[written + i - distance]!;
    written += match;
  }
  return null;
}

/** A block that decodes to `raw`, or null when it would not be shorter. */
export function encodeLz4Block(raw: Uint8Array): Uint8Array | null {
  const out = new Uint8Array(raw.byteLength);
  const heads = new Int32Array(1 << HASH_BITS).fill(-1);
  let at = 0;
  let written = 0;
  let anchor = 0;
  const word = (i: number): number =>
    (raw[i]! | (raw[i + 1]! << 8) | (raw[i + 2]! << 16) | (raw[i + 3]! << 24)) >>> 0;
  const putLength = (value: number): void => {
    for (let left = value - 15; left >= 0; left -= 255) {
      out[written] = Math.min(255, left);
      written += 1;
    }
  };
  const emit = (literals: number, match: number, distance: number): boolean => {
    const bound = 1 + literals + literals / 255 + 1 + 2 + match / 255 + 1;
    if (written + bound >= raw.byteLength) return false;
    out[written] = (Math.min(15, literals) << 4) | (match === 0 ? 0 : Math.min(15, match - MIN_MATCH));
    written += 1;
    putLength(literals);
    out.set(raw.subarray(anchor, anchor + literals), written);
    written += literals;
    if (match === 0) return true;
    out[written] = distance & 255;
    out[written + 1] = distance >>> 8;
    written += 2;
    putLength(match - MIN_MATCH);
    return true;
  };
  while (at + MATCH_LIMIT <= raw.byteLength) {
    const here = word(at);
    const slot = Math.imul(here, 2_654_435_761) >>> (32 - HASH_BITS);
    const candidate = heads[slot]!;
    heads[slot] = at;
    if (candidate < 0 || at - candidate > WINDOW_BYTES || word(candidate) !== here) {
      at += 1;
      continue;
    }
    let match = MIN_MATCH;
    const limit = raw.byteLength - LAST_LITERALS - at;
    while (match < limit && raw[candidate + match] === raw[at + match]) match += 1;
    if (!emit(at - anchor, match, at - candidate)) return null;
    at += match;
    anchor = at;
  }
  return emit(raw.byteLength - anchor, 0, 0) ? out.slice(0, written) : null;
}
