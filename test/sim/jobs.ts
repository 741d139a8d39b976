// Long-running checks as plain data, so that tests, the command line and worker threads run the same thing.
//
// Workers matter twice: they use both cores, and the test runner's async hooks slow every promise of its own
// thread several times over.
//
// Invariants
//   1. A job is a function of its data: the line that reports a violation is enough to replay it.
//   2. A worker that ends without a report is a violation (a promise that never settled ends a worker silently).

import { Worker } from 'node:worker_threads';
import { type EveryBitReport, turnBits } from '../crash/every_bit.js';
import { buildHistory, misplace, type MisplacedReport } from '../crash/misplaced.js';
import { rot, rotTarget, type RotReport } from '../crash/bit_rot.js';
import { errorText, Explorer, freshImage, workloads } from '../crash/explorer.js';
import { sweep, type SweepReport } from '../crash/fault_sweep.js';
import { DELTA_OPS, SMALL_OPS, storeTarget } from '../crash/store_target.js';
import { Prng } from './prng.js';
import type { FaultRule } from './sim_faults.js';
import { Simulation } from './simulation.js';
import { smallShape } from './store_session.js';

export type Job =
  /** Workloads of `length` operations (all of them, or `sample` drawn ones), crashed everywhere. */
  | {
      readonly kind: 'explore';
      readonly members: number;
      readonly length: number;
      readonly sample?: number;
      /** Of all workloads only every `count`th, from the one at `index` on. */
      readonly shard?: { readonly index: number; readonly count: number };
      readonly creation?: boolean;
      readonly damages: number;
      readonly recoveryDepth: number;
      readonly recoveryEvery: number;
      readonly seed: number;
      readonly budgetMs?: number;
      /** One workload: coded versions and differences to them (DELTA_OPS). */
      readonly deltas?: boolean;
      readonly encrypted?: boolean;
    }
  | {
      readonly kind: 'sweep';
      readonly members: number;
      readonly rule: Omit<FaultRule, 'nth'>;
      readonly seed: number;
      readonly stride: number;
      /** Coded versions and differences to them (DELTA_OPS) instead of raw ones. */
      readonly deltas?: boolean;
    }
  | {
      readonly kind: 'rot';
      readonly members: number;
      readonly flips: number;
      readonly seed: number;
      readonly onlyRead: boolean;
    }
  /** Lost, stale, misdirected and swapped writes, in turn. */
  | { readonly kind: 'misplace'; readonly members: number; readonly count: number; readonly seed: number }
  /** Bit `from`, `from + stride`, .. of every block of a store on two members. */
  | { readonly kind: 'bits'; readonly from: number; readonly stride: number; readonly seed: number }
  /** Random histories; `twice` runs each again and compares the hashes; `raw` leaves codecs out, `encrypted` seals. */
  | {
      readonly kind: 'simulate';
      readonly from: number;
      readonly count: number;
      readonly twice?: boolean;
      readonly raw?: boolean;
      readonly encrypted?: boolean;
    }
  /** One history `times` times over; `planted`: with drives that forget their flushes, so that it has to fail. */
  | { readonly kind: 'replay'; readonly seed: number; readonly times: number; readonly planted?: boolean };

export interface JobReport {
  readonly job: Job;
  readonly counts: Readonly<Record<string, number>>;
  readonly violations: readonly string[];
  readonly durationMs: number;
  /** Of a single seed: the hashes that a replay must give. */
  readonly note?: string;
}

const VIOLATIONS_MAX = 5;
/** Most of what a simulation makes is dropped at once: a large nursery spares the collector looking at it twice. */
const YOUNG_GENERATION_MIB = 96;
/** Virtual time that a hanging request takes in the sweep. */
const HANG_MS = 10_000;

/** What sweeps work on: extents with sum leaves, inline tensors, a removal; what is put stays linked, so it is read. */
const SWEEP_OPS = [1, 4, 0, 3].map((index) => SMALL_OPS[index]!);
const ROT_OPS = [1, 0, 5, 2, 4].map((index) => SMALL_OPS[index]!);

/** Every error rule of the k-th I/O sweep. */
export function sweepRules(): Omit<FaultRule, 'nth'>[] {
  const rules: Omit<FaultRule, 'nth'>[] = [];
  for (const sticky of [false, true]) {
    // EAGAIN and EINTR are tried again by the port: once, nobody notices; for ever, they are failures like the others.
    for (const errno of [5, 28, 11, 4]) rules.push({ operation: 'write', action: 'errno', errno, sticky });
    for (const action of ['short', 'zero', 'late'] as const)
      rules.push({ operation: 'write', action, sticky });
    for (const action of ['errno', 'late'] as const) rules.push({ operation: 'flush', action, sticky });
    for (const errno of [5, 11, 4]) rules.push({ operation: 'read', action: 'errno', errno, sticky });
    for (const action of ['short', 'zero', 'flip'] as const)
      rules.push({ operation: 'read', action, sticky });
    // Slow, not failed: the request stays in flight until it is reaped, and what it wrote is there.
    for (const operation of ['read', 'write', 'flush'] as const)
      rules.push({ operation, action: 'hang', hangMs: HANG_MS, sticky });
  }
  return rules;
}

