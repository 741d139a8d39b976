// What the disk itself does: fio where it is installed, else a plain O_DIRECT loop, on the same files in the same run.
//
// Invariants
//   1. Every figure says which tool took it. Rates are bytes a second of 10^9-based GB; a write is counted to the end
//      of its fsync.
//   2. Reads go to stretches that were written (a preallocated hole is not read from the disk and would flatter).
//   3. Only scratch files are written, inside the directory given; they are removed.
//
// It compares nothing.

import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { NativeIo } from '../../engine/index.js';

const run = promisify(execFile);
const BLOCK_BYTES = 4 * 1024 * 1024;
const DEPTH = 16;
const LATENCY_BYTES = 4096;
const LATENCY_COUNT = 50;
/** fio reads the stretches again and again for this long, after a start that is not counted. */
const READ_SECONDS = 2;
const RAMP_MS = 300;
const FIO_TIMEOUT_MS = 300_000;
const MAX_OUTPUT_BYTES = 16 * 1024 * 1024;

export interface Stretch {
  readonly path: string;
  readonly offsetBytes: number;
  /** A multiple of 4 MiB. */
  readonly lengthBytes: number;
}

export interface Yardstick {
  readonly name: string;
  /** Bytes a second of sequential reads of all stretches at once. */
  read(stretches: readonly Stretch[]): Promise<number>;
  /** Bytes a second of a sequential write of a new file, fsync included. */
  write(lengthBytes: number): Promise<number>;
  /** Seconds of a 4 KiB write and fdatasync, the mean of some. */
  syncLatency(): Promise<number>;
}

/** The yardstick of this machine; `directory` is where scratch files go. */
export async function findYardstick(directory: string): Promise<Yardstick> {
  const scratch = join(directory, 'yardstick.scratch');
  try {
    await run('fio', ['--version']);
    return new Fio(scratch);
  } catch {
    return new PlainLoop(scratch);
  }
}

interface FioJob {
  readonly read: { readonly bw_bytes: number };
  readonly write: { readonly bw_bytes: number; readonly lat_ns: { readonly mean: number } };
  readonly sync: { readonly lat_ns: { readonly mean: number } };
}

class Fio implements Yardstick {
  readonly name = 'fio';
  readonly #scratch: string;
  constructor(scratch: string) {
    this.#scratch = scratch;
  }

  async read(stretches: readonly Stretch[]): Promise<number> {
    const jobs = stretches.flatMap(({ path, offsetBytes, lengthBytes }, index) => [
      `--name=read${index}`,
      `--filename=${path}`,
      `--offset=${offsetBytes}`,
      `--size=${lengthBytes}`,
    ]);
    const shape = ['--rw=read', '--readonly', `--bs=${BLOCK_BYTES}`, `--iodepth=${DEPTH}`];
    // A short stretch would measure fio's own start, so it is read again and again.
    const time = ['--time_based', `--runtime=${READ_SECONDS}s`, `--ramp_time=${RAMP_MS}ms`];
    const job = await this.#run([...shape, ...time, ...jobs]);
    return job.read.bw_bytes;
  }

