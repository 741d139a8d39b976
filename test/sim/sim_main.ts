// `npm run sim`: the simulator, the crash explorer and the sweeps from the command line.
//
//   npm run sim -- --seeds 500 --seed 1        random histories (default: 500 from seed 1)
//   npm run sim -- --explore 3                 every workload of 1..3 operations, cut at every I/O
//   npm run sim -- --explore 3 --shard 2/8 --members 2   every 8th of them from the 2nd on, on two members only
//   npm run sim -- --sweep                     the k-th I/O fails, for every k and every error
//   npm run sim -- --rot 2000                  that many single-bit flips
//   npm run sim -- --misplace 1000             that many lost, stale, misdirected and swapped writes
//   npm run sim -- --bits 1                    every bit that a root reaches; --bits 64 every 64th
//   npm run sim -- --replay 1000 --seed 7      one history that many times over (--planted: one that fails)
//   options: --jobs N (threads, default 2), --damages N (seeded damages a crash point, default 4), --seed S, --twice
//            --encrypted (random histories, and the workloads of --explore, of encrypted stores)
//            --raw (random histories without codecs, as seeds pinned before there were any need)
//            --journal FILE (finished jobs are noted there and not run again: an interrupted run goes on)
//
// Exit code 0: nothing found; 1: violations, each with what replays it; 2: usage.

import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { type Job, type JobReport, runJobs, sweepRules } from './jobs.js';

/** A thread warms up for some ten seeds. */
const SEEDS_PER_JOB = 250;
const MISPLACED_PER_JOB = 500;
const BIT_SHARDS = 32;
/** An exploration is cut into this many jobs for each number of members, so that it can stop and go on. */
const EXPLORE_SHARDS = 24;
/** Crash inside the recovery of one image in this many: each such recovery has about as many images of its own. */
const RECOVERY_EVERY = 100;
const USAGE =
  'usage: sim [--seeds N] [--seed S] [--twice] [--raw] [--encrypted] [--sweep] [--rot FLIPS] [--misplace N]\n' +
  '           [--bits STRIDE] [--replay TIMES [--planted]]\n' +
  '           [--explore LENGTH [--shard I/N] [--members N] [--recovery-every N] [--damages N]]\n' +
  '           [--jobs N] [--journal FILE]';

const FLAGS: readonly string[] = ['--sweep', '--twice', '--raw', '--encrypted', '--planted'];

interface Arguments {
  readonly numbers: Map<string, number>;
  readonly flags: Set<string>;
  readonly shard: { readonly index: number; readonly count: number } | null;
  readonly journal: string | null;
}

/** 'I/N' with 1 <= I <= N, as a zero-based index. */
function parseShard(text: string | undefined): Arguments['shard'] {
  const [index, count] = (text ?? '').split('/').map(Number);
  if (index === undefined || count === undefined || !(index >= 1 && index <= count)) return null;
  return { index: index - 1, count };
}

function parse(argv: readonly string[]): Arguments | null {
  const numbers = new Map<string, number>();
  const flags = new Set<string>();
  let shard: Arguments['shard'] = null;
  let journal: string | null = null;
  for (let i = 0; i < argv.length; i += 1) {
    const name = argv[i]!;
    if (FLAGS.includes(name)) {
      flags.add(name);
      continue;
    }
    if (name === '--shard' || name === '--journal') {
      i += 1;
      if (name === '--journal') journal = argv[i] ?? null;
      else shard = parseShard(argv[i]);
      if ((name === '--journal' ? journal : shard) === null) return null;
      continue;
    }
    const value = Number(argv[i + 1]);
    if (
      ![
        '--seeds',
        '--seed',
        '--explore',
        '--members',
        '--recovery-every',
        '--rot',
        '--misplace',
        '--bits',
        '--replay',
        '--damages',
        '--jobs',
      ].includes(name) ||
      !Number.isSafeInteger(value)
    )
      return null;
    numbers.set(name, value);
    i += 1;
  }
  return { numbers, flags, shard, journal };
}

