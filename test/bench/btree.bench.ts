// Microbenchmarks of the catalog's trees: lookups, puts, and what a commit writes, by page size.
//
// Invariants
//   1. Everything is in memory; the device costs nothing, so figures are the engine's own.
//   2. Keys and order are seeded: two runs do the same work.
//
// Run: node --expose-gc dist/test/bench/btree.bench.js [items, default 1000000] [--json]

import { Bench } from 'tinybench';
import { Tree } from '../../engine/btree.js';
import type { PageSink } from '../../engine/btree.js';
import type { Io } from '../../engine/io/port.js';
import { PageStore } from '../../engine/page_store.js';
import { crc64 } from '../../format/checksum.js';

const SECTOR_BYTES = 4_096;
const VALUE_BYTES = 96;
const PUTS_PER_COMMIT = 1_000;
const LIMITS = [
  { leafBytes: 4_096, branchBytes: 4_096 },
  { leafBytes: 8_192, branchBytes: 8_192 },
  { leafBytes: 8_192, branchBytes: 16_384 },
  { leafBytes: 16_384, branchBytes: 16_384 },
];

/** The key of a version: id BE8 and part (format.md section 5). */
function versionKey(id: number): Uint8Array {
  const key = new Uint8Array(9);
  const view = new DataView(key.buffer);
  view.setUint32(0, Math.floor(id / 2 ** 32));
  view.setUint32(4, id >>> 0);
  return key;
}

/** Numerical Recipes' linear congruence: repeatable order. */
function randomIds(seed: number, count: number, limit: number): number[] {
  let state = seed >>> 0;
  return Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return 1 + Math.floor((state / 2 ** 32) * limit);
  });
}

class Figures {
  bytes = 0;
  nextSector = 256;
  readonly sink: PageSink = {
    place: (storedBytes) => {
      const sector = this.nextSector;
      this.nextSector += storedBytes / SECTOR_BYTES;
      this.bytes += storedBytes;
      return { copies: [{ member: 0, sector }] };
    },
  };
}

async function buildTree(itemCount: number, limits: { leafBytes: number; branchBytes: number }) {
  const io: Partial<Io> = { checksum: { crc64: (bytes) => crc64(bytes) } };
  const pages = new PageStore({
    io: io as Io,
    storeUuid: new Uint8Array(16).fill(1),
    formattedBytes: () => [2 ** 40],
    resolveSlot: () => null,
    cacheBytes: 2 ** 30,
  });
  const tree = Tree.open(pages, 1, null, 0, limits);
  const figures = new Figures();
  const value = new Uint8Array(VALUE_BYTES).fill(3);
  let birth = 0;
  const startMs = performance.now();
  for (let id = 1; id <= itemCount; id += 1) {
    await tree.put(versionKey(id), value);
    if (id % 10_000 === 0 || id === itemCount) {
      birth += 1;
      tree.adopt(tree.seal(figures.sink, birth));
    }
  }
  return { tree, pages, figures, buildMs: performance.now() - startMs, birth };
}

async function measure(itemCount: number, limits: { leafBytes: number; branchBytes: number }) {
  const built = await buildTree(itemCount, limits);
  const { tree, pages, figures } = built;
  const keys = randomIds(42, 100_000, itemCount).map(versionKey);
  const value = new Uint8Array(VALUE_BYTES).fill(4);
  let next = 0;
  let pending = 0;
  let birth = built.birth;
  let commits = 0;
  const view = tree.snapshotView();
  const bench = new Bench({ time: 1_000, warmupTime: 200 });
  bench.add('lookup, 1000 random keys', () => {
    for (let i = 0; i < 1_000; i += 1) {
      if (view.get(keys[next] as Uint8Array) instanceof Promise) pending += 1;
      next = (next + 1) % keys.length;
    }
  });
  await bench.run();
  const lookup = bench.tasks[0]?.result;
  const bytesBefore = figures.bytes;
  const putBench = new Bench({ time: 1_000, warmupTime: 0, warmup: false });
  putBench.add('1000 random puts with savepoints, sealed', async () => {
    for (let i = 0; i < PUTS_PER_COMMIT; i += 1) {
      tree.beginEdit();
      const done = tree.put(keys[next] as Uint8Array, value);
      if (done instanceof Promise) await done;
      next = (next + 1) % keys.length;
    }
    birth += 1;
    commits += 1;
    tree.adopt(tree.seal(figures.sink, birth));
  });
  await putBench.run();
  const put = putBench.tasks[0]?.result;
  const meanMs = (result: unknown): number => {
    const { latency, error } = result as { latency?: { mean: number }; error?: unknown };
    if (latency === undefined) throw error;
    return latency.mean;
  };
  return {
    ...limits,
    items: itemCount,
    appendsPerSecond: Math.round(itemCount / (built.buildMs / 1_000)),
    lookupsPerSecond: Math.round(1_000 / (meanMs(lookup) / 1_000)),
    lookupsThatWaited: pending,
    putsPerSecond: Math.round(PUTS_PER_COMMIT / (meanMs(put) / 1_000)),
    sealedBytesPerPut: Math.round((figures.bytes - bytesBefore) / (commits * PUTS_PER_COMMIT)),
    cachedMiB: Math.round(pages.stats().cachedBytes / 2 ** 20),
  };
}

const itemCount = Number(process.argv.find((argument) => /^\d+$/.test(argument)) ?? 1_000_000);
const rows = [];
for (const limits of LIMITS) rows.push(await measure(itemCount, limits));
if (process.argv.includes('--json')) console.log(JSON.stringify(rows));
else console.table(rows);
