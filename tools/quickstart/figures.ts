// The table at the end: each figure beside the yardstick's, with the ratio and what each side did.
//
// Invariants
//   1. A ratio above 1 is better than the yardstick for rates, and worse for latencies; the table says which is which.

import type { Output } from '../cli/output.js';
import { formatRate } from '../cli/progress.js';

export interface Figure {
  readonly what: string;
  /** Bytes a second, or seconds. */
  readonly ours: number;
  readonly yardstick: number;
  readonly yardstickWhat: string;
  readonly unit: 'rate' | 'latency';
}

/** The middle value; of an even number the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2;
}

export function printFigures(out: Output, yardstick: string, figures: readonly Figure[]): void {
  const show = (value: number, unit: Figure['unit']): string =>
    unit === 'rate' ? formatRate(value) : `${(value * 1000).toFixed(2)} ms`;
  out.table(
    ['WHAT', 'INGOT', yardstick.toUpperCase(), 'RATIO', `WHAT ${yardstick.toUpperCase()} DID`],
    figures.map(({ what, ours, yardstick: other, yardstickWhat, unit }) => [
      what,
      show(ours, unit),
      show(other, unit),
      `${(ours / other).toFixed(2)}${unit === 'latency' ? ' (lower is better)' : ''}`,
      yardstickWhat,
    ]),
  );
}
