// A transaction: tensors, blobs, links and files of one new version; nothing is visible until commit.
//
// Invariants
//   1. `commit` is one catalog change: the version, its manifest, run, step and tags, its extents and
//      the counts of linked ones become durable together or not at all.
//   2. Leaving the scope without commit, or any failed write, gives all space back after every
//      I/O in flight has completed. An aborted or failed transaction never commits.
//   3. Up to INLINE_LIMIT_BYTES bytes travel in the manifest; a transaction of such tensors alone
//      touches no member before its commit.
//   4. A name is used once among tensors and once among blobs of a version.
//   5. A source file's size, times and inode are the same at commit as when it was opened, or
//      the commit fails with E_SOURCE_CHANGED. (A change that restores all of them is not seen.)
//
// This file never places or writes chunks itself (writer.ts) and never edits trees (commit_change.ts).

import { dtypeCode, tensorByteLength } from '../format/dtype.js';
import {
  StoreError,
  assert,
  bf16OfF32,
  validateObjectName,
  validateRunName,
  validateTagName,
} from '../format/index.js';
import { type CodecChoice, PROFILES } from './chunk_encoder.js';
import { BLOB_DTYPE_CODE, type ByteSource, type DraftPart, INLINE_LIMIT_BYTES } from './chunk_packer.js';
import { PLAIN_PIECE, type PieceOptions } from './chunk_packer.js';
import { type CommitPlan, applyCommit, buildManifest } from './commit_change.js';
import { TensorBase, checkNamedBase, isSameKind } from './delta_source.js';
import { MAX_READ_RANGE_BYTES } from './io/directory_port.js';
import type { NewAttempt } from './keys/key_ring.js';
import {
  FILE_OF_TENSORS,
  type FileDraft,
  type ObjectDraft,
  linkedBlob,
  linkedTensor,
} from './object_draft.js';
import { checkSaveAs, recordsOf } from './put_records.js';
import { ProgressTracker } from './progress.js';
import { bufferOf, rechunk, wrongSize } from './put_source.js';
import { SourceFiles } from './source_files.js';
import type { StoreContext } from './store_context.js';
import type {
  AddFileOptions,
  BeginOptions,
  BlobOptions,
  CommitOptions,
  FileSource,
  PutOptions,
  TensorDesc,
  TensorMeta,
} from './types.js';
import { type SumLeafPlan, placeSumLeaves, planSumLeaves, releaseSumLeaves } from './sum_leaves.js';
import { Version } from './version.js';
import { TAIL_COPY_BYTES, TransactionWriter, type WriterPool } from './writer.js';

/** Objects (tensors, blobs or files) of one version at most. */
export const MAX_OBJECTS_PER_VERSION = 4_000_000;

export interface TransactionSettings {
  readonly redundancy: number;
  readonly chunkBytes: number;
  readonly segmentBytes: number;
  readonly base: Version | null;
  /** Every tensor is compared with that of its name in `base`. */
  readonly delta: boolean;
  /** Finds the version of a ref that a put names as its base. */
  readonly find: (ref: string) => Promise<Version>;
  readonly codec: CodecChoice;
}

type State = 'open' | 'committing' | 'committed' | 'aborted';

/** What one running put has done so far, so that its failure is undone or fails the transaction. */
interface Ticket {
  map: Map<string, ObjectDraft> | null;
  draft: ObjectDraft | null;
  /** Bytes were handed to the writer: without this put the version could only be incomplete. */
  handedOver: boolean;
  running: Promise<void> | null;
  done: boolean;
}

export class Transaction implements AsyncDisposable {
  readonly run: string;
  readonly #context: StoreContext;
  readonly #pool: WriterPool;
  readonly #options: BeginOptions;
  readonly #settings: TransactionSettings;
  readonly #tensors = new Map<string, ObjectDraft>();
  readonly #blobs = new Map<string, ObjectDraft>();
  readonly #files: FileDraft[] = [];
  #sources: SourceFiles | null = null;
  #pending: Set<Promise<unknown>> | null = null;
  #writer: TransactionWriter | null = null;
  #leaves: SumLeafPlan | null = null;
  #attempt: NewAttempt | null = null;
  #state: State = 'open';

