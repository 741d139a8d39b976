// The store's rows of `bench codec`: the same model kept raw and coded, read and imported in turns.
//
// Invariants
//   1. Both versions lie in one store; raw and coded take turns in an order drawn anew for each pair, and the ratio is
//      the median of the pairs' ratios. Rates are bytes of tensors, not bytes moved.
//   2. Page-cache pages of members and source are dropped before every run.
//   3. Every free place of the members was written before (`fill` of worker.ts).
//   4. Everything made is removed, also after a failure.

import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { generateModel } from '../model_generator.js';
import { evict } from '../quickstart/page_cache.js';
import type { PlaceName } from './options.js';
import { type Row, say } from './report.js';
import { gigabytesPerSecond, median, pairRatios, seededRandom, shuffled, spread } from './statistics.js';
import type { Measured } from './worker.js';
import { Worker } from './worker_client.js';

const MEBIBYTE = 1024 * 1024;
/** Raw and coded, one that is imported, one whose space is not free yet; then the catalog. */
const MODELS_OF_ROOM = 4;
const SPARE_BYTES = 512 * MEBIBYTE;
const FILLING_VERSIONS = 2;
const CODECS = ['raw', 'auto'] as const;
type Codec = (typeof CODECS)[number];

export interface CodedStoreOptions {
  readonly directory: string;
  readonly ramDirectory: string | null;
  readonly sizeBytes: number;
  readonly pairs: number;
  readonly seed: number;
  readonly places: readonly PlaceName[];
}

export async function benchCodedStore(options: CodedStoreOptions): Promise<Row[]> {
  const rows: Row[] = [];
  const parents = { disk: options.directory, RAM: options.ramDirectory };
  for (const place of options.places) {
    const parent = parents[place];
    if (parent === null) continue;
    const directory = join(parent, `ingot-bench-codec-${process.pid}`);
    try {
      await mkdir(directory, { recursive: true });
      rows.push(...(await benchPlace(place, directory, options)));
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }
  return rows;
}

async function benchPlace(place: PlaceName, directory: string, options: CodedStoreOptions): Promise<Row[]> {
  const { sizeBytes, pairs, seed } = options;
  say(`${place}: generating the model`);
  const source = join(directory, 'model');
  await generateModel(source, { sizeBytes, seed });
  const sources = (await readdir(source)).map((name) => join(source, name));
  const members = [join(directory, 'a.member')];
  const worker = new Worker();
  try {
    const room = MODELS_OF_ROOM * sizeBytes + SPARE_BYTES;
    await worker.create(members, Math.ceil(room / MEBIBYTE) * MEBIBYTE);
    const space: Partial<Record<Codec, number>> = {};
    for (const codec of CODECS) {
      const { allocatedBytes, bytes } = await worker.measure({
        kind: 'import',
        members,
        source,
        run: codec,
        codec,
        keep: true,
      });
      space[codec] = allocatedBytes / bytes;
    }
    await worker.measure({ kind: 'read', members, run: 'raw' });
    await worker.fill(members, 'raw', 1, FILLING_VERSIONS);
    const before = async (): Promise<void> => void (await evict([...members, ...sources]));
    const turns = (what: string, job: (codec: Codec) => Promise<Measured>) =>
      takeTurns(`${place}: ${what}`, pairs, seed, async (codec) => {
        await before();
        return job(codec);
      });
    const imports = await turns('import of safetensors, codec auto', (codec) =>
      worker.measure({ kind: 'import', members, source, run: 'again', codec, keep: false }),
    );
    const reads = await turns('verified cold read, codec auto', (run) =>
      worker.measure({ kind: 'read', members, run }),
    );
    return [
      ...reads,
      ...imports,
      {
        what: `${place}: space of the version, catalog included`,
        value: space.auto ?? Number.NaN,
        unit: 'of tensor bytes',
        against: 'raw',
        peerValue: space.raw ?? Number.NaN,
        ratio: (space.auto ?? Number.NaN) / (space.raw ?? Number.NaN),
      },
    ];
  } finally {
    await worker.close();
  }
}

async function takeTurns(
  what: string,
  pairs: number,
  seed: number,
  job: (codec: Codec) => Promise<Measured>,
): Promise<Row[]> {
  const random = seededRandom(seed);
  const taken: Record<Codec, Measured[]> = { raw: [], auto: [] };
  for (const codec of CODECS) await job(codec);
  for (let pair = 0; pair < pairs; pair += 1) {
    say(`${what}, pair ${pair + 1} of ${pairs}`);
    for (const codec of shuffled(CODECS, random)) taken[codec].push(await job(codec));
  }
  const rates = (codec: Codec): number[] =>
    taken[codec].map(({ bytes, durationMs }) => gigabytesPerSecond(bytes, durationMs));
  const coreSeconds = (codec: Codec): number =>
    median(taken[codec].map(({ coreMs, bytes }) => (coreMs / bytes) * 1e6));
  const ratios = spread(pairRatios(rates('auto'), rates('raw')));
  return [
    {
      what,
      value: median(rates('auto')),
      unit: 'GB/s of tensors',
      against: 'raw',
      peerValue: median(rates('raw')),
      ratio: ratios.median,
      ratioLeast: ratios.least,
      ratioMost: ratios.most,
      pairs: ratios.count,
    },
    {
      what: `${what}: core-seconds`,
      value: coreSeconds('auto'),
      unit: 's/GB',
      against: 'raw',
      peerValue: coreSeconds('raw'),
    },
  ];
}
