// `bench io`: the store beside fio, on the disk and in RAM, with one member and with two.
//
// Invariants
//   1. fio and the store take turns in an order drawn anew for every pair; what is reported is the median of the
//      pairs' ratios with the least and the most.
//   2. fio reads the very stretch of the very member files that the version lies in, and writes a stretch of the same
//      files that the store does not use. Both were written before: no run converts unwritten extents.
//   3. Page-cache pages of members and sources are dropped before every run and the kernel is asked whether they are
//      gone; the most that was left is reported. (A RAM disk is its own page cache.)
//   4. Everything made is removed, also after a failure.
//
// The version is a generated model of Llama-3 shapes (model_generator.ts).

import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { generateModel } from '../model_generator.js';
import { evict } from '../quickstart/page_cache.js';
import { fioVersion, type FioStretch, runFio, settingText, type Sweep, sweep } from './fio.js';
import { type Row, say } from './report.js';
import { gigabytesPerSecond, median, pairRatios, seededRandom, shuffled, spread } from './statistics.js';
import type { Measured } from './worker.js';
import { measureAlone, Worker } from './worker_client.js';

const MEBIBYTE = 1024 * 1024;
/** The first data byte of a member (format section 3: the head). */
const HEAD_BYTES = MEBIBYTE;
/** Room for the catalog and the reserve, beside three times the model. */
const SPARE_BYTES = 512 * MEBIBYTE;
/** Versions that, beside the model, leave nothing of a member unwritten but the catalog's room. */
const FILLING_VERSIONS = 2;
const BLOCK_BYTES = 16 * MEBIBYTE;
const RSS_LIMIT_BYTES = 512 * MEBIBYTE;
/** So many blocks in flight that fio, too, fills new memory all the time. */
const WIDE = { blockBytes: 16 * MEBIBYTE, depth: 128 };
const RUN = 'bench-model';

export interface IoOptions {
  /** Directory on the disk to measure. */
  readonly directory: string;
  /** Directory on a RAM disk, or null to leave it out. */
  readonly ramDirectory: string | null;
  readonly sizeBytes: number;
  readonly pairs: number;
  readonly sweepRounds: number;
  readonly seed: number;
}

interface Place {
  readonly name: 'disk' | 'RAM';
  readonly directory: string;
  readonly wanted: string;
  readonly source: string;
}
interface Setup {
  readonly place: Place;
  readonly members: readonly string[];
  readonly worker: Worker;
  /** What fio reads: the version's own bytes. */
  readonly reads: readonly FioStretch[];
  /** What fio writes: as many bytes, elsewhere. */
  readonly writes: readonly FioStretch[];
  readonly bestRead: Sweep;
  readonly bestWrite: Sweep;
  readonly options: IoOptions;
  readonly random: () => number;
  residentBytes: number;
}

export async function benchIo(options: IoOptions): Promise<Row[]> {
  const version = await fioVersion();
  if (version === null) return [{ what: 'io', note: 'skipped: fio is not installed' }];
  say(
    `${version}, io_uring, direct; seed ${options.seed}; ${options.pairs} pairs of ${options.sizeBytes} bytes`,
  );
  const places: { name: Place['name']; directory: string; wanted: string }[] = [
    { name: 'disk', directory: join(options.directory, `ingot-bench-${process.pid}`), wanted: '>= 0.95' },
  ];
  if (options.ramDirectory !== null) {
    const directory = join(options.ramDirectory, `ingot-bench-${process.pid}`);
    places.push({ name: 'RAM', directory, wanted: '>= 0.80' });
  }
  const rows: Row[] = [];
  try {
    for (const place of places) {
      const source = join(place.directory, 'model');
      await mkdir(place.directory, { recursive: true });
      say(`${place.name}: generating the model`);
      await generateModel(source, { sizeBytes: options.sizeBytes, seed: options.seed });
      for (const memberCount of [1, 2])
        rows.push(...(await benchPlace({ ...place, source }, memberCount, options)));
      await rm(place.directory, { recursive: true, force: true });
    }
  } finally {
    for (const { directory } of places) await rm(directory, { recursive: true, force: true });
  }
  return rows;
}

async function benchPlace(place: Place, memberCount: number, options: IoOptions): Promise<Row[]> {
  const label = `${place.name}, ${memberCount} member${memberCount === 1 ? '' : 's'}`;
  const worker = new Worker();
  const members = Array.from({ length: memberCount }, (_, index) => join(place.directory, `${index}.member`));
  try {
    const setup = await prepare(place, members, worker, options);
    const best = `fio read ${settingText(setup.bestRead.best)}, write ${settingText(setup.bestWrite.best)}`;
    say(`${label}: ${best}`);
    const rows = [...(await reads(setup, label)), ...(await writes(setup, label, 1))];
    if (memberCount > 1) rows.push(...(await writes(setup, label, 2)));
    rows.push(...(await imports(setup, label)));
    // Its store is open for writing; what follows opens it in processes of their own.
    await worker.close();
    rows.push(...(await peaks(setup, label)));
    const cold =
      place.name === 'RAM' ? 'RAM is its own page cache' : `at most ${setup.residentBytes} bytes were cached`;
    rows.push({ what: `${label}: settings`, note: `${best}; before each run ${cold}` });
    return rows;
  } finally {
    await worker.close();
    for (const path of members) await rm(path, { force: true });
  }
}

