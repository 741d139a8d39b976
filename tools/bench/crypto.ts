// `bench crypto`: AES-256-GCM of the workers beside OpenSSL's own speed test, encrypted versions beside plain ones.
//
// Invariants
//   1. The bulk rate is bytes by processor time of one worker, over buffers larger than any cache; OpenSSL's figure is
//      that of `openssl speed`, in the same run, in 64 KiB pieces on one core.
//   2. Two stores of one shape lie side by side, one encrypted; they take turns in an order drawn anew for each pair,
//      and the ratio is the median of the pairs' ratios. Rates are bytes of tensors.
//   3. Each write is put, committed and removed later; each read is verified and ends in memory touched before.
//   4. Everything made is removed, also after a failure.

import { spawnSync } from 'node:child_process';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { NativeIo, type Store, type StoreKey, open } from '../../engine/index.js';
import { evict } from '../quickstart/page_cache.js';
import { benchOpening } from './crypto_keys.js';
import { benchCryptoPeers } from './crypto_peers.js';
import type { PlaceName } from './options.js';
import { type Row, say } from './report.js';
import { gigabytesPerSecond, median, pairRatios, seededRandom, shuffled, spread } from './statistics.js';

const MEBIBYTE = 1024 * 1024;
const CHUNK_BYTES = 4 * MEBIBYTE;
const SEGMENT_BYTES = 64 * 1024;
const BULK_CHUNKS = 32;
const BULK_ROUNDS = 5;
const TENSOR_BYTES = 16 * MEBIBYTE;
/** Three versions: the one that is read, the one that is written, and the one whose space is not free yet. */
const VERSIONS_OF_ROOM = 4;
const SPARE_BYTES = 256 * MEBIBYTE;
const KEY: StoreKey = { kind: 'key-file', secret: new Uint8Array(32).fill(7) };
const SIDES = ['plain', 'encrypted'] as const;
type Side = (typeof SIDES)[number];

export interface CryptoOptions {
  readonly directory: string;
  readonly ramDirectory: string | null;
  readonly sizeBytes: number;
  readonly pairs: number;
  readonly seed: number;
  readonly places: readonly PlaceName[];
}

