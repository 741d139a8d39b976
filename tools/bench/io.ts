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
//   5. A row is given to the caller as soon as it is measured: what ends a run early costs only what was not yet.
//      Past the time limit nothing is begun; what was left out has rows that say so.
//   6. An import is compared with the slower of reading and writing only where source and members lie on different
//      devices; on one device with a read and then a write of it.
//
// The version is a generated model of Llama-3 shapes (model_generator.ts).

import { rmSync } from 'node:fs';
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { generateModel } from '../model_generator.js';
import { evict } from '../quickstart/page_cache.js';
import { fioVersion, type FioSetting, type FioStretch, runFio, settingText, sweep } from './fio.js';
import { type Row, say } from './report.js';
import type { PlaceName, RowGroup } from './options.js';
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
/** fio's best on the machines measured so far, for runs without a sweep. */
const USUAL_BEST: Readonly<Record<PlaceName, FioSetting>> = {
  disk: WIDE,
  RAM: { blockBytes: MEBIBYTE, depth: 8, isApart: true },
};
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
  readonly only: readonly RowGroup[];
  readonly places: readonly PlaceName[];
  readonly memberCounts: readonly number[];
  /** No round is begun after so many minutes; Infinity for no limit. */
  readonly limitMinutes: number;
}

/** Takes rows as they are measured. */
export type RowSink = (row: Row) => void;

interface Place {
  readonly name: PlaceName;
  readonly parent: string;
  readonly directory: string;
  readonly wanted: string;
  /** The model in this place. */
  readonly source: string;
}
interface Setup {
  readonly place: Place;
  /** Places that hold the same model, this one among them. */
  readonly sources: readonly Place[];
  readonly members: readonly string[];
  readonly worker: Worker;
  /** What fio reads: the version's own bytes. */
  readonly reads: readonly FioStretch[];
  /** What fio writes: as many bytes, elsewhere. */
  readonly writes: readonly FioStretch[];
  readonly bestRead: FioSetting;
  readonly bestWrite: FioSetting;
  readonly options: IoOptions;
  readonly isLate: () => boolean;
  readonly random: () => number;
  residentBytes: number;
}

export async function benchIo(options: IoOptions, onRow: RowSink): Promise<void> {
  const version = await fioVersion();
  if (version === null) return onRow({ what: 'io', note: 'skipped: fio is not installed' });
  say(
    `${version}, io_uring, direct; seed ${options.seed}; ${options.pairs} pairs of ${options.sizeBytes} bytes`,
  );
  // An import has the model on either device where both are asked.
  const places = placesOf(options).filter(({ name }) => options.places.includes(name));
  const endMs = performance.now() + options.limitMinutes * 60_000;
  const isLate = (): boolean => performance.now() >= endMs;
  const remove = (): void => {
    for (const { directory } of places) rmSync(directory, { recursive: true, force: true });
  };
  // A signal ends the run without what stands in `finally`.
  process.once('exit', remove);
  try {
    for (const place of places) {
      await sweepStale(place.parent);
      await mkdir(place.directory, { recursive: true });
      say(`${place.name}: generating the model`);
      await generateModel(place.source, { sizeBytes: options.sizeBytes, seed: options.seed });
    }
    for (const place of places) {
      for (const memberCount of options.memberCounts)
        await benchPlace(place, places, memberCount, options, { onRow, isLate });
    }
  } finally {
    remove();
    process.off('exit', remove);
  }
}

