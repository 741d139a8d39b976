// `bench catalog`: a million versions, a hundred thousand tensors in one of them, and lmdb beside it.
//
// Invariants
//   1. Versions are made by ordinary begin, put and commit, each awaited until it is durable, a fixed number in
//      flight; runs come in an order drawn from the seed.
//   2. lmdb gets the same keys and as many bytes of value, the same number in flight, the same disk, and is asked
//      for durability the way its documentation names it; of its two ways the faster one is taken.
//   3. Opening is timed in fresh processes too (catalog_probe.ts), where nothing is compiled or cached.
//   4. Everything made is removed, also after a failure.
//
// The pages' own costs are measured by test/bench/btree.bench.ts.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { open, type Store } from '../../engine/index.js';
import { openLmdb } from './lmdb_peer.js';
import type { ProbeQuestion, ProbeResult } from './catalog_probe.js';
import { type Row, say } from './report.js';
import { benchTreeBatches } from './catalog_batch.js';
import { benchTensors } from './catalog_tensors.js';
import { median, pairRatios, seededRandom, spread } from './statistics.js';

const MEBIBYTE = 1024 * 1024;
export const IN_FLIGHT = 1_000;
const RUNS = 1_000;
/** Sampled references for look-ups. */
const LOOKUPS = 200_000;
/** Holds every page that look-ups of a million versions touch. */
const LARGE_CACHE_BYTES = 1024 * MEBIBYTE;
const OPENS = 7;
const BATCH_ROUNDS = 5;
const BATCH_VERSIONS = 20_000;
const MEMBER_BYTES = 6 * 1024 * MEBIBYTE;
const PROBE = fileURLToPath(new URL('./catalog_probe.js', import.meta.url));

export interface CatalogOptions {
  readonly directory: string;
  readonly versions: number;
  readonly tensors: number;
  readonly seed: number;
}

export const runName = (index: number): string => `group/run-${String(index % RUNS).padStart(4, '0')}`;
const METADATA = { 'commit': '0123456789abcdef0123456789abcdef01234567' };
const SCALAR = new Uint8Array(4);

