// A fresh process that opens a large store, looks versions up, and says how long that took.
//
// Invariants
//   1. The store is opened once, first thing after the modules are loaded: nothing is compiled or cached.
//   2. The first pass of look-ups meets cold pages; the rate reported beside it is that of the best later pass.
//
// It answers one message and ends.

import { open } from '../../engine/index.js';
import { seededRandom } from './statistics.js';

const PASSES = 4;

export interface ProbeQuestion {
  readonly directory: string;
  readonly runs: Uint16Array;
  readonly seed: number;
  readonly lookups: number;
  /** Bytes of catalog pages that the store keeps in memory; null: its default. */
  readonly cacheBytes: number | null;
}
export interface ProbeResult {
  readonly openMs: number;
  readonly coldLookupsPerSecond: number;
  readonly lookupsPerSecond: number;
  /** The same in the process's own processor time: what a machine busy with other work takes is left out. */
  readonly lookupsPerCoreSecond: number;
  readonly passes: number;
}

async function answer({ directory, runs, seed, lookups, cacheBytes }: ProbeQuestion): Promise<ProbeResult> {
  const startMs = performance.now();
  const store = await open(directory, { mode: 'rw', ...(cacheBytes === null ? {} : { cacheBytes }) });
  const openMs = performance.now() - startMs;
  const random = seededRandom(seed);
  const refs = Array.from({ length: lookups }, () => {
    const step = Math.floor(random() * runs.length);
    return `group/run-${String(runs[step] ?? 0).padStart(4, '0')}@${step}`;
  });
  const rates: number[] = [];
  const coreRates: number[] = [];
  for (let pass = 0; pass < PASSES && lookups > 0; pass += 1) {
    const passMs = performance.now();
    const cpu = process.cpuUsage();
    for (const ref of refs) {
      const found = store.lookup(ref);
      if (found instanceof Promise) await found;
    }
    rates.push(lookups / ((performance.now() - passMs) / 1e3));
    const { user, system } = process.cpuUsage(cpu);
    coreRates.push(lookups / ((user + system) / 1e6));
  }
  await store.close();
  const [cold = 0, ...warm] = rates;
  return {
    openMs,
    coldLookupsPerSecond: cold,
    lookupsPerSecond: Math.max(0, ...warm),
    lookupsPerCoreSecond: Math.max(0, ...coreRates.slice(1)),
    passes: warm.length,
  };
}

process.once('message', (question: ProbeQuestion) => {
  answer(question)
    .then(
      (result) => process.send?.(result),
      (error: unknown) => process.send?.({ error: String(error) }),
    )
    .finally(() => process.disconnect());
});
