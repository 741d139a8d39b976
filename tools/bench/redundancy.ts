// `bench redundancy`: what mirrors cost and give; most of it on RAM-backed members, where software is the limit.
//
// Invariants
//   1. The two sides of a pair run next to each other, in an order drawn anew for every pair; what is reported is the
//      median of the pairs' ratios with its 95 % interval (order statistics of the median: no shape is assumed).
//   2. fio reads the very stretches of the member files that the store reads.
//   3. Everything made is removed, also after a failure.
//
// On the disk the device is the limit: reads and writes of mirrors. Other mirrors: mirror_peers.ts.

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type FioSetting,
  type FioStretch,
  fioVersion,
  runFio,
  runFioMix,
  settingText,
  sweep,
} from './fio.js';
import type { RedundancyJob, RedundancyResult } from './redundancy_worker.js';
import { benchIo } from './io.js';
import { mirrorPeers } from './mirror_peers.js';
import type { PlaceName, RedundancyRow } from './options.js';
import { type Row, say } from './report.js';
import {
  gigabytesPerSecond,
  median,
  medianInterval,
  pairRatios,
  seededRandom,
  shuffled,
} from './statistics.js';

const MEBIBYTE = 1024 * 1024;
const HEAD_BYTES = MEBIBYTE;
const SPARE_BYTES = 128 * MEBIBYTE;
const BLOCK_BYTES = 16 * MEBIBYTE;
const DAMAGED_SHARE = 0.01;
/** A tour of 18 TB in two weeks: what a scrub in the background of a busy machine is set to. */
const QUIET_SCRUB_BYTES_PER_SEC = 16 * MEBIBYTE;
const LATENCY_RUN_MS = 1500;
/** Five members of a little over twice this are on the RAM disk at once. */
const REBUILD_BYTES_MAX = 256 * MEBIBYTE;
/** Indexes of members are never used again, and there are 64. */
const REBUILD_PAIRS_MAX = 50;
const WORKER = fileURLToPath(new URL('./redundancy_worker.js', import.meta.url));

export interface RedundancyOptions {
  /** On the disk that is measured. */
  readonly directory: string;
  readonly ramDirectory: string | null;
  readonly places: readonly PlaceName[];
  readonly sizeBytes: number;
  readonly pairs: number;
  readonly sweepRounds: number;
  readonly seed: number;
  readonly redundancyRows: readonly RedundancyRow[];
}

export async function benchRedundancy(options: RedundancyOptions): Promise<Row[]> {
  const rows: Row[] = [];
  const hasFio = (await fioVersion()) !== null;
  const { directory, ramDirectory, places } = options;
  if (places.includes('disk')) {
    if (hasFio) rows.push(...(await onDisk(options)));
    else rows.push({ what: 'mirrors on the disk', note: 'skipped: fio is not installed' });
    await rm(ownDirectory(directory), { recursive: true, force: true });
  }
  if (!places.includes('RAM')) return rows;
  if (ramDirectory === null)
    return [...rows, { what: 'mirrors in RAM', note: 'skipped: there is no RAM disk' }];
  return [...rows, ...(await inMemory(ownDirectory(ramDirectory), options, hasFio))];
}

const ownDirectory = (directory: string): string => join(directory, `ingot-redundancy-${process.pid}`);

async function onDisk(options: RedundancyOptions): Promise<Row[]> {
  const { directory, redundancyRows } = options;
  const rows: Row[] = [];
  if (redundancyRows.includes('write')) {
    const mirrored = { only: ['mirrored'], places: ['disk'], memberCounts: [2] } as const;
    await benchIo({ ...options, ...mirrored, limitMinutes: Infinity }, (row) => rows.push(row));
  }
  if (redundancyRows.includes('read'))
    rows.push(...(await withMirror(ownDirectory(directory), options, besideFio('disk', ['read'], options))));
  return rows;
}

