// The denominator: fio on the very member files, at its best of nine settings, driven from here.
//
// Invariants
//   1. Engine and mode are fixed: io_uring, O_DIRECT, sequential. Only block size and depth vary.
//      Buffers and files are registered, as the store's are: the kernel then takes the buffers' memory before the
//      time begins. Without that fio pays for the first touch of its memory and loses half its rate.
//   2. A rate is the bytes that fio moved over its run time; a write's run time includes the fsync at its end. fio's
//      start is not counted.
//   3. Several stretches are one job that takes them in turn, or a job each (`isApart`). Jobs of their own begin when
//      each has its buffers, up to half a second apart: their rate is that over the time from the first one's start
//      to the last one's end. (The longest of their run times gave up to four times that rate.)
//   4. Writes go only to stretches that the caller names and to no file that is not there yet.
//
// It judges nothing (io.ts does) and knows no store.

import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { median, seededRandom, shuffled } from './statistics.js';

const run = promisify(execFile);
const FIO_TIMEOUT_MS = 300_000;
/** Stands in a log where a transfer has no time. */
const LOG_NO_TIME = 2_147_483_647;
const MAX_OUTPUT_BYTES = 16 * 1024 * 1024;
const MEBIBYTE = 1024 * 1024;

export interface FioSetting {
  readonly blockBytes: number;
  readonly depth: number;
  /** A job, and so a thread, for each stretch; default one for all. */
  readonly isApart?: boolean;
}
/** A part of a file, or files one after the other (their names joined with ':', whole). */
export interface FioStretch {
  readonly path: string;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}
export interface FioRun {
  readonly gigabytesPerSecond: number;
  /** User and system time of all jobs, seconds per GB moved. */
  readonly coreSecondsPerGigabyte: number;
}

/** The settings of which fio's best is the denominator. */
export const SETTINGS: readonly FioSetting[] = [1, 4, 16].flatMap((mebibytes) =>
  [8, 32, 128].map((depth) => ({ blockBytes: mebibytes * MEBIBYTE, depth })),
);

/** Those of several stretches. */
export const SETTINGS_OF_SEVERAL: readonly FioSetting[] = [
  ...SETTINGS,
  ...SETTINGS.map((setting) => ({ ...setting, isApart: true })),
];

export const settingText = ({ blockBytes, depth, isApart }: FioSetting): string =>
  `${blockBytes / MEBIBYTE} MiB x ${depth}${isApart === true ? ', a job each' : ''}`;

/** Arguments of one run; exported so that a test sees what is measured. */
export function fioArguments(
  direction: 'read' | 'write',
  stretches: readonly FioStretch[],
  { blockBytes, depth, isApart }: FioSetting,
): string[] {
  const common = [
    '--output-format=json',
    '--ioengine=io_uring',
    '--direct=1',
    '--fixedbufs=1',
    '--registerfiles=1',
    '--thread',
    '--allow_file_create=0',
  ];
  const mode = direction === 'read' ? ['--rw=read', '--readonly'] : ['--rw=write', '--end_fsync=1'];
  const setting = [...common, ...mode, `--bs=${blockBytes}`, `--iodepth=${depth}`, '--fallocate=none'];
  const parts =
    isApart === true ? stretches.map((each) => [each]) : stretches.length === 0 ? [] : [stretches];
  return [...setting, ...parts.flatMap(jobOf)];
}

/** One job over all stretches; fio divides its size among the files and begins in each at the same offset. */
function jobOf(stretches: readonly FioStretch[], index: number): string[] {
  const { offsetBytes, lengthBytes } = stretches[0] as FioStretch;
  const alike = stretches.every(
    (each) => each.offsetBytes === offsetBytes && each.lengthBytes === lengthBytes,
  );
  if (!alike) throw new Error('stretches of one fio run have one offset and one length');
  const files = stretches.map(({ path }) => path).join(':');
  const job = [`--name=job${index}`, `--filename=${files}`, `--offset=${offsetBytes}`];
  if (stretches.length > 1) job.push('--file_service_type=roundrobin:1');
  return [...job, `--size=${lengthBytes * stretches.length}`];
}

interface Moved {
  readonly io_bytes: number;
  readonly runtime: number;
}
interface FioJob {
  readonly read: Moved;
  readonly write: Moved;
  readonly job_runtime: number;
  readonly usr_cpu: number;
  readonly sys_cpu: number;
  readonly error: number;
}

/** How long after the first job this one began, ms. */
function sinceFirst(startsMs: readonly number[], index: number): number {
  const startMs = startsMs[index];
  return startMs === undefined ? 0 : startMs - Math.min(...startsMs);
}

/** When the first transfer of a job began, ms since the epoch, from its latency log ('end ms, ns, ...' a line). */
export function startOfLog(text: string): number {
  let startMs = Number.POSITIVE_INFINITY;
  for (const line of text.split('\n')) {
    const [endMs, latencyNs] = line.split(',').map(Number);
    // The line of a job's fsync has no time of its own.
    if (endMs === undefined || latencyNs === undefined || endMs === LOG_NO_TIME) continue;
    startMs = Math.min(startMs, endMs - latencyNs / 1e6);
  }
  if (!Number.isFinite(startMs)) throw new Error('fio left a log without transfers');
  return startMs;
}

