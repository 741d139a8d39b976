// The deltas' rows of `bench codec`: one checkpoint imported against another, end to end, beside the same import alone.
//
// Invariants
//   1. Both checkpoints are one tensor of bf16 weights, before and after one step; the base is in the store already.
//   2. Alone and against the base take turns in an order drawn anew for each pair; page-cache pages of members and
//      sources are dropped before every run. Rates are bytes of the source, by wall time.
//   3. Sizes count all stored bytes of the version's own extents, padding included; the catalog is not in them. What
//      was stored is read back and compared.
//   4. Everything made is removed, also after a failure.

import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { open, type Store } from '../../engine/index.js';
import { importModel } from '../import/importer.js';
import { evict } from '../quickstart/page_cache.js';
import { layoutFile } from '../safetensors/writer.js';
import { type CodecSample, codecSamples } from './codec_data.js';
import { type Row, say } from './report.js';
import { gigabytesPerSecond, median, pairRatios, seededRandom, shuffled, spread } from './statistics.js';

const MEBIBYTE = 1024 * 1024;
/** Bytes of a checkpoint at most: more takes longer and shows nothing new. */
const CHECKPOINT_BYTES_MAX = 128 * MEBIBYTE;
/** Base, versions whose space is not free yet, and the catalog. */
const ROOM = 6;
const SIDES = ['alone', 'delta'] as const;
type Side = (typeof SIDES)[number];

export interface DeltaBenchOptions {
  readonly directory: string;
  readonly sizeBytes: number;
  readonly pairs: number;
  readonly seed: number;
}

export async function benchDeltas(options: DeltaBenchOptions): Promise<Row[]> {
  const bytes = Math.min(options.sizeBytes, CHECKPOINT_BYTES_MAX);
  const rows: Row[] = [];
  for (const sample of codecSamples(bytes, options.seed)) {
    if (sample.base === undefined) continue;
    const directory = join(options.directory, `ingot-bench-delta-${process.pid}`);
    try {
      await mkdir(directory, { recursive: true });
      rows.push(...(await benchSample(sample, directory, options)));
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }
  return rows;
}

async function writeCheckpoint(path: string, bytes: Uint8Array): Promise<string> {
  const { prefixBytes } = layoutFile([{ name: 'weight', dtype: 'BF16', shape: [bytes.length / 2] }]);
  await writeFile(path, Buffer.concat([prefixBytes, bytes]));
  return path;
}

async function benchSample(
  sample: CodecSample,
  directory: string,
  { pairs, seed }: DeltaBenchOptions,
): Promise<Row[]> {
  const what = `end to end, ${sample.name}`;
  const { raw, base = raw } = sample;
  const member = join(directory, 'a.member');
  const sizeBytes = Math.ceil((ROOM * raw.length) / MEBIBYTE + 64) * MEBIBYTE;
  const paths = {
    base: await writeCheckpoint(join(directory, 'base.safetensors'), base),
    next: await writeCheckpoint(join(directory, 'next.safetensors'), raw),
  };
  const store = await open(
    { members: [member] },
    { mode: 'rw', create: { members: [{ path: member, sizeBytes }] } },
  );
  try {
    await importModel(store, paths.base, { run: 'm', codec: 'auto' });
    const against = `v:${(await store.get('m')).number}`;
    const rates: Record<Side, number[]> = { alone: [], delta: [] };
    const stored: Record<Side, number> = { alone: Number.NaN, delta: Number.NaN };
    const random = seededRandom(seed);
    // Round 0 is not counted: it touches members and memory for the first time.
    for (let round = 0; round <= pairs; round += 1) {
      say(`${what}, pair ${round} of ${pairs}`);
      for (const side of shuffled(SIDES, random)) {
        await evict([member, paths.base, paths.next]);
        const startMs = performance.now();
        const delta = side === 'delta' ? { delta: against } : {};
        const { version } = await importModel(store, paths.next, { run: side, codec: 'auto', ...delta });
        if (round > 0) rates[side].push(gigabytesPerSecond(raw.length, performance.now() - startMs));
        stored[side] = version.storedBytes / raw.length;
        if (round === 0) await compare(store, version.id, raw);
        await store.remove(version.id);
      }
    }
    const ratios = spread(pairRatios(rates.delta, rates.alone));
    return [
      {
        what: `${what}: stored`,
        value: stored.delta,
        unit: 'of raw bytes',
        against: 'alone',
        peerValue: stored.alone,
        wanted: sample.wanted,
      },
      {
        what: `${what}: import`,
        value: median(rates.delta),
        unit: 'GB/s of tensors',
        against: 'alone',
        peerValue: median(rates.alone),
        ratio: ratios.median,
        ratioLeast: ratios.least,
        ratioMost: ratios.most,
        pairs: ratios.count,
      },
    ];
  } finally {
    await store.close();
  }
}

async function compare(store: Store, id: string, raw: Uint8Array): Promise<void> {
  const read = await (await store.get(id)).tensor('weight').read();
  if (!Buffer.from(read.buffer).equals(raw)) throw new Error(`${id} reads other bytes than were imported`);
}