  async write(lengthBytes: number): Promise<number> {
    const size = Math.max(BLOCK_BYTES, lengthBytes - (lengthBytes % BLOCK_BYTES));
    try {
      const shape = [
        '--rw=write',
        `--bs=${BLOCK_BYTES}`,
        `--iodepth=${DEPTH}`,
        '--end_fsync=1',
        `--size=${size}`,
      ];
      const { write } = await this.#run([...shape, '--name=write', `--filename=${this.#scratch}`]);
      // fio counts the fsync at the end into its run time.
      return write.bw_bytes;
    } finally {
      await rm(this.#scratch, { force: true });
    }
  }

  async syncLatency(): Promise<number> {
    try {
      const shape = ['--rw=write', `--bs=${LATENCY_BYTES}`, '--iodepth=1', '--fdatasync=1'];
      const size = [`--size=${LATENCY_BYTES * LATENCY_COUNT}`, '--name=sync', `--filename=${this.#scratch}`];
      const { write, sync } = await this.#run([...shape, ...size]);
      return (write.lat_ns.mean + sync.lat_ns.mean) / 1e9;
    } finally {
      await rm(this.#scratch, { force: true });
    }
  }

  /** With registered buffers and files, fio's best; without, where the limit on locked memory refuses them. */
  async #run(args: readonly string[]): Promise<FioJob> {
    try {
      return await this.#runPlain(['--fixedbufs', '--registerfiles', ...args]);
    } catch {
      return this.#runPlain(args);
    }
  }

  async #runPlain(args: readonly string[]): Promise<FioJob> {
    const common = [
      '--output-format=json',
      '--ioengine=io_uring',
      '--direct=1',
      '--group_reporting',
      '--thread',
    ];
    const { stdout } = await run('fio', [...common, ...args], {
      timeout: FIO_TIMEOUT_MS,
      maxBuffer: MAX_OUTPUT_BYTES,
    });
    // fio prints notes before its JSON when it has something to say.
    const parsed = JSON.parse(stdout.slice(stdout.indexOf('{'))) as { readonly jobs: readonly FioJob[] };
    const job = parsed.jobs[0];
    if (job === undefined) throw new Error('fio reported no job');
    return job;
  }
}

/** Without fio: blocks of 4 MiB by the threads of Node, past the page cache. */
class PlainLoop implements Yardstick {
  readonly name = 'O_DIRECT loop';
  readonly #scratch: string;
  constructor(scratch: string) {
    this.#scratch = scratch;
  }

  async read(stretches: readonly Stretch[]): Promise<number> {
    const total = stretches.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
    return this.#rate(total, async (memory) => {
      await Promise.all(
        stretches.map(async ({ path, offsetBytes, lengthBytes }) => {
          const handle = await open(path, constants.O_RDONLY | constants.O_DIRECT);
          try {
            await eachBlock(memory, lengthBytes, (block, at) =>
              handle.read(block, 0, BLOCK_BYTES, offsetBytes + at),
            );
          } finally {
            await handle.close();
          }
        }),
      );
    });
  }

  async write(lengthBytes: number): Promise<number> {
    const size = Math.max(BLOCK_BYTES, lengthBytes - (lengthBytes % BLOCK_BYTES));
    const handle = await this.#create();
    try {
      return await this.#rate(size, async (memory) => {
        await eachBlock(memory, size, (block, at) => handle.write(block, 0, BLOCK_BYTES, at));
        await handle.sync();
      });
    } finally {
      await handle.close();
      await rm(this.#scratch, { force: true });
    }
  }

  async syncLatency(): Promise<number> {
    const handle = await this.#create();
    const io = new NativeIo();
    const memory = io.allocate(LATENCY_BYTES);
    try {
      const started = performance.now();
      for (let index = 0; index < LATENCY_COUNT; index++) {
        await handle.write(memory, 0, LATENCY_BYTES, index * LATENCY_BYTES);
        await handle.datasync();
      }
      return (performance.now() - started) / 1000 / LATENCY_COUNT;
    } finally {
      await handle.close();
      io.release(memory);
      await io.close();
      await rm(this.#scratch, { force: true });
    }
  }

  #create(): Promise<FileHandle> {
    return open(
      this.#scratch,
      constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC | constants.O_DIRECT,
      0o600,
    );
  }

  async #rate(bytes: number, work: (memory: readonly Uint8Array[]) => Promise<void>): Promise<number> {
    const io = new NativeIo();
    const memory = Array.from({ length: DEPTH }, () => io.allocate(BLOCK_BYTES).fill(1));
    try {
      const started = performance.now();
      await work(memory);
      return (bytes * 1000) / (performance.now() - started);
    } finally {
      for (const block of memory) io.release(block);
      await io.close();
    }
  }
}

/** Every block of a stretch, as many in flight as there are blocks of memory. */
async function eachBlock(
  memory: readonly Uint8Array[],
  lengthBytes: number,
  move: (block: Uint8Array, at: number) => Promise<unknown>,
): Promise<void> {
  let next = 0;
  await Promise.all(
    memory.map(async (block) => {
      while (next < lengthBytes) {
        const at = next;
        next += BLOCK_BYTES;
        await move(block, at);
      }
    }),
  );
}
