// The denominator: fio on the very member files, at its best of nine settings, driven from here.
//
// Invariants
//   1. Engine and mode are fixed: io_uring, O_DIRECT, sequential. Only block size and depth vary.
//      Buffers and files are registered, as the store's are: the kernel then takes the buffers' memory before the
//      time begins. Without that fio pays for the first touch of its memory and loses half its rate.
//   2. A rate is the bytes that fio moved over the longest run time among its jobs; a write's run time includes the
//      fsync at its end. fio's start is not counted.
//   3. Writes go only to stretches that the caller names and to no file that is not there yet.
//
// It judges nothing (io.ts does) and knows no store.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { median, seededRandom, shuffled } from './statistics.js';

const run = promisify(execFile);
const FIO_TIMEOUT_MS = 300_000;
const MAX_OUTPUT_BYTES = 16 * 1024 * 1024;
const MEBIBYTE = 1024 * 1024;

export interface FioSetting {
  readonly blockBytes: number;
  readonly depth: number;
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

export const settingText = ({ blockBytes, depth }: FioSetting): string =>
  `${blockBytes / MEBIBYTE} MiB x ${depth}`;

/** Arguments of one run; exported so that a test sees what is measured. */
export function fioArguments(
  direction: 'read' | 'write',
  stretches: readonly FioStretch[],
  { blockBytes, depth }: FioSetting,
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
  const jobs = stretches.flatMap(({ path, offsetBytes, lengthBytes }, index) => [
    `--name=job${index}`,
    `--filename=${path}`,
    `--offset=${offsetBytes}`,
    `--size=${lengthBytes}`,
  ]);
  return [...common, ...mode, `--bs=${blockBytes}`, `--iodepth=${depth}`, '--fallocate=none', ...jobs];
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

/** Reads fio's JSON, which may follow notes in words. */
export function parseFio(text: string, direction: 'read' | 'write'): FioRun {
  const { jobs } = JSON.parse(text.slice(text.indexOf('{'))) as { readonly jobs: readonly FioJob[] };
  let bytes = 0;
  let longestMs = 0;
  let coreMs = 0;
  for (const job of jobs) {
    if (job.error !== 0) throw new Error(`fio reported error ${job.error}`);
    const moved = job[direction];
    bytes += moved.io_bytes;
    longestMs = Math.max(longestMs, moved.runtime);
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
  const { stdout } = await run('fio', args, { timeout: FIO_TIMEOUT_MS, maxBuffer: MAX_OUTPUT_BYTES });
  return parseFio(stdout, direction);
}

/** Reads and writes at the same time: all bytes over the longest run time of a job. */
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
  const { stdout } = await run('fio', args, { timeout: FIO_TIMEOUT_MS, maxBuffer: MAX_OUTPUT_BYTES });
  const { jobs: done } = JSON.parse(stdout.slice(stdout.indexOf('{'))) as {
    readonly jobs: readonly FioJob[];
  };
  const bytes = done.reduce((sum, job) => sum + job.read.io_bytes + job.write.io_bytes, 0);
  const longestMs = Math.max(...done.map((job) => Math.max(job.read.runtime, job.write.runtime)));
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
  const taken = new Map<FioSetting, number[]>(SETTINGS.map((setting) => [setting, []]));
  for (let round = 0; round < rounds; round += 1) {
    for (const setting of shuffled(SETTINGS, random)) {
      taken.get(setting)?.push((await runFio(direction, stretches, setting)).gigabytesPerSecond);
    }
  }
  const rates = [...taken].map(([setting, values]) => ({ setting, gigabytesPerSecond: median(values) }));
  const best = rates.reduce((most, each) =>
    each.gigabytesPerSecond > most.gigabytesPerSecond ? each : most,
  );
  return { best: best.setting, rates };
}
