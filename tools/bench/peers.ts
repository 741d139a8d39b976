// `bench peers`: the same model saved and loaded by the store and by what people use today, in turns.
//
// Invariants
//   1. Same tensors, same disk, same run; all sides take turns in an order drawn anew each round.
//   2. A save is durable when its time ends (fsync, or the peer's own way of it). A cold load begins with the
//      files dropped from the page cache; a warm one right after. The store reads past the page cache, so its warm
//      load reads the device again: where a peer's load from memory is faster, the table says so.
//   3. The store checks every byte on load and no peer does; nothing is taken off for it.
//   4. A peer that cannot be had is a row with the reason.
//
// lmdb holds one value per tensor; node:fs one file of all bytes, read whole by `readSync` into touched memory.

import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, open as openFile, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { NativeIo } from '../../engine/index.js';
import { generateModel } from '../model_generator.js';
import { evict } from '../quickstart/page_cache.js';
import { benchTreeBatches } from './catalog_batch.js';
import { type LmdbBlobs, openLmdbBlobs } from './lmdb_peer.js';
import { type Row, say } from './report.js';
import { gigabytesPerSecond, median, pairRatios, seededRandom, shuffled, spread } from './statistics.js';
import { Worker } from './worker_client.js';

const MEBIBYTE = 1024 * 1024;
const CHECKOUT = fileURLToPath(new URL('../../../', import.meta.url));
const PYTHON = join(CHECKOUT, '.venv', 'bin', 'python');
const SCRIPT = join(CHECKOUT, 'tools', 'bench', 'peers.py');
const HOW = 'python3 -m venv .venv && .venv/bin/pip install numpy safetensors torch==2.13.0';
const RUN = 'bench-model';

export interface PeerOptions {
  readonly directory: string;
  readonly sizeBytes: number;
  readonly pairs: number;
  readonly seed: number;
}

/** One side of the comparison. Milliseconds; `files` are what to drop before a cold load. */
interface Side {
  readonly name: string;
  save(): Promise<number>;
  load(): Promise<number>;
  files(): Promise<readonly string[]>;
  close(): Promise<void>;
}
type SideOrSkip = Side | { readonly name: string; readonly skip: string };

export async function benchPeers(options: PeerOptions): Promise<Row[]> {
  const directory = join(options.directory, `ingot-bench-${process.pid}`);
  const sides: SideOrSkip[] = [];
  try {
    await mkdir(directory, { recursive: true });
    const source = join(directory, 'model');
    say('generating the model');
    const { tensorBytes } = await generateModel(source, { sizeBytes: options.sizeBytes, seed: options.seed });
    const python = await startPython(source);
    sides.push(await ingotSide(directory, source, options.sizeBytes));
    sides.push(
      pythonSide(
        'safetensors',
        'safetensors save_file / load_file and copy',
        python,
        join(directory, 'peer.safetensors'),
        true,
      ),
    );
    sides.push(pythonSide('torch', 'torch.save / torch.load', python, join(directory, 'peer.pt'), false));
    sides.push(await lmdbSide(directory, source, tensorBytes), await fileSide(directory, tensorBytes));
    const usable = sides.filter((side): side is Side => !('skip' in side));
    const taken = await takeTurns(usable, options);
    const rows = (['save', 'cold load', 'warm load'] as const).flatMap((what) =>
      rowsOf(what, usable, taken, tensorBytes),
    );
    for (const side of sides)
      if ('skip' in side) rows.push({ what: side.name, note: `skipped: ${side.skip}` });
    // lmdb as a catalog: small records in durable batches (the rest of that is `bench catalog`).
    say('lmdb as a catalog');
    const catalog = join(directory, 'catalog');
    await mkdir(catalog, { recursive: true });
    rows.push(...(await benchTreeBatches(catalog, options.seed)));
    return rows;
  } finally {
    for (const side of sides) if (!('skip' in side)) await side.close();
    await rm(directory, { recursive: true, force: true });
  }
}

