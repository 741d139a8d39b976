// Loading many tensors: what is read ahead, in what order, and how the consumer holds it back.
//
// Invariants
//   1. Tensors are yielded in on-disk order, each only when all its bytes are verified and in place.
//   2. Bytes in flight plus bytes landed and not taken stay within `maxInFlight`, except that one
//      batch is always allowed.
//   3. However the loop ends (break, throw, abort), it ends only when no device may touch a destination.
//   4. `into` is called once for each tensor, in order, ahead of its yield; null skips the tensor.
//   5. One snapshot is held from the first read to the end.
//
// This file never reads by itself (reader.ts) and never allocates destinations.

import { dtypeOfCode } from '../format/dtype.js';
import { StoreError, assert } from '../format/errors.js';
import type { Piece, Tensor } from '../format/index.js';
import { onAbort } from './abort_listeners.js';
import { copyToGpu } from './gpu/gpu_reads.js';
import { LookAhead } from './look_ahead.js';
import { ProgressTracker } from './progress.js';
import {
  type PartReader,
  READ_BATCH_BYTES,
  READ_BATCH_PARTS,
  type ReadPart,
  type ReadTarget,
  destinationOf,
} from './reader.js';
import type { StoreContext } from './store_context.js';
import type { Destination, LoadOptions, ReadOptions, TensorInfo } from './types.js';

/** Bytes in flight or landed and not taken, by default. */
export const DEFAULT_MAX_IN_FLIGHT_BYTES = 256 * 1024 * 1024;

/** The same where destinations are on a GPU: what is held there is the caller's memory, not the host's. */
export const DEFAULT_GPU_IN_FLIGHT_BYTES = 512 * 1024 * 1024;
/** Into so many batches that limit is cut: reads, copies and decoding of different batches overlap. */
const BATCHES_IN_FLIGHT = 4;
const GPU_BATCHES_IN_FLIGHT = 8;

/** Yielded landings that may stay in the queue before it is trimmed. */
const QUEUE_TRIM = 4096;

/** What a read needs to know of a tensor or blob. */
export interface Readable {
  readonly name: string;
  readonly rawBytes: number;
  readonly pieces: readonly Piece[];
  readonly inlineBytes: Uint8Array;
}

/** Parts of the stretch [offset, offset + length) of an object. */
export function partsOf(
  object: Readable,
  offset: number,
  length: number,
  destination: ReadTarget,
  destinationOffset: number,
): ReadPart[] {
  const parts: ReadPart[] = [];
  let at = 0;
  for (const piece of object.pieces) {
    const from = Math.max(offset, at);
    const to = Math.min(offset + length, at + piece.rawBytes);
    if (from < to) {
      parts.push({
        name: object.name,
        extentId: piece.extentId,
        offset: piece.rawOffset + from - at,
        bytes: to - from,
        destination,
        destinationOffset: destinationOffset + from - offset,
      });
    }
    at += piece.rawBytes;
    if (at >= offset + length) break;
  }
  return parts;
}

/** Puts bytes that live in the manifest at their destination; a promise where that is on a GPU. */
export function copyInline(
  { io, gpus }: Pick<StoreContext, 'io' | 'gpus'>,
  object: Readable,
  offset: number,
  length: number,
  destination: ReadTarget,
  at: number,
): void | Promise<void> {
  const bytes = object.inlineBytes.subarray(offset, offset + length);
  assert(bytes.byteLength === length, 'an inline object has all its bytes');
  if (destination instanceof Uint8Array) {
    destination.set(bytes, at);
    return;
  }
  if ('gpu' in destination) return copyToGpu(gpus, bytes, destination, at);
  const copy = io.copyToPointer;
  if (copy === undefined) {
    throw new StoreError('E_UNSUPPORTED', `${object.name} lives in the catalog; read it into a Uint8Array`, {
      where: { tensor: object.name },
    });
  }
  copy.call(io, destination.pointer + BigInt(at), bytes);
}

export function tensorInfoOf(record: Tensor): TensorInfo {
  const dtype = dtypeOfCode(record.dtype);
  if (dtype === null)
    throw new StoreError('E_VERSION', `${record.name} has a dtype unknown here (${record.dtype})`);
  const checksum = new Uint8Array(8);
  new DataView(checksum.buffer).setBigUint64(0, record.rawSum);
  return { name: record.name, dtype, shape: record.shape, byteLength: record.rawBytes, checksum };
}

