// `bench codec`: size and speed of coded chunks beside other compressors, then of coded versions beside raw ones.
//
// Invariants
//   1. Every side codes the same chunks of 4 MiB by themselves, with one thread; sides take turns in an order drawn
//      anew each round. Rates are raw bytes by the processor time of the median round. What comes back is compared.
//   2. Ours counts whole sectors of 4 KiB, as chunks are stored, and a chunk that is better left raw at its size. Peers
//      count their bytes alone. Extent records are in the rows of the store only (codec_store.ts).
//   3. Of a delta every side gets the same work: ours codes against the base, the peers the XOR with it.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { nativeCodec } from '../../engine/index.js';
import { TRANSFORM } from '../../format/index.js';
import { type CodecSample, codecSamples } from './codec_data.js';
import { benchDeltas } from './codec_delta.js';
import { type CodecPeers, PEER_NAMES, startCodecPeers } from './codec_peers.js';
import { benchCodedStore, type CodedStoreOptions } from './codec_store.js';
import type { CodecRow } from './options.js';
import { type Row, say } from './report.js';
import { median, seededRandom, shuffled } from './statistics.js';

const MEBIBYTE = 1024 * 1024;
const CHUNK_BYTES = 4 * MEBIBYTE;
/** Of each kind of data, at most: more takes longer and shows nothing new. */
const SAMPLE_BYTES_MAX = 16 * MEBIBYTE;
const SECTOR_BYTES = 4096;
const PROFILES = { auto: 1, max: 2 } as const;
type ProfileName = keyof typeof PROFILES;
const TRANSFORMS = {
  BF16: TRANSFORM.BF16E,
  F16: TRANSFORM.FP16H,
  F32: TRANSFORM.FP32E,
  F8_E4M3: TRANSFORM.BYTE,
} as const;
const ELEMENT_BYTES = { BF16: 2, F16: 2, F32: 4, F8_E4M3: 1 } as const;

export interface CodecOptions extends CodedStoreOptions {
  readonly ramDirectory: string | null;
  readonly codecRows: readonly CodecRow[];
}

/** What one side did in one round. */
interface Turn {
  readonly storedBytes: number;
  readonly encodeMs: number;
  readonly decodeMs: number;
  readonly rawChunks: number;
}
interface Side {
  readonly name: string;
  turn(): Promise<Turn | { readonly error: string }>;
}

/** Rows are told as soon as they are measured. */
export async function benchCodec(options: CodecOptions, onRow: (row: Row) => void): Promise<void> {
  if (options.codecRows.includes('samples')) await benchSamples(options, onRow);
  if (options.codecRows.includes('deltas')) for (const row of await benchDeltas(options)) onRow(row);
  if (options.codecRows.includes('store')) for (const row of await benchCodedStore(options)) onRow(row);
}

async function benchSamples(options: CodecOptions, onRow: (row: Row) => void): Promise<void> {
  const directory = await mkdtemp(join(options.ramDirectory ?? tmpdir(), 'ingot-bench-codec-'));
  const peers = await startCodecPeers();
  try {
    const bytes = Math.min(options.sizeBytes, SAMPLE_BYTES_MAX);
    for (const sample of codecSamples(bytes, options.seed)) {
      say(`${sample.name}: ${bytes} bytes`);
      for (const row of await benchSample(sample, peers, directory, options)) onRow(row);
    }
    const versions = PEER_NAMES.map((name) => {
      const found = peers.found[name];
      return 'error' in found ? `${name}: ${found.error}` : `${name}: ${found.version}`;
    });
    const kernel = String(nativeCodec().kernel());
    onRow({ what: 'settings', note: `our kernel: ${kernel}; ${versions.join('; ')}` });
  } finally {
    peers.close();
    await rm(directory, { recursive: true, force: true });
  }
}

async function benchSample(
  sample: CodecSample,
  peers: CodecPeers,
  directory: string,
  { pairs, seed }: CodecOptions,
): Promise<Row[]> {
  const path = join(directory, 'sample');
  await writeFile(path, peerBytes(sample));
  const sides: Side[] = [ourSide(sample, 'auto'), ourSide(sample, 'max')];
  for (const peer of PEER_NAMES) {
    const { dtype } = sample;
    const order = { peer, path, chunkBytes: CHUNK_BYTES, elementBytes: ELEMENT_BYTES[dtype], dtype };
    sides.push({ name: peer, turn: () => peerTurn(peers, order) });
  }
  const taken = new Map<string, Turn[]>(sides.map(({ name }) => [name, []]));
  const failed = new Map<string, string>();
  const random = seededRandom(seed);
  // Round 0 is not counted: it loads pages and tables.
  for (let round = 0; round <= pairs; round += 1) {
    for (const { name, turn } of shuffled(sides, random)) {
      if (failed.has(name)) continue;
      const outcome = await turn();
      if ('error' in outcome) failed.set(name, outcome.error);
      else if (round > 0) taken.get(name)?.push(outcome);
    }
  }
  return rowsOf(sample, taken, failed);
}

function peerBytes({ raw, base }: CodecSample): Uint8Array {
  return base === undefined ? raw : raw.map((byte, at) => byte ^ (base[at] ?? 0));
}