/**
 * What a report must show to count as a proof, as sentences about what is missing: violations that nobody looked for
 * are not found. A job that a budget or a busy machine cut short still judged this much, or it proved nothing.
 */
export function shortfalls({ job, counts }: JobReport): string[] {
  const least: Readonly<Record<string, number>> = leastCounts(job);
  return Object.entries(least)
    .filter(([name, count]) => (counts[name] ?? 0) < count)
    .map(([name, count]) => `${JSON.stringify(job)}: ${name} ${counts[name] ?? 0}, at least ${count} wanted`);
}

function leastCounts(job: Job): Readonly<Record<string, number>> {
  switch (job.kind) {
    case 'explore':
      return { workloads: 1, crashPoints: 10, judged: job.budgetMs === undefined ? 20 : 10 };
    case 'sweep':
      // Flushes are few; a long stride meets few of them.
      return { runs: 1, fired: job.rule.operation === 'flush' || job.stride > 8 ? 1 : 3, images: 4 };
    case 'rot':
      return { flips: job.flips, detected: 1 };
    case 'misplace':
      return { lost: 1, stale: 1, misdirected: 1, swapped: 1, detected: Math.min(job.count, 10) };
    case 'bits':
      return { runs: 1, turned: 100, detected: 100 };
    case 'simulate':
      return { seeds: job.count };
    case 'replay':
      return { replays: job.times };
  }
}

export async function runJob(job: Job): Promise<JobReport> {
  const startedAt = performance.now();
  const done = (counts: Record<string, number>, violations: readonly string[]): JobReport => ({
    job,
    counts,
    violations,
    durationMs: performance.now() - startedAt,
  });
  switch (job.kind) {
    case 'explore': {
      const report = await explore(job);
      const { violations, ...counts } = report;
      return done(
        counts,
        violations.map((each) => `${each.workload} seed ${each.seed} image ${each.image}: ${each.what}`),
      );
    }
    case 'sweep': {
      const report: SweepReport = { runs: 0, fired: 0, poisoned: 0, images: 0, reverted: 0, violations: [] };
      const shape = smallShape(job.members);
      const base = await freshImage(storeTarget(shape), job.seed);
      const ops = job.deltas === true ? DELTA_OPS : SWEEP_OPS;
      await sweep({ shape, base, ops, rule: job.rule, seed: job.seed, stride: job.stride }, report);
      const { violations, ...counts } = report;
      return done(counts, violations);
    }
    case 'rot': {
      const report: RotReport = { flips: 0, detected: 0, harmless: 0, refused: 0, violations: [] };
      const shape = smallShape(job.members);
      const target = await rotTarget(shape, await freshImage(storeTarget(shape), job.seed), ROT_OPS);
      await rot(target, job.flips, job.seed, report, job.onlyRead);
      const { violations, ...counts } = report;
      return done(counts, violations);
    }
    case 'misplace': {
      const report: MisplacedReport = {
        ...{ lost: 0, stale: 0, misdirected: 0, swapped: 0, superblock: 0, changed: 0, detected: 0 },
        violations: [],
      };
      const shape = smallShape(job.members);
      const history = await buildHistory(shape, await freshImage(storeTarget(shape), job.seed), ROT_OPS);
      await misplace(history, job.count, job.seed, report);
      const { violations, ...counts } = report;
      return done(counts, violations);
    }
    case 'bits': {
      const report: EveryBitReport = { runs: 0, turned: 0, detected: 0, violations: [] };
      const shape = smallShape(2);
      const history = await buildHistory(shape, await freshImage(storeTarget(shape), job.seed), ROT_OPS);
      await turnBits(history, job.from, job.stride, report);
      const { violations, ...counts } = report;
      return done(counts, violations);
    }
    case 'simulate':
      return simulate(job, done);
    case 'replay':
      return replay(job, done);
  }
}

async function explore(job: Job & { kind: 'explore' }): Promise<Explorer<unknown>['report']> {
  const shape = smallShape(job.members);
  const target = storeTarget(job.encrypted === true ? { ...shape, encrypted: true } : shape);
  const explorer = new Explorer(target, {
    seed: job.seed,
    randomDamages: job.damages,
    recoveryDepth: job.recoveryDepth,
    recoveryEvery: job.recoveryEvery,
    ...(job.budgetMs === undefined ? {} : { budgetMs: job.budgetMs }),
  });
  if (job.creation === true) await explorer.creation();
  const base = await freshImage(target, job.seed);
  let all = job.deltas === true ? [DELTA_OPS] : [...workloads(SMALL_OPS, job.length)];
  if (job.sample !== undefined) {
    const prng = new Prng(job.seed);
    const longest = all.filter((ops) => ops.length === job.length);
    all = Array.from({ length: job.sample }, () => prng.pick(longest));
  }
  for (const [number, ops] of all.entries()) {
    if (explorer.stopped) break;
    if (job.shard !== undefined && number % job.shard.count !== job.shard.index) continue;
    await explorer.workload(base, ops);
  }
  return explorer.report;
}

