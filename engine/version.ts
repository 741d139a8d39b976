// An immutable version as callers hold it: what is in it, and how its bytes are read.
//
// Invariants
//   1. A Version holds no resource: every operation takes its own hold on the newest snapshot. When the
//      version was removed meanwhile, reads are E_NOT_FOUND, never other bytes.
//   2. Names are those of the manifest, which is decoded once, when the version is got.
//   3. `read` never allocates more than MAX_READ_BYTES; larger tensors are read into the caller's memory
//      or streamed.
//
// This file never edits the catalog.

import { dtypeBits } from '../format/dtype.js';
import { StoreError, assert } from '../format/errors.js';
import type { Extent } from '../format/extent_record.js';
import { PLANE_CODEC_NAMES, TRANSFORM_NAMES } from '../format/index.js';
import type { Blob, File, Manifest, Tensor, VersionRecord } from '../format/index.js';
import { Loader, type Readable, batchesOf, copyInline, partsOf, tensorInfoOf } from './load.js';
import { ProgressTracker } from './progress.js';
import { PartReader, type ReadTarget, destinationOf } from './reader.js';
import { HungRead } from './repair/hang_watch.js';
import { HUNG_READS_BEGUN_ANEW_MAX } from './repair/limits.js';
import type { StoreContext } from './store_context.js';
import type {
  BlobInfo,
  Destination,
  DType,
  FileInfo,
  LoadOptions,
  MaintEvent,
  OpOptions,
  RangeOptions,
  ReadOptions,
  StreamOptions,
  TensorInfo,
  VersionInfo,
  VersionSummary,
} from './types.js';
import { verifyVersion } from './verify.js';

/** Bytes that `read` and `bytes` allocate at most: 4 GiB. */
export const MAX_READ_BYTES = 4 * 1024 * 1024 * 1024;
/** Bytes of one chunk of `stream` by default. */
export const STREAM_CHUNK_BYTES = 4 * 1024 * 1024;
/** Chunks of one stream read ahead of the consumer. */
export const STREAM_READ_AHEAD = 4;

/** Where an extent's copies are, for `extents()`. */
export interface ExtentPlace {
  readonly member: string;
  readonly memberIndex: number;
  readonly copy: number;
  /** Byte offset on the member of the first byte of this stretch of the tensor. */
  readonly offset: number;
  readonly length: number;
  readonly extentId: number;
  /** Of a coded chunk, which `offset` and `length` then tell as a whole: how it is coded, and its lengths. */
  readonly coding: {
    readonly transform: string;
    readonly codec: string;
    readonly delta: string;
    /** Of a delta: the extent that it is a difference to, and how many bases lie below it. */
    readonly baseExtentId: number | null;
    readonly depth: number;
    readonly rawBytes: number;
    readonly storedBytes: number;
  } | null;
}

/** Public summary of a version record. */
export function summaryOf(record: VersionRecord): VersionSummary {
  return {
    id: `v:${record.id}`,
    run: record.run,
    step: record.step,
    createdAt: new Date(record.createdAtMs),
    tensorCount: record.tensorCount,
    blobCount: record.blobCount,
    fileCount: record.fileCount,
    byteLength: record.rawBytes,
    storedBytes: record.storedBytes,
    redundancy: record.redundancy,
    chunkBytes: record.chunkBytes,
    base: record.baseVersionId === 0 ? null : `v:${record.baseVersionId}`,
    metadata: record.metadata,
    metrics: record.metrics,
  };
}

/** Reads stretches of one tensor or blob. */
class ObjectReader {
  readonly context: StoreContext;
  readonly object: string;
  readonly readable: Readable;

  constructor(context: StoreContext, object: string, readable: Readable) {
    this.context = context;
    this.object = object;
    this.readable = readable;
  }

