// The only source of chance in the simulator: one seed, one stream, the same on every machine.
//
// Invariants
//   1. Equal seeds give equal streams. Nothing here reads a clock or Math.random.
//   2. `fork` gives an independent stream, so that a new consumer does not shift the old ones.
//
// The generator is sfc32 (Chris Doty-Humphrey, PractRand), seeded through splitmix32.

/** A seeded stream of numbers. Not for secrets. */
export class Prng {
  private a = 0;
  private b = 0;
  private c = 0;
  private counter = 1;
  readonly seed: number;

  constructor(seed: number) {
    this.seed = seed;
    let state = (seed ^ Math.floor(seed / 0x1_0000_0000)) >>> 0;
    const split = (): number => {
      state = (state + 0x9e3779b9) >>> 0;
      let z = state;
      z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
      z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
      return (z ^ (z >>> 15)) >>> 0;
    };
    this.a = split();
    this.b = split();
    this.c = split();
    for (let i = 0; i < 12; i += 1) this.u32();
  }

  /** Uniform 32-bit integer. */
  u32(): number {
    const sum = (((this.a + this.b) | 0) + this.counter) | 0;
    this.counter = (this.counter + 1) | 0;
    this.a = this.b ^ (this.b >>> 9);
    this.b = (this.c + (this.c << 3)) | 0;
    this.c = (((this.c << 21) | (this.c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }

  /** Uniform in [0, 1). */
  unit(): number {
    return this.u32() / 0x1_0000_0000;
  }

  /** Uniform integer in [0, bound), bound <= 2^32. */
  below(bound: number): number {
    return Math.floor(this.unit() * bound);
  }

  /** Uniform integer in [low, high]. */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  chance(probability: number): boolean {
    return probability > 0 && this.unit() < probability;
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.below(items.length)];
    if (item === undefined) throw new RangeError('pick from an empty list');
    return item;
  }

  bytes(count: number): Uint8Array {
    const out = new Uint8Array(count);
    let at = 0;
    for (; at + 4 <= count; at += 4) {
      const word = this.u32();
      out[at] = word;
      out[at + 1] = word >>> 8;
      out[at + 2] = word >>> 16;
      out[at + 3] = word >>> 24;
    }
    for (; at < count; at += 1) out[at] = this.u32();
    return out;
  }

  /** A copy in which about one 16-bit number of `every` has another lowest bit: what a step of training does. */
  stepped(bytes: Uint8Array, every: number): Uint8Array {
    const after = bytes.slice();
    for (let at = this.below(every); 2 * at + 1 < after.length; at += 1 + this.below(2 * every))
      after[2 * at] = after[2 * at]! ^ 1;
    return after;
  }

  /** Bytes of bf16 numbers: exponents as uneven as a model's, signs and mantissas noise. A codec takes a third off. */
  weights(count: number): Uint8Array {
    const out = new Uint8Array(count);
    for (let at = 0; at < count; at += 2) {
      const word = this.u32();
      const code = ((word & 0x80) << 8) | ((120 - Math.clz32(word | 0x1000)) << 7) | (word & 0x7f);
      out[at] = code;
      if (at + 1 < count) out[at + 1] = code >>> 8;
    }
    return out;
  }

  fork(): Prng {
    return new Prng(this.u32());
  }
}
