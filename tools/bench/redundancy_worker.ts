// The process that `bench redundancy` measures: one mirrored store on RAM-backed members, its time counted from inside.
//
// Invariants
//   1. One store, open for writing from `prepare` to the end, so that every run finds its buffers touched.
//   2. Damage is done to the member files themselves, behind the store's back, and only to copies 0.
//   3. A heal is timed with the read that found the damage, and until the healer is idle.
//
// Protocol: a message { id, job } gives { id, result } or { id, error }.

import { open as openFile, rm } from 'node:fs/promises';
import { performance } from 'node:perf_hooks';
import { create, NativeIo, open, type Store, type TensorInfo } from '../../engine/index.js';
import { seededRandom } from './statistics.js';

const RUN = 'bench';
const MEBIBYTE = 1024 * 1024;
const TENSOR_BYTES = 16 * MEBIBYTE;
const SEGMENT_BYTES = 64 * 1024;
/** What a foreground reader of the latency rows asks for at a time, and how many it keeps under way. */
const REQUEST_BYTES = 256 * 1024;
const REQUESTS_UNDER_WAY = 2;
const ROOTS_UNTIL_FREE = 4;

export type RedundancyJob =
  | {
      readonly kind: 'prepare';
      readonly members: readonly string[];
      /** null: devices, as long as they are. */
      readonly memberBytes: number | null;
      readonly sizeBytes: number;
    }
  | { readonly kind: 'read' }
  /** The same bytes again as another version, acknowledged; it is removed after the time was taken. */
  | { readonly kind: 'write' }
  | { readonly kind: 'heal'; readonly share: number; readonly seed: number }
  | { readonly kind: 'scrub' }
  /** The oldest of four members is gone; a new one is there: how fast the copies are made again. */
  | { readonly kind: 'rebuild'; readonly memberBytes: number; readonly newPath: string }
  /** p99 of foreground reads, in milliseconds, with a scrub at this rate (0: none) beside them. */
  | {
      readonly kind: 'latency';
      readonly scrubBytesPerSec: number;
      readonly durationMs: number;
      readonly seed: number;
    };

export interface RedundancyResult {
  readonly bytes: number;
  readonly durationMs: number;
  readonly p99Ms: number;
  readonly healed: number;
  readonly requests: number;
}
const NOTHING: RedundancyResult = { bytes: 0, durationMs: 0, p99Ms: 0, healed: 0, requests: 0 };

const memory = new NativeIo();
let store: Store | null = null;
let target: Uint8Array = new Uint8Array(0);
/** Members of the store, oldest first. */
let paths: string[] = [];

function opened(): Store {
  if (store === null) throw new Error('prepare comes first');
  return store;
}

async function prepare(
  members: readonly string[],
  memberBytes: number | null,
  sizeBytes: number,
): Promise<void> {
  const listed = members.map((path) => (memberBytes === null ? { path } : { path, sizeBytes: memberBytes }));
  paths = [...members];
  await create({ members }, { members: listed, redundancy: 2 });
  store = await open({ members }, { mode: 'rw' });
  target = memory.allocate(sizeBytes);
  const random = seededRandom(7);
  const words = new Uint32Array(target.buffer, target.byteOffset, target.byteLength / 4);
  for (let at = 0; at < words.length; at++) words[at] = (at * 2_654_435_761) ^ (random() * 2 ** 32);
  await put(RUN);
}

async function put(run: string): Promise<void> {
  const transaction = await opened().begin(run, { redundancy: 2 });
  const puts: Promise<void>[] = [];
  for (let at = 0; at < target.byteLength; at += TENSOR_BYTES) {
    const source = target.subarray(at, at + TENSOR_BYTES);
    const meta = { dtype: 'U8', shape: [source.byteLength] } as const;
    puts.push(transaction.put(`t${at}`, source, meta, { buffer: 'borrow' }));
  }
  await Promise.all(puts);
  await transaction.commit();
}

async function write(): Promise<RedundancyResult> {
  const startMs = performance.now();
  await put(`${RUN}-again`);
  const durationMs = performance.now() - startMs;
  await opened().remove(`${RUN}-again`, { force: true });
  // Freed space can be placed again a few roots later.
  for (let root = 0; root < ROOTS_UNTIL_FREE; root++) await opened().catalog.commit(async () => undefined);
  return { ...NOTHING, bytes: target.byteLength, durationMs };
}

async function read(): Promise<RedundancyResult> {
  const startMs = performance.now();
  const version = await opened().get(RUN);
  let at = 0;
  let bytes = 0;
  const into = ({ byteLength }: TensorInfo): Uint8Array => {
    const view = target.subarray(at, at + byteLength);
    at += byteLength;
    return view;
  };
  for await (const tensor of version.load(into)) bytes += tensor.byteLength;
  return { ...NOTHING, bytes, durationMs: performance.now() - startMs };
}