/** Cuts parts into batches. */
export function* batchesOf(parts: Iterable<ReadPart>): Generator<{ parts: ReadPart[]; bytes: number }> {
  let batch: ReadPart[] = [];
  let bytes = 0;
  for (const part of parts) {
    batch.push(part);
    bytes += part.bytes;
    if (bytes < READ_BATCH_BYTES && batch.length < READ_BATCH_PARTS) continue;
    yield { parts: batch, bytes };
    batch = [];
    bytes = 0;
  }
  if (batch.length > 0) yield { parts: batch, bytes };
}

interface Landing {
  readonly record: Tensor;
  /** Parts not yet verified. */
  waiting: number;
  planned: boolean;
  landedBytes: number;
}

export class Loader {
  readonly #context: StoreContext;
  readonly #reader: PartReader;
  readonly #object: string;
  readonly #tensors: readonly Tensor[];
  readonly #into: (tensor: TensorInfo) => Destination | null;
  readonly #options: LoadOptions;
  readonly #stop = new AbortController();
  readonly #running = new Set<Promise<void>>();
  /** Planned and not yet yielded, from `#head` on. */
  #queue: Landing[] = [];
  #head = 0;
  readonly #lease;
  readonly #lookAhead: LookAhead;
  #next = 0;
  /** Parts planned and not yet sent, with the landings they belong to. */
  #batch: { part: ReadPart; landing: Landing }[] = [];
  #batchBytes = 0;
  /** Settles when the look-ups of the newest planned tensor, and so of all before it, are made. */
  #lookedUp: Promise<void> = Promise.resolve();
  #inFlightBytes = 0;
  #heldBytes = 0;
  #failure: unknown = null;
  #failed = false;
  /** A destination is on a GPU. */
  #toGpu = false;
  #wake: (() => void) | null = null;

  constructor(
    context: StoreContext,
    reader: PartReader,
    object: string,
    tensors: readonly Tensor[],
    into: (tensor: TensorInfo) => Destination | null,
    options: LoadOptions,
  ) {
    this.#context = context;
    this.#reader = reader;
    this.#object = object;
    this.#tensors = tensors;
    this.#into = into;
    this.#options = options;
    const limit = this.#limit();
    // With no room for a byte nothing would ever be planned, and the loop would spin.
    if (!(limit >= 1)) throw new StoreError('E_RANGE', `maxInFlight is at least 1 byte, not ${limit}`);
    this.#lease = context.snapshots.lease();
    const { snapshot } = this.#lease;
    this.#lookAhead = new LookAhead(tensors, (ids) => reader.lookUp(snapshot, object, ids));
  }