  constructor(
    context: StoreContext,
    pool: WriterPool,
    run: string,
    options: BeginOptions,
    settings: TransactionSettings,
  ) {
    validateRunName(run);
    this.run = run;
    this.#context = context;
    this.#pool = pool;
    this.#options = options;
    this.#settings = settings;
    context.counters.openTransactions++;
  }

  /**
   * Stores a tensor. `src` is C-contiguous bytes of exactly the size that dtype and shape give,
   * else E_RANGE. Errors: E_EXISTS (name used), E_NO_SPACE, E_IO.
   */
  put(
    name: string,
    src: ArrayBufferView | TensorDesc,
    meta?: TensorMeta,
    options: PutOptions = {},
  ): Promise<void> {
    return this.#track(async (ticket) => {
      const described = meta ?? ('dtype' in src ? src : undefined);
      if (described === undefined) throw new StoreError('E_USAGE', `put of ${name} needs { dtype, shape }`);
      const buffer = bufferOf(src, name);
      const draft = this.#draft(ticket, this.#tensors, name, described, buffer.byteLength, options, null);
      draft.base = await this.#findBase(draft, options);
      const lent = options.buffer === 'borrow';
      return this.#putBytes(ticket, draft, { kind: 'memory', buffer, offset: 0, lent }, options);
    });
  }

  /** Stores a tensor whose bytes come in pieces; `byteLength` must be what dtype and shape give. */
  putStream(
    name: string,
    src: AsyncIterable<Uint8Array>,
    meta: TensorMeta & { readonly byteLength?: number },
    options: PutOptions = {},
  ): Promise<void> {
    return this.#track(async (ticket) => {
      const byteLength = meta.byteLength ?? tensorByteLength(meta.dtype, meta.shape);
      const draft = this.#draft(ticket, this.#tensors, name, meta, byteLength, options, null);
      draft.base = await this.#findBase(draft, options);
      return this.#putStreamed(ticket, draft, src, options);
    });
  }

  /** Stores a byte string. A stream is gathered chunk by chunk. */
  putBlob(
    name: string,
    src: Uint8Array | AsyncIterable<Uint8Array>,
    options: BlobOptions = {},
  ): Promise<void> {
    return this.#track(async (ticket) => {
      const contentType = options.contentType ?? null;
      if (src instanceof Uint8Array) {
        const draft = this.#draft(ticket, this.#blobs, name, null, src.byteLength, options, contentType);
        const lent = options.buffer === 'borrow';
        return this.#putBytes(ticket, draft, { kind: 'memory', buffer: src, offset: 0, lent }, options);
      }
      return this.#putBlobStream(ticket, name, src, options);
    });
  }

  /** Stores a tensor from a file: the native core reads it; no tensor byte passes through JavaScript. */
  putFile(name: string, src: FileSource, meta: TensorMeta, options: PutOptions = {}): Promise<void> {
    return this.#track(async (ticket) => {
      const byteLength = tensorByteLength(meta.dtype, meta.shape);
      if (src.byteLength !== undefined && src.byteLength !== byteLength)
        throw wrongSize(name, src.byteLength, byteLength);
      const withOffset = options.file === undefined ? options : { fileOffset: src.offset ?? 0, ...options };
      const draft = this.#draft(ticket, this.#tensors, name, meta, byteLength, withOffset, null);
      draft.base = await this.#findBase(draft, options);
      return this.#putFromFile(ticket, draft, src, options);
    });
  }

  /** Stores a whole file (or a stretch of one) as a blob. */
  putBlobFile(name: string, src: FileSource, options: BlobOptions = {}): Promise<void> {
    return this.#track(async (ticket) => {
      const source = await this.#sourceFiles().get(src.path);
      const byteLength = src.byteLength ?? source.file.byteLength - (src.offset ?? 0);
      const draft = this.#draft(
        ticket,
        this.#blobs,
        name,
        null,
        byteLength,
        options,
        options.contentType ?? null,
      );
      return this.#putFromFile(ticket, draft, src, options);
    });
  }

  /** References tensor `from` (default: the same name) of the base version instead of writing it again. */
  link(name: string, from: string = name): Promise<void> {
    return this.#track(async () => {
      const base = this.#settings.base;
      if (base === null)
        throw new StoreError('E_USAGE', `link of ${name}: the transaction was begun without { base }`);
      const record = base.tensorRecord(from);
      validateObjectName(name);
      this.#checkNew(this.#tensors, name);
      this.#tensors.set(name, linkedTensor(record, name, -1));
    });
  }

  /**
   * References everything of the base version: its tensors, its blobs and its files, so that what was imported can
   * still be exported byte for byte. The transaction must not hold any of these names yet (E_EXISTS).
   */
  linkAll(): Promise<void> {
    return this.#track(async () => {
      const base = this.#settings.base;
      if (base === null)
        throw new StoreError('E_USAGE', 'linkAll: the transaction was begun without { base }');
      const { tensors, blobs, files } = base.manifest;
      for (const { name } of tensors) this.#checkNew(this.#tensors, name);
      for (const { name } of blobs) this.#checkNew(this.#blobs, name);
      for (const file of files) this.#checkNewFile(file.name);
      const firstFile = this.#files.length;
      for (const { name, format, prefix, mode } of files)
        this.#files.push({ name, prefix: format === FILE_OF_TENSORS ? prefix : null, mode });
      for (const record of tensors) {
        const fileIndex = record.fileIndex < 0 ? -1 : firstFile + record.fileIndex;
        this.#tensors.set(record.name, linkedTensor(record, record.name, fileIndex));
      }
      for (const record of blobs) this.#blobs.set(record.name, linkedBlob(record));
    });
  }

  /**
   * Says that the version holds a file that can be exported byte for byte. With `prefix`, a safetensors
   * file: give the returned index to `put`/`putFile` of its tensors. Without, a blob of the same name.
   */
  addFile(options: AddFileOptions): number {
    this.#checkState('addFile');
    validateObjectName(options.name);
    this.#checkNewFile(options.name);
    assert(this.#files.length < MAX_OBJECTS_PER_VERSION, 'too many files in one version');
    return (
      this.#files.push({
        name: options.name,
        prefix: options.prefix === undefined ? null : options.prefix.slice(),
        mode: options.mode ?? 0o644,
      }) - 1
    );
  }

  /**
   * Makes the version durable; resolves only then. Moves `latest` and the given tags in the same
   * commit. Errors: E_CONFLICT (a linked version is gone), E_SOURCE_CHANGED, E_NO_SPACE, E_IO, E_POISONED.
   */
  async commit(options: CommitOptions = {}): Promise<Version> {
    this.#checkState('commit');
    this.#context.checkWritable('commit');
    for (const tag of options.tags ?? []) validateTagName(tag);
    this.#state = 'committing';
    try {
      this.#throwIfAborted(options.signal);
      while (this.#pending !== null && this.#pending.size > 0) await Promise.all(this.#pending);
      if (this.#writer !== null) await this.#writer.finish();
      await this.#sources?.check();
      this.#throwIfAborted(options.signal);
      const plan = this.#plan(options.tags ?? []);
      this.#leaves = plan.leaves;
      await placeSumLeaves(this.#context, plan.leaves);
      await options.beforeVisible?.(plan.manifest.manifest.files);
      this.#throwIfAborted(options.signal);
      // The store was closed meanwhile and took the space back: nothing may be committed on it.
      this.#context.checkOpen();
      const signal = options.signal ?? this.#options.signal;
      if (this.#writer !== null) this.#writer.isInCommit = true;
      const made = await this.#context.catalog.commit(
        (change) => applyCommit(this.#context, change, plan),
        signal === undefined ? {} : { signal },
      );
      this.#state = 'committed';
      this.#writer?.close();
      this.#leave();
      this.#context.counters.commits++;
      this.#told(made.record.id, plan.tags);
      return new Version(this.#context, made.record, plan.tags, made.manifest);
    } catch (error) {
      await this.#end(error);
      throw error;
    } finally {
      await this.#sources?.close();
    }
  }

  /** Gives everything back. Resolves when no I/O of the transaction is in flight any more. */
  async abort(reason?: unknown): Promise<void> {
    if (this.#state === 'committed' || this.#state === 'aborted') return;
    if (this.#state === 'committing') throw new StoreError('E_USAGE', 'abort while commit is running');
    await this.#end(reason ?? new StoreError('E_CLOSED', 'the transaction was aborted'));
    await this.#sources?.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#state === 'open') await this.abort();
  }

  // --- puts -----------------------------------------------------------------------------------

  #draft(
    ticket: Ticket,
    map: Map<string, ObjectDraft>,
    name: string,
    meta: TensorMeta | null,
    byteLength: number,
    options: PutOptions,
    contentType: string | null,
  ): ObjectDraft {
    validateObjectName(name);
    this.#checkNew(map, name);
    if (meta !== null) {
      const wanted = tensorByteLength(meta.dtype, meta.shape);
      if (byteLength !== wanted) throw wrongSize(name, byteLength, wanted);
    }
    const narrows = checkSaveAs(name, meta, options);
    if (options.file !== undefined && this.#files[options.file] === undefined) {
      throw new StoreError('E_USAGE', `put of ${name}: addFile gave no index ${options.file}`);
    }
    const draft: ObjectDraft = {
      name,
      dtypeCode: meta === null ? BLOB_DTYPE_CODE : dtypeCode(narrows ? 'BF16' : meta.dtype),
      shape: meta === null ? [] : [...meta.shape],
      rawBytes: narrows ? byteLength / 2 : byteLength,
      narrows,
      base: null,
      fileIndex: options.file ?? -1,
      fileOffset: options.fileOffset ?? 0,
      contentType,
      inline: null,
      knownSum: byteLength === 0 ? 0n : null,
      parts: [],
      linked: null,
    };
    map.set(name, draft);
    ticket.map = map;
    ticket.draft = draft;
    return draft;
  }

  /** The tensor that this one is compared with (delta_source.ts); null when there is none that fits. */
  async #findBase(draft: ObjectDraft, options: PutOptions): Promise<TensorBase | null> {
    const { base: version, delta, segmentBytes, find } = this.#settings;
    const { base: named } = options;
    if (named === null || (named === undefined && !delta)) return null;
    const base = named?.version === undefined ? version : await find(named.version);
    if (base === null)
      throw new StoreError(
        'E_USAGE',
        `the base of ${draft.name} names no version, and the transaction has none`,
      );
    const wanted = named?.tensor ?? draft.name;
    const record = named === undefined ? base.findTensor(wanted) : base.tensorRecord(wanted);
    if (record === undefined || record.pieces.length === 0) return null;
    if (named !== undefined) checkNamedBase(draft, record, base.id);
    return isSameKind(draft, record) ? new TensorBase(record, base.id, segmentBytes) : null;
  }

  /** How [offset, offset + bytes) of the stored tensor goes into a chunk. */
  #pieceOptions(draft: ObjectDraft, options: PutOptions, offset: number, bytes: number): PieceOptions {
    const profile = this.#profileOf(draft.dtypeCode, options);
    return { profile, base: draft.base?.at(offset, bytes) ?? null, narrows: draft.narrows };
  }

  async #putBytes(
    ticket: Ticket,
    draft: ObjectDraft,
    source: ByteSource,
    options: PutOptions,
  ): Promise<void> {
    if (draft.rawBytes === 0) return;
    const view = source.kind === 'memory' && source.buffer instanceof Uint8Array ? source.buffer : null;
    if (draft.rawBytes <= INLINE_LIMIT_BYTES && view !== null) {
      this.#setInline(draft, view.slice());
      return;
    }
    const copy = (options.buffer ?? 'copy') === 'copy';
    const writer = this.#writerOf();
    const piece = this.#pieceOptions(
      draft,
      options,
      0,
      Math.min(draft.rawBytes, this.#settings.segmentBytes),
    );
    ticket.handedOver = true;
    if (draft.rawBytes < this.#settings.segmentBytes) {
      draft.parts.push(
        copy && view !== null
          ? await writer.addSmallCopy(draft.dtypeCode, draft.name, view, piece)
          : await writer.addSmall(draft.dtypeCode, draft.name, source, draft.rawBytes, piece),
      );
      if (copy && view === null && source.kind === 'memory') await this.#settle(writer, draft.parts);
      return;
    }
    await this.#putLarge(writer, draft, source, copy, view, options);
  }

  async #putLarge(
    writer: TransactionWriter,
    draft: ObjectDraft,
    source: ByteSource,
    copy: boolean,
    view: Uint8Array | null,
    options: PutOptions,
  ): Promise<void> {
    const { chunkBytes } = this.#settings;
    const scale = draft.narrows ? 2 : 1;
    const tailFrom = copy && view !== null ? Math.max(draft.rawBytes - TAIL_COPY_BYTES, 0) : draft.rawBytes;
    const progress = this.#progress(draft, options);
    const borrowed: DraftPart[] = [];
    for (let offset = 0, bytes = 0; offset < draft.rawBytes; offset += bytes) {
      this.#throwIfAborted(options.signal);
      bytes = Math.min(chunkBytes, draft.rawBytes - offset);
      if (draft.base !== null) bytes = draft.base.cut(offset, bytes);
      const tail = view !== null && offset >= tailFrom;
      const [first, end] = [offset * scale, (offset + bytes) * scale];
      const from = tail
        ? (staging: Uint8Array): void => staging.set(view.subarray(first, end))
        : ({ ...source, offset: source.offset + first } as ByteSource);
      const piece = this.#pieceOptions(draft, options, offset, bytes);
      const part = await writer.addChunk(draft.dtypeCode, draft.name, bytes, from, piece);
      draft.parts.push(part);
      if (!tail && copy && source.kind === 'memory') borrowed.push(part);
      progress.add(bytes, 0);
    }
    if (borrowed.length > 0) await this.#settle(writer, borrowed);
    progress.finish();
  }

  async #putStreamed(
    ticket: Ticket,
    draft: ObjectDraft,
    stream: AsyncIterable<Uint8Array>,
    options: PutOptions,
  ): Promise<void> {
    const scale = draft.narrows ? 2 : 1;
    const total = draft.rawBytes * scale;
    const { segmentBytes, chunkBytes } = this.#settings;
    const limit = draft.rawBytes < segmentBytes ? Math.max(total, 1) : chunkBytes * scale;
    const progress = this.#progress(draft, options);
    let done = 0;
    for await (const chunk of rechunk(stream, limit)) {
      this.#throwIfAborted(options.signal);
      // A stream that ends inside a number is too short as well.
      const end = done + chunk.byteLength;
      if (end > total || (end < total && draft.narrows && end % 4 !== 0))
        throw wrongSize(draft.name, end, total);
      await this.#putPart(ticket, draft, chunk, options, done / scale);
      done += chunk.byteLength;
      progress.add(chunk.byteLength, 0);
    }
    if (done !== total) throw wrongSize(draft.name, done, total);
    progress.finish();
  }

  /** One part of a stream; `chunk` is copied before this resolves. */
  async #putPart(
    ticket: Ticket,
    draft: ObjectDraft,
    chunk: Uint8Array,
    options: PutOptions,
    offset: number,
  ): Promise<void> {
    const bytes = draft.narrows ? chunk.byteLength / 2 : chunk.byteLength;
    if (draft.rawBytes <= INLINE_LIMIT_BYTES) {
      // A stream that ends early: its chunk is all there will be.
      if (bytes !== draft.rawBytes) throw wrongSize(draft.name, bytes, draft.rawBytes);
      this.#setInline(draft, chunk.slice());
      return;
    }
    const writer = this.#writerOf();
    ticket.handedOver = true;
    const small = draft.rawBytes < this.#settings.segmentBytes;
    const piece = this.#pieceOptions(draft, options, offset, bytes);
    draft.parts.push(
      small
        ? await writer.addSmallCopy(draft.dtypeCode, draft.name, chunk, piece)
        : await writer.addChunk(draft.dtypeCode, draft.name, bytes, (to) => to.set(chunk), piece),
    );
  }

  /** The length is known only at the end, so the draft is made then. */
  async #putBlobStream(
    ticket: Ticket,
    name: string,
    stream: AsyncIterable<Uint8Array>,
    options: BlobOptions,
  ): Promise<void> {
    validateObjectName(name);
    this.#checkNew(this.#blobs, name);
    const { chunkBytes, segmentBytes } = this.#settings;
    const parts: DraftPart[] = [];
    let total = 0;
    let first: Uint8Array | null = null;
    for await (const chunk of rechunk(stream, chunkBytes)) {
      this.#throwIfAborted(options.signal);
      total += chunk.byteLength;
      if (parts.length === 0 && first === null && chunk.byteLength < segmentBytes) {
        first = chunk;
        continue;
      }
      assert(first === null, 'only the last chunk of a stream is short');
      ticket.handedOver = true;
      const fill = (to: Uint8Array): void => to.set(chunk);
      const piece = { ...PLAIN_PIECE, profile: this.#profileOf(BLOB_DTYPE_CODE, options) };
      const part = this.#writerOf().addChunk(BLOB_DTYPE_CODE, name, chunk.byteLength, fill, piece);
      parts.push(await part);
    }
    const draft = this.#draft(ticket, this.#blobs, name, null, total, options, options.contentType ?? null);
    if (first === null) draft.parts = parts;
    else await this.#putPart(ticket, draft, first, options, 0);
  }

  async #putFromFile(
    ticket: Ticket,
    draft: ObjectDraft,
    src: FileSource,
    options: PutOptions,
  ): Promise<void> {
    const source = await this.#sourceFiles().get(src.path);
    const offset = src.offset ?? 0;
    const lengthBytes = draft.narrows ? 2 * draft.rawBytes : draft.rawBytes;
    if (offset + lengthBytes > source.file.byteLength) {
      throw new StoreError(
        'E_RANGE',
        `${draft.name} would end at byte ${offset + lengthBytes} of ${src.path} (${source.file.byteLength} bytes)`,
        {
          where: { tensor: draft.name, file: src.path, offsetBytes: offset, lengthBytes },
        },
      );
    }
    if (draft.rawBytes > 0 && draft.rawBytes <= INLINE_LIMIT_BYTES) {
      assert(lengthBytes <= MAX_READ_RANGE_BYTES, 'inline values are short');
      const files = this.#context.files;
      if (files === null)
        throw new StoreError('E_UNSUPPORTED', 'this store was opened without access to files');
      this.#setInline(draft, await files.readRange(src.path, offset, lengthBytes));
      return;
    }
    await this.#putBytes(ticket, draft, { kind: 'file', file: source.file, offset }, options);
  }

  #profileOf(dtype: number, options: PutOptions): 0 | 1 | 2 {
    const { codec } = options;
    if (codec === undefined && dtype === BLOB_DTYPE_CODE && this.#settings.codec === 'auto') return 0;
    const profile = PROFILES[codec ?? this.#settings.codec];
    if (profile === undefined)
      throw new StoreError('E_USAGE', `codec is '${String(codec)}'; it must be raw, auto or max`);
    return profile;
  }

  #setInline(draft: ObjectDraft, source: Uint8Array): void {
    const bytes = draft.narrows ? bf16OfF32(source) : source;
    assert(bytes.byteLength === draft.rawBytes, 'inline bytes are the whole tensor');
    draft.inline = bytes;
    draft.knownSum = this.#context.io.checksum.crc64(bytes);
  }

  async #settle(writer: TransactionWriter, parts: readonly DraftPart[]): Promise<void> {
    await writer.settled(parts);
    if (writer.failure !== null) throw writer.failure;
  }

  // --- helpers --------------------------------------------------------------------------------

  /**
   * Runs one put. A put that fails leaves no trace when it handed nothing to the writer yet; after
   * that it fails the transaction. It settles only when no device may touch the caller's memory.
   */
  #track(start: (ticket: Ticket) => Promise<void>): Promise<void> {
    const ticket: Ticket = { map: null, draft: null, handedOver: false, running: null, done: false };
    const running = this.#runPut(start, ticket);
    if (!ticket.done) {
      ticket.running = running;
      this.#pending ??= new Set();
      this.#pending.add(running);
    }
    return running;
  }

  async #runPut(start: (ticket: Ticket) => Promise<void>, ticket: Ticket): Promise<void> {
    try {
      this.#checkState('put');
      this.#context.checkWritable('put');
      this.#throwIfAborted(undefined);
      await start(ticket);
    } catch (error) {
      if (ticket.draft !== null) ticket.map?.delete(ticket.draft.name);
      if (ticket.handedOver && this.#writer !== null) {
        this.#writer.fail(error instanceof Error ? error : new Error(String(error)));
        await this.#writer.quiesce();
      }
      throw error;
    } finally {
      ticket.done = true;
      if (ticket.running !== null) this.#pending?.delete(ticket.running);
    }
  }

  #progress(draft: ObjectDraft, options: PutOptions): ProgressTracker {
    return new ProgressTracker(
      this.#context.io.clock,
      'write',
      { bytes: draft.rawBytes, items: 1 },
      options.onProgress,
    );
  }

  #writerOf(): TransactionWriter {
    // A stream may bring its next piece after the transaction, or the store, has ended.
    if (this.#writer?.failure != null) throw this.#writer.failure;
    this.#context.checkOpen();
    if (this.#state !== 'open' && this.#state !== 'committing')
      throw new StoreError('E_CLOSED', `put: the transaction is ${this.#state} already`);
    this.#writer ??= new TransactionWriter(this.#pool, {
      ...this.#settings,
      object: this.run,
      attempt: this.#attemptOf(),
    });
    return this.#writer;
  }

  /** The keys of this attempt, made when they are first needed; null: the store is not encrypted. */
  #attemptOf(): NewAttempt | null {
    const { catalog, io } = this.#context;
    if (!catalog.keys.isEncrypted) return null;
    this.#attempt ??= catalog.keys.begin(io.random, catalog.takeIds(1));
    return this.#attempt;
  }

  #sourceFiles(): SourceFiles {
    this.#sources ??= new SourceFiles(this.#context.io);
    return this.#sources;
  }

  #plan(extraTags: readonly string[]): CommitPlan {
    const options = this.#options;
    const writer = this.#writer;
    return {
      run: this.run,
      step: options.step ?? null,
      tags: [...new Set(['latest', ...extraTags])],
      createdAtMs: this.#context.nowMs(),
      redundancy: this.#settings.redundancy,
      chunkBytes: this.#settings.chunkBytes,
      segmentBytes: this.#settings.segmentBytes,
      metadata: {
        ...options.metadata,
        ...recordsOf([...this.#tensors.values()], this.#settings.base?.id ?? ''),
      },
      metrics: options.metrics ?? {},
      baseVersionId: this.#settings.base === null ? 0 : this.#settings.base.number,
      attempt: this.#attemptOf(),
      chunks: writer === null ? [] : writer.chunks,
      leaves: planSumLeaves(writer === null ? [] : writer.chunks),
      manifest: buildManifest(
        this.#context,
        [...this.#tensors.values()],
        [...this.#blobs.values()],
        this.#files,
      ),
    };
  }

  #told(id: number, tags: readonly string[]): void {
    const { events } = this.#context;
    if (!events.active) return;
    const at = this.#context.now();
    events.emit({
      type: 'commit',
      at,
      detail: {
        run: this.run,
        version: `v:${id}`,
        step: this.#options.step ?? null,
        notInSync: this.#context.membersNotInSync,
      },
    });
    for (const tag of tags)
      events.emit({ type: 'tag', at, detail: { run: this.run, tag, version: `v:${id}` } });
  }

  async #end(reason: unknown): Promise<void> {
    this.#state = 'aborted';
    const error =
      reason instanceof Error
        ? reason
        : new StoreError('E_CLOSED', 'the transaction was aborted', { cause: reason });
    await this.#writer?.abort(error);
    if (this.#leaves !== null && this.#context.catalog.poisoned === null)
      releaseSumLeaves(this.#context, this.#leaves);
    this.#leaves = null;
    this.#leave();
  }

  #leave(): void {
    this.#context.counters.openTransactions--;
    this.#tensors.clear();
    this.#blobs.clear();
  }

  #checkNew(map: Map<string, ObjectDraft>, name: string): void {
    if (map.has(name)) {
      throw new StoreError('E_EXISTS', `${name} is in this version already`, {
        where: { object: this.run, tensor: name },
      });
    }
    assert(map.size < MAX_OBJECTS_PER_VERSION, 'too many objects in one version');
  }

  #checkNewFile(name: string): void {
    if (this.#files.some((file) => file.name === name)) {
      throw new StoreError('E_EXISTS', `file ${name} is in this version already`, { where: { file: name } });
    }
  }

  #checkState(what: string): void {
    this.#context.checkOpen();
    if (this.#state !== 'open')
      throw new StoreError('E_CLOSED', `${what}: the transaction is ${this.#state} already`);
  }

  #throwIfAborted(signal: AbortSignal | undefined): void {
    this.#options.signal?.throwIfAborted();
    signal?.throwIfAborted();
  }
}
