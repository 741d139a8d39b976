// The part of `bench catalog` that holds the catalog's trees against lmdb: the same keys and bytes in durable batches.
//
// Invariants
//   1. One batch is one durable root here and one flushed transaction there; the next begins when it is done.
//   2. Keys come in one random order for both; values are byte strings that neither side encodes.
//   3. The store is scratch: its trees hold records that mean nothing. It is never read as a store again.

import { join } from 'node:path';
import { open } from '../../engine/index.js';
import { versionKey } from '../../format/index.js';
import { openLmdbBlobs } from './lmdb_peer.js';
import type { Row } from './report.js';
import { median, pairRatios, seededRandom, shuffled, spread } from './statistics.js';

const MEMBER_BYTES = 1024 * 1024 * 1024;
const MAP_BYTES = 1024 * 1024 * 1024;
const VALUE_BYTES = 200;
/** Small batches wait for the device's flushes, large ones for the processor and the bytes written. */
const BATCHES = [
  { size: 1, count: 100 },
  { size: 10, count: 100 },
  { size: 100, count: 50 },
  { size: 1_000, count: 20 },
] as const;
const ROUNDS = 5;
/** The versions tree (format.md section 5). */
const VERSIONS_TREE = 1;

interface Sides {
  readonly ours: (batch: readonly Buffer[]) => Promise<void>;
  readonly theirs: (batch: readonly Buffer[]) => Promise<void>;
}

export async function benchTreeBatches(directory: string, seed: number): Promise<Row[]> {
  const lmdb = await openLmdbBlobs(join(directory, 'tree.lmdb'), MAP_BYTES);
  if ('skip' in lmdb)
    return [{ what: 'durable batches straight into a tree', note: `skipped: ${lmdb.skip}` }];
  const create = { members: [{ path: 'a.member', sizeBytes: MEMBER_BYTES }], redundancy: 1 as const };
  const store = await open(join(directory, 'tree'), { mode: 'rw', create });
  const keyCount = BATCHES.reduce((sum, { size, count }) => sum + size * count * ROUNDS, 0);
  const ids = shuffled(
    Array.from({ length: keyCount }, (_, index) => index + 1),
    seededRandom(seed),
  );
  const value = Buffer.alloc(VALUE_BYTES, 5);
  const keys = ids.map((id) => Buffer.from(versionKey(id, 0)));
  const sides: Sides = {
    ours: async (batch) => {
      await store.catalog.commit(async (change) => {
        for (const key of batch) await change.put(VERSIONS_TREE, key, value);
      });
    },
    theirs: async (batch) => {
      await Promise.all(batch.map((key) => lmdb.put(key, value)));
      await lmdb.flushed;
    },
  };
  const rows: Row[] = [];
  try {
    // Both trees are filled by the largest batches first, so that the small ones meet pages of a full tree.
    for (const { size, count } of [...BATCHES].reverse()) {
      const mine = keys.splice(0, size * count * ROUNDS);
      rows.unshift(await compareBatches(sides, mine, size, count));
    }
  } finally {
    await store.close();
    await lmdb.close();
  }
  return rows;
}

async function compareBatches(
  { ours, theirs }: Sides,
  keys: readonly Buffer[],
  size: number,
  count: number,
): Promise<Row> {
  const ourRates: number[] = [];
  const theirRates: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const batches = Array.from({ length: count }, (_, index) => {
      const from = (round * count + index) * size;
      return keys.slice(from, from + size);
    });
    ourRates.push(await rate(batches, ours));
    theirRates.push(await rate(batches, theirs));
  }
  const ratios = spread(pairRatios(ourRates, theirRates));
  const records = size === 1 ? '1 record' : `${size} records`;
  return {
    what: `durable batches of ${records} of ${VALUE_BYTES} bytes straight into a tree, random keys`,
    value: median(ourRates),
    unit: 'records/s',
    against: 'lmdb, flushed',
    peerValue: median(theirRates),
    ratio: ratios.median,
    ratioLeast: ratios.least,
    ratioMost: ratios.most,
    pairs: ratios.count,
    wanted: '>= 1',
  };
}

async function rate(
  batches: readonly (readonly Buffer[])[],
  write: (batch: readonly Buffer[]) => Promise<void>,
): Promise<number> {
  const startMs = performance.now();
  let records = 0;
  for (const batch of batches) {
    await write(batch);
    records += batch.length;
  }
  return records / ((performance.now() - startMs) / 1e3);
}
