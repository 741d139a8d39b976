// Import: a safetensors file or a Hugging Face directory becomes one version, in one transaction.
//
//   first look at every file -> inspect -> put everything -> (read the sources again) -> last look -> commit
//
// Invariants
//   1. Tensor bytes above the catalog's inline limit never pass through JavaScript: the native core reads the source
//      straight into its aligned write buffers. Sidecars pass in pieces of at most SIDECAR_MEMORY_BYTES.
//   2. Each file keeps its prefix and the order of its tensors, so that export gives the same bytes; with `saveAs` it
//      gives the narrowed file (narrowed.ts).
//   3. Whatever fails, also a Ctrl-C, nothing of the import is visible and its space is free again.
//   4. A source that changed is E_SOURCE_CHANGED (source_identity.ts says what that can see).
//
// This file draws no progress and parses no header.

import { open } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import type { Store, Transaction, Version } from '../../engine/index.js';
import { assert, isStoreError, StoreError } from '../../format/errors.js';
import { INLINE_OBJECT_BYTES_MAX } from '../../format/limits.js';
import type { CodecName, CodecRule } from '../cli/values.js';
import type { SafetensorsTensor } from '../safetensors/header.js';
import { inspect, type SafetensorsSource, type SourceTensorFile } from '../safetensors/source.js';
import { type FoundFile, sourceError } from '../safetensors/walk.js';
import { planAsIs, planNarrowed, roundedFile } from './narrowed.js';
import { changed, SourceIdentities } from './source_identity.js';
import { verifySources } from './verify_source.js';

/** Sidecars up to this size are read whole; larger ones are read by the native core. */
const SIDECAR_MEMORY_BYTES = 1024 * 1024;
/** Tiny tensors are read through a window of this size, not one by one. */
const SMALL_WINDOW_BYTES = 1024 * 1024;

export interface ImportOptions {
  readonly run: string;
  readonly step?: number;
  readonly tags?: readonly string[];
  readonly redundancy?: 1 | 2 | 3;
  readonly chunkBytes?: number;
  readonly metadata?: Readonly<Record<string, string>>;
  /** How tensors are stored; default raw. The first rule that a name matches goes before it. */
  readonly codec?: CodecName;
  readonly codecRules?: readonly CodecRule[];
  /** Ref of a version: tensors that it has too are stored as differences to them, or linked. */
  readonly delta?: string;
  /** Lossy: fp32 tensors are stored as bf16. */
  readonly saveAs?: 'bf16';
  /** Read every source once more before the commit. */
  readonly verifySource?: boolean;
  readonly signal?: AbortSignal;
  /** Called when the source is known, before any byte is stored. */
  readonly onSource?: (source: SafetensorsSource) => void;
  /** Total bytes done so far in this phase: `import`, then `verify source`, then `commit`. */
  readonly onProgress?: (bytes: number, phase: string, items: number) => void;
}
export interface Imported {
  readonly version: Version;
  readonly source: SafetensorsSource;
}

/** Imports `path`. E_NOT_FOUND, E_FORMAT, E_SOURCE_CHANGED, E_NO_SPACE, E_EXISTS and what a transaction gives. */
export async function importModel(store: Store, path: string, options: ImportOptions): Promise<Imported> {
  const { signal } = options;
  const cancel = signal === undefined ? {} : { signal };
  const source = await inspect(path, cancel);
  options.onSource?.(source);
  const identities = await SourceIdentities.take(source);
  const transaction = await store.begin(options.run, {
    ...cancel,
    ...(options.step === undefined ? {} : { step: options.step }),
    ...(options.redundancy === undefined ? {} : { redundancy: options.redundancy }),
    ...(options.chunkBytes === undefined ? {} : { chunkBytes: options.chunkBytes }),
    ...(options.codec === undefined ? {} : { codec: options.codec }),
    ...(options.delta === undefined ? {} : { base: options.delta, delta: true }),
    metadata: {
      'import.format': source.format,
      ...(options.saveAs === undefined ? {} : { 'import.saveAs': options.saveAs }),
      ...options.metadata,
    },
  });
  try {
    const importer = new Importer(transaction, source, options);
    await importer.putAll();
    const version = await transaction.commit({
      ...cancel,
      tags: options.tags ?? [],
      beforeVisible: async (files) => {
        if (options.verifySource === true) await importer.verify(files, store.catalog.io.checksum.crc64);
        await identities.check();
        options.onProgress?.(source.totalBytes, 'commit', importer.items);
      },
    });
    return { version, source };
  } catch (error) {
    await transaction.abort(error);
    throw await sourceChange(identities, error);
  }
}

/** A source that was changed explains other errors (too short, other bytes), so it is what is said. */
async function sourceChange(identities: SourceIdentities, error: unknown): Promise<unknown> {
  if (!isStoreError(error) || error.code === 'E_SOURCE_CHANGED') return error;
  try {
    await identities.check();
    return error;
  } catch (change) {
    if (!isStoreError(change, 'E_SOURCE_CHANGED')) return error;
    const { message, where, safe = '', next = '' } = change;
    return new StoreError('E_SOURCE_CHANGED', message, { where, safe, next, cause: error });
  }
}

class Importer {
  readonly #transaction: Transaction;
  readonly #source: SafetensorsSource;
  readonly #options: ImportOptions;
  #doneBytes = 0;
  items = 0;

  constructor(transaction: Transaction, source: SafetensorsSource, options: ImportOptions) {
    this.#transaction = transaction;
    this.#source = source;
    this.#options = options;
  }