async function inMemory(directory: string, options: RedundancyOptions, hasFio: boolean): Promise<Row[]> {
  const wanted = new Set(options.redundancyRows);
  const rows: Row[] = [];
  const mirror = (body: OnMirror): Promise<Row[]> => withMirror(directory, options, body);
  const compared = (['read', 'scrub'] as const).filter((row) => wanted.has(row));
  if (compared.length > 0 && hasFio) rows.push(...(await mirror(besideFio('RAM', compared, options))));
  if (compared.length > 0 && !hasFio)
    rows.push({ what: 'mirrored read and scrub beside fio', note: 'skipped: fio is not installed' });
  if (wanted.has('heal')) rows.push(...(await mirror((worker) => healing(worker, options))));
  if (wanted.has('foreground')) rows.push(...(await mirror((worker) => foreground(worker, options))));
  if (wanted.has('rebuild') && hasFio) {
    await mkdir(directory, { recursive: true });
    try {
      rows.push(await rebuilding(directory, options));
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }
  if (wanted.has('peer')) rows.push(...(await mirrorPeers(directory, options)));
  return rows;
}

type OnMirror = (worker: RedundancyWorker, stretches: readonly FioStretch[]) => Promise<Row[]>;

/** A store of two members with two copies of everything, made for this and removed after it. */
async function withMirror(directory: string, options: RedundancyOptions, body: OnMirror): Promise<Row[]> {
  await mkdir(directory, { recursive: true });
  const worker = new RedundancyWorker();
  try {
    const members = [0, 1].map((index) => join(directory, `${index}.member`));
    const sizeBytes = Math.ceil(options.sizeBytes / BLOCK_BYTES) * BLOCK_BYTES;
    say(`${directory}, 2 members: writing ${sizeBytes} bytes with two copies`);
    const memberBytes = HEAD_BYTES + sizeBytes + SPARE_BYTES;
    await worker.ask({ kind: 'prepare', members, memberBytes, sizeBytes });
    const stretches = members.map(
      (path): FioStretch => ({ path, offsetBytes: HEAD_BYTES, lengthBytes: sizeBytes }),
    );
    return await body(worker, stretches);
  } finally {
    await worker.close();
    await rm(directory, { recursive: true, force: true });
  }
}

export class RedundancyWorker {
  readonly #child: ChildProcess = fork(WORKER, [], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  #nextId = 1;

  async ask(job: RedundancyJob): Promise<RedundancyResult> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const onExit = (code: number | null): void => reject(new Error(`the measured process ended (${code})`));
      this.#child.once('exit', onExit);
      this.#child.once('message', (answer: { id: number; result?: RedundancyResult; error?: string }) => {
        this.#child.off('exit', onExit);
        if (answer.result === undefined) reject(new Error(answer.error ?? 'no answer'));
        else resolve(answer.result);
      });
      this.#child.send({ id, job });
    });
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.disconnect();
    await ended;
  }
}

/** Runs both sides of `pairs` pairs, in an order drawn for each. */
export async function paired(
  options: Pick<RedundancyOptions, 'pairs' | 'seed'>,
  ours: (pair: number) => Promise<number>,
  theirs: (pair: number) => Promise<number>,
): Promise<{ ours: number[]; theirs: number[] }> {
  const random = seededRandom(options.seed);
  const taken = { ours: [] as number[], theirs: [] as number[] };
  for (let pair = 0; pair < options.pairs; pair++) {
    for (const side of shuffled(['ours', 'theirs'] as const, random))
      taken[side].push(await (side === 'ours' ? ours : theirs)(pair));
  }
  return taken;
}

export function pairRow(
  taken: { ours: number[]; theirs: number[] },
  rest: Partial<Row> & { readonly what: string },
): Row {
  const ratios = pairRatios(taken.ours, taken.theirs);
  const { low, high } = medianInterval(ratios);
  const interval = `median's 95 % interval ${low.toFixed(3)}..${high.toFixed(3)}`;
  return {
    value: median(taken.ours),
    peerValue: median(taken.theirs),
    ratio: median(ratios),
    ratioLeast: Math.min(...ratios),
    ratioMost: Math.max(...ratios),
    pairs: ratios.length,
    ...rest,
    note: rest.note === undefined ? interval : `${interval}; ${rest.note}`,
  };
}

const rateOf = ({ bytes, durationMs }: RedundancyResult): number => gigabytesPerSecond(bytes, durationMs);

/** What was best of fio's settings before. */
const USUAL_BEST: Readonly<Record<PlaceName, FioSetting>> = {
  disk: { blockBytes: 16 * MEBIBYTE, depth: 128 },
  RAM: { blockBytes: MEBIBYTE, depth: 8, isApart: true },
};
const WANTED = { read: '>= 0.95', scrub: '>= 0.9' } as const;
const NAMES = { read: 'mirrored verified read', scrub: 'scrub of every copy' } as const;