/** Reads fio's JSON, which may follow notes in words. `startsMs`: when each job began; all at once when absent. */
export function parseFio(
  text: string,
  direction: 'read' | 'write',
  startsMs: readonly number[] = [],
): FioRun {
  const { jobs } = JSON.parse(text.slice(text.indexOf('{'))) as { readonly jobs: readonly FioJob[] };
  let bytes = 0;
  let longestMs = 0;
  let coreMs = 0;
  for (const [index, job] of jobs.entries()) {
    if (job.error !== 0) throw new Error(`fio reported error ${job.error}`);
    const moved = job[direction];
    bytes += moved.io_bytes;
    longestMs = Math.max(longestMs, moved.runtime + sinceFirst(startsMs, index));
    coreMs += ((job.usr_cpu + job.sys_cpu) / 100) * job.job_runtime;
  }
  if (bytes === 0 || longestMs === 0) throw new Error('fio moved nothing');
  return {
    gigabytesPerSecond: bytes / longestMs / 1e6,
    coreSecondsPerGigabyte: coreMs / 1e3 / (bytes / 1e9),
  };
}

export async function runFio(
  direction: 'read' | 'write',
  stretches: readonly FioStretch[],
  setting: FioSetting,
): Promise<FioRun> {
  const args = fioArguments(direction, stretches, setting);
  const jobCount = setting.isApart === true ? stretches.length : 1;
  if (jobCount === 1) {
    const { stdout } = await run('fio', args, { timeout: FIO_TIMEOUT_MS, maxBuffer: MAX_OUTPUT_BYTES });
    return parseFio(stdout, direction);
  }
  const { stdout, startsMs } = await runJobs(args, jobCount);
  return parseFio(stdout, direction, startsMs);
}

/** Runs fio with a log of each job, which tells when the job began: fio's report does not. */
async function runJobs(
  args: readonly string[],
  jobCount: number,
): Promise<{ readonly stdout: string; readonly startsMs: readonly number[] }> {
  const directory = await mkdtemp(join(tmpdir(), 'ingot-fio-'));
  try {
    const log = join(directory, 'job');
    const logged = [`--write_lat_log=${log}`, '--log_unix_epoch=1', ...args];
    const { stdout } = await run('fio', logged, { timeout: FIO_TIMEOUT_MS, maxBuffer: MAX_OUTPUT_BYTES });
    const logs = Array.from({ length: jobCount }, (_, index) =>
      readFile(`${log}_lat.${index + 1}.log`, 'utf8'),
    );
    return { stdout, startsMs: (await Promise.all(logs)).map(startOfLog) };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** One file of a mounted file system, made where it is not there; GB/s. */
export async function runFioFile(direction: 'read' | 'write', stretch: FioStretch): Promise<number> {
  const setting = { blockBytes: MEBIBYTE, depth: 8 };
  const args = fioArguments(direction, [stretch], setting).map((each) =>
    each === '--allow_file_create=0' ? '--allow_file_create=1' : each,
  );
  const { stdout } = await run('fio', args, { timeout: FIO_TIMEOUT_MS, maxBuffer: MAX_OUTPUT_BYTES });
  return parseFio(stdout, direction).gigabytesPerSecond;
}

/** Reads and writes at the same time: all bytes from the start of the first job to the end of the last. */
export async function runFioMix(
  reads: readonly FioStretch[],
  writes: readonly FioStretch[],
  setting: FioSetting,
): Promise<number> {
  const args = fioArguments('read', [], setting).filter(
    (each) => each !== '--rw=read' && each !== '--readonly',
  );
  const jobs = [
    ...reads.map((each) => ['read', each] as const),
    ...writes.map((each) => ['write', each] as const),
  ];
  for (const [index, [direction, { path, offsetBytes, lengthBytes }]] of jobs.entries()) {
    args.push(`--name=job${index}`, `--rw=${direction}`, `--filename=${path}`);
    args.push(`--offset=${offsetBytes}`, `--size=${lengthBytes}`);
  }
  const { stdout, startsMs } = await runJobs(args, jobs.length);
  const { jobs: done } = JSON.parse(stdout.slice(stdout.indexOf('{'))) as {
    readonly jobs: readonly FioJob[];
  };
  const bytes = done.reduce((sum, job) => sum + job.read.io_bytes + job.write.io_bytes, 0);
  const longestMs = Math.max(
    ...done.map((job, index) => Math.max(job.read.runtime, job.write.runtime) + sinceFirst(startsMs, index)),
  );
  if (bytes === 0 || longestMs === 0 || done.some((job) => job.error !== 0))
    throw new Error('fio moved nothing');
  return bytes / longestMs / 1e6;
}

/** fio's version, or null where it is not installed. */
export async function fioVersion(): Promise<string | null> {
  return run('fio', ['--version']).then(
    ({ stdout }) => stdout.trim(),
    () => null,
  );
}

export interface Sweep {
  readonly best: FioSetting;
  readonly rates: readonly { readonly setting: FioSetting; readonly gigabytesPerSecond: number }[];
}

/** Tries every setting `rounds` times, in a new random order each round; the best is that of the highest median. */
export async function sweep(
  direction: 'read' | 'write',
  stretches: readonly FioStretch[],
  rounds: number,
  seed: number,
): Promise<Sweep> {
  const random = seededRandom(seed);
  const settings = stretches.length > 1 ? SETTINGS_OF_SEVERAL : SETTINGS;
  const taken = new Map<FioSetting, number[]>(settings.map((setting) => [setting, []]));
  for (let round = 0; round < rounds; round += 1) {
    for (const setting of shuffled(settings, random)) {
      taken.get(setting)?.push((await runFio(direction, stretches, setting)).gigabytesPerSecond);
    }
  }
  const rates = [...taken].map(([setting, values]) => ({ setting, gigabytesPerSecond: median(values) }));
  const best = rates.reduce((most, each) =>
    each.gigabytesPerSecond > most.gigabytesPerSecond ? each : most,
  );
  return { best: best.setting, rates };
}