export async function benchCatalog(options: CatalogOptions): Promise<Row[]> {
  const directory = join(options.directory, `ingot-bench-${process.pid}`);
  await mkdir(directory, { recursive: true });
  try {
    const { bavail, bsize } = await statfs(directory);
    if (bavail * bsize < 3 * MEMBER_BYTES) {
      return [{ what: 'catalog', note: 'skipped: less than 18 GiB of disk is free' }];
    }
    const rows = await benchVersions(join(directory, 'versions'), options);
    rows.push(...(await benchBatches(directory, options)));
    rows.push(...(await benchTreeBatches(directory, options.seed)));
    rows.push(...(await benchTensors(directory, options.tensors)));
    return rows;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** A store of two members. */
export async function makeStore(
  directory: string,
  memberBytes: number,
  redundancy: 1 | 2 = 2,
): Promise<Store> {
  const members = ['a.member', 'b.member'].map((path) => ({ path, sizeBytes: memberBytes }));
  return open(directory, { mode: 'rw', create: { members, redundancy } });
}

/** Makes versions [from, to) with IN_FLIGHT at a time. Steps are unique; runs come in random order. */
export async function makeVersions(store: Store, runs: Uint16Array, from: number, to: number): Promise<void> {
  let next = from;
  const lane = async (): Promise<void> => {
    while (next < to) {
      const step = next;
      next += 1;
      const transaction = await store.begin(runName(runs[step] ?? 0), { step, metadata: METADATA });
      await transaction.put('loss', SCALAR, { dtype: 'F32', shape: [] });
      await transaction.commit();
      if ((step + 1) % 100_000 === 0) say(`${step + 1} versions`);
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, lane));
}

export function drawRuns(count: number, seed: number): Uint16Array {
  const random = seededRandom(seed);
  return Uint16Array.from({ length: count }, () => Math.floor(random() * RUNS));
}

async function benchVersions(directory: string, { versions, seed }: CatalogOptions): Promise<Row[]> {
  const runs = drawRuns(versions, seed);
  const store = await makeStore(directory, MEMBER_BYTES);
  const startMs = performance.now();
  const cpu = process.cpuUsage();
  await makeVersions(store, runs, 0, versions);
  const seconds = (performance.now() - startMs) / 1e3;
  const { user, system } = process.cpuUsage(cpu);
  const { storedBytes } = store.info;
  await store.close();
  const name = `${versions} versions`;
  return [
    {
      what: `${name}: made, ${IN_FLIGHT} in flight, each durable`,
      value: versions / seconds,
      unit: 'versions/s',
      note: `${Math.round((user + system) / versions)} us of processor each, all threads and the kernel`,
    },
    {
      what: `${name}: space in use`,
      value: storedBytes / versions,
      unit: 'bytes/version',
      note: 'both copies',
    },
    ...(await benchOpenAndLookups(directory, runs, seed)),
  ];
}

/** Opens a store of `runs.length` versions in fresh processes and looks random ones up, by size of the page cache. */
export async function benchOpenAndLookups(
  directory: string,
  runs: Uint16Array,
  seed: number,
): Promise<Row[]> {
  const opened: number[] = [];
  for (let index = 0; index < OPENS; index += 1) {
    opened.push((await probe({ directory, runs, seed, lookups: 0, cacheBytes: null })).openMs);
  }
  const here: number[] = [];
  for (let index = 0; index < OPENS; index += 1) {
    const openMs = performance.now();
    const store = await open(directory, { mode: 'rw' });
    here.push(performance.now() - openMs);
    await store.close();
  }
  const name = `${runs.length} versions`;
  const { median: openMs, least, most, count } = spread(opened);
  const rows: Row[] = [
    {
      what: `${name}: open to write, fresh process`,
      value: openMs,
      unit: 'ms',
      wanted: '<= 100',
      pairs: count,
      note: `${least.toFixed(1)}..${most.toFixed(1)} ms`,
    },
    {
      what: `${name}: open to write, again in one process`,
      value: median(here),
      unit: 'ms',
      wanted: '<= 100',
    },
  ];
  const caches = [
    {
      cacheBytes: LARGE_CACHE_BYTES,
      lookups: LOOKUPS,
      text: 'cacheBytes 1 GiB',
      wanted: { wanted: '>= 300000' },
    },
    { cacheBytes: null, lookups: LOOKUPS / 20, text: 'default page cache', wanted: {} },
  ];
  for (const { cacheBytes, lookups, text, wanted } of caches) {
    const found = await probe({ directory, runs, seed, lookups, cacheBytes });
    rows.push({
      what: `${name}: look-ups of random run@step, ${text}`,
      value: found.lookupsPerSecond,
      unit: '/s',
      ...wanted,
      note:
        `best of ${found.passes} passes over ${lookups}, ${Math.round(found.lookupsPerCoreSecond)} a core-second; ` +
        `first pass, pages cold: ${Math.round(found.coldLookupsPerSecond)}/s`,
    });
  }
  return rows;
}

async function probe(question: ProbeQuestion): Promise<ProbeResult> {
  const child = fork(PROBE, [], {
    serialization: 'advanced',
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  child.send(question);
  const [answer] = (await once(child, 'message')) as [ProbeResult | { readonly error: string }];
  if ('error' in answer) throw new Error(answer.error);
  return answer;
}

/** Batches of durable versions against durable puts of lmdb, in turns. */
async function benchBatches(directory: string, { seed }: CatalogOptions): Promise<Row[]> {
  const what = `${BATCH_VERSIONS} durable records, ${IN_FLIGHT} in flight`;
  const lmdb = await openLmdb(join(directory, 'batch.lmdb'));
  if ('skip' in lmdb) return [{ what, note: `skipped: ${lmdb.skip}` }];
  const store = await makeStore(join(directory, 'batch'), 1024 * MEBIBYTE, 2);
  const single = await open(join(directory, 'single'), {
    mode: 'rw',
    create: { members: [{ path: 'a.member', sizeBytes: 1024 * MEBIBYTE }], redundancy: 1 },
  });
  const total = BATCH_VERSIONS * BATCH_ROUNDS;
  const runs = drawRuns(total, seed);
  const ours: number[] = [];
  const oursSingle: number[] = [];
  const waves: number[] = [];
  const singles: number[] = [];
  try {
    for (let round = 0; round < BATCH_ROUNDS; round += 1) {
      const from = round * BATCH_VERSIONS;
      const to = from + BATCH_VERSIONS;
      const record = (index: number): { key: string[]; value: object } => ({
        key: [runName(runs[index] ?? 0), String(index)],
        value: {
          step: index,
          createdAt: 1_700_000_000_000 + index,
          metadata: METADATA,
          tensors: [{ name: 'loss', dtype: 'F32', bytes: SCALAR }],
        },
      });
      ours.push(await rate(() => makeVersions(store, runs, from, to)));
      waves.push(await rate(() => lmdb.putInWaves(from, to, IN_FLIGHT, record)));
      oursSingle.push(await rate(() => makeVersions(single, runs, from, to)));
      singles.push(await rate(() => lmdb.putEach(from, to, IN_FLIGHT, record)));
    }
    const better = median(waves) > median(singles) ? waves : singles;
    const way = better === waves ? 'waves, then flushed' : 'each put durable';
    const row = (name: string, rates: readonly number[]): Row => {
      const ratios = spread(pairRatios(rates, better));
      return {
        what: `${what}, ${name}`,
        value: median(rates),
        unit: '/s',
        against: `lmdb, ${way}`,
        peerValue: median(better),
        ratio: ratios.median,
        ratioLeast: ratios.least,
        ratioMost: ratios.most,
        pairs: ratios.count,
        wanted: '>= 1',
      };
    };
    const rows = [row('one member', oursSingle), row('mirrored over two members', ours)];
    rows.push(await compareLookups(single, lmdb, runs, total));
    return rows;
  } finally {
    await store.close();
    await single.close();
    await lmdb.close();
  }
}

async function compareLookups(
  store: Store,
  lmdb: Exclude<Awaited<ReturnType<typeof openLmdb>>, { skip: string }>,
  runs: Uint16Array,
  total: number,
): Promise<Row> {
  const random = seededRandom(7);
  const picks = Array.from({ length: LOOKUPS }, () => Math.floor(random() * total));
  const refs = picks.map((index) => `${runName(runs[index] ?? 0)}@${index}`);
  const keys = picks.map((index) => [runName(runs[index] ?? 0), String(index)]);
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let round = 0; round < BATCH_ROUNDS; round += 1) {
    const startMs = performance.now();
    for (const ref of refs) {
      const found = store.lookup(ref);
      if (found instanceof Promise) await found;
    }
    const middleMs = performance.now();
    for (const key of keys) if (lmdb.get(key) === undefined) throw new Error('lmdb lost a record');
    ours.push(LOOKUPS / ((middleMs - startMs) / 1e3));
    theirs.push(LOOKUPS / ((performance.now() - middleMs) / 1e3));
  }
  const ratios = spread(pairRatios(ours, theirs));
  return {
    what: `look-ups among those ${total}`,
    value: median(ours),
    unit: '/s',
    against: 'lmdb get',
    peerValue: median(theirs),
    ratio: ratios.median,
    ratioLeast: ratios.least,
    ratioMost: ratios.most,
    pairs: ratios.count,
  };
}

async function rate(body: () => Promise<void>): Promise<number> {
  const startMs = performance.now();
  await body();
  return BATCH_VERSIONS / ((performance.now() - startMs) / 1e3);
}