  async into(
    destination: ReadTarget,
    at: number,
    offset: number,
    length: number,
    options: ReadOptions,
    isOwned = false,
  ): Promise<void> {
    this.context.checkOpen();
    options.signal?.throwIfAborted();
    if (length === 0) return;
    if (this.readable.pieces.length === 0) {
      await copyInline(this.context, this.readable, offset, length, destination, at);
      return;
    }
    const reader = new PartReader(this.context, this.context.extents);
    const progress = new ProgressTracker(
      this.context.io.clock,
      'read',
      { bytes: length, items: 1 },
      options.onProgress,
    );
    const lease = this.context.snapshots.lease();
    try {
      await readInBatches(
        reader,
        lease.snapshot,
        this.object,
        partsOf(this.readable, offset, length, destination, at),
        options,
        progress,
        isOwned,
      );
    } finally {
      lease.release();
    }
    progress.finish();
  }

  check(offset: number, length: number): void {
    const fine = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
    if (fine && offset + length <= this.readable.rawBytes) return;
    throw new StoreError(
      'E_RANGE',
      `${this.readable.name} has ${this.readable.rawBytes} bytes; [${offset}, ${offset + length}) was asked`,
      {
        where: { object: this.object, tensor: this.readable.name, offsetBytes: offset, lengthBytes: length },
      },
    );
  }

  async all(offset: number, length: number, options: ReadOptions): Promise<Uint8Array<ArrayBuffer>> {
    if (length > MAX_READ_BYTES) {
      throw new StoreError(
        'E_RANGE',
        `${this.readable.name} has ${length} bytes; read() gives at most ${MAX_READ_BYTES}`,
        {
          where: { object: this.object, tensor: this.readable.name, lengthBytes: length },
          next: 'use readInto() or stream()',
        },
      );
    }
    for (let attempt = 0; ; attempt++) {
      // Memory of a read that hung is never handed out: its device may still write to it.
      const bytes = new Uint8Array(length);
      try {
        await this.into(bytes, 0, offset, length, options, attempt < HUNG_READS_BEGUN_ANEW_MAX);
        return bytes;
      } catch (error) {
        if (!(error instanceof HungRead)) throw error;
      }
    }
  }

  async *stream(
    offset: number,
    length: number,
    chunkBytes: number,
    options: ReadOptions,
  ): AsyncGenerator<Uint8Array> {
    if (!Number.isSafeInteger(chunkBytes) || chunkBytes < 1)
      throw new StoreError('E_RANGE', `chunkBytes of a stream is a whole number from 1, not ${chunkBytes}`);
    const stop = new AbortController();
    const signal =
      options.signal === undefined ? stop.signal : AbortSignal.any([options.signal, stop.signal]);
    const running: Promise<Uint8Array>[] = [];
    let next = offset;
    try {
      while (running.length > 0 || next < offset + length) {
        while (running.length < STREAM_READ_AHEAD && next < offset + length) {
          const bytes = Math.min(chunkBytes, offset + length - next);
          const reading = this.all(next, bytes, { ...options, signal });
          reading.catch(() => undefined);
          running.push(reading);
          next += bytes;
        }
        const head = running.shift();
        assert(head !== undefined, 'a stream has a chunk in flight');
        yield await head;
      }
    } finally {
      stop.abort(new StoreError('E_CLOSED', 'the stream was ended'));
      await Promise.allSettled(running);
    }
  }
}

/** Several batches in flight at a time; all have settled when this does. */
async function readInBatches(
  reader: PartReader,
  snapshot: Parameters<PartReader['read']>[0],
  object: string,
  parts: Parameters<PartReader['read']>[2],
  options: ReadOptions,
  progress: ProgressTracker,
  isOwned: boolean,
): Promise<void> {
  const running = new Set<Promise<void>>();
  let failure: { error: unknown } | null = null;
  for (const batch of batchesOf(parts)) {
    if (failure !== null) break;
    const reading = reader
      .read(snapshot, object, batch.parts, options, isOwned)
      .then(() => progress.add(batch.bytes, 0))
      // Also what the caller's onProgress throws: the other batches must end before anybody is told.
      .catch((error: unknown) => {
        failure ??= { error };
      })
      .finally(() => running.delete(reading));
    running.add(reading);
    if (running.size >= 4) await Promise.race(running);
  }
  await Promise.all(running);
  const failed = failure as { error: unknown } | null;
  if (failed !== null) throw failed.error;
}