function plan({ numbers, flags, shard }: Arguments): Job[] {
  const seed = numbers.get('--seed') ?? 1;
  const jobs: Job[] = [];
  const length = numbers.get('--explore');
  if (length !== undefined) {
    const damages = numbers.get('--damages') ?? 4;
    const chosen = numbers.get('--members');
    const shards =
      shard === null
        ? Array.from({ length: EXPLORE_SHARDS }, (_unused, index) => ({ index, count: EXPLORE_SHARDS }))
        : [shard];
    for (const members of chosen === undefined ? [1, 2] : [chosen]) {
      for (const each of shards) {
        jobs.push({
          kind: 'explore',
          members,
          length,
          shard: each,
          creation: each.index === 0,
          damages,
          recoveryDepth: 2,
          recoveryEvery: numbers.get('--recovery-every') ?? RECOVERY_EVERY,
          seed: seed + members,
          encrypted: flags.has('--encrypted'),
        });
      }
    }
  }
  if (flags.has('--sweep')) {
    for (const members of [1, 2])
      for (const rule of sweepRules()) jobs.push({ kind: 'sweep', members, rule, seed, stride: 1 });
  }
  const flips = numbers.get('--rot');
  if (flips !== undefined) {
    for (const members of [1, 2])
      for (const onlyRead of [false, true]) jobs.push({ kind: 'rot', members, flips, seed, onlyRead });
  }
  const misplaced = numbers.get('--misplace') ?? 0;
  for (let done = 0; done < misplaced; done += MISPLACED_PER_JOB) {
    for (const members of [1, 2]) {
      const count = Math.min(MISPLACED_PER_JOB, misplaced - done);
      jobs.push({ kind: 'misplace', members, count, seed: seed + done + members });
    }
  }
  const stride = numbers.get('--bits');
  for (let shard = 0; stride !== undefined && shard < BIT_SHARDS; shard += 1)
    jobs.push({ kind: 'bits', from: shard * stride, stride: stride * BIT_SHARDS, seed });
  const times = numbers.get('--replay');
  if (times !== undefined) jobs.push({ kind: 'replay', seed, times, planted: flags.has('--planted') });
  const seeds = numbers.get('--seeds') ?? (jobs.length === 0 ? 500 : 0);
  for (let from = seed; from < seed + seeds; from += SEEDS_PER_JOB) {
    jobs.push({
      kind: 'simulate',
      from,
      count: Math.min(SEEDS_PER_JOB, seed + seeds - from),
      twice: flags.has('--twice'),
      raw: flags.has('--raw'),
      encrypted: flags.has('--encrypted'),
    });
  }
  return jobs;
}

function print(report: JobReport): void {
  const { kind, ...rest } = report.job;
  const counts = Object.entries(report.counts)
    .map(([name, value]) => `${name} ${value}`)
    .join(', ');
  console.log(`${kind} ${JSON.stringify(rest)}: ${counts} in ${(report.durationMs / 1000).toFixed(1)} s`);
  if (report.note !== undefined) console.log(report.note);
  for (const violation of report.violations) console.log(`VIOLATION ${violation}`);
}

/** What a journal says is done, by the job's own text. A line that was cut short counts as not done. */
function readJournal(path: string): Map<string, JobReport> {
  const done = new Map<string, JobReport>();
  for (const line of existsSync(path) ? readFileSync(path, 'utf8').split('\n') : []) {
    try {
      const report = JSON.parse(line) as JobReport;
      if (report.violations.length === 0) done.set(JSON.stringify(report.job), report);
    } catch {
      // Cut short by the end of the process.
    }
  }
  return done;
}

async function run({ journal, ...rest }: Arguments): Promise<void> {
  const done = journal === null ? new Map<string, JobReport>() : readJournal(journal);
  const jobs = plan({ journal, ...rest });
  const earlier = jobs.flatMap((job) => done.get(JSON.stringify(job)) ?? []);
  if (earlier.length > 0) console.log(`${earlier.length} of ${jobs.length} jobs were done before`);
  const startedAt = performance.now();
  const left = jobs.filter((job) => !done.has(JSON.stringify(job)));
  const reports = await runJobs(left, rest.numbers.get('--jobs') ?? 2, (report) => {
    print(report);
    if (journal !== null) appendFileSync(journal, `${JSON.stringify(report)}\n`);
  });
  const seconds = (performance.now() - startedAt) / 1000;
  const total: Record<string, number> = {};
  for (const { counts } of [...earlier, ...reports])
    for (const [name, value] of Object.entries(counts)) total[name] = (total[name] ?? 0) + value;
  const violations = reports.reduce((sum, report) => sum + report.violations.length, 0);
  console.log(
    `total: ${JSON.stringify(total)}, ${violations} violations; this run took ${seconds.toFixed(1)} s`,
  );
  const seeds = reports.reduce((sum, { counts }) => sum + (counts['seeds'] ?? 0), 0);
  if (seeds > 0) console.log(`${Math.round((seeds / seconds) * 3600)} seeds an hour`);
  process.exit(violations === 0 ? 0 : 1);
}

const parsed = parse(process.argv.slice(2));
if (parsed === null) {
  console.error(USAGE);
  process.exit(2);
}
await run(parsed);
