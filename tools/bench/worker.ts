// The process that is measured: one store, driven by messages, its time and memory counted from inside.
//
// Invariants
//   1. Nothing but the store works in this process while a measurement runs: fio, other peers and the tables are
//      elsewhere. User and system time are the whole process's, its io_uring workers included.
//   2. Each read opens the store anew, so that catalog pages and sums are cold too; opening is not timed, finding
//      the version and reading its sums is.
//      Writes and imports of one member set share an open store: the next ones find its buffers touched.
//   3. Buffers are touched before the first measurement. `peakBytes` is the kernel's own VmHWM.
//   4. `fill` writes the members' free space once: on a RAM disk, too, the first write of a page costs more than the
//      next (a virtual machine's memory comes from its host then), and fio's stretch was written before.
//   5. After a write the version is removed and two more roots are made, so that its space is free again and the
//      next write lands where the disk has been written before.
//
// Protocol: a message { id, job } gives { id, result } or { id, error }.

import { readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { create, NativeIo, open, type Store, type TensorInfo, type Version } from '../../engine/index.js';
import type { CodecName } from '../cli/values.js';
import { importModel } from '../import/importer.js';

export type Job =
  | { readonly kind: 'create'; readonly members: readonly string[]; readonly memberBytes: number }
  | {
      readonly kind: 'import';
      readonly members: readonly string[];
      readonly source: string;
      readonly run: string;
      readonly keep: boolean;
      /** Default raw. */
      readonly codec?: CodecName;
    }
  | { readonly kind: 'read'; readonly members: readonly string[]; readonly run: string }
  | {
      readonly kind: 'write';
      readonly members: readonly string[];
      readonly run: string;
      readonly redundancy: 1 | 2;
    }
  | {
      /** Writes `count` versions like `run`, then removes them: no later write is the first one anywhere. */
      readonly kind: 'fill';
      readonly members: readonly string[];
      readonly run: string;
      readonly redundancy: 1 | 2;
      readonly count: number;
    };

type ImportJob = Extract<Job, { readonly kind: 'import' }>;

export interface Measured {
  readonly bytes: number;
  readonly durationMs: number;
  /** User and system time of the process. */
  readonly coreMs: number;
  /** VmHWM of the process so far. */
  readonly peakBytes: number;
  /** Bytes of the caller's buffer, which the peak includes. */
  readonly bufferBytes: number;
  /** Bytes of the data area in use by the version, catalog included, when it was kept. */
  readonly allocatedBytes: number;
  readonly tensorCount: number;
  readonly backend: string;
}

const ALIGNMENT_BYTES = 4096;
const memory = new NativeIo();
let buffer: Uint8Array | null = null;

function peakBytes(): number {
  const match = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'));
  return Number(match?.[1] ?? 0) * 1024;
}

/** Where each tensor goes in the buffer, aligned for direct I/O. */
function layOut(tensors: readonly TensorInfo[]): {
  readonly offsets: Map<string, number>;
  readonly totalBytes: number;
} {
  const offsets = new Map<string, number>();
  let at = 0;
  for (const { name, byteLength } of tensors) {
    offsets.set(name, at);
    at += Math.ceil(byteLength / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
  }
  return { offsets, totalBytes: at };
}

function bufferOf(totalBytes: number): Uint8Array {
  if (buffer === null || buffer.byteLength < totalBytes) {
    if (buffer !== null) memory.release(buffer);
    buffer = memory.allocate(totalBytes).fill(1);
  }
  return buffer;
}

interface Timed<T> {
  readonly value: T;
  readonly durationMs: number;
  readonly coreMs: number;
}

async function timed<T>(body: () => Promise<T>): Promise<Timed<T>> {
  const cpu = process.cpuUsage();
  const startMs = performance.now();
  const value = await body();
  const durationMs = performance.now() - startMs;
  const { user, system } = process.cpuUsage(cpu);
  return { value, durationMs, coreMs: (user + system) / 1e3 };
}

/** Removes a version and makes two more roots, after which its space may be written again. */
async function giveBack(store: Store, ref: string): Promise<void> {
  await store.remove(ref, { force: true });
  for (let root = 0; root < 3; root += 1) {
    const transaction = await store.begin('bench-root');
    await transaction.put('root', new Uint8Array(4), { dtype: 'F32', shape: [] });
    await store.remove((await transaction.commit()).id, { force: true });
  }
}

async function read(store: Store, run: string): Promise<Measured> {
  const known = await store.get(run);
  const { offsets, totalBytes } = layOut(known.tensors);
  const target = bufferOf(totalBytes);
  const { value, durationMs, coreMs } = await timed(async () => {
    const version = await store.get(run);
    let bytes = 0;
    const into = ({ name, byteLength }: TensorInfo): Uint8Array => {
      const offset = offsets.get(name) ?? 0;
      return target.subarray(offset, offset + byteLength);
    };
    for await (const tensor of version.load(into)) bytes += tensor.byteLength;
    return bytes;
  });
  return result(store, value, durationMs, coreMs, target.byteLength, 0, known.tensorCount);
}

async function writeOnce(store: Store, run: string, redundancy: 1 | 2): Promise<Timed<Version>> {
  const model = await store.get(run);
  const { offsets, totalBytes } = layOut(model.tensors);
  const source = bufferOf(totalBytes);
  return timed(async () => {
    const transaction = await store.begin('bench-write', { redundancy });
    for (const { name, byteLength, dtype, shape } of model.tensors) {
      const offset = offsets.get(name) ?? 0;
      await transaction.put(
        name,
        source.subarray(offset, offset + byteLength),
        { dtype, shape },
        { buffer: 'borrow' },
      );
    }
    return transaction.commit();
  });
}

async function fill(store: Store, run: string, redundancy: 1 | 2, count: number): Promise<void> {
  const made: string[] = [];
  for (let index = 0; index < count; index += 1) {
    const { value } = await writeOnce(store, run, redundancy);
    made.push(value.id);
  }
  for (const id of made) await giveBack(store, id);
}

async function write(store: Store, run: string, redundancy: 1 | 2): Promise<Measured> {
  const { value, durationMs, coreMs } = await writeOnce(store, run, redundancy);
  const measured = result(
    store,
    value.byteLength,
    durationMs,
    coreMs,
    buffer?.byteLength ?? 0,
    0,
    value.tensorCount,
  );
  await giveBack(store, value.id);
  return measured;
}

async function importOnce(store: Store, { source, run, keep, codec }: ImportJob): Promise<Measured> {
  const before = store.info.storedBytes;
  const { value, durationMs, coreMs } = await timed(() =>
    importModel(store, source, { run, redundancy: 1, codec: codec ?? 'raw' }),
  );
  const allocated = store.info.storedBytes - before;
  const { version } = value;
  const bytes = value.source.totalBytes;
  const measured = result(store, bytes, durationMs, coreMs, 0, allocated, version.tensorCount);
  if (!keep) await giveBack(store, version.id);
  return measured;
}

function result(
  store: Store,
  bytes: number,
  durationMs: number,
  coreMs: number,
  bufferBytes: number,
  allocatedBytes: number,
  tensorCount: number,
): Measured {
  // What its bytes took, which may differ from member to member.
  const backend = Object.keys(store.stats().byPath).join(' and ');
  return {
    bytes,
    durationMs,
    coreMs,
    peakBytes: peakBytes(),
    bufferBytes,
    allocatedBytes,
    tensorCount,
    backend,
  };
}

/** The store of the last write or import, kept open: its buffers are touched once, as in a process that goes on. */
let writer: Store | null = null;

async function closeWriter(): Promise<void> {
  const store = writer;
  writer = null;
  await store?.close();
}

async function perform(job: Job): Promise<Measured | null> {
  if (job.kind === 'create') {
    const { members, memberBytes } = job;
    const listed = members.map((path) => ({ path, sizeBytes: memberBytes }));
    await create({ members }, { members: listed, redundancy: 1 });
    return null;
  }
  if (job.kind === 'read') {
    await closeWriter();
    const store = await open({ members: job.members }, { mode: 'r' });
    try {
      return await read(store, job.run);
    } finally {
      await store.close();
    }
  }
  writer ??= await open({ members: job.members }, { mode: 'rw' });
  if (job.kind === 'fill') {
    await fill(writer, job.run, job.redundancy, job.count);
    return null;
  }
  if (job.kind === 'write') return write(writer, job.run, job.redundancy);
  return importOnce(writer, job);
}

process.on('message', ({ id, job }: { readonly id: number; readonly job: Job }) => {
  perform(job).then(
    (outcome) => process.send?.({ id, result: outcome }),
    (error: unknown) =>
      process.send?.({ id, error: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
  );
});
process.on('disconnect', () => void closeWriter().finally(() => process.exit(0)));
