// The GPUs of one open store: opened when they are first asked for, with the memory that reads to them go through.
//
// Invariants
//   1. A GPU is opened once; who asks meanwhile waits for the same opening. A failed one may be tried again.
//   2. Memory from `allocate` is freed when its owner closes it and no read uses it any more, or with the store.
//   3. What a GPU adds to host memory is PINNED_BYTES, whatever is loaded.
//
// This file never reads a member.

import { StoreError, assert } from '../../format/errors.js';
import { GPU_NO_MEMBER, type GpuBatch, type GpuBuffer, type GpuPort } from '../io/gpu_port.js';
import type { Io } from '../io/port.js';
import type { BufferDesc, Device, DeviceBuffer } from '../types.js';
import { PinnedArena } from './pinned_arena.js';

/**
 * Registered host memory of one GPU: eight windows are under way in it. Twice as much took 1.4 times the processor time
 * a byte (decisions/0020): what is copied in and fetched by the GPU then falls out of the cache between.
 */
export const PINNED_BYTES = 128 * 1024 * 1024;

/** What reads to GPUs did, since the store was opened. */
export interface GpuCounters {
  /** Tensor bytes decoded on a GPU. */
  decodedOnGpuBytes: number;
  /** The same decoded by the CPU on their way (LZ4, zstd, deltas, parts of chunks, no kernels). */
  decodedOnHostBytes: number;
  /** Parts whose sums were wrong on a GPU, or that a read did not bring: read again and verified by the CPU. */
  suspects: number;
}

export interface OpenGpu {
  readonly id: number;
  readonly port: GpuPort;
  readonly arena: PinnedArena;
  /** Kernels are built in: coded chunks can be decoded there. */
  readonly hasKernels: boolean;
}

export class Gpus {
  readonly counters: GpuCounters = { decodedOnGpuBytes: 0, decodedOnHostBytes: 0, suspects: 0 };
  readonly #io: Io;
  readonly #opened = new Map<number, Promise<OpenGpu>>();

  constructor(io: Io) {
    this.#io = io;
  }

  /** E_UNSUPPORTED (no GPU, no driver), E_NOT_FOUND (no such GPU), E_GPU (the driver refused). */
  open(id: number): Promise<OpenGpu> {
    const known = this.#opened.get(id);
    if (known !== undefined) return known;
    const opening = this.#open(id);
    this.#opened.set(id, opening);
    opening.catch(() => this.#opened.delete(id));
    return opening;
  }

  async #open(id: number): Promise<OpenGpu> {
    const port = this.#io.gpu;
    if (port === undefined) throw new StoreError('E_UNSUPPORTED', 'this kind of I/O reaches no GPU');
    const { gpus, reason, kernels } = port.list();
    if (gpus.length === 0) {
      throw new StoreError('E_UNSUPPORTED', `there is no GPU to use: ${reason}`, { next: 'ingot doctor' });
    }
    if (!gpus.some((gpu) => gpu.id === id)) {
      throw new StoreError('E_NOT_FOUND', `there is no cuda:${id}; ${gpus.length} GPUs are seen`, {
        next: 'ingot doctor',
      });
    }
    const memory = this.#io.allocate(PINNED_BYTES);
    try {
      await port.open(id, memory);
    } catch (error) {
      this.#io.release(memory);
      throw error;
    }
    return { id, port, arena: new PinnedArena(memory), hasKernels: kernels !== '' };
  }

  async allocate(byteLength: number, id: number): Promise<GpuMemory> {
    const { port } = await this.open(id);
    return new GpuMemory(port, id, port.allocate(id, byteLength), byteLength);
  }
}

/** Device memory of the core's own. */
export class GpuMemory implements DeviceBuffer {
  readonly ptr: bigint;
  readonly byteLength: number;
  readonly device: Device;
  readonly owner: object = this;
  readonly #port: GpuPort;
  readonly #gpu: number;
  #users = 0;
  #closing: Promise<void> | null = null;
  #whenFree: (() => void) | null = null;

  constructor(port: GpuPort, gpu: number, ptr: bigint, byteLength: number) {
    this.#port = port;
    this.#gpu = gpu;
    this.ptr = ptr;
    this.byteLength = byteLength;
    this.device = { type: 'cuda', id: gpu };
  }

  at(byteOffset: number, byteLength: number): BufferDesc {
    this.#check(byteOffset, byteLength);
    const { ptr, device } = this;
    return { ptr, byteOffset, byteLength: byteOffset + byteLength, device, owner: this };
  }

  async copyTo(
    bytes: Uint8Array,
    options: { byteOffset?: number; signal?: AbortSignal } = {},
  ): Promise<void> {
    const { byteOffset = 0, signal } = options;
    this.#check(byteOffset, bytes.byteLength);
    if (bytes.byteLength === 0) return;
    await this.using(() => this.#port.fetch(this.#gpu, this.ptr + BigInt(byteOffset), bytes, signal));
  }

  async copyFrom(
    bytes: Uint8Array,
    options: { byteOffset?: number; signal?: AbortSignal } = {},
  ): Promise<void> {
    const { byteOffset = 0, signal } = options;
    this.#check(byteOffset, bytes.byteLength);
    if (bytes.byteLength === 0) return;
    const to = { gpu: this.#gpu, pointer: this.ptr, byteLength: this.byteLength };
    await this.using(() => this.#port.copy(bytesBatch(to, bytes, byteOffset, signal)));
  }

  /** Runs `work` while the memory cannot be freed. E_CLOSED after `close`. */
  async using<T>(work: () => Promise<T>): Promise<T> {
    if (this.#closing !== null) throw new StoreError('E_CLOSED', 'the GPU memory was closed');
    this.#users++;
    try {
      return await work();
    } finally {
      this.#users--;
      if (this.#users === 0) this.#whenFree?.();
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    if (this.#users > 0) {
      await new Promise<void>((resolve) => {
        this.#whenFree = resolve;
      });
    }
    assert(this.#users === 0, 'nobody uses the memory that is freed');
    this.#port.free(this.#gpu, this.ptr);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #check(byteOffset: number, byteLength: number): void {
    const fine = Number.isSafeInteger(byteOffset) && byteOffset >= 0 && Number.isSafeInteger(byteLength);
    if (fine && byteLength >= 0 && byteOffset + byteLength <= this.byteLength) return;
    throw new StoreError(
      'E_RANGE',
      `[${byteOffset}, ${byteOffset + byteLength}) of ${this.byteLength} bytes`,
    );
  }
}

/** One stretch of host memory to a place on a GPU, as it is. */
export function bytesBatch(
  destination: GpuBuffer,
  bytes: Uint8Array,
  byteOffset: number,
  signal?: AbortSignal,
): GpuBatch {
  return {
    count: 1,
    gpu: destination.gpu,
    source: new Uint32Array(1),
    member: Uint32Array.of(GPU_NO_MEMBER),
    skipBytes: new Float64Array(1),
    wantedBytes: new Float64Array(1),
    sourceOffsetBytes: new Float64Array(1),
    sourceBytes: Float64Array.of(bytes.byteLength),
    rawBytes: new Float64Array(1),
    ids: new Uint32Array(1),
    rawSums: new BigUint64Array(1),
    segmentBytes: new Uint32Array(1),
    sumIndex: new Uint32Array(1),
    sums: new BigUint64Array(0),
    destination: new Uint32Array(1),
    destinationOffsetBytes: Float64Array.of(byteOffset),
    sources: [bytes],
    destinations: [destination],
    verdict: new Uint32Array(1),
    ...(signal === undefined ? {} : { signal }),
  };
}