async function peerTurn(
  peers: CodecPeers,
  order: Parameters<CodecPeers['ask']>[0],
): Promise<Turn | { readonly error: string }> {
  const found = peers.found[order.peer];
  if ('error' in found) return found;
  const answer = await peers.ask(order);
  if ('error' in answer) return answer;
  const { bytes, encodeSeconds, decodeSeconds } = answer;
  return { storedBytes: bytes, encodeMs: encodeSeconds * 1e3, decodeMs: decodeSeconds * 1e3, rawChunks: 0 };
}

/** Milliseconds of processor time. */
function processorMs(body: () => void): number {
  const before = process.cpuUsage();
  body();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e3;
}

function ourSide(sample: CodecSample, profile: ProfileName): Side {
  const codec = nativeCodec();
  const transform = TRANSFORMS[sample.dtype];
  const cut = (bytes: Uint8Array, at: number): Uint8Array => bytes.subarray(at, at + CHUNK_BYTES);
  const chunks: { raw: Uint8Array; base: Uint8Array | undefined; room: Uint8Array; back: Uint8Array }[] = [];
  for (let at = 0; at < sample.raw.byteLength; at += CHUNK_BYTES) {
    const raw = cut(sample.raw, at);
    const base = sample.base === undefined ? undefined : cut(sample.base, at);
    chunks.push({ raw, base, room: new Uint8Array(raw.length), back: new Uint8Array(raw.length) });
  }
  const turn = (): Turn => {
    let streams: number[] = [];
    const encodeMs = processorMs(() => {
      streams = chunks.map(({ raw, base, room }) =>
        codec.encode(raw, room, transform, PROFILES[profile], 0, base),
      );
    });
    // A reader has the base in place before it decodes; that is not decoding.
    for (const { base, back } of chunks) if (base !== undefined) back.set(base);
    const decodeMs = processorMs(() => {
      for (const [index, { base, room, back }] of chunks.entries()) {
        const streamBytes = streams[index] ?? 0;
        if (streamBytes > 0) codec.decode(room.subarray(0, streamBytes), 0, back, base !== undefined);
      }
    });
    let storedBytes = 0;
    for (const [index, { raw, back }] of chunks.entries()) {
      const streamBytes = streams[index] ?? 0;
      if (streamBytes > 0 && Buffer.compare(raw, back) !== 0) throw new Error('other bytes came back');
      storedBytes += Math.ceil((streamBytes === 0 ? raw.length : streamBytes) / SECTOR_BYTES) * SECTOR_BYTES;
    }
    return { storedBytes, encodeMs, decodeMs, rawChunks: streams.filter((each) => each === 0).length };
  };
  return { name: profile, turn: async () => turn() };
}

function rowsOf(sample: CodecSample, taken: Map<string, Turn[]>, failed: Map<string, string>): Row[] {
  const rawBytes = sample.raw.byteLength;
  const figures = (side: string): { size: number; encode: number; decode: number; turns: number } => {
    const turns = taken.get(side) ?? [];
    const rate = (ms: (turn: Turn) => number): number => rawBytes / median(turns.map(ms)) / 1e6;
    return {
      size: (turns[0]?.storedBytes ?? Number.NaN) / rawBytes,
      encode: rate((turn) => turn.encodeMs),
      decode: rate((turn) => turn.decodeMs),
      turns: turns.length,
    };
  };
  const rows: Row[] = [];
  const isBf16 = sample.name === 'bf16';
  for (const profile of ['auto', 'max'] as const) {
    const { size, encode, decode, turns } = figures(profile);
    const what = `${sample.name}, ${profile}`;
    const rawChunks = taken.get(profile)?.[0]?.rawChunks ?? 0;
    const left = rawChunks === 0 ? '' : `, ${rawChunks} chunks left raw`;
    const wanted = profile === 'auto' ? sample.wanted : isBf16 ? '<= 0.662' : undefined;
    const asked = (figure: string) => (isBf16 && profile === 'auto' ? { wanted: figure } : {});
    const size6 = { value: size, unit: 'of raw', note: `${size.toFixed(6)}${left}` };
    rows.push(
      { what: `${what}: stored`, ...size6, ...(wanted === undefined ? {} : { wanted }) },
      { what: `${what}: encode`, value: encode, unit: 'GB/s a core', pairs: turns, ...asked('>= 1.5') },
      { what: `${what}: decode`, value: decode, unit: 'GB/s a core', pairs: turns, ...asked('>= 3') },
    );
  }
  const ours = figures('auto');
  for (const peer of PEER_NAMES) {
    const error = failed.get(peer);
    const what = `${sample.name}, auto: stored`;
    if (error !== undefined) {
      rows.push({ what, against: peer, note: `not measured: ${error}` });
      continue;
    }
    const theirs = figures(peer);
    rows.push({
      what,
      value: ours.size,
      unit: 'of raw',
      against: peer,
      peerValue: theirs.size,
      ratio: ours.size / theirs.size,
      pairs: theirs.turns,
      note: peerRates(ours, theirs),
    });
  }
  return rows;
}

interface Rates {
  readonly encode: number;
  readonly decode: number;
}

function peerRates(ours: Rates, theirs: Rates): string {
  const times = (rate: 'encode' | 'decode'): string => (ours[rate] / theirs[rate]).toFixed(2);
  const rates = `encode ${theirs.encode.toFixed(2)}, decode ${theirs.decode.toFixed(2)} GB/s a core`;
  return `theirs: ${rates}; ours is ${times('encode')} and ${times('decode')} times that`;
}