type What = 'save' | 'cold load' | 'warm load';
type Taken = Map<string, Record<What, number[]>>;

async function takeTurns(sides: readonly Side[], { pairs, seed }: PeerOptions): Promise<Taken> {
  const random = seededRandom(seed);
  const taken: Taken = new Map(
    sides.map(({ name }) => [name, { save: [], 'cold load': [], 'warm load': [] }]),
  );
  for (const side of sides) await side.save();
  for (let round = 0; round < pairs; round += 1) {
    say(`round ${round + 1} of ${pairs}`);
    for (const side of shuffled(sides, random)) {
      const mine = taken.get(side.name);
      mine?.save.push(await side.save());
      const { residentBytes } = await evict(await side.files());
      if (residentBytes > MEBIBYTE) say(`${side.name}: ${residentBytes} bytes stayed in the page cache`);
      mine?.['cold load'].push(await side.load());
      mine?.['warm load'].push(await side.load());
    }
  }
  return taken;
}

function rowsOf(what: What, sides: readonly Side[], taken: Taken, bytes: number): Row[] {
  const rates = (side: Side): number[] =>
    (taken.get(side.name)?.[what] ?? []).map((durationMs) => gigabytesPerSecond(bytes, durationMs));
  const [ours, ...others] = sides;
  if (ours === undefined) return [];
  const mine = rates(ours);
  return others.map((side) => {
    const theirs = rates(side);
    const ratios = spread(pairRatios(mine, theirs));
    return {
      what,
      value: median(mine),
      unit: 'GB/s',
      against: side.name,
      peerValue: median(theirs),
      ratio: ratios.median,
      ratioLeast: ratios.least,
      ratioMost: ratios.most,
      pairs: ratios.count,
      note: ratios.median >= 1 ? 'ingot' : 'the peer wins',
    };
  });
}

async function ingotSide(directory: string, source: string, sizeBytes: number): Promise<Side> {
  const members = ['a.member', 'b.member'].map((name) => join(directory, name));
  const worker = new Worker();
  await worker.create(members, Math.ceil((1.75 * sizeBytes) / MEBIBYTE + 256) * MEBIBYTE);
  await worker.measure({ kind: 'import', members, source, run: RUN, keep: true });
  await worker.measure({ kind: 'read', members, run: RUN });
  return {
    name: 'ingot',
    save: async () => (await worker.measure({ kind: 'write', members, run: RUN, redundancy: 1 })).durationMs,
    load: async () => (await worker.measure({ kind: 'read', members, run: RUN })).durationMs,
    files: async () => members,
    close: () => worker.close(),
  };
}

interface Python {
  ask(order: object): Promise<{ readonly seconds: number }>;
  close(): Promise<void>;
}