export class TensorRef implements TensorInfo {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly byteLength: number;
  readonly checksum: Uint8Array;
  readonly #reader: ObjectReader;
  readonly #start: number;

  constructor(reader: ObjectReader, info: TensorInfo, start = 0) {
    this.name = info.name;
    this.dtype = info.dtype;
    this.shape = info.shape;
    this.byteLength = info.byteLength;
    this.checksum = info.checksum;
    this.#reader = reader;
    this.#start = start;
  }

  /** All bytes. E_RANGE above 4 GiB: use readInto or stream. E_CORRUPT, E_IO, E_DEVICE_LOST name what failed. */
  async read(options: ReadOptions = {}): Promise<Uint8Array<ArrayBuffer>> {
    return this.#reader.all(this.#start, this.byteLength, options);
  }

  /** Reads [offset, offset + length) into the caller's memory, only touched segments; resolves with its bytes. */
  async readInto(destination: Destination, options: RangeOptions = {}): Promise<number> {
    const { offset = 0, length = this.byteLength - offset } = options;
    this.#check(offset, length);
    const buffer = destinationOf(destination, length, this.name);
    await this.#reader.into(buffer, 0, this.#start + offset, length, options);
    return length;
  }

  /** Chunks owned by the consumer, a few read ahead. */
  async *stream(options: StreamOptions = {}): AsyncIterableIterator<Uint8Array> {
    const { offset = 0, length = this.byteLength - offset, chunkBytes = STREAM_CHUNK_BYTES } = options;
    this.#check(offset, length);
    yield* this.#reader.stream(this.#start + offset, length, chunkBytes, options);
  }