export async function benchCrypto(options: CryptoOptions): Promise<Row[]> {
  const rows = [...(await benchBulk()), ...(await benchOpening(options.ramDirectory ?? options.directory))];
  const parents = { disk: options.directory, RAM: options.ramDirectory };
  for (const place of options.places) {
    const parent = parents[place];
    if (parent === null) continue;
    const directory = join(parent, `ingot-bench-crypto-${process.pid}`);
    try {
      await mkdir(directory, { recursive: true });
      rows.push(...(await benchPlace(place, directory, options)));
      say(`${place}: peers`);
      rows.push(...(await benchCryptoPeers(place, directory, options.sizeBytes)));
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  }
  return rows;
}

/** GB/s of `openssl speed`, or why there is none. */
function opensslSpeed(): number | string {
  const settings = ['speed', '-evp', 'aes-256-gcm', '-bytes', String(SEGMENT_BYTES), '-seconds', '1'];
  const ran = spawnSync('openssl', settings, { encoding: 'utf8' });
  const found = /([\d.]+)k\s*$/m.exec(ran.stdout ?? '');
  return found === null ? 'openssl is not installed' : Number(found[1]) / 1e6;
}

async function benchBulk(): Promise<Row[]> {
  const io = new NativeIo({ workerCount: 1 });
  const segments = CHUNK_BYTES / SEGMENT_BYTES;
  const buffers = Array.from({ length: BULK_CHUNKS }, () => io.allocate(CHUNK_BYTES).fill(1));
  const destinations = buffers.map(() => io.allocate(CHUNK_BYTES).fill(1));
  const all = (value: number): Float64Array => new Float64Array(BULK_CHUNKS).fill(value);
  const index = Uint32Array.from(buffers, (_, op) => op);
  const rates: Record<'seal' | 'open', number[]> = { seal: [], open: [] };
  const speeds: number[] = [];
  let note = '';
  try {
    for (let round = 0; round < BULK_ROUNDS; round += 1) {
      const common = {
        count: BULK_CHUNKS,
        source: index,
        sourceOffsetBytes: all(0),
        storedBytes: all(CHUNK_BYTES),
        segmentBytes: all(SEGMENT_BYTES),
        keyIndex: new Uint32Array(BULK_CHUNKS),
        keys: new Uint8Array(32).fill(round),
        ordinals: BigUint64Array.from(buffers, (_, op) => BigInt(op + 1)),
        tagIndex: index.map((op) => op * segments),
        tags: new Uint8Array(16 * segments * BULK_CHUNKS),
        buffers,
      };
      const timed = async (what: 'seal' | 'open', run: () => Promise<unknown>): Promise<void> => {
        const before = process.cpuUsage();
        await run();
        const used = process.cpuUsage(before);
        rates[what].push(gigabytesPerSecond(BULK_CHUNKS * CHUNK_BYTES, (used.user + used.system) / 1000));
      };
      await timed('seal', () => io.sealExtents({ ...common, plainBytes: all(CHUNK_BYTES) }));
      await timed('open', () =>
        io.openExtents({
          ...common,
          wantedOffsetBytes: all(0),
          wantedBytes: all(CHUNK_BYTES),
          destination: index,
          destinationOffsetBytes: all(0),
          destinations,
          verdict: new Uint32Array(BULK_CHUNKS),
        }),
      );
      const speed = opensslSpeed();
      if (typeof speed === 'number') speeds.push(speed);
      else note = speed;
    }
  } finally {
    await io.close();
  }
  const wanted = median(speeds) >= 5 ? '>= 4' : '';
  return (['seal', 'open'] as const).map((what) => ({
    what: `AES-256-GCM, ${what}, one core, 4 MiB chunks`,
    value: median(rates[what]),
    unit: 'GB/s of processor time',
    against: 'openssl speed, 64 KiB',
    ...(speeds.length === 0 ? {} : { peerValue: median(speeds) }),
    ...(wanted === '' ? {} : { wanted }),
    note: wanted === '' && note === '' ? '4 is asked where openssl speed gives 5' : note,
  }));
}

interface Stand {
  readonly store: Store;
  readonly member: string;
}

async function benchPlace(place: PlaceName, directory: string, options: CryptoOptions): Promise<Row[]> {
  const { sizeBytes, pairs, seed } = options;
  const random = seededRandom(seed);
  const tensors = Math.max(Math.round(sizeBytes / TENSOR_BYTES), 1);
  const bytes = new Uint8Array(TENSOR_BYTES);
  for (let at = 0; at < bytes.length; at += 1) bytes[at] = random() * 256;
  const landing = new Uint8Array(TENSOR_BYTES).fill(1);
  const stands = {} as Record<Side, Stand>;
  const write = async ({ store }: Stand, run: string): Promise<{ totalMs: number; commitMs: number }> => {
    const start = performance.now();
    const tx = await store.begin(run);
    const shape = { dtype: 'U8' as const, shape: [TENSOR_BYTES] };
    for (let k = 0; k < tensors; k += 1) await tx.put(`t${k}`, bytes, shape, { buffer: 'borrow' });
    const put = performance.now();
    await tx.commit();
    return { totalMs: performance.now() - start, commitMs: performance.now() - put };
  };
  try {
    for (const side of SIDES) {
      const member = join(directory, `${side}.member`);
      const memberBytes = Math.ceil((VERSIONS_OF_ROOM * sizeBytes + SPARE_BYTES) / MEBIBYTE) * MEBIBYTE;
      const members = [{ path: member, sizeBytes: memberBytes }];
      const encrypt = { key: KEY, onRecoveryKey: () => undefined };
      const create = side === 'plain' ? { members } : { members, encrypt };
      const key = side === 'plain' ? {} : { key: KEY };
      stands[side] = { store: await open({ members: [member] }, { mode: 'rw', create, ...key }), member };
      for (const run of ['read', 'fill', 'fill']) await write(stands[side], run);
    }
    const reads: Record<Side, number[]> = { plain: [], encrypted: [] };
    const writes: Record<Side, number[]> = { plain: [], encrypted: [] };
    const smalls: Record<Side, number[]> = { plain: [], encrypted: [] };
    for (let pair = -1; pair < pairs; pair += 1) {
      say(`${place}: pair ${pair + 1} of ${pairs}`);
      for (const side of shuffled(SIDES, random)) {
        const stand = stands[side];
        await evict([stand.member]);
        const start = performance.now();
        const version = await stand.store.get('read');
        for await (const _ of version.load(() => landing));
        const readMs = performance.now() - start;
        await stand.store.prune('fill', { last: 1 });
        const { totalMs } = await write(stand, 'fill');
        const smallMs = await smallCommit(stand.store);
        if (pair < 0) continue;
        reads[side].push(gigabytesPerSecond(tensors * TENSOR_BYTES, readMs));
        writes[side].push(gigabytesPerSecond(tensors * TENSOR_BYTES, totalMs));
        smalls[side].push(smallMs);
      }
    }
    return [
      rateRow(`${place}: verified read`, reads, place === 'disk' ? '>= 0.90' : '>= 0.6'),
      rateRow(`${place}: write and commit`, writes),
      {
        what: `${place}: commit of one small tensor`,
        value: median(smalls.encrypted),
        unit: 'ms',
        against: 'the same, not encrypted',
        peerValue: median(smalls.plain),
        ratio: median(pairRatios(smalls.encrypted, smalls.plain)),
        pairs,
        wanted: '<= 1.3',
      },
    ];
  } finally {
    for (const side of SIDES) await stands[side]?.store.close();
  }
}

/** Median of a few commits of one tensor of 1 KiB. */
async function smallCommit(store: Store): Promise<number> {
  const times: number[] = [];
  for (let round = 0; round < 5; round += 1) {
    const start = performance.now();
    const tx = await store.begin('small');
    await tx.put('t', new Uint8Array(1024), { dtype: 'U8', shape: [1024] });
    await tx.commit();
    times.push(performance.now() - start);
  }
  return median(times);
}

function rateRow(what: string, rates: Record<Side, readonly number[]>, wanted?: string): Row {
  const ratios = spread(pairRatios(rates.encrypted, rates.plain));
  return {
    what,
    value: median(rates.encrypted),
    unit: 'GB/s of tensors',
    against: 'the same, not encrypted',
    peerValue: median(rates.plain),
    ratio: ratios.median,
    ratioLeast: ratios.least,
    ratioMost: ratios.most,
    pairs: ratios.count,
    ...(wanted === undefined ? {} : { wanted }),
  };
}