async function simulate(
  job: Job & { kind: 'simulate' },
  done: (counts: Record<string, number>, violations: readonly string[]) => JobReport,
): Promise<JobReport> {
  const counts: Record<string, number> = {
    seeds: 0,
    operations: 0,
    acknowledged: 0,
    failed: 0,
    crashes: 0,
    kills: 0,
    losses: 0,
    memberOperations: 0,
    healed: 0,
    faultsFired: 0,
    writesSpoilt: 0,
    judgements: 0,
    operationsJudged: 0,
    ioCount: 0,
    streamsEncoded: 0,
    deltasEncoded: 0,
    streamsDecoded: 0,
    segmentsSealed: 0,
  };
  const violations: string[] = [];
  const options = { raw: job.raw === true, encrypted: job.encrypted === true };
  let note = '';
  for (let seed = job.from; seed < job.from + job.count && violations.length < VIOLATIONS_MAX; seed += 1) {
    try {
      const result = await new Simulation(seed, options).run();
      counts['seeds'] = (counts['seeds'] ?? 0) + 1;
      for (const name of [
        'operations',
        'acknowledged',
        'failed',
        'crashes',
        'kills',
        'losses',
        'memberOperations',
        'healed',
        'faultsFired',
        'writesSpoilt',
        'judgements',
        'operationsJudged',
        'ioCount',
        'streamsEncoded',
        'deltasEncoded',
        'streamsDecoded',
        'segmentsSealed',
      ] as const) {
        counts[name] = (counts[name] ?? 0) + result[name];
      }
      note = `seed ${seed}: trace ${result.traceHash}, image ${result.imageHash}`;
      if (job.twice !== true) continue;
      const again = await new Simulation(seed, options).run();
      if (again.traceHash !== result.traceHash) violations.push(`seed ${seed}: two runs gave two traces`);
      if (again.imageHash !== result.imageHash) violations.push(`seed ${seed}: two runs gave two images`);
    } catch (error) {
      const flags = `${options.raw ? ' --raw' : ''}${options.encrypted ? ' --encrypted' : ''}`;
      const replay = `npm run sim -- --seed ${seed} --seeds 1${flags}`;
      violations.push(`seed ${seed} (replay: ${replay}): ${errorText(error)}`);
    }
  }
  const report = done(counts, violations);
  return job.count === 1 ? { ...report, note } : report;
}

/** How a history ends: well, or with what it found; and the hashes of its trace and its image there. */
async function endOf(
  seed: number,
  planted: boolean,
): Promise<{ readonly found: string; readonly hashes: string }> {
  const simulation = new Simulation(seed, { planted });
  const line = (hashes: { readonly traceHash: string; readonly imageHash: string }): string =>
    `trace ${hashes.traceHash}, image ${hashes.imageHash}`;
  try {
    return { found: '', hashes: line(await simulation.run()) };
  } catch (error) {
    const found = error instanceof Error ? error.message : String(error);
    return { found, hashes: line(simulation.hashesNow()) };
  }
}

async function replay(
  job: Job & { kind: 'replay' },
  done: (counts: Record<string, number>, violations: readonly string[]) => JobReport,
): Promise<JobReport> {
  const planted = job.planted === true;
  const violations: string[] = [];
  const first = await endOf(job.seed, planted);
  if ((first.found !== '') !== planted)
    violations.push(`seed ${job.seed}: ${planted ? 'the planted fault was not found' : first.found}`);
  let equal = 1;
  for (let run = 1; run < job.times && violations.length < VIOLATIONS_MAX; run += 1) {
    const again = await endOf(job.seed, planted);
    if (again.found === first.found && again.hashes === first.hashes) equal += 1;
    else violations.push(`seed ${job.seed}, run ${run}: ${again.hashes} instead of ${first.hashes}`);
  }
  const failing = first.found === '' ? 0 : job.times;
  const note = `seed ${job.seed}${planted ? ' with a planted fault' : ''}: ${first.hashes}`;
  return { ...done({ replays: job.times, equal, failing }, violations), note };
}

/** Runs jobs in worker threads, `parallel` at a time; reports come in the order of the jobs. */
export async function runJobs(
  jobs: readonly Job[],
  parallel: number,
  onReport?: (report: JobReport) => void,
): Promise<JobReport[]> {
  const reports: JobReport[] = [];
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < jobs.length) {
      const index = next;
      next += 1;
      const report = await runInWorker(jobs[index]!);
      reports[index] = report;
      onReport?.(report);
    }
  };
  await Promise.all(Array.from({ length: parallel }, lane));
  return reports;
}

function runInWorker(job: Job): Promise<JobReport> {
  return new Promise((resolve) => {
    const failed = (why: string): void =>
      resolve({ job, counts: {}, violations: [`${JSON.stringify(job)}: ${why}`], durationMs: 0 });
    const worker = new Worker(new URL('./job_worker.js', import.meta.url), {
      workerData: job,
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MIB },
    });
    worker.once('message', (report: JobReport) => resolve(report));
    worker.once('error', (error) => failed(errorText(error)));
    worker.once('exit', (code) =>
      failed(`the worker ended with code ${code} and no report: a promise never settled`),
    );
  });
}