  /** Rows [start, end) of dimension 0. Its checksum is empty: only whole tensors have one. */
  narrow(start: number, end: number): TensorRef {
    const rows = this.shape[0];
    if (rows === undefined)
      throw new StoreError('E_RANGE', `${this.name} has no dimension to narrow`, {
        where: { tensor: this.name },
      });
    if (
      !Number.isSafeInteger(start) ||
      !Number.isSafeInteger(end) ||
      start < 0 ||
      end < start ||
      end > rows
    ) {
      throw new StoreError('E_RANGE', `${this.name} has ${rows} rows; [${start}, ${end}) was asked`, {
        where: { tensor: this.name },
      });
    }
    const rowBytes = rows === 0 ? 0 : this.byteLength / rows;
    if (!Number.isInteger(rowBytes)) {
      throw new StoreError(
        'E_RANGE',
        `a row of ${this.name} (${dtypeBits(this.dtype)}-bit elements) is no whole number of bytes`,
        { where: { tensor: this.name } },
      );
    }
    const info = {
      name: this.name,
      dtype: this.dtype,
      shape: [end - start, ...this.shape.slice(1)],
      byteLength: (end - start) * rowBytes,
      checksum: new Uint8Array(0),
    };
    return new TensorRef(this.#reader, info, this.#start + start * rowBytes);
  }

  /** Where the bytes are, copy by copy; empty for tensors that live in the catalog. */
  async extents(): Promise<readonly ExtentPlace[]> {
    const { context, object, readable } = this.#reader;
    const parts = partsOf(readable, this.#start, this.byteLength, new Uint8Array(0), 0);
    const lease = context.snapshots.lease();
    try {
      const extents = await context.extents.extents(
        lease.snapshot,
        parts.map((part) => part.extentId),
        object,
      );
      return parts.flatMap((part) => {
        const extent = extents.get(part.extentId);
        const coding = extent === undefined ? null : codingInfo(extent);
        return (extent?.copies ?? []).map((copy, index) => ({
          member: context.memberPath(copy.member),
          memberIndex: copy.member,
          copy: index,
          // Bytes of a coded chunk have no place of their own: the chunk has.
          offset: copy.sector * 4096 + (coding === null ? part.offset : 0),
          length: coding === null ? part.bytes : coding.storedBytes,
          extentId: part.extentId,
          coding,
        }));
      });
    } finally {
      lease.release();
    }
  }

  #check(offset: number, length: number): void {
    const fine = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
    if (fine && offset + length <= this.byteLength) return;
    throw new StoreError(
      'E_RANGE',
      `${this.name} has ${this.byteLength} bytes; [${offset}, ${offset + length}) was asked`,
      {
        where: { object: this.#reader.object, tensor: this.name, offsetBytes: offset, lengthBytes: length },
      },
    );
  }
}

function codingInfo(extent: Extent): ExtentPlace['coding'] {
  const { coding, rawBytes, storedBytes } = extent;
  if (coding === undefined) return null;
  return {
    transform: TRANSFORM_NAMES[coding.transform] ?? String(coding.transform),
    codec: PLANE_CODEC_NAMES[coding.codec] ?? String(coding.codec),
    delta: coding.base === undefined ? 'NONE' : 'XOR',
    baseExtentId: coding.base?.extentId ?? null,
    depth: coding.base?.depth ?? 0,
    rawBytes,
    storedBytes,
  };
}

export class BlobRef implements BlobInfo {
  readonly name: string;
  readonly byteLength: number;
  readonly contentType: string | null;
  readonly checksum: Uint8Array;
  readonly #reader: ObjectReader;

  constructor(reader: ObjectReader, record: Blob) {
    this.#reader = reader;
    this.name = record.name;
    this.byteLength = record.rawBytes;
    this.contentType = record.contentType;
    this.checksum = new Uint8Array(8);
    new DataView(this.checksum.buffer).setBigUint64(0, record.rawSum);
  }
  async bytes(options: ReadOptions = {}): Promise<Uint8Array<ArrayBuffer>> {
    return this.#reader.all(0, this.byteLength, options);
  }
  async *stream(options: StreamOptions = {}): AsyncIterableIterator<Uint8Array> {
    const { offset = 0, length = this.byteLength - offset, chunkBytes = STREAM_CHUNK_BYTES } = options;
    this.#reader.check(offset, length);
    yield* this.#reader.stream(offset, length, chunkBytes, options);
  }
}

export class Version implements VersionInfo {
  readonly id: string;
  readonly run: string;
  readonly step: number | null;
  readonly tags: readonly string[];
  readonly createdAt: Date;
  readonly tensorCount: number;
  readonly blobCount: number;
  readonly fileCount: number;
  readonly byteLength: number;
  readonly storedBytes: number;
  readonly redundancy: number;
  readonly chunkBytes: number;
  readonly base: string | null;
  readonly metadata: Readonly<Record<string, string>>;
  readonly metrics: Readonly<Record<string, number>>;
  /** The id as a number, as in the catalog. */
  readonly number: number;
  readonly #context: StoreContext;
  readonly #manifest: Manifest;
  #tensorByName: Map<string, Tensor> | null = null;
  #blobByName: Map<string, Blob> | null = null;

  constructor(context: StoreContext, record: VersionRecord, tags: readonly string[], manifest: Manifest) {
    const summary = summaryOf(record);
    this.id = summary.id;
    this.run = summary.run;
    this.step = summary.step;
    this.createdAt = summary.createdAt;
    this.tensorCount = summary.tensorCount;
    this.blobCount = summary.blobCount;
    this.fileCount = summary.fileCount;
    this.byteLength = summary.byteLength;
    this.storedBytes = summary.storedBytes;
    this.redundancy = summary.redundancy;
    this.chunkBytes = summary.chunkBytes;
    this.base = summary.base;
    this.metadata = summary.metadata;
    this.metrics = summary.metrics;
    this.tags = tags;
    this.number = record.id;
    this.#context = context;
    this.#manifest = manifest;
  }

  /** Tensor names in on-disk order. */
  get names(): readonly string[] {
    return this.#manifest.tensors.map((tensor) => tensor.name);
  }
  get blobNames(): readonly string[] {
    return this.#manifest.blobs.map((blob) => blob.name);
  }
  /** Tensors in on-disk order. */
  get tensors(): readonly TensorInfo[] {
    return this.#manifest.tensors.map(tensorInfoOf);
  }
  /** Files that can be written again byte for byte. */
  get files(): readonly FileInfo[] {
    return this.#manifest.files.map((file, index) => fileInfoOf(file, index, this.#manifest));
  }
  /** Bytes of tensors and blobs of up to 2 KiB: the catalog holds them, and `storedBytes` does not count them. */
  get catalogBytes(): number {
    const { tensors, blobs } = this.#manifest;
    return [...tensors, ...blobs].reduce((sum, { inlineBytes }) => sum + inlineBytes.byteLength, 0);
  }
  get manifest(): Manifest {
    return this.#manifest;
  }

  tensor(name: string): TensorRef {
    const record = this.tensorRecord(name);
    return new TensorRef(new ObjectReader(this.#context, this.id, record), tensorInfoOf(record));
  }

  blob(name: string): BlobRef {
    this.#blobByName ??= new Map(this.#manifest.blobs.map((blob) => [blob.name, blob]));
    const record = this.#blobByName.get(name);
    if (record === undefined) throw this.#notFound('blob', name);
    return new BlobRef(new ObjectReader(this.#context, this.id, record), record);
  }

  hasTensor(name: string): boolean {
    return this.#byName().has(name);
  }
  hasBlob(name: string): boolean {
    return this.#manifest.blobs.some((blob) => blob.name === name);
  }

  /** The manifest's record of a tensor; undefined when there is none. */
  findTensor(name: string): Tensor | undefined {
    return this.#byName().get(name);
  }

  /** The manifest's record of a tensor, for links and tools. */
  tensorRecord(name: string): Tensor {
    const record = this.#byName().get(name);
    if (record === undefined) throw this.#notFound('tensor', name);
    return record;
  }

  /**
   * Reads tensors into memory that `into` names, several batches ahead, and yields each when it is
   * verified and in place, in on-disk order. The consumer's pace is the back-pressure.
   */
  load(
    into: (tensor: TensorInfo) => Destination | null,
    options: LoadOptions = {},
  ): AsyncIterableIterator<TensorInfo> {
    this.#context.checkOpen();
    let tensors = this.#manifest.tensors;
    if (options.names !== undefined) {
      const wanted = new Set(options.names);
      for (const name of wanted) this.tensorRecord(name);
      tensors = tensors.filter((tensor) => wanted.has(tensor.name));
    }
    const reader = new PartReader(this.#context, this.#context.extents);
    return new Loader(this.#context, reader, this.id, tensors, into, options).run();
  }

  /** Reads every copy of everything and says what is not as it was written (verify.ts). */
  verify(options: OpOptions = {}): AsyncIterableIterator<MaintEvent> {
    this.#context.checkOpen();
    return verifyVersion(this.#context, this.id, this.#manifest, options);
  }

  #byName(): Map<string, Tensor> {
    this.#tensorByName ??= new Map(this.#manifest.tensors.map((tensor) => [tensor.name, tensor]));
    return this.#tensorByName;
  }

  #notFound(kind: string, name: string): StoreError {
    return new StoreError('E_NOT_FOUND', `${this.run} (${this.id}) has no ${kind} ${name}`, {
      where: { object: this.id, tensor: name },
    });
  }
}

function fileInfoOf(file: File, index: number, manifest: Manifest): FileInfo {
  const tensors = manifest.tensors
    .filter((tensor) => tensor.fileIndex === index)
    .map((tensor) => ({ name: tensor.name, fileOffset: tensor.fileOffset, byteLength: tensor.rawBytes }))
    .sort((a, b) => a.fileOffset - b.fileOffset || a.byteLength - b.byteLength);
  return {
    name: file.name,
    sizeBytes: file.sizeBytes,
    sum: file.sum,
    format: file.format === 1 ? 'safetensors' : 'blob',
    prefix: file.prefix,
    mode: file.mode,
    tensors,
  };
}