async function startPython(source: string): Promise<Python | { readonly skip: string }> {
  if (!existsSync(PYTHON)) return { skip: `no .venv; ${HOW}` };
  const child: ChildProcessWithoutNullStreams = spawn(PYTHON, [SCRIPT, source], { stdio: 'pipe' });
  let complaint = '';
  child.stderr.on('data', (text: Buffer) => {
    complaint = (complaint + String(text)).slice(-500);
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  if ((await lines.next()).done === true)
    return { skip: `${complaint.trim().split('\n').at(-1) ?? ''}; ${HOW}` };
  return {
    ask: async (order) => {
      child.stdin.write(`${JSON.stringify(order)}\n`);
      const line = await lines.next();
      if (line.done === true) throw new Error(`the Python peer ended: ${complaint}`);
      return JSON.parse(line.value) as { seconds: number };
    },
    close: async () => {
      child.stdin.end();
    },
  };
}

function pythonSide(
  peer: string,
  name: string,
  python: Awaited<ReturnType<typeof startPython>>,
  target: string,
  last: boolean,
): SideOrSkip {
  if ('skip' in python) return { name, skip: python.skip };
  return {
    name,
    save: async () => {
      await rm(target, { force: true });
      return (await python.ask({ peer, what: 'save', target })).seconds * 1e3;
    },
    load: async () => (await python.ask({ peer, what: 'load', target })).seconds * 1e3,
    files: async () => [target],
    close: async () => {
      if (last) await python.close();
    },
  };
}

/** The source's tensor files as pieces of about a tensor's size. */
async function sourcePieces(source: string): Promise<Uint8Array[]> {
  const pieces: Uint8Array[] = [];
  for (const name of (await readdir(source)).filter((each) => each.endsWith('.safetensors'))) {
    const handle = await openFile(join(source, name));
    for (;;) {
      const { bytesRead, buffer } = await handle.read(new Uint8Array(32 * MEBIBYTE), 0, 32 * MEBIBYTE);
      if (bytesRead === 0) break;
      pieces.push(buffer.subarray(0, bytesRead));
    }
    await handle.close();
  }
  return pieces;
}

async function lmdbSide(directory: string, source: string, totalBytes: number): Promise<SideOrSkip> {
  const name = 'lmdb, a value per 32 MiB';
  const path = join(directory, 'blobs.lmdb');
  const openAgain = () => openLmdbBlobs(path, 4 * totalBytes);
  const opened = await openAgain();
  if ('skip' in opened) return { name, skip: opened.skip };
  let database: LmdbBlobs | null = opened;
  const current = async (): Promise<LmdbBlobs> => {
    if (database !== null) return database;
    const again = await openAgain();
    if ('skip' in again) throw new Error(again.skip);
    database = again;
    return again;
  };
  const pieces = await sourcePieces(source);
  const pieceBytes = pieces.reduce((sum, piece) => sum + piece.byteLength, 0);
  const room = new Uint8Array(totalBytes + 64 * MEBIBYTE).fill(1);
  return {
    name,
    save: async () => {
      const target = await current();
      const startMs = performance.now();
      await Promise.all(pieces.map((piece, index) => target.put(index, piece)));
      await target.flushed;
      return performance.now() - startMs;
    },
    load: async () => {
      const target = await current();
      const startMs = performance.now();
      let at = 0;
      for (let index = 0; index < pieces.length; index += 1) {
        const value = target.getBinaryFast(index);
        if (value === undefined) throw new Error('lmdb lost a value');
        // lmdb lends a buffer of its own that may be longer than the value: only `length` is the value's.
        room.set(new Uint8Array(value.buffer, value.byteOffset, value.length), at);
        at += value.length;
      }
      if (at !== pieceBytes) throw new Error(`lmdb gave ${at} bytes of ${pieceBytes}`);
      return performance.now() - startMs;
    },
    files: async () => {
      // What is mapped stays in the page cache: it is closed, and opened again outside the measurement.
      await database?.close();
      database = null;
      return [path];
    },
    close: async () => database?.close(),
  };
}

async function fileSide(directory: string, totalBytes: number): Promise<Side> {
  const path = join(directory, 'peer.raw');
  const memory = new NativeIo();
  const bytes = memory.allocate(totalBytes).fill(3);
  return {
    name: 'node:fs write + fsync / read',
    save: async () => {
      await rm(path, { force: true });
      const startMs = performance.now();
      const handle = await openFile(path, 'wx');
      await handle.writeFile(bytes);
      await handle.sync();
      await handle.close();
      return performance.now() - startMs;
    },
    load: async () => {
      const startMs = performance.now();
      const handle = await openFile(path);
      for (let at = 0; at < totalBytes; ) {
        const { bytesRead } = await handle.read(bytes, at, Math.min(32 * MEBIBYTE, totalBytes - at), at);
        if (bytesRead === 0) throw new Error('the file is too short');
        at += bytesRead;
      }
      await handle.close();
      return performance.now() - startMs;
    },
    files: async () => [path],
    close: () => memory.close(),
  };
}
