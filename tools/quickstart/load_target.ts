// Memory for a whole version, touched before the clock starts, and the timed load into it.
//
// Invariants
//   1. Each tensor has aligned memory of its own, so that direct I/O lands in it without a copy.
//   2. The clock covers the load alone: memory is allocated and written to beforehand, as a framework would have it.
//   3. Where the machine has not the memory, as many tensors as fit in half of it are loaded, and `describe` says so.
//   4. `check` sums what is in memory afresh; the engine's own verification is not trusted for the claim.

import { readFileSync } from 'node:fs';
import { freemem } from 'node:os';
import type { HostBuffer, Store, TensorInfo, Version } from '../../engine/index.js';
import { formatBytes } from '../cli/progress.js';

const KIB = 1024;

export class LoadTarget {
  readonly byteLength: number;
  readonly #version: Version;
  readonly #crc64: (bytes: Uint8Array, seed?: bigint) => bigint;
  readonly #buffers: ReadonlyMap<string, HostBuffer>;
  readonly #tensors: readonly TensorInfo[];

  private constructor(
    store: Store,
    version: Version,
    tensors: readonly TensorInfo[],
    buffers: Map<string, HostBuffer>,
  ) {
    this.#version = version;
    this.#crc64 = store.catalog.io.checksum.crc64;
    this.#tensors = tensors;
    this.#buffers = buffers;
    this.byteLength = tensors.reduce((sum, { byteLength }) => sum + byteLength, 0);
  }

  static async make(store: Store, version: Version): Promise<LoadTarget> {
    let room = availableMemory() / 2;
    const buffers = new Map<string, HostBuffer>();
    const tensors: TensorInfo[] = [];
    for (const tensor of version.tensors) {
      if (tensor.byteLength === 0) continue;
      if (tensor.byteLength > room) continue;
      room -= tensor.byteLength;
      const buffer = await store.alloc(tensor.byteLength);
      buffer.bytes.fill(0xff);
      buffers.set(tensor.name, buffer);
      tensors.push(tensor);
    }
    return new LoadTarget(store, version, tensors, buffers);
  }

  describe(): string {
    const all = this.#version.tensors.filter(({ byteLength }) => byteLength > 0).length;
    const size = formatBytes(this.byteLength);
    return this.#tensors.length === all
      ? `all ${all} tensors, ${size}, into memory that was allocated and touched before`
      : `${this.#tensors.length} of ${all} tensors, ${size}: more does not fit into half of the free memory`;
  }

  /** Bytes a second. */
  async load(signal: AbortSignal, onBytes: (bytes: number) => void): Promise<number> {
    const names = this.#tensors.map(({ name }) => name);
    const into = ({ name }: { readonly name: string }): Uint8Array | null =>
      this.#buffers.get(name)?.bytes ?? null;
    let bytes = 0;
    const started = performance.now();
    for await (const { byteLength } of this.#version.load(into, { names, signal })) {
      bytes += byteLength;
      onBytes(bytes);
    }
    if (bytes !== this.byteLength) throw new Error(`${bytes} of ${this.byteLength} bytes were loaded`);
    return (bytes * 1000) / (performance.now() - started);
  }

  check(): void {
    for (const { name, checksum } of this.#tensors) {
      const buffer = this.#buffers.get(name);
      const expected = Buffer.from(checksum).readBigUInt64BE();
      if (buffer === undefined || this.#crc64(buffer.bytes) !== expected)
        throw new Error(`${name} is not as it was stored`);
    }
  }

  async close(): Promise<void> {
    for (const buffer of this.#buffers.values()) await buffer.close();
  }
}

/** Bytes that can be had without swapping. */
function availableMemory(): number {
  try {
    const match = /^MemAvailable:\s+(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'utf8'));
    return match === null ? freemem() : Number(match[1]) * KIB;
  } catch {
    return freemem();
  }
}