function besideFio(
  place: PlaceName,
  kinds: readonly ('read' | 'scrub')[],
  options: RedundancyOptions,
): OnMirror {
  return async (worker, stretches) => {
    say(`fio's best of its settings, ${options.sweepRounds} rounds each`);
    const best =
      options.sweepRounds === 0
        ? USUAL_BEST[place]
        : (await sweep('read', stretches, options.sweepRounds, options.seed)).best;
    const fio = async (): Promise<number> => (await runFio('read', stretches, best)).gigabytesPerSecond;
    const rows: Row[] = [];
    for (const kind of kinds) {
      await worker.ask({ kind });
      say(`${NAMES[kind]} beside fio`);
      const taken = await paired(options, async () => rateOf(await worker.ask({ kind })), fio);
      const what = `${place}, 2 members: ${NAMES[kind]}`;
      const against = `fio read of both members, ${settingText(best)}`;
      // Two processors that copy as fast as they can have nothing left for sums: in RAM the read has no bound to reach.
      const wanted = place === 'disk' || kind === 'scrub' ? { wanted: WANTED[kind] } : {};
      rows.push(pairRow(taken, { what, unit: 'GB/s', against, ...wanted }));
    }
    return rows;
  };
}

async function healing(worker: RedundancyWorker, options: RedundancyOptions): Promise<Row[]> {
  say('a read that heals 1 % beside a clean one');
  let healed = 0;
  const taken = await paired(
    options,
    async (pair) => {
      const run = await worker.ask({ kind: 'heal', share: DAMAGED_SHARE, seed: options.seed + pair });
      healed += run.healed;
      return run.durationMs;
    },
    async () => (await worker.ask({ kind: 'read' })).durationMs,
  );
  const row = pairRow(taken, {
    what: 'RAM, 2 members: read and heal of 1 % damaged segments',
    unit: 'ms',
    against: 'the same read, undamaged',
    wanted: '<= 1.10',
    note: `${healed} segments were healed within the time`,
  });
  return [row];
}

async function foreground(worker: RedundancyWorker, options: RedundancyOptions): Promise<Row[]> {
  say('foreground reads with and without a throttled scrub');
  const run =
    (scrubBytesPerSec: number) =>
    async (pair: number): Promise<number> => {
      const seed = options.seed + pair;
      const job = { kind: 'latency' as const, scrubBytesPerSec, durationMs: LATENCY_RUN_MS, seed };
      return (await worker.ask(job)).p99Ms;
    };
  const taken = await paired(options, run(QUIET_SCRUB_BYTES_PER_SEC), run(0));
  const row = pairRow(taken, {
    what: 'RAM, 2 members: p99 of 256 KiB reads with a scrub at 16 MiB/s',
    unit: 'ms',
    against: 'without a scrub',
    wanted: '<= 1.05',
  });
  return [row];
}

/** Rebuilds of one of four members, each time the oldest, beside fio reading and writing as much at once. */
async function rebuilding(directory: string, options: RedundancyOptions): Promise<Row> {
  say('rebuilds of one of four members beside fio');
  await mkdir(directory, { recursive: true });
  const worker = new RedundancyWorker();
  try {
    const sizeBytes = Math.min(Math.ceil(options.sizeBytes / BLOCK_BYTES) * BLOCK_BYTES, REBUILD_BYTES_MAX);
    const memberBytes = HEAD_BYTES + 2 * sizeBytes;
    const path = (index: number): string => join(directory, `${index}.member`);
    let live = [0, 1, 2, 3].map(path);
    await worker.ask({ kind: 'prepare', members: live, memberBytes, sizeBytes });
    const partBytes = Math.floor(sizeBytes / 2 / 4 / MEBIBYTE) * MEBIBYTE;
    const setting = { blockBytes: 4 * MEBIBYTE, depth: 8 };
    const fio = (): Promise<number> => {
      // What is written lies above the data and below the catalog, in space that no version has.
      const at = (offsetBytes: number): FioStretch[] =>
        live.map((each) => ({ path: each, offsetBytes, lengthBytes: partBytes }));
      return runFioMix(at(HEAD_BYTES), at(HEAD_BYTES + Math.floor(1.5 * sizeBytes)), setting);
    };
    const taken = await paired(
      { ...options, pairs: Math.min(options.pairs, REBUILD_PAIRS_MAX) },
      async (pair) => {
        const newPath = path(4 + pair);
        const done = await worker.ask({ kind: 'rebuild', memberBytes, newPath });
        live = [...live.slice(1), newPath];
        return gigabytesPerSecond(2 * done.bytes, done.durationMs);
      },
      fio,
    );
    return pairRow(taken, {
      what: 'RAM, 4 members: rebuild of one, bytes read and written',
      unit: 'GB/s',
      against: `fio reading and writing as much at once, ${settingText(setting)}`,
      wanted: '>= 0.8',
    });
  } finally {
    await worker.close();
  }
}
