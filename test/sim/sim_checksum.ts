// CRC-64/NVME for the simulator, written apart from format/checksum.ts on purpose: the simulator
// is what the engine is judged by, so a slip in the product's sum must not be shared by its judge.
//
// Slicing by eight (Kounavis and Berry, 2005) over pairs of 32-bit halves.

const POLYNOMIAL_LOW = 0xac4bc9b5;
const POLYNOMIAL_HIGH = 0x9a6c9329;
const SLICES = 8;

const lowTable = new Int32Array(SLICES * 256);
const highTable = new Int32Array(SLICES * 256);

function fillTables(): void {
  for (let n = 0; n < 256; n += 1) {
    let low = n;
    let high = 0;
    for (let bit = 0; bit < 8; bit += 1) {
      const odd = low & 1;
      low = (low >>> 1) | (high << 31);
      high >>>= 1;
      if (odd === 1) {
        low ^= POLYNOMIAL_LOW;
        high ^= POLYNOMIAL_HIGH;
      }
    }
    lowTable[n] = low;
    highTable[n] = high;
  }
  for (let slice = 1; slice < SLICES; slice += 1) {
    for (let n = 0; n < 256; n += 1) {
      const low = lowTable[(slice - 1) * 256 + n]!;
      const high = highTable[(slice - 1) * 256 + n]!;
      const index = low & 0xff;
      lowTable[slice * 256 + n] = ((low >>> 8) | (high << 24)) ^ lowTable[index]!;
      highTable[slice * 256 + n] = (high >>> 8) ^ highTable[index]!;
    }
  }
}
fillTables();

/** CRC-64/NVME of `bytes`, continuing from `seed` (0n to start). */
export function simCrc64(bytes: Uint8Array, seed = 0n): bigint {
  let low = ~Number(seed & 0xffff_ffffn) | 0;
  let high = ~Number((seed >> 32n) & 0xffff_ffffn) | 0;
  const lows = lowTable;
  const highs = highTable;
  const end = bytes.length;
  let at = 0;
  for (; at + 8 <= end; at += 8) {
    const x = low ^ (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24));
    const y =
      high ^ (bytes[at + 4]! | (bytes[at + 5]! << 8) | (bytes[at + 6]! << 16) | (bytes[at + 7]! << 24));
    const a = 1792 + (x & 0xff);
    const b = 1536 + ((x >>> 8) & 0xff);
    const c = 1280 + ((x >>> 16) & 0xff);
    const d = 1024 + (x >>> 24);
    const e = 768 + (y & 0xff);
    const f = 512 + ((y >>> 8) & 0xff);
    const g = 256 + ((y >>> 16) & 0xff);
    const h = y >>> 24;
    low = lows[a]! ^ lows[b]! ^ lows[c]! ^ lows[d]! ^ lows[e]! ^ lows[f]! ^ lows[g]! ^ lows[h]!;
    high = highs[a]! ^ highs[b]! ^ highs[c]! ^ highs[d]! ^ highs[e]! ^ highs[f]! ^ highs[g]! ^ highs[h]!;
  }
  for (; at < end; at += 1) {
    const index = (low ^ bytes[at]!) & 0xff;
    low = ((low >>> 8) | (high << 24)) ^ lows[index]!;
    high = (high >>> 8) ^ highs[index]!;
  }
  return (BigInt(~high >>> 0) << 32n) | BigInt(~low >>> 0);
}