/** Makes the store, imports the model, writes every stretch once, and finds fio's best settings. */
async function prepare(
  place: Place,
  members: readonly string[],
  worker: Worker,
  options: IoOptions,
): Promise<Setup> {
  const spareBytes = Math.ceil(SPARE_BYTES / BLOCK_BYTES) * BLOCK_BYTES;
  const wholeBytes = Math.ceil(options.sizeBytes / BLOCK_BYTES) * BLOCK_BYTES;
  const memberBytes = HEAD_BYTES + 3 * wholeBytes + spareBytes;
  await worker.create(members, memberBytes);
  await worker.measure({ kind: 'import', members, source: place.source, run: RUN, keep: true });
  await worker.fill(members, RUN, members.length > 1 ? 2 : 1, FILLING_VERSIONS);
  const shareBytes = Math.floor(options.sizeBytes / members.length / BLOCK_BYTES) * BLOCK_BYTES;
  const stretch = (offsetBytes: number) =>
    members.map((path): FioStretch => ({ path, offsetBytes, lengthBytes: shareBytes }));
  const reads = stretch(HEAD_BYTES);
  // The store fills from below and its catalog from above; this is the upper third, less the catalog's room.
  const writes = stretch(HEAD_BYTES + 2 * wholeBytes + spareBytes / 2);
  await runFio('write', writes, { blockBytes: 4 * MEBIBYTE, depth: 8 });
  await worker.measure({ kind: 'read', members, run: RUN });
  for (let round = 0; round < 2; round += 1) {
    const redundancy = members.length > 1 ? 2 : 1;
    await worker.measure({ kind: 'write', members, run: RUN, redundancy });
  }
  say(`${place.name}, ${members.length}: fio's best of 9 settings, ${options.sweepRounds} rounds each`);
  const bestRead = await sweep('read', reads, options.sweepRounds, options.seed);
  const bestWrite = await sweep('write', writes, options.sweepRounds, options.seed + 1);
  return {
    place,
    members,
    worker,
    reads,
    writes,
    bestRead,
    bestWrite,
    options,
    random: seededRandom(options.seed + 2),
    residentBytes: 0,
  };
}

/** Runs each of the named measurements once a round, in a new order each round, cold. */
async function rounds<K extends string>(
  setup: Setup,
  measurements: Readonly<Record<K, () => Promise<number>>>,
): Promise<Record<K, number[]>> {
  const names = Object.keys(measurements) as K[];
  const taken = Object.fromEntries(names.map((name) => [name, [] as number[]])) as Record<K, number[]>;
  const sources = (await readdir(setup.place.source)).map((name) => join(setup.place.source, name));
  for (let round = 0; round < setup.options.pairs; round += 1) {
    for (const name of shuffled(names, setup.random)) {
      const eviction = await evict([...setup.members, ...sources]);
      setup.residentBytes = Math.max(setup.residentBytes, eviction.residentBytes);
      taken[name].push(await measurements[name]());
    }
  }
  return taken;
}

function compared(what: string, ours: readonly number[], theirs: readonly number[], rest: Partial<Row>): Row {
  const ratios = spread(pairRatios(ours, theirs));
  return {
    what,
    value: median(ours),
    unit: 'GB/s',
    peerValue: median(theirs),
    ratio: ratios.median,
    ratioLeast: ratios.least,
    ratioMost: ratios.most,
    pairs: ratios.count,
    ...rest,
  };
}

const rateOf = ({ bytes, durationMs }: Measured): number => gigabytesPerSecond(bytes, durationMs);

async function reads(setup: Setup, label: string): Promise<Row[]> {
  const { worker, members } = setup;
  const core: number[] = [];
  const fioCore: number[] = [];
  let backend = '';
  const taken = await rounds(setup, {
    ours: async () => {
      const measured = await worker.measure({ kind: 'read', members, run: RUN });
      core.push(measured.coreMs / 1e3 / (measured.bytes / 1e9));
      backend = measured.backend;
      return rateOf(measured);
    },
    fio: async () => {
      const run = await runFio('read', setup.reads, setup.bestRead.best);
      fioCore.push(run.coreSecondsPerGigabyte);
      return run.gigabytesPerSecond;
    },
    wide: async () => (await runFio('read', setup.reads, WIDE)).gigabytesPerSecond,
  });
  const what = `${label}: verified cold read of all tensors`;
  const wideNote =
    'fio with a buffer for each block in flight: memory as large as what is loaded, not a few in the cache';
  return [
    compared(`${what}, memory alike`, taken.ours, taken.wide, {
      against: `fio read ${settingText(WIDE)}`,
      note: wideNote,
    }),
    compared(what, taken.ours, taken.fio, { against: 'fio read', wanted: setup.place.wanted, note: backend }),
    {
      what: `${label}: core-seconds of that read`,
      value: median(core),
      unit: 's/GB',
      against: 'fio (no checking)',
      peerValue: median(fioCore),
      wanted: '<= 0.10',
    },
  ];
}

