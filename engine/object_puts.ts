// How the bytes of one object go to the writer: inline, with others in a shared chunk, or in chunks of their own.
//
// Invariants
//   1. Up to INLINE_LIMIT_BYTES bytes travel in the manifest; a transaction of such tensors alone
//      touches no member before its commit.
//   2. Borrowed memory is written from where it lies; copied memory is the caller's again when its put resolves.
//   3. A source gives exactly the bytes that its draft has, else E_RANGE.
//
// This file never places or writes chunks itself (writer.ts).

import { StoreError, assert, bf16OfF32, validateObjectName } from '../format/index.js';
import { type CodecChoice, PROFILES } from './chunk_encoder.js';
import { BLOB_DTYPE_CODE, type ByteSource, type DraftPart, INLINE_LIMIT_BYTES } from './chunk_packer.js';
import { PLAIN_PIECE, type PieceOptions } from './chunk_packer.js';
import { TensorBase, checkNamedBase, isSameKind } from './delta_source.js';
import { MAX_READ_RANGE_BYTES } from './io/directory_port.js';
import type { ObjectDraft } from './object_draft.js';
import { ProgressTracker } from './progress.js';
import { rechunk, wrongSize } from './put_source.js';
import type { Ticket } from './put_tracker.js';
import type { SourceFiles } from './source_files.js';
import type { StoreContext } from './store_context.js';
import type { BlobOptions, FileSource, PutOptions } from './types.js';
import type { Version } from './version.js';
import type { VersionDraft } from './version_draft.js';
import type { TransactionWriter } from './writer.js';
import { TAIL_COPY_BYTES } from './writer_pool.js';

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

/** The transaction that objects are put into. */
export interface ObjectHost {
  readonly context: StoreContext;
  readonly settings: TransactionSettings;
  /** Errors: E_CLOSED, or why the transaction failed. */
  writerOf(): TransactionWriter;
  sourceFiles(): SourceFiles;
  throwIfAborted(signal: AbortSignal | undefined): void;
}

export class ObjectPuts {
  readonly #host: ObjectHost;
  readonly #drafts: VersionDraft;

  constructor(host: ObjectHost, drafts: VersionDraft) {
    this.#host = host;
    this.#drafts = drafts;
  }

