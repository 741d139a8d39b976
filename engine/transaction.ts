// A transaction: tensors, blobs, links and files of one new version; nothing is visible until commit.
//
// Invariants
//   1. `commit` is one catalog change: the version, its manifest, run, step and tags, its extents and
//      the counts of linked ones become durable together or not at all.
//   2. Leaving the scope without commit, or any failed write, gives all space back after every
//      I/O in flight has completed. An aborted or failed transaction never commits.
//   3. A source file's size, times and inode are the same at commit as when it was opened, or
//      the commit fails with E_SOURCE_CHANGED. (A change that restores all of them is not seen.)
//
// This file is what users hold: version_draft.ts keeps names, object_puts.ts moves bytes, put_tracker.ts watches
// running puts, transaction_commit.ts commits. It never places or writes chunks itself.

import { tensorByteLength } from '../format/dtype.js';
import { StoreError } from '../format/index.js';
import { withGpuBytes } from './gpu/gpu_source.js';
import type { ObjectDraft } from './object_draft.js';
import { ObjectPuts, type TransactionSettings } from './object_puts.js';
import { bufferOf, wrongSize } from './put_source.js';
import { PutTracker, type Ticket } from './put_tracker.js';
import type { StoreContext } from './store_context.js';
import type {
  AddFileOptions,
  BeginOptions,
  BlobOptions,
  CommitOptions,
  FileSource,
  LinkAllOptions,
  PutOptions,
  TensorDesc,
  TensorMeta,
} from './types.js';
import { commitTransaction } from './transaction_commit.js';
import { TransactionState } from './transaction_state.js';
import type { Version } from './version.js';
import type { NewObject } from './version_draft.js';
import type { WriterPool } from './writer_pool.js';

export class Transaction implements AsyncDisposable {
  readonly #state: TransactionState;
  readonly #puts: ObjectPuts;
  readonly #tracker: PutTracker;

  constructor(
    context: StoreContext,
    pool: WriterPool,
    run: string,
    options: BeginOptions,
    settings: TransactionSettings,
  ) {
    this.#state = new TransactionState(context, pool, run, options, settings);
    this.#puts = new ObjectPuts(this.#state, this.#state.drafts);
    this.#tracker = new PutTracker(this.#state);
  }

  get run(): string {
    return this.#state.run;
  }