/** Spoils a share of the segments of the copies that will be read, then reads and heals them. */
async function heal(share: number, seed: number): Promise<RedundancyResult> {
  const version = await opened().get(RUN);
  const random = seededRandom(seed);
  const places: { member: string; offset: number }[] = [];
  for (const name of version.names) {
    for (const { member, copy, offset, length } of await version.tensor(name).extents()) {
      for (let within = 0; within + SEGMENT_BYTES <= length; within += SEGMENT_BYTES)
        if (copy === (within / SEGMENT_BYTES) % 2 && random() < share)
          places.push({ member, offset: offset + within });
    }
  }
  const files = new Map<string, Awaited<ReturnType<typeof openFile>>>();
  const junk = Buffer.alloc(512, 0xa5);
  for (const { member, offset } of places) {
    const file = files.get(member) ?? (await openFile(member, 'r+'));
    files.set(member, file);
    await file.write(junk, 0, junk.length, offset + 4096);
  }
  for (const file of files.values()) await file.close();
  // Runs one after the other would add up to a failing drive's errors.
  for (const { index } of opened().info.members) await opened().onlineMember(index);
  const before = opened().stats().healing.healed;
  const startMs = performance.now();
  const { bytes } = await read();
  await opened().healed();
  const durationMs = performance.now() - startMs;
  const healed = opened().stats().healing.healed - before;
  // Damage that this read did not meet is put right before the next run.
  for await (const _event of version.verify()) {
    // Reading every copy is what is wanted of it.
  }
  for await (const event of opened().scrub({ restart: true }))
    if (event.type === 'finding' && event.action !== 'repaired') throw event.error;
  return { ...NOTHING, bytes, durationMs, healed };
}

async function scrub(bytesPerSec?: number, signal?: AbortSignal): Promise<RedundancyResult> {
  const startMs = performance.now();
  let bytes = 0;
  const options = { restart: true, ...(signal === undefined ? {} : { signal }) };
  const events = opened().scrub(bytesPerSec === undefined ? options : { ...options, bytesPerSec });
  for await (const event of events) {
    if (event.type === 'done') bytes = event.scannedBytes;
    if (event.type === 'finding') throw event.error;
  }
  return { ...NOTHING, bytes, durationMs: performance.now() - startMs };
}

async function rebuild(memberBytes: number, newPath: string): Promise<RedundancyResult> {
  const lost = paths.shift();
  if (lost === undefined) throw new Error('prepare comes first');
  const before = opened().info.members.find((member) => member.path === lost);
  await opened().close();
  await rm(lost);
  store = await open({ members: paths }, { mode: 'rw' });
  await store.addMember({ path: newPath, sizeBytes: memberBytes });
  paths.push(newPath);
  await store.settleMembers();
  await store.leaveMember(before?.index ?? -1);
  const startMs = performance.now();
  const job = store.resilver();
  let next = await job.next();
  while (next.done !== true) next = await job.next();
  const durationMs = performance.now() - startMs;
  const { movedBytes, underReplicated, onGivenUp } = next.value;
  if (underReplicated > 0 || onGivenUp > 0) throw new Error('the rebuild left copies wanting');
  await store.settleMembers();
  return { ...NOTHING, bytes: movedBytes, durationMs };
}

async function latency(
  scrubBytesPerSec: number,
  durationMs: number,
  seed: number,
): Promise<RedundancyResult> {
  const version = await opened().get(RUN);
  const tensors = version.names.map((name) => version.tensor(name));
  const random = seededRandom(seed);
  const stop = new AbortController();
  const scrubbing = scrubBytesPerSec === 0 ? null : scrub(scrubBytesPerSec, stop.signal).catch(() => null);
  const taken: number[] = [];
  const endMs = performance.now() + durationMs;
  const reader = async (lane: number): Promise<void> => {
    const mine = target.subarray(lane * REQUEST_BYTES, (lane + 1) * REQUEST_BYTES);
    while (performance.now() < endMs) {
      const tensor = tensors[Math.floor(random() * tensors.length)];
      if (tensor === undefined) throw new Error('the version has tensors');
      const slots = Math.floor(tensor.byteLength / REQUEST_BYTES);
      const offset = Math.floor(random() * slots) * REQUEST_BYTES;
      const startMs = performance.now();
      await tensor.readInto(mine, { offset, length: REQUEST_BYTES });
      taken.push(performance.now() - startMs);
    }
  };
  await Promise.all(Array.from({ length: REQUESTS_UNDER_WAY }, (_unused, lane) => reader(lane)));
  stop.abort(new Error('the measurement is over'));
  await scrubbing;
  taken.sort((a, b) => a - b);
  const p99Ms = taken[Math.floor(taken.length * 0.99)] ?? Number.NaN;
  return { ...NOTHING, p99Ms, requests: taken.length, durationMs };
}

async function perform(job: RedundancyJob): Promise<RedundancyResult> {
  switch (job.kind) {
    case 'prepare':
      await prepare(job.members, job.memberBytes, job.sizeBytes);
      return NOTHING;
    case 'read':
      return read();
    case 'write':
      return write();
    case 'heal':
      return heal(job.share, job.seed);
    case 'scrub':
      return scrub();
    case 'rebuild':
      return rebuild(job.memberBytes, job.newPath);
    case 'latency':
      return latency(job.scrubBytesPerSec, job.durationMs, job.seed);
  }
}

process.on('message', ({ id, job }: { readonly id: number; readonly job: RedundancyJob }) => {
  perform(job).then(
    (outcome) => process.send?.({ id, result: outcome }),
    (error: unknown) =>
      process.send?.({ id, error: error instanceof Error ? (error.stack ?? error.message) : String(error) }),
  );
});
process.on('disconnect', () => {
  const closing = store?.close() ?? Promise.resolve();
  void closing.finally(() => process.exit(0));
});
