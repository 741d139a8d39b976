// `npm run sim`: the simulator, the crash explorer and the sweeps from the command line.
//
//   npm run sim -- --seeds 500 --seed 1        random histories (default: 500 from seed 1)
//   npm run sim -- --explore 3                 every workload of 1..3 operations, cut at every I/O
//   npm run sim -- --sweep                     the k-th I/O fails, for every k and every error
//   npm run sim -- --rot 2000                  that many single-bit flips
//   options: --jobs N (threads, default 2), --damages N (seeded damages a crash point, default 4), --seed S, --twice
//
// Exit code 0: nothing found; 1: violations, each with what replays it; 2: usage.

import { type Job, type JobReport, runJobs, sweepRules } from './jobs.js';

const SEEDS_PER_JOB = 25;
const USAGE =
  'usage: sim [--seeds N] [--seed S] [--twice] [--explore LENGTH] [--sweep] [--rot FLIPS] [--damages N] [--jobs N]';

interface Arguments {
  readonly numbers: Map<string, number>;
  readonly flags: Set<string>;
}

function parse(argv: readonly string[]): Arguments | null {
  const numbers = new Map<string, number>();
  const flags = new Set<string>();
  for (let i = 0; i < argv.length; i += 1) {
    const name = argv[i]!;
    if (name === '--sweep' || name === '--twice') {
      flags.add(name);
      continue;
    }
    const value = Number(argv[i + 1]);
    if (
      !['--seeds', '--seed', '--explore', '--rot', '--damages', '--jobs'].includes(name) ||
      !Number.isSafeInteger(value)
    )
      return null;
    numbers.set(name, value);
    i += 1;
  }
  return { numbers, flags };
}

function plan({ numbers, flags }: Arguments): Job[] {
  const seed = numbers.get('--seed') ?? 1;
  const jobs: Job[] = [];
  const length = numbers.get('--explore');
  if (length !== undefined) {
    const damages = numbers.get('--damages') ?? 4;
    for (const members of [1, 2]) {
      jobs.push({
        kind: 'explore',
        members,
        length,
        creation: true,
        damages,
        recoveryDepth: 2,
        recoveryEvery: 20,
        seed: seed + members,
      });
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
  const seeds = numbers.get('--seeds') ?? (jobs.length === 0 ? 500 : 0);
  for (let from = seed; from < seed + seeds; from += SEEDS_PER_JOB) {
    jobs.push({
      kind: 'simulate',
      from,
      count: Math.min(SEEDS_PER_JOB, seed + seeds - from),
      twice: flags.has('--twice'),
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
  for (const violation of report.violations) console.log(`VIOLATION ${violation}`);
}

const parsed = parse(process.argv.slice(2));
if (parsed === null) {
  console.error(USAGE);
  process.exit(2);
}
const startedAt = performance.now();
const reports = await runJobs(plan(parsed), parsed.numbers.get('--jobs') ?? 2, print);
const total: Record<string, number> = {};
for (const { counts } of reports)
  for (const [name, value] of Object.entries(counts)) total[name] = (total[name] ?? 0) + value;
const violations = reports.reduce((sum, report) => sum + report.violations.length, 0);
const seconds = (performance.now() - startedAt) / 1000;
console.log(`total: ${JSON.stringify(total)} in ${seconds.toFixed(1)} s, ${violations} violations`);
if (total['seeds'] !== undefined)
  console.log(`${Math.round((total['seeds'] / seconds) * 3600)} seeds an hour`);
process.exit(violations === 0 ? 0 : 1);