  async *run(): AsyncGenerator<TensorInfo> {
    const totals = {
      bytes: this.#tensors.reduce((sum, tensor) => sum + tensor.rawBytes, 0),
      items: this.#tensors.length,
    };
    const progress = new ProgressTracker(this.#context.io.clock, 'read', totals, this.#options.onProgress);
    const forward = (): void => this.#stop.abort(this.#options.signal?.reason);
    const removeForward = onAbort(this.#options.signal, forward);
    try {
      this.#options.signal?.throwIfAborted();
      for (;;) {
        this.#options.signal?.throwIfAborted();
        this.#pump();
        const head = this.#queue[this.#head];
        if (this.#failed) throw this.#failure;
        if (head === undefined) {
          if (this.#next >= this.#tensors.length) break;
          continue;
        }
        if (head.waiting > 0 || !head.planned) {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
          continue;
        }
        this.#takeHead();
        this.#heldBytes -= head.landedBytes;
        progress.add(head.record.rawBytes, 1);
        yield tensorInfoOf(head.record);
      }
      progress.finish();
    } finally {
      removeForward();
      this.#stop.abort(new StoreError('E_CLOSED', 'the load was ended'));
      while (this.#running.size > 0) await Promise.allSettled(this.#running);
      await this.#lookAhead.settled();
      this.#lease.release();
    }
  }

  /** Forgets the landings that were yielded, many at a time: shifting a long array one by one is slow. */
  #takeHead(): void {
    this.#head++;
    if (this.#head < QUEUE_TRIM) return;
    this.#queue = this.#queue.slice(this.#head);
    this.#head = 0;
  }

  #limit(): number {
    const usual = this.#toGpu ? DEFAULT_GPU_IN_FLIGHT_BYTES : DEFAULT_MAX_IN_FLIGHT_BYTES;
    return this.#options.maxInFlight ?? usual;
  }

  /** Plans and sends as much as the limit allows. */
  #pump(): void {
    // Wait for room for a whole batch, so that a consumer of small tensors does not make small batches.
    const room = this.#limit() - this.#inFlightBytes - this.#heldBytes;
    if (this.#queue.length > this.#head && room < this.#batchLimit()) return;
    while (!this.#failed && this.#next < this.#tensors.length) {
      const used = this.#inFlightBytes + this.#heldBytes + this.#batchBytes;
      if (used >= this.#limit()) break;
      try {
        this.#planNext();
      } catch (error) {
        this.#fail(error);
        return;
      }
    }
    // Send the rest when there is nothing more to plan or the limit leaves no room to fill a batch.
    if (this.#batch.length > 0 && !this.#failed) this.#send();
  }

  #planNext(): void {
    const index = this.#next++;
    const record = this.#tensors[index];
    assert(record !== undefined, 'there is a tensor to plan');
    const destination = this.#into(tensorInfoOf(record));
    if (destination === null) return;
    this.#lookedUp = this.#lookAhead.want(index);
    const landing: Landing = { record, waiting: 0, planned: false, landedBytes: 0 };
    this.#queue.push(landing);
    const buffer = destinationOf(destination, record.rawBytes, record.name);
    const isInline = record.pieces.length === 0 && record.rawBytes > 0;
    const copying = isInline ? copyInline(this.#context, record, 0, record.rawBytes, buffer, 0) : undefined;
    const parts = partsOf(record, 0, record.rawBytes, buffer, 0);
    landing.waiting = parts.length;
    if (copying !== undefined) this.#await(copying, landing);
    if ('gpu' in buffer) this.#toGpu = true;
    landing.planned = true;
    for (const part of parts) {
      this.#batch.push({ part, landing });
      this.#batchBytes += part.bytes;
      if (this.#batchBytes >= this.#batchLimit() || this.#batch.length >= READ_BATCH_PARTS) this.#send();
    }
  }

  /** A few bytes on their way to a GPU by themselves. */
  #await(copying: Promise<void>, landing: Landing): void {
    landing.waiting++;
    const running = copying
      .then(
        () => {
          landing.waiting--;
        },
        (error: unknown) => this.#fail(error),
      )
      .finally(() => {
        this.#running.delete(running);
        this.#wakeUp();
      });
    this.#running.add(running);
  }

  #batchLimit(): number {
    const parts = this.#toGpu ? GPU_BATCHES_IN_FLIGHT : BATCHES_IN_FLIGHT;
    return Math.min(READ_BATCH_BYTES, Math.max(this.#limit() / parts, 4 * 1024 * 1024));
  }

  #send(): void {
    const batch = this.#batch;
    const bytes = this.#batchBytes;
    this.#batch = [];
    this.#batchBytes = 0;
    this.#inFlightBytes += bytes;
    const options: ReadOptions = { ...this.#options, signal: this.#stop.signal };
    const lookedUp = this.#lookedUp;
    const running = this.#gate()
      .then(() => lookedUp)
      .then(() =>
        this.#reader.read(
          this.#lease.snapshot,
          this.#object,
          batch.map((each) => each.part),
          options,
        ),
      )
      .then(
        () => {
          for (const { part, landing } of batch) {
            landing.waiting--;
            landing.landedBytes += part.bytes;
            if (landing.waiting === 0) this.#heldBytes += landing.landedBytes;
          }
        },
        (error: unknown) => this.#fail(error),
      )
      .finally(() => {
        this.#inFlightBytes -= bytes;
        this.#sentBytes -= bytes;
        this.#running.delete(running);
        this.#openGate();
        if (!this.#failed) this.#pump();
        this.#wakeUp();
      });
    this.#running.add(running);
    this.#waitingBytes.push(bytes);
    this.#openGate();
  }

  // A tensor larger than the limit is planned whole; its batches are sent to the device one by one.
  readonly #waitingBytes: number[] = [];
  readonly #gates: (() => void)[] = [];
  #sentBytes = 0;

  #gate(): Promise<void> {
    return new Promise((resolve) => this.#gates.push(resolve));
  }
  #openGate(): void {
    for (let bytes = this.#waitingBytes[0]; bytes !== undefined; bytes = this.#waitingBytes[0]) {
      if (this.#sentBytes > 0 && this.#sentBytes + bytes > this.#limit() && !this.#failed) return;
      this.#waitingBytes.shift();
      this.#sentBytes += bytes;
      this.#gates.shift()?.();
    }
  }

  #fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#failure = error;
    this.#stop.abort(error);
    this.#openGate();
    this.#wakeUp();
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }
}
