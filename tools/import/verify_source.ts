// --verify-source: every source file is read once more, and its sum compared with that of the stored bytes.
//
// Invariants
//   1. It runs when every byte of the version is written and before the version is visible, so a difference leaves
//      nothing behind.
//   2. Memory is two buffers of READ_BYTES.
//   3. What is stored rounded (--save-as) is compared with the source rounded once more, by the portable conversion:
//      a fault of the native one is a difference, too.
//
// The second read may be served by the page cache of the host: it proves that the stored bytes are those that the
// file has now, not that the source's own disk is sound.

import { type FileHandle, open } from 'node:fs/promises';
import { bf16OfF32 } from '../../format/index.js';
import { sourceError } from '../safetensors/walk.js';
import { changed } from './source_identity.js';

/** Bytes of one read. */
const READ_BYTES = 8 * 1024 * 1024;

/** Sum of a stored file and where its source is. */
export interface FileToCompare {
  readonly path: string;
  readonly sizeBytes: number;
  readonly sum: bigint;
  /** What was stored is not the file as it is. */
  readonly rounded?: RoundedFile;
}
/** A file that was stored with its fp32 tensors as bf16. */
export interface RoundedFile {
  readonly prefixBytes: Uint8Array;
  /** In the order of the stored file: where the source has them. */
  readonly tensors: readonly {
    readonly offsetBytes: number;
    readonly byteLength: number;
    readonly narrows: boolean;
  }[];
}
export interface VerifyOptions {
  /** CRC-64/NVME of `bytes`, continuing from `seed`. */
  readonly crc64: (bytes: Uint8Array, seed?: bigint) => bigint;
  readonly signal?: AbortSignal;
  readonly onBytes?: (bytes: number) => void;
}

/** E_SOURCE_CHANGED for the first file whose bytes are not those that were stored. */
export async function verifySources(files: readonly FileToCompare[], options: VerifyOptions): Promise<void> {
  const buffers = [Buffer.alloc(READ_BYTES), Buffer.alloc(READ_BYTES)] as const;
  for (const file of files) {
    const found =
      file.rounded === undefined
        ? await sumOfFile(file.path, buffers, options)
        : await sumOfRounded(file.path, file.rounded, buffers[0], options);
    if (found.sizeBytes !== file.sizeBytes) {
      throw changed(file.path, `it has ${found.sizeBytes} bytes, and ${file.sizeBytes} were stored`);
    }
    if (found.sum !== file.sum) throw changed(file.path, 'its bytes differ from those that were stored');
  }
}

/** One buffer is summed while the other is read. */
async function sumOfFile(
  path: string,
  buffers: readonly [Buffer, Buffer],
  { crc64, signal, onBytes }: VerifyOptions,
): Promise<{ readonly sizeBytes: number; readonly sum: bigint }> {
  try {
    const handle = await open(path, 'r');
    try {
      let sum = 0n;
      let sizeBytes = 0;
      let turn = 0;
      let reading = handle.read(buffers[0], 0, READ_BYTES, 0);
      for (;;) {
        const { bytesRead, buffer } = await reading;
        if (bytesRead === 0) return { sizeBytes, sum };
        sizeBytes += bytesRead;
        turn = 1 - turn;
        reading = handle.read(buffers[turn] ?? buffers[0], 0, READ_BYTES, sizeBytes);
        reading.catch(() => {});
        sum = crc64(buffer.subarray(0, bytesRead), sum);
        onBytes?.(bytesRead);
        if (signal?.aborted === true) {
          await reading.catch(() => {});
          throw signal.reason;
        }
      }
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw sourceError(error, path);
  }
}

/** The file as it was stored, made again from its source. */
async function sumOfRounded(
  path: string,
  { prefixBytes, tensors }: RoundedFile,
  buffer: Buffer,
  { crc64, signal, onBytes }: VerifyOptions,
): Promise<{ readonly sizeBytes: number; readonly sum: bigint }> {
  try {
    const handle = await open(path, 'r');
    try {
      let sum = crc64(prefixBytes);
      let sizeBytes = prefixBytes.byteLength;
      for (const { offsetBytes, byteLength, narrows } of tensors) {
        for (let done = 0; done < byteLength; ) {
          signal?.throwIfAborted();
          const wanted = Math.min(READ_BYTES, byteLength - done);
          const filled = await fill(handle, buffer.subarray(0, wanted), offsetBytes + done);
          if (filled < wanted) throw changed(path, 'it became shorter');
          const bytes = buffer.subarray(0, wanted);
          const stored = narrows ? bf16OfF32(bytes) : bytes;
          sum = crc64(stored, sum);
          sizeBytes += stored.byteLength;
          done += wanted;
          onBytes?.(wanted);
        }
      }
      return { sizeBytes, sum };
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw sourceError(error, path);
  }
}

/** Fills the buffer from `offset` on; fewer bytes at the end of the file. */
async function fill(handle: FileHandle, buffer: Buffer, offset: number): Promise<number> {
  let filled = 0;
  while (filled < buffer.byteLength) {
    const { bytesRead } = await handle.read(buffer, filled, buffer.byteLength - filled, offset + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return filled;
}