  /**
   * Stores a tensor. `src` is C-contiguous bytes of exactly the size that dtype and shape give,
   * else E_RANGE; memory of a GPU comes through registered host memory. Errors: E_EXISTS (name used), E_NO_SPACE, E_IO.
   */
  put(
    name: string,
    src: ArrayBufferView | TensorDesc,
    meta?: TensorMeta,
    options: PutOptions = {},
  ): Promise<void> {
    return this.#tracker.track(async (ticket) => {
      const described = meta ?? ('dtype' in src ? src : undefined);
      if (described === undefined) throw new StoreError('E_USAGE', `put of ${name} needs { dtype, shape }`);
      if ('ptr' in src && src.device.type === 'cuda') {
        const byteLength = src.byteLength - (src.byteOffset ?? 0);
        const draft = this.#draft(ticket, { name, meta: described, byteLength, options, contentType: null });
        draft.base = await this.#puts.findBase(draft, options);
        const { gpus } = this.#state.context;
        return withGpuBytes(gpus, src, options.signal, (bytes) =>
          this.#puts.putStreamed(ticket, draft, bytes, options),
        );
      }
      const buffer = bufferOf(src, name);
      const draft = this.#draft(ticket, {
        name,
        meta: described,
        byteLength: buffer.byteLength,
        options,
        contentType: null,
      });
      draft.base = await this.#puts.findBase(draft, options);
      const lent = options.buffer === 'borrow';
      return this.#puts.putBytes(ticket, draft, { kind: 'memory', buffer, offset: 0, lent }, options);
    });
  }

  /** Stores a tensor whose bytes come in pieces; `byteLength` must be what dtype and shape give. */
  putStream(
    name: string,
    src: AsyncIterable<Uint8Array>,
    meta: TensorMeta & { readonly byteLength?: number },
    options: PutOptions = {},
  ): Promise<void> {
    return this.#tracker.track(async (ticket) => {
      const byteLength = meta.byteLength ?? tensorByteLength(meta.dtype, meta.shape);
      const draft = this.#draft(ticket, { name, meta, byteLength, options, contentType: null });
      draft.base = await this.#puts.findBase(draft, options);
      return this.#puts.putStreamed(ticket, draft, src, options);
    });
  }

  /** Stores a byte string. A stream is gathered chunk by chunk. */
  putBlob(
    name: string,
    src: Uint8Array | AsyncIterable<Uint8Array>,
    options: BlobOptions = {},
  ): Promise<void> {
    return this.#tracker.track(async (ticket) => {
      const contentType = options.contentType ?? null;
      if (src instanceof Uint8Array) {
        const draft = this.#draft(ticket, {
          name,
          meta: null,
          byteLength: src.byteLength,
          options,
          contentType,
        });
        const lent = options.buffer === 'borrow';
        return this.#puts.putBytes(ticket, draft, { kind: 'memory', buffer: src, offset: 0, lent }, options);
      }
      return this.#puts.putBlobStream(ticket, name, src, options);
    });
  }

  /** Stores a tensor from a file: the native core reads it; no tensor byte passes through JavaScript. */
  putFile(name: string, src: FileSource, meta: TensorMeta, options: PutOptions = {}): Promise<void> {
    return this.#tracker.track(async (ticket) => {
      const byteLength = tensorByteLength(meta.dtype, meta.shape);
      if (src.byteLength !== undefined && src.byteLength !== byteLength)
        throw wrongSize(name, src.byteLength, byteLength);
      const withOffset = options.file === undefined ? options : { fileOffset: src.offset ?? 0, ...options };
      const draft = this.#draft(ticket, { name, meta, byteLength, options: withOffset, contentType: null });
      draft.base = await this.#puts.findBase(draft, options);
      return this.#puts.putFromFile(ticket, draft, src, options);
    });
  }

  /** Stores a whole file (or a stretch of one) as a blob. */
  putBlobFile(name: string, src: FileSource, options: BlobOptions = {}): Promise<void> {
    return this.#tracker.track(async (ticket) => {
      const source = await this.#state.sourceFiles().get(src.path);
      const byteLength = src.byteLength ?? source.file.byteLength - (src.offset ?? 0);
      const draft = this.#draft(ticket, {
        name,
        meta: null,
        byteLength,
        options,
        contentType: options.contentType ?? null,
      });
      return this.#puts.putFromFile(ticket, draft, src, options);
    });
  }

  /**
   * References tensor `from` (default: the same name) of the base version instead of writing it again. A file of the
   * base all of whose tensors are linked under their names is kept (kept_files.ts).
   */
  link(name: string, from: string = name): Promise<void> {
    return this.#tracker.track(async () => {
      const base = this.#state.settings.base;
      if (base === null)
        throw new StoreError('E_USAGE', `link of ${name}: the transaction was begun without { base }`);
      this.#state.drafts.link(base, name, from);
    });
  }

  /**
   * References everything of the base version: its tensors, its blobs and its files, so that what was imported can
   * still be exported byte for byte. The transaction must not hold any of these names yet (E_EXISTS). Objects named in
   * `except` are left out, to be put anew: one of the same dtype and shape takes the old one's place in its file, else
   * that file is no part of the version. Names that the base has not are passed over.
   */
  linkAll(options: LinkAllOptions = {}): Promise<void> {
    return this.#tracker.track(async () => {
      const base = this.#state.settings.base;
      if (base === null)
        throw new StoreError('E_USAGE', 'linkAll: the transaction was begun without { base }');
      this.#state.drafts.linkAll(base, new Set(options.except));
    });
  }

  /**
   * Says that the version holds a file that can be exported byte for byte. With `prefix`, a safetensors
   * file: give the returned index to `put`/`putFile` of its tensors. Without, a blob of the same name.
   */
  addFile(options: AddFileOptions): number {
    this.#state.checkState('addFile');
    return this.#state.drafts.addFile(options);
  }

  /**
   * Makes the version durable; resolves only then. Moves `latest` and the given tags in the same
   * commit. Errors: E_CONFLICT (a linked version is gone), E_SOURCE_CHANGED, E_NO_SPACE, E_IO, E_POISONED.
   */
  commit(options: CommitOptions = {}): Promise<Version> {
    return commitTransaction(this.#state, () => this.#tracker.settled(), options);
  }

  /** Gives everything back. Resolves when no I/O of the transaction is in flight any more. */
  async abort(reason?: unknown): Promise<void> {
    if (this.#state.phase === 'committed' || this.#state.phase === 'aborted') return;
    if (this.#state.phase === 'committing') throw new StoreError('E_USAGE', 'abort while commit is running');
    await this.#state.end(reason ?? new StoreError('E_CLOSED', 'the transaction was aborted'));
    await this.#state.sources?.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#state.phase === 'open') await this.abort();
  }

  #draft(ticket: Ticket, object: NewObject): ObjectDraft {
    const draft = this.#state.drafts.add(object);
    ticket.draft = draft;
    return draft;
  }
}
