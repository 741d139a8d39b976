// zstd frames of stored and repeated blocks only (RFC 8878), for vectors: no library, same bytes always.
//
// Invariants
//   1. What encodeSimpleZstd writes is a valid frame for every zstd decoder; the native tests read it with libzstd.
//   2. decodeSimpleZstd reads such frames and nothing else; it is no zstd decoder.

const MAGIC = [0x28, 0xb5, 0x2f, 0xfd];
/** Single segment, content size in 4 bytes, no checksum, no dictionary. */
const DESCRIPTOR = 0b1010_0000;
const BLOCK_RAW = 0;
const BLOCK_RLE = 1;
const BLOCK_BYTES_MAX = 131_072;

export function encodeSimpleZstd(raw: Uint8Array): Uint8Array {
  const out: number[] = [...MAGIC, DESCRIPTOR];
  for (let byte = 0; byte < 4; byte += 1) out.push((raw.byteLength >>> (8 * byte)) & 255);
  for (let at = 0; at < raw.byteLength; ) {
    let run = 1;
    while (at + run < raw.byteLength && run < BLOCK_BYTES_MAX && raw[at + run] === raw[at]) run += 1;
    let length = run;
    if (run < 8) {
      // Literals up to the next run of eight.
      length = 0;
      const repeated = (from: number): boolean =>
        raw.subarray(from, from + 8).every((byte) => byte === raw[from]);
      while (at + length < raw.byteLength && length < BLOCK_BYTES_MAX) {
        if (at + length + 8 <= raw.byteLength && repeated(at + length)) break;
        length += 1;
      }
    }
    const last = at + length === raw.byteLength ? 1 : 0;
    const kind = run < 8 ? BLOCK_RAW : BLOCK_RLE;
    const head = last | (kind << 1) | (length << 3);
    out.push(head & 255, (head >>> 8) & 255, (head >>> 16) & 255);
    if (kind === BLOCK_RLE) out.push(raw[at]!);
    else out.push(...raw.subarray(at, at + length));
    at += length;
  }
  return Uint8Array.from(out);
}

/** The bytes, or null when this is no such frame of exactly `rawBytes`. */
export function decodeSimpleZstd(frame: Uint8Array, rawBytes: number): Uint8Array | null {
  const head = [...MAGIC, DESCRIPTOR];
  for (let byte = 0; byte < 4; byte += 1) head.push((rawBytes >>> (8 * byte)) & 255);
  if (head.some((byte, index) => frame[index] !== byte)) return null;
  const out = new Uint8Array(rawBytes);
  let at = head.length;
  let written = 0;
  for (;;) {
    if (at + 3 > frame.byteLength) return null;
    const block = frame[at]! | (frame[at + 1]! << 8) | (frame[at + 2]! << 16);
    at += 3;
    const length = block >>> 3;
    const kind = (block >>> 1) & 3;
    const held = kind === BLOCK_RLE ? 1 : length;
    if (kind > BLOCK_RLE || written + length > rawBytes || at + held > frame.byteLength) return null;
    if (kind === BLOCK_RLE) out.fill(frame[at]!, written, written + length);
    else out.set(frame.subarray(at, at + length), written);
    at += held;
    written += length;
    if ((block & 1) === 1) return at === frame.byteLength && written === rawBytes ? out : null;
  }
}
