// The tensors, blobs and files of a version in the making, by name.
//
// Invariants
//   1. A name is used once among tensors and once among blobs of a version, and once among its files.
//   2. A draft is named as soon as its put begins; a put that fails takes its name back (put_tracker.ts).
//   3. Tensors and blobs keep the order in which they were put.
//
// This file never does I/O and never takes bytes in (object_puts.ts).

import { dtypeCode, tensorByteLength } from '../format/dtype.js';
import { StoreError, assert, fileNameProblem, validateObjectName } from '../format/index.js';
import { BLOB_DTYPE_CODE } from './chunk_packer.js';
import { type FileDraft, type ObjectDraft, linkedBlob, linkedTensor } from './object_draft.js';
import { checkSaveAs } from './put_records.js';
import { wrongSize } from './put_source.js';
import type { AddFileOptions, PutOptions, TensorMeta } from './types.js';
import type { Version } from './version.js';

/** Objects (tensors, blobs or files) of one version at most. */
export const MAX_OBJECTS_PER_VERSION = 4_000_000;

/** Drafts of one kind by name. */
export type Drafts = Map<string, ObjectDraft>;

/** What a put says of the object that it makes. */
export interface NewObject {
  readonly name: string;
  /** Null: a blob. */
  readonly meta: TensorMeta | null;
  /** Of what the source holds. */
  readonly byteLength: number;
  readonly options: PutOptions;
  readonly contentType: string | null;
}

export class VersionDraft {
  readonly #run: string;
  readonly tensors: Drafts = new Map();
  readonly blobs: Drafts = new Map();
  readonly files: FileDraft[] = [];
  /** The version is its base with changes (kept_files.ts). */
  linksAll = false;

  constructor(run: string) {
    this.#run = run;
  }

  /** The draft of a new tensor (of one with `meta`) or blob, named at once. Errors: E_EXISTS, E_RANGE, E_USAGE. */
  add({ name, meta, byteLength, options, contentType }: NewObject): ObjectDraft {
    const map = meta === null ? this.blobs : this.tensors;
    validateObjectName(name);
    this.checkNew(map, name);
    if (meta !== null) {
      const wanted = tensorByteLength(meta.dtype, meta.shape);
      if (byteLength !== wanted) throw wrongSize(name, byteLength, wanted);
    }
    const narrows = checkSaveAs(name, meta, options);
    if (options.file !== undefined && this.files[options.file] === undefined) {
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
    return draft;
  }

  /** A put failed before it handed anything over: it leaves no trace. */
  remove(draft: ObjectDraft): void {
    for (const map of [this.tensors, this.blobs]) if (map.get(draft.name) === draft) map.delete(draft.name);
  }

  /** References tensor `from` of `base`. */
  link(base: Version, name: string, from: string): void {
    const record = base.tensorRecord(from);
    validateObjectName(name);
    this.checkNew(this.tensors, name);
    this.tensors.set(name, linkedTensor(record, name));
  }

  /** References all of `base` but the names of `except`; E_EXISTS, and nothing is done, when one is used already. */
  linkAll(base: Version, except: ReadonlySet<string>): void {
    const tensors = base.manifest.tensors.filter(({ name }) => !except.has(name));
    const blobs = base.manifest.blobs.filter(({ name }) => !except.has(name));
    for (const { name } of tensors) this.checkNew(this.tensors, name);
    for (const { name } of blobs) this.checkNew(this.blobs, name);
    this.linksAll = true;
    for (const record of tensors) this.tensors.set(record.name, linkedTensor(record, record.name));
    for (const record of blobs) this.blobs.set(record.name, linkedBlob(record));
  }

  /** Names a file of the version; returns its index. Errors: E_EXISTS, E_USAGE (no relative path). */
  addFile(options: AddFileOptions): number {
    const problem = fileNameProblem(options.name);
    if (problem !== null)
      throw new StoreError('E_USAGE', `file name ${JSON.stringify(options.name.slice(0, 80))} ${problem}`, {
        where: { file: options.name.slice(0, 512) },
      });
    this.#checkNewFile(options.name);
    assert(this.files.length < MAX_OBJECTS_PER_VERSION, 'too many files in one version');
    return (
      this.files.push({
        name: options.name,
        prefix: options.prefix === undefined ? null : options.prefix.slice(),
        mode: options.mode ?? 0o644,
      }) - 1
    );
  }

  *objects(): IterableIterator<ObjectDraft> {
    yield* this.tensors.values();
    yield* this.blobs.values();
  }

  clear(): void {
    this.tensors.clear();
    this.blobs.clear();
  }

  /** E_EXISTS when the name is used already among these. */
  checkNew(map: Drafts, name: string): void {
    if (map.has(name)) {
      throw new StoreError('E_EXISTS', `${name} is in this version already`, {
        where: { object: this.#run, tensor: name },
      });
    }
    assert(map.size < MAX_OBJECTS_PER_VERSION, 'too many objects in one version');
  }

  #checkNewFile(name: string): void {
    if (this.files.some((file) => file.name === name)) {
      throw new StoreError('E_EXISTS', `file ${name} is in this version already`, { where: { file: name } });
    }
  }
}
