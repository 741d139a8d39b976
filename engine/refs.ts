// From a ref to a version: tags, steps and ids looked up in the trees of one view.
//
// Invariants
//   1. A lookup whose pages are cached gives its value at once, without a promise.
//   2. `run@1200` is the newest version of that step; `run` is `run@latest`; `v:17` is an id.
//   3. What is not there is E_NOT_FOUND, naming the ref as the user wrote it.
//
// This file never edits anything and never reads manifests unless asked for one.

import {
  LATEST_TAG,
  type Manifest,
  RUN_KIND_TAG,
  type Ref,
  StoreError,
  type VersionRecord,
  assert,
  decodeManifest,
  decodeRunsKey,
  decodeTag,
  decodeVersion,
  formatRef,
  parseRef,
  runKindRange,
  stepRange,
  tagKey,
  versionIdOfStep,
  versionKey,
} from '../format/index.js';
import type { CatalogView, MaybePromise, TreeItem } from './contract.js';

export function notFound(ref: string): StoreError {
  return new StoreError('E_NOT_FOUND', `there is no version ${ref}`, {
    where: { object: ref },
    next: 'ingot ls',
  });
}

/** Continues now with a value that is there, later with one that has to be fetched. */
export function then<T, U>(value: MaybePromise<T>, next: (value: T) => MaybePromise<U>): MaybePromise<U> {
  return value instanceof Promise ? value.then(next) : next(value);
}

/** The version id of a ref, or 0. */
export function resolveId(view: CatalogView, ref: Ref): MaybePromise<number> {
  if (ref.kind === 'version') return ref.versionId;
  if (ref.kind === 'step') return newestOfStep(view, ref.run, ref.step);
  return then(view.get(0, tagKey(ref.run, ref.tag)), (bytes) =>
    bytes === undefined ? 0 : decodeTag(bytes).versionId,
  );
}

function newestOfStep(view: CatalogView, run: string, step: number): MaybePromise<number> {
  const { from, below } = stepRange(run, step);
  return then(view.lastItem(0, from, below), (item) =>
    item === undefined ? 0 : versionIdOfStep(item.key, from),
  );
}

/** The newest record of a step, from the step's own item where that carries it (format.md F21); or undefined. */
function recordOfStep(view: CatalogView, run: string, step: number): MaybePromise<VersionRecord | undefined> {
  const { from, below } = stepRange(run, step);
  const found = view.lastItem(0, from, below);
  return found instanceof Promise
    ? found.then((item) => recordOfItem(view, item, from))
    : recordOfItem(view, found, from);
}

function recordOfItem(
  view: CatalogView,
  item: TreeItem | undefined,
  from: Uint8Array,
): MaybePromise<VersionRecord | undefined> {
  if (item === undefined) return undefined;
  const id = versionIdOfStep(item.key, from);
  if (item.value.byteLength === 0) return recordOf(view, id);
  const record = decodeVersion(item.value);
  if (record.id !== id) {
    throw new StoreError('E_FORMAT', `the step entry of v:${id} carries the record of v:${record.id}`, {
      where: { object: `v:${id}`, structure: 'Version' },
      next: 'ingot fsck',
    });
  }
  return record;
}

/** The record of a version by id, or undefined. */
export function recordOf(view: CatalogView, id: number): MaybePromise<VersionRecord | undefined> {
  const found = view.get(1, versionKey(id, 0));
  if (found instanceof Promise)
    return found.then((bytes) => (bytes === undefined ? undefined : decodeVersion(bytes)));
  return found === undefined ? undefined : decodeVersion(found);
}

/** The record of a ref. E_NOT_FOUND. */
export function lookupRef(view: CatalogView, ref: string): MaybePromise<VersionRecord> {
  const parsed = parseRef(ref);
  if (parsed.kind === 'step') {
    const record = recordOfStep(view, parsed.run, parsed.step);
    if (record instanceof Promise) return record.then((value) => value ?? Promise.reject(notFound(ref)));
    if (record === undefined) throw notFound(ref);
    return record;
  }
  const id = resolveId(view, parsed);
  return id instanceof Promise
    ? id.then((value) => recordOrThrow(view, value, ref))
    : recordOrThrow(view, id, ref);
}

function recordOrThrow(view: CatalogView, id: number, ref: string): MaybePromise<VersionRecord> {
  if (id === 0) throw notFound(ref);
  const record = recordOf(view, id);
  if (record instanceof Promise) return record.then((value) => value ?? Promise.reject(notFound(ref)));
  if (record === undefined) throw notFound(ref);
  return record;
}

export async function manifestOf(view: CatalogView, id: number): Promise<Manifest> {
  const bytes = await view.get(1, versionKey(id, 1));
  if (bytes === undefined) {
    throw new StoreError('E_FORMAT', `version v:${id} has no manifest`, {
      where: { object: `v:${id}`, structure: 'Manifest' },
    });
  }
  return decodeManifest(bytes);
}

/** All tags of a run by version id. */
export async function tagsOfRun(view: CatalogView, run: string): Promise<Map<number, string[]>> {
  const tags = new Map<number, string[]>();
  const { from, to } = runKindRange(run, RUN_KIND_TAG);
  for await (const item of view.range(0, from, to)) {
    const key = decodeRunsKey(item.key);
    assert(key.kind === 'tag', 'the range of tags has tags');
    const { versionId } = decodeTag(item.value);
    const list = tags.get(versionId);
    if (list === undefined) tags.set(versionId, [key.tag]);
    else list.push(key.tag);
  }
  return tags;
}

/** Tags that protect a version from removal: all but `latest`. */
export function protectingTags(tags: readonly string[]): readonly string[] {
  return tags.filter((tag) => tag !== LATEST_TAG);
}

export { formatRef };