  async putAll(): Promise<void> {
    for (const sidecar of this.#source.sidecars) await this.#putSidecar(sidecar);
    for (const file of this.#source.files) await this.#putTensorFile(file);
  }

  /** Every source file against the sum of what was stored of it. */
  async verify(
    files: readonly { readonly name: string; readonly sizeBytes: number; readonly sum: bigint }[],
    crc64: (bytes: Uint8Array, seed?: bigint) => bigint,
  ): Promise<void> {
    const paths = new Map(
      [...this.#source.files, ...this.#source.sidecars].map(({ name, path }) => [name, path]),
    );
    const compared = files.map(({ name, sizeBytes, sum }) => {
      const file = this.#source.files.find((each) => each.name === name);
      const isRounded = this.#options.saveAs !== undefined && file !== undefined;
      return {
        path: paths.get(name) ?? name,
        sizeBytes,
        sum,
        ...(isRounded ? { rounded: roundedFile(file) } : {}),
      };
    });
    let bytes = 0;
    await verifySources(compared, {
      crc64,
      ...(this.#options.signal === undefined ? {} : { signal: this.#options.signal }),
      onBytes: (count) => {
        bytes += count;
        this.#options.onProgress?.(bytes, 'verify source', this.items);
      },
    });
  }

  async #putSidecar(file: FoundFile): Promise<void> {
    const transaction = this.#transaction;
    transaction.addFile({ name: file.name, mode: file.mode });
    if (file.sizeBytes > SIDECAR_MEMORY_BYTES) await transaction.putBlobFile(file.name, { path: file.path });
    else await transaction.putBlob(file.name, await readWhole(file));
    this.#done(file.sizeBytes);
  }

  async #putTensorFile(file: SourceTensorFile): Promise<void> {
    const plan = this.#options.saveAs === undefined ? planAsIs(file) : planNarrowed(file);
    const index = this.#transaction.addFile({ name: file.name, prefix: plan.prefixBytes, mode: file.mode });
    this.#done(file.prefixBytes.byteLength, 0);
    const small = new SmallReader(file.path);
    try {
      for (const tensor of file.tensors) {
        this.#options.signal?.throwIfAborted();
        const fileOffset = plan.fileOffset.get(tensor.name);
        assert(fileOffset !== undefined, 'a plan has every tensor of its file');
        await this.#putTensor(file, { file: index, fileOffset }, tensor, small);
        this.#done(tensor.byteLength);
      }
    } finally {
      await small.close();
    }
  }

  async #putTensor(
    file: SourceTensorFile,
    stored: { readonly file: number; readonly fileOffset: number },
    tensor: SafetensorsTensor,
    small: SmallReader,
  ): Promise<void> {
    const { name, dtype, shape, fileOffset, byteLength } = tensor;
    const rule = this.#options.codecRules?.find((each) => each.matches(name));
    const narrows = this.#options.saveAs === 'bf16' && dtype === 'F32';
    const place = {
      ...stored,
      ...(rule === undefined ? {} : { codec: rule.codec }),
      ...(narrows ? { saveAs: 'BF16' as const } : {}),
    };
    if (byteLength <= INLINE_OBJECT_BYTES_MAX) {
      // These live in the catalog, so they come through here anyway; reading them together is what is fast.
      const bytes = await small.read(fileOffset, byteLength);
      await this.#transaction.put(name, bytes, { dtype, shape }, place);
      return;
    }
    await this.#transaction.putFile(
      name,
      { path: file.path, offset: fileOffset, byteLength },
      { dtype, shape },
      { ...place, onProgress: ({ bytes }) => this.#report(bytes) },
    );
  }

  #done(bytes: number, items = 1): void {
    this.#doneBytes += bytes;
    this.items += items;
    this.#report(0);
  }

  #report(bytesOfThis: number): void {
    this.#options.onProgress?.(this.#doneBytes + bytesOfThis, 'import', this.items);
  }
}

/** Short stretches of one file, in ascending order mostly, through a window. */
class SmallReader {
  readonly #path: string;
  #handle: FileHandle | null = null;
  #window = new Uint8Array(0);
  #windowOffset = 0;

  constructor(path: string) {
    this.#path = path;
  }

  async read(offset: number, lengthBytes: number): Promise<Uint8Array> {
    if (lengthBytes === 0) return new Uint8Array(0);
    const end = this.#windowOffset + this.#window.byteLength;
    if (offset < this.#windowOffset || offset + lengthBytes > end) await this.#fill(offset);
    const at = offset - this.#windowOffset;
    if (at + lengthBytes > this.#window.byteLength) throw changed(this.#path, 'it became shorter');
    return this.#window.slice(at, at + lengthBytes);
  }

  async #fill(offset: number): Promise<void> {
    try {
      this.#handle ??= await open(this.#path, 'r');
      const bytes = new Uint8Array(SMALL_WINDOW_BYTES);
      let filled = 0;
      while (filled < bytes.byteLength) {
        const { bytesRead } = await this.#handle.read(
          bytes,
          filled,
          bytes.byteLength - filled,
          offset + filled,
        );
        if (bytesRead === 0) break;
        filled += bytesRead;
      }
      this.#window = bytes.subarray(0, filled);
      this.#windowOffset = offset;
    } catch (error) {
      throw sourceError(error, this.#path);
    }
  }

  async close(): Promise<void> {
    await this.#handle?.close();
  }
}

/** A small file whole; E_SOURCE_CHANGED when it is not as long as it was found. */
async function readWhole(file: FoundFile): Promise<Uint8Array> {
  const reader = new SmallReader(file.path);
  try {
    return await reader.read(0, file.sizeBytes);
  } finally {
    await reader.close();
  }
}