/** Directories that a run left which was killed: of processes that are no more. */
async function sweepStale(parent: string): Promise<void> {
  const names = await readdir(parent).catch(() => []);
  for (const name of names) {
    const pid = /^ingot-bench-(\d+)$/.exec(name)?.[1];
    if (pid === undefined || isRunning(Number(pid))) continue;
    say(`${join(parent, name)} was left by a run that is over: removed`);
    await rm(join(parent, name), { recursive: true, force: true });
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function placesOf(options: IoOptions): Place[] {
  const place = (name: PlaceName, parent: string, wanted: string): Place => {
    const directory = join(parent, `ingot-bench-${process.pid}`);
    return { name, parent, directory, wanted, source: join(directory, 'model') };
  };
  const disk = place('disk', options.directory, '>= 0.95');
  return options.ramDirectory === null ? [disk] : [disk, place('RAM', options.ramDirectory, '>= 0.80')];
}

interface Run {
  readonly onRow: RowSink;
  readonly isLate: () => boolean;
}

async function benchPlace(
  place: Place,
  sources: readonly Place[],
  memberCount: number,
  options: IoOptions,
  { onRow, isLate }: Run,
): Promise<void> {
  const label = `${place.name}, ${memberCount} member${memberCount === 1 ? '' : 's'}`;
  const late: Row = { what: label, note: 'not measured: the time limit' };
  if (isLate()) return onRow(late);
  const worker = new Worker();
  const members = Array.from({ length: memberCount }, (_, index) => join(place.directory, `${index}.member`));
  try {
    const setup = await prepare(place, sources, members, worker, options, isLate);
    const best = `fio read ${settingText(setup.bestRead)}, write ${settingText(setup.bestWrite)}`;
    say(`${label}: ${best}`);
    const group = async (name: RowGroup, measure: () => Promise<Row[]>): Promise<void> => {
      if (!options.only.includes(name)) return;
      const rows = isLate() ? [{ ...late, what: `${label}: ${name}` }] : await measure();
      for (const row of rows) onRow(row);
    };
    await group('read', () => reads(setup, label));
    await group('write', () => writes(setup, label, 1));
    if (memberCount > 1) await group('mirrored', () => writes(setup, label, 2));
    for (const source of sources) await group('import', () => importsFrom(source, setup, label));
    // Its store is open for writing; what follows opens it in processes of their own.
    await worker.close();
    await group('memory', () => peaks(setup, label));
    const cold =
      place.name === 'RAM' ? 'RAM is its own page cache' : `at most ${setup.residentBytes} bytes were cached`;
    onRow({ what: `${label}: settings`, note: `${best}; before each run ${cold}` });
  } finally {
    await worker.close();
    for (const path of members) await rm(path, { force: true });
  }
}

/** Makes the store, imports the model, writes every stretch once, and finds fio's best settings. */
async function prepare(
  place: Place,
  sources: readonly Place[],
  members: readonly string[],
  worker: Worker,
  options: IoOptions,
  isLate: () => boolean,
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
  const wants = (group: RowGroup): boolean => options.only.includes(group);
  const best = async (direction: 'read' | 'write', stretches: readonly FioStretch[], seed: number) => {
    if (options.sweepRounds === 0 || isLate()) return USUAL_BEST[place.name];
    say(`${place.name}, ${members.length}: fio's best ${direction} of 9, ${options.sweepRounds} rounds each`);
    return (await sweep(direction, stretches, options.sweepRounds, seed)).best;
  };
  const bestRead =
    wants('read') || wants('import') ? await best('read', reads, options.seed) : USUAL_BEST[place.name];
  const bestWrite =
    wants('write') || wants('mirrored') || wants('import')
      ? await best('write', writes, options.seed + 1)
      : USUAL_BEST[place.name];
  return {
    place,
    sources,
    members,
    worker,
    reads,
    writes,
    bestRead,
    bestWrite,
    options,
    isLate,
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
  // Files on a RAM disk are in the page cache as long as they exist.
  const onDisk = setup.sources.filter(({ name }) => name === 'disk').map(({ source }) => source);
  const lists = await Promise.all(
    onDisk.map(async (source) => (await readdir(source)).map((name) => join(source, name))),
  );
  const sources = lists.flat();
  const members = setup.place.name === 'disk' ? setup.members : [];
  for (let round = 0; round < setup.options.pairs && (round === 0 || !setup.isLate()); round += 1) {
    if (round > 0) say(`  ${round} of ${setup.options.pairs} rounds`);
    for (const name of shuffled(names, setup.random)) {
      if (members.length + sources.length === 0) {
        taken[name].push(await measurements[name]());
        continue;
      }
      const eviction = await evict([...members, ...sources]);
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
      const run = await runFio('read', setup.reads, setup.bestRead);
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
    fio: async () => (await runFio('write', setup.writes, setup.bestWrite)).gigabytesPerSecond,
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

async function importsFrom(place: Place, setup: Setup, label: string): Promise<Row[]> {
  const { worker, members } = setup;
  const stretch = await sourceStretch(place.source);
  const same = place.name === setup.place.name;
  const readSetting = same ? setup.bestRead : USUAL_BEST[place.name];
  const core: number[] = [];
  let last: Measured | null = null;
  const taken = await rounds(setup, {
    ours: async () => {
      last = await worker.measure({
        kind: 'import',
        members,
        source: place.source,
        run: 'bench-import',
        keep: false,
      });
      core.push(last.coreMs / 1e3 / (last.bytes / 1e9));
      return rateOf(last);
    },
    read: async () => (await runFio('read', stretch, readSetting)).gigabytesPerSecond,
    write: async () => (await runFio('write', setup.writes, setup.bestWrite)).gigabytesPerSecond,
  });
  const what = `${label}: import of safetensors from ${place.name}`;
  // Of one device nothing can ask both at once faster than one after the other.
  const theirs = taken.read.map((read, index) => {
    const write = taken.write[index] ?? Number.NaN;
    return same ? 1 / (1 / read + 1 / write) : Math.min(read, write);
  });
  const row = same
    ? compared(what, taken.ours, theirs, { against: 'fio read, then fio write, of the one device' })
    : compared(what, taken.ours, theirs, {
        against: 'slower of fio read source, fio write',
        wanted: '>= 0.90',
      });
  const { bytes, allocatedBytes, tensorCount } = last as unknown as Measured;
  const allowed = 1.01 * bytes + 4096 * tensorCount;
  const space: Row = {
    what: `${label}: space allocated by that import`,
    value: allocatedBytes / allowed,
    unit: 'x of 1.01 source + 4 KiB a tensor',
    wanted: '<= 1',
    note: `${allocatedBytes} bytes for ${bytes}`,
  };
  const coreRow: Row = {
    what: `${label}: core-seconds of that import`,
    value: median(core),
    unit: 's/GB',
    note: `fio: ${median(taken.read).toFixed(2)} GB/s from the source, ${median(taken.write).toFixed(2)} to members`,
  };
  return same ? [row, coreRow, space] : [row, coreRow];
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
