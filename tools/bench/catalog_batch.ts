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
const BATCH = 1_000;
const BATCHES_PER_ROUND = 20;
const ROUNDS = 5;
/** The versions tree (format.md section 5). */
const VERSIONS_TREE = 1;

export async function benchTreeBatches(directory: string, seed: number): Promise<Row> {
  const what = `durable batches of ${BATCH} records of ${VALUE_BYTES} bytes straight into a tree, random keys`;
  const lmdb = await openLmdbBlobs(join(directory, 'tree.lmdb'), MAP_BYTES);
  if ('skip' in lmdb) return { what, note: `skipped: ${lmdb.skip}` };
  const create = { members: [{ path: 'a.member', sizeBytes: MEMBER_BYTES }], redundancy: 1 as const };
  const store = await open(join(directory, 'tree'), { mode: 'rw', create });
  const count = BATCH * BATCHES_PER_ROUND * ROUNDS;
  const ids = shuffled(
    Array.from({ length: count }, (_, index) => index + 1),
    seededRandom(seed),
  );
  const value = Buffer.alloc(VALUE_BYTES, 5);
  const keys = ids.map((id) => Buffer.from(versionKey(id, 0)));
  const batchOurs = async (batch: readonly Buffer[]): Promise<void> => {
    await store.catalog.commit(async (change) => {
      for (const key of batch) await change.put(VERSIONS_TREE, key, value);
    });
  };
  const batchTheirs = async (batch: readonly Buffer[]): Promise<void> => {
    await Promise.all(batch.map((key) => lmdb.put(key, value)));
    await lmdb.flushed;
  };
  const ours: number[] = [];
  const theirs: number[] = [];
  try {
    for (let round = 0; round < ROUNDS; round += 1) {
      const batches = Array.from({ length: BATCHES_PER_ROUND }, (_, index) => {
        const from = (round * BATCHES_PER_ROUND + index) * BATCH;
        return keys.slice(from, from + BATCH);
      });
      ours.push(await rate(batches, batchOurs));
      theirs.push(await rate(batches, batchTheirs));
    }
  } finally {
    await store.close();
    await lmdb.close();
  }
  const ratios = spread(pairRatios(ours, theirs));
  return {
    what,
    value: median(ours),
    unit: 'records/s',
    against: 'lmdb, flushed',
    peerValue: median(theirs),
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
  for (const batch of batches) await write(batch);
  return (BATCH * BATCHES_PER_ROUND) / ((performance.now() - startMs) / 1e3);
}
