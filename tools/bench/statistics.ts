// The arithmetic of a comparison: medians, ratios pair by pair, and orders drawn from a seed.
//
// Invariants
//   1. A ratio is taken within one pair, whose two runs were next to each other in time; the figure reported is the
//      median of those ratios, never the ratio of two averages.
//   2. Every order is drawn from a seed that is part of the report.
//
// It measures nothing.

export interface Spread {
  readonly median: number;
  readonly least: number;
  readonly most: number;
  readonly count: number;
}

/** The middle value, or the mean of the two in the middle. NaN for none. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

export function spread(values: readonly number[]): Spread {
  return {
    median: median(values),
    least: Math.min(...values),
    most: Math.max(...values),
    count: values.length,
  };
}

/**
 * Bounds that hold the median with at least 95 %: the order statistics that the binomial distribution of "below the
 * median" allows (no shape of the values is assumed). Least and most of fewer than six values.
 */
export function medianInterval(values: readonly number[]): { readonly low: number; readonly high: number } {
  const sorted = [...values].sort((a, b) => a - b);
  const count = sorted.length;
  let tail = 0;
  let term = 0.5 ** count;
  let rank = 0;
  // The largest rank whose outside has at most 2.5 % on either side.
  for (; rank < count / 2 && tail + term <= 0.025; rank += 1) {
    tail += term;
    term = (term * (count - rank)) / (rank + 1);
  }
  const place = Math.max(rank - 1, 0);
  return { low: sorted[place] ?? Number.NaN, high: sorted[count - 1 - place] ?? Number.NaN };
}

/** Ours over theirs, pair by pair. The lists are of one length. */
export function pairRatios(ours: readonly number[], theirs: readonly number[]): number[] {
  if (ours.length !== theirs.length) throw new RangeError('pairs need as many runs on either side');
  return ours.map((value, index) => value / (theirs[index] ?? Number.NaN));
}

/** Numbers in [0, 1) that follow from a seed (mulberry32, Tommy Ettinger). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A new list in an order drawn from `random` (Fisher and Yates). */
export function shuffled<T>(items: readonly T[], random: () => number): T[] {
  const list = [...items];
  for (let last = list.length - 1; last > 0; last -= 1) {
    const chosen = Math.floor(random() * (last + 1));
    [list[last], list[chosen]] = [list[chosen] as T, list[last] as T];
  }
  return list;
}

/** Bytes and milliseconds as GB/s; GB is 10^9. */
export function gigabytesPerSecond(bytes: number, durationMs: number): number {
  return bytes / durationMs / 1e6;
}

/** Up to three significant places, for tables. */
export function rounded(value: number): number {
  if (!Number.isFinite(value) || Math.abs(value) >= 1_000) return Math.round(value);
  return Number(value.toPrecision(3));
}