async function writes(setup: Setup, label: string, redundancy: 1 | 2): Promise<Row[]> {
  const { worker, members } = setup;
  const core: number[] = [];
  const taken = await rounds(setup, {
    ours: async () => {
      const measured = await worker.measure({ kind: 'write', members, run: RUN, redundancy });
      core.push(measured.coreMs / 1e3 / (measured.bytes / 1e9));
      return rateOf(measured);
    },
    fio: async () => (await runFio('write', setup.writes, setup.bestWrite.best)).gigabytesPerSecond,
    wide: async () => (await runFio('write', setup.writes, WIDE)).gigabytesPerSecond,
  });
  const mirrored = redundancy > 1;
  const theirs = taken.fio.map((rate) => rate / redundancy);
  const wide = taken.wide.map((rate) => rate / redundancy);
  return [
    compared(`${label}: ${mirrored ? 'mirrored ' : ''}write and commit`, taken.ours, theirs, {
      against: mirrored ? 'half of fio write + fsync' : 'fio write + fsync',
      wanted: setup.place.wanted,
    }),
    compared(`${label}: ${mirrored ? 'mirrored ' : ''}write and commit, memory alike`, taken.ours, wide, {
      against: `${mirrored ? 'half of ' : ''}fio write ${settingText(WIDE)} + fsync`,
    }),
    { what: `${label}: core-seconds of that write`, value: median(core), unit: 's/GB' },
  ];
}

async function sourceStretch(source: string): Promise<FioStretch[]> {
  const names = (await readdir(source)).filter((name) => name.endsWith('.safetensors'));
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(source, name))).size));
  const largest = sizes.indexOf(Math.max(...sizes));
  const lengthBytes = Math.floor((sizes[largest] ?? 0) / BLOCK_BYTES) * BLOCK_BYTES;
  return [{ path: join(source, names[largest] ?? ''), offsetBytes: 0, lengthBytes }];
}

async function imports(setup: Setup, label: string): Promise<Row[]> {
  const { worker, members } = setup;
  const source = await sourceStretch(setup.place.source);
  const core: number[] = [];
  let last: Measured | null = null;
  const taken = await rounds(setup, {
    ours: async () => {
      last = await worker.measure({
        kind: 'import',
        members,
        source: setup.place.source,
        run: 'bench-import',
        keep: false,
      });
      core.push(last.coreMs / 1e3 / (last.bytes / 1e9));
      return rateOf(last);
    },
    read: async () => (await runFio('read', source, setup.bestRead.best)).gigabytesPerSecond,
    write: async () => (await runFio('write', setup.writes, setup.bestWrite.best)).gigabytesPerSecond,
  });
  const slower = taken.read.map((rate, index) => Math.min(rate, taken.write[index] ?? Number.NaN));
  // Source and members share the device: nothing can do both at once faster than one after the other.
  const shared = taken.read.map((rate, index) => 1 / (1 / rate + 1 / (taken.write[index] ?? Number.NaN)));
  const what = `${label}: import of safetensors`;
  const { bytes, allocatedBytes, tensorCount } = last as unknown as Measured;
  const allowed = 1.01 * bytes + 4096 * tensorCount;
  return [
    compared(what, taken.ours, slower, {
      against: 'slower of fio read source, fio write',
      wanted: '>= 0.90',
    }),
    compared(`${what}, source on the same device`, taken.ours, shared, {
      against: 'fio read, then fio write',
    }),
    { what: `${label}: core-seconds of that import`, value: median(core), unit: 's/GB' },
    {
      what: `${label}: space allocated by that import`,
      value: allocatedBytes / allowed,
      unit: 'x of 1.01 source + 4 KiB a tensor',
      wanted: '<= 1',
      note: `${allocatedBytes} bytes for ${bytes}`,
    },
  ];
}

async function peaks(setup: Setup, label: string): Promise<Row[]> {
  const { members } = setup;
  const imported = await measureAlone({
    kind: 'import',
    members,
    source: setup.place.source,
    run: 'bench-import',
    keep: false,
  });
  const loaded = await measureAlone({ kind: 'read', members, run: RUN });
  const row = (what: string, { peakBytes, bufferBytes }: Measured): Row => ({
    what: `${label}: peak resident memory over the caller's buffers, ${what}`,
    value: (peakBytes - bufferBytes) / MEBIBYTE,
    unit: 'MiB',
    wanted: `<= ${RSS_LIMIT_BYTES / MEBIBYTE}`,
  });
  return [row('import', imported), row('load', loaded)];
}
