// Writes one exported file: windows are read, summed and written, several in flight.
//
// Invariants
//   1. The bytes that are written are the bytes that are summed; the sum of the file must be the one expected, or
//      E_CORRUPT and the file is not kept.
//   2. Memory is IN_FLIGHT windows of WINDOW_BYTES, aligned, for the whole export.
//   3. Whatever fails, every read and write that was started has ended before the error leaves.
//
// It chooses no names and renames nothing (exporter.ts).

import type { HostBuffer, Store, Version } from '../../engine/index.js';
import { crc64Combine } from '../../format/checksum.js';
import { StoreError } from '../../format/errors.js';
import { DirectFile } from './direct_file.js';
import { type LaidOutFile, type WindowOptions, WindowReader } from './window_reader.js';

export const WINDOW_BYTES = 8 * 1024 * 1024;
const IN_FLIGHT = 4;

export interface FileWriterOptions extends WindowOptions {
  readonly onBytes?: (bytes: number) => void;
}
export interface FileToWrite {
  /** Name for messages, relative to the export. */
  readonly name: string;
  readonly sizeBytes: number;
  /** CRC-64/NVME that the bytes have to have. */
  readonly sum: bigint;
  /** Permission bits. */
  readonly mode: number;
}
type Fill = (memory: Uint8Array, offset: number, lengthBytes: number) => Promise<void>;

/** Windows of aligned memory and the sum function of one open store. */
export class FileWriter {
  readonly #version: Version;
  readonly #crc64: (bytes: Uint8Array, seed?: bigint) => bigint;
  readonly #buffers: readonly HostBuffer[];
  readonly #options: FileWriterOptions;
  /** How the last file was written. */
  path: 'direct' | 'buffered' = 'direct';

  private constructor(
    store: Store,
    version: Version,
    buffers: readonly HostBuffer[],
    options: FileWriterOptions,
  ) {
    this.#version = version;
    this.#crc64 = store.catalog.io.checksum.crc64;
    this.#buffers = buffers;
    this.#options = options;
  }

  static async make(store: Store, version: Version, options: FileWriterOptions): Promise<FileWriter> {
    const buffers = await Promise.all(Array.from({ length: IN_FLIGHT }, () => store.alloc(WINDOW_BYTES)));
    return new FileWriter(store, version, buffers, options);
  }

  /** A safetensors file from its layout. */
  async writeLaidOut(path: string, file: FileToWrite, layout: LaidOutFile): Promise<void> {
    const reader = new WindowReader(this.#version, layout, this.#options);
    await this.#writeFile(path, file, IN_FLIGHT, (memory, offset, lengthBytes) =>
      reader.read(memory, offset, lengthBytes),
    );
  }

  /** A file that is a blob of the version. */
  async writeBlob(path: string, file: FileToWrite, blobName: string): Promise<void> {
    const blob = this.#version.blob(blobName);
    const chunks = blob.stream({ chunkBytes: WINDOW_BYTES, ...this.#options })[Symbol.asyncIterator]();
    try {
      // A stream comes in order, so one window at a time; the stream itself reads ahead.
      await this.#writeFile(path, file, 1, async (memory, _offset, lengthBytes) => {
        for (let filled = 0; filled < lengthBytes; ) {
          const { value, done } = await chunks.next();
          if (done === true) throw this.#wrong(file, 'the blob ended early');
          memory.set(value, filled);
          filled += value.byteLength;
        }
      });
    } finally {
      await chunks.return?.();
    }
  }

  async #writeFile(path: string, file: FileToWrite, inFlight: number, fill: Fill): Promise<void> {
    const target = await DirectFile.create(path);
    try {
      const sum = await this.#writeWindows(target, file, inFlight, fill);
      if (sum !== file.sum)
        throw this.#wrong(file, `its sum is ${sum.toString(16)} instead of ${file.sum.toString(16)}`);
      await target.finish(file.sizeBytes, file.mode);
      this.path = target.path;
    } finally {
      await target.close();
    }
  }

  async #writeWindows(target: DirectFile, file: FileToWrite, inFlight: number, fill: Fill): Promise<bigint> {
    const count = Math.ceil(file.sizeBytes / WINDOW_BYTES);
    const sums = new Array<bigint>(count).fill(0n);
    let next = 0;
    let failed = false;
    const work = async (buffer: HostBuffer): Promise<void> => {
      while (next < count && !failed) {
        const index = next++;
        const offset = index * WINDOW_BYTES;
        const lengthBytes = Math.min(WINDOW_BYTES, file.sizeBytes - offset);
        try {
          this.#options.signal?.throwIfAborted();
          await fill(buffer.bytes, offset, lengthBytes);
          sums[index] = this.#crc64(buffer.bytes.subarray(0, lengthBytes));
          await target.write(buffer.bytes, lengthBytes, offset);
        } catch (error) {
          failed = true;
          throw error;
        }
        this.#options.onBytes?.(lengthBytes);
      }
    };
    const settled = await Promise.allSettled(this.#buffers.slice(0, inFlight).map(work));
    for (const result of settled) if (result.status === 'rejected') throw result.reason;
    return sums.reduce((sum, part, index) => {
      const lengthBytes = Math.min(WINDOW_BYTES, file.sizeBytes - index * WINDOW_BYTES);
      return index === 0 ? part : crc64Combine(sum, part, lengthBytes);
    }, 0n);
  }

  #wrong(file: FileToWrite, how: string): StoreError {
    return new StoreError('E_CORRUPT', `${file.name} was not exported: ${how}.`, {
      where: { object: this.#version.id, file: file.name },
      safe: 'the files exported before it; this one was not kept',
      next: `ingot verify ${this.#version.id}`,
    });
  }

  async close(): Promise<void> {
    await Promise.all(this.#buffers.map((buffer) => buffer.close()));
  }
}