  /** The tensor that this one is compared with (delta_source.ts); null when there is none that fits. */
  async findBase(draft: ObjectDraft, options: PutOptions): Promise<TensorBase | null> {
    const { base: version, delta, segmentBytes, find } = this.#host.settings;
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

  async putBytes(ticket: Ticket, draft: ObjectDraft, source: ByteSource, options: PutOptions): Promise<void> {
    if (draft.rawBytes === 0) return;
    const view = source.kind === 'memory' && source.buffer instanceof Uint8Array ? source.buffer : null;
    if (draft.rawBytes <= INLINE_LIMIT_BYTES && view !== null) {
      this.#setInline(draft, view.slice());
      return;
    }
    const copy = (options.buffer ?? 'copy') === 'copy';
    const writer = this.#host.writerOf();
    const piece = this.#pieceOptions(
      draft,
      options,
      0,
      Math.min(draft.rawBytes, this.#host.settings.segmentBytes),
    );
    ticket.handedOver = true;
    if (draft.rawBytes < this.#host.settings.segmentBytes) {
      draft.parts.push(
        copy && view !== null
          ? await writer.intake.addSmallCopy(draft.dtypeCode, draft.name, view, piece)
          : await writer.intake.addSmall(draft.dtypeCode, draft.name, source, draft.rawBytes, piece),
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
    const { chunkBytes } = this.#host.settings;
    const scale = draft.narrows ? 2 : 1;
    const tailFrom = copy && view !== null ? Math.max(draft.rawBytes - TAIL_COPY_BYTES, 0) : draft.rawBytes;
    const progress = this.#progress(draft, options);
    const borrowed: DraftPart[] = [];
    for (let offset = 0, bytes = 0; offset < draft.rawBytes; offset += bytes) {
      this.#host.throwIfAborted(options.signal);
      bytes = Math.min(chunkBytes, draft.rawBytes - offset);
      if (draft.base !== null) bytes = draft.base.cut(offset, bytes);
      const tail = view !== null && offset >= tailFrom;
      const [first, end] = [offset * scale, (offset + bytes) * scale];
      const from = tail
        ? (staging: Uint8Array): void => staging.set(view.subarray(first, end))
        : ({ ...source, offset: source.offset + first } as ByteSource);
      const piece = this.#pieceOptions(draft, options, offset, bytes);
      const part = await writer.intake.addChunk(draft.dtypeCode, draft.name, bytes, from, piece);
      draft.parts.push(part);
      if (!tail && copy && source.kind === 'memory') borrowed.push(part);
      progress.add(bytes, 0);
    }
    if (borrowed.length > 0) await this.#settle(writer, borrowed);
    progress.finish();
  }

  async putStreamed(
    ticket: Ticket,
    draft: ObjectDraft,
    stream: AsyncIterable<Uint8Array>,
    options: PutOptions,
  ): Promise<void> {
    const scale = draft.narrows ? 2 : 1;
    const total = draft.rawBytes * scale;
    const { segmentBytes, chunkBytes } = this.#host.settings;
    const limit = draft.rawBytes < segmentBytes ? Math.max(total, 1) : chunkBytes * scale;
    const progress = this.#progress(draft, options);
    let done = 0;
    for await (const chunk of rechunk(stream, limit)) {
      this.#host.throwIfAborted(options.signal);
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
    const writer = this.#host.writerOf();
    ticket.handedOver = true;
    const small = draft.rawBytes < this.#host.settings.segmentBytes;
    const piece = this.#pieceOptions(draft, options, offset, bytes);
    draft.parts.push(
      small
        ? await writer.intake.addSmallCopy(draft.dtypeCode, draft.name, chunk, piece)
        : await writer.intake.addChunk(draft.dtypeCode, draft.name, bytes, (to) => to.set(chunk), piece),
    );
  }

  /** The length is known only at the end, so the draft is made then. */
  async putBlobStream(
    ticket: Ticket,
    name: string,
    stream: AsyncIterable<Uint8Array>,
    options: BlobOptions,
  ): Promise<void> {
    validateObjectName(name);
    this.#drafts.checkNew(this.#drafts.blobs, name);
    const { chunkBytes, segmentBytes } = this.#host.settings;
    const parts: DraftPart[] = [];
    let total = 0;
    let first: Uint8Array | null = null;
    for await (const chunk of rechunk(stream, chunkBytes)) {
      this.#host.throwIfAborted(options.signal);
      total += chunk.byteLength;
      if (parts.length === 0 && first === null && chunk.byteLength < segmentBytes) {
        first = chunk;
        continue;
      }
      assert(first === null, 'only the last chunk of a stream is short');
      ticket.handedOver = true;
      const fill = (to: Uint8Array): void => to.set(chunk);
      const piece = { ...PLAIN_PIECE, profile: this.#profileOf(BLOB_DTYPE_CODE, options) };
      const part = this.#host
        .writerOf()
        .intake.addChunk(BLOB_DTYPE_CODE, name, chunk.byteLength, fill, piece);
      parts.push(await part);
    }
    const draft = this.#drafts.add({
      name,
      meta: null,
      byteLength: total,
      options,
      contentType: options.contentType ?? null,
    });
    ticket.draft = draft;
    if (first === null) draft.parts = parts;
    else await this.#putPart(ticket, draft, first, options, 0);
  }

  async putFromFile(ticket: Ticket, draft: ObjectDraft, src: FileSource, options: PutOptions): Promise<void> {
    const source = await this.#host.sourceFiles().get(src.path);
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
      const files = this.#host.context.files;
      if (files === null)
        throw new StoreError('E_UNSUPPORTED', 'this store was opened without access to files');
      this.#setInline(draft, await files.readRange(src.path, offset, lengthBytes));
      return;
    }
    await this.putBytes(ticket, draft, { kind: 'file', file: source.file, offset }, options);
  }

  #profileOf(dtype: number, options: PutOptions): 0 | 1 | 2 {
    const { codec } = options;
    if (codec === undefined && dtype === BLOB_DTYPE_CODE && this.#host.settings.codec === 'auto') return 0;
    const profile = PROFILES[codec ?? this.#host.settings.codec];
    if (profile === undefined)
      throw new StoreError('E_USAGE', `codec is '${String(codec)}'; it must be raw, auto or max`);
    return profile;
  }

  #setInline(draft: ObjectDraft, source: Uint8Array): void {
    const bytes = draft.narrows ? bf16OfF32(source) : source;
    assert(bytes.byteLength === draft.rawBytes, 'inline bytes are the whole tensor');
    draft.inline = bytes;
    draft.knownSum = this.#host.context.io.checksum.crc64(bytes);
  }

  async #settle(writer: TransactionWriter, parts: readonly DraftPart[]): Promise<void> {
    await writer.settled(parts);
    if (writer.failure !== null) throw writer.failure;
  }

  #progress(draft: ObjectDraft, options: PutOptions): ProgressTracker {
    return new ProgressTracker(
      this.#host.context.io.clock,
      'write',
      { bytes: draft.rawBytes, items: 1 },
      options.onProgress,
    );
  }
}
