// Events of a store as an async iterable: commits, moved tags, removals, copies passed over.
//
// Invariants
//   1. A watcher's queue is bounded: when it is full the oldest events go, and an 'error' event says how
//      many were lost. A slow watcher never holds back a commit.
//   2. In the writing process events are told by the operations themselves, after they are durable.
//   3. A read-only store polls: each new root is compared with the one before, run by run. That costs
//      one scan of the runs tree for each new root; `prefix` limits it.
//   4. Polling stops with the last watcher.
//
// This file never changes the store.

import { onAbort } from './abort_listeners.js';
import { StoreError, decodeRunsKey, decodeTag, runPrefixRange } from '../format/index.js';
import type { CatalogView } from './contract.js';
import type { StoreContext } from './store_context.js';
import type { StoreEvent } from './types.js';

/** Events kept for one watcher at most. */
export const MAX_QUEUED_EVENTS = 10_000;
/** Milliseconds between two looks for a new root in a read-only store, by default. */
export const POLL_INTERVAL_MS = 500;
/** Versions and tags that a polling watcher remembers at most. */
export const MAX_WATCHED_ITEMS = 2_000_000;

export interface WatchOptions {
  readonly signal?: AbortSignal;
  /** Read-only stores: how often to look for a new root. */
  readonly intervalMs?: number;
  /** Read-only stores: only runs whose name starts so. */
  readonly prefix?: string;
}

/** What a polling watcher knew of the last root. */
interface Seen {
  readonly versions: ReadonlyMap<number, { readonly run: string; readonly step: number | null }>;
  readonly tags: ReadonlyMap<
    string,
    { readonly run: string; readonly tag: string; readonly versionId: number; readonly generation: number }
  >;
}

/** Yields events until the signal aborts (then it ends by rejecting with its reason) or the loop is left. */
export async function* watchStore(context: StoreContext, options: WatchOptions): AsyncGenerator<StoreEvent> {
  const queue: StoreEvent[] = [];
  let lost = 0;
  let wake: (() => void) | null = null;
  const take = (event: StoreEvent): void => {
    if (queue.length >= MAX_QUEUED_EVENTS) {
      queue.shift();
      lost++;
    }
    queue.push(event);
    wake?.();
  };
  const unsubscribe = context.events.subscribe(take);
  const stop = new AbortController();
  const stopNow = (): void => {
    stop.abort(options.signal?.reason);
    wake?.();
  };
  const removeStop = onAbort(options.signal, stopNow);
  let failure: { error: unknown } | null = null;
  const polling = context.catalog.writable
    ? Promise.resolve()
    : poll(context, options, stop.signal, take).catch((error: unknown) => {
        failure = { error };
        wake?.();
      });
  try {
    for (;;) {
      options.signal?.throwIfAborted();
      if (lost > 0) {
        const detail = { lostEvents: lost, reason: 'the watcher was too slow' };
        lost = 0;
        yield { type: 'error', at: context.now(), detail };
        continue;
      }
      const next = queue.shift();
      if (next !== undefined) {
        yield next;
        continue;
      }
      const failed = failure as { error: unknown } | null;
      if (failed !== null) throw failed.error;
      if (context.closed) return;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
      wake = null;
    }
  } finally {
    removeStop();
    unsubscribe();
    stop.abort();
    await polling;
  }
}

async function poll(
  context: StoreContext,
  options: WatchOptions,
  signal: AbortSignal,
  tell: (event: StoreEvent) => void,
): Promise<void> {
  let seen = await lookAt(context, options.prefix ?? '');
  while (!signal.aborted && !context.closed) {
    try {
      await context.io.clock.sleep(options.intervalMs ?? POLL_INTERVAL_MS, signal);
    } catch {
      return;
    }
    if (signal.aborted || context.closed) return;
    if (!(await context.catalog.refresh())) continue;
    const now = await lookAt(context, options.prefix ?? '');
    for (const event of differences(seen, now, context.now())) tell(event);
    seen = now;
  }
}

async function lookAt(context: StoreContext, prefix: string): Promise<Seen> {
  const lease = context.snapshots.lease();
  try {
    return await scanRuns(lease.snapshot, prefix);
  } finally {
    lease.release();
  }
}

async function scanRuns(view: CatalogView, prefix: string): Promise<Seen> {
  const versions = new Map<number, { run: string; step: number | null }>();
  const tags = new Map<string, { run: string; tag: string; versionId: number; generation: number }>();
  const { from, to } = runPrefixRange(prefix);
  for await (const item of view.range(0, from, to)) {
    const key = decodeRunsKey(item.key);
    // Steps come before ids in the order of keys.
    if (key.kind === 'step') versions.set(key.versionId, { run: key.run, step: key.step });
    if (key.kind === 'version' && !versions.has(key.versionId))
      versions.set(key.versionId, { run: key.run, step: null });
    if (key.kind === 'tag') {
      const { versionId, generation } = decodeTag(item.value);
      tags.set(`${key.run}@${key.tag}`, { run: key.run, tag: key.tag, versionId, generation });
    }
    if (versions.size + tags.size > MAX_WATCHED_ITEMS) {
      throw new StoreError('E_RANGE', `watching more than ${MAX_WATCHED_ITEMS} versions and tags`, {
        next: 'watch with a prefix',
      });
    }
  }
  return { versions, tags };
}

function* differences(before: Seen, after: Seen, at: Date): Generator<StoreEvent> {
  for (const [id, { run, step }] of after.versions) {
    if (!before.versions.has(id)) yield { type: 'commit', at, detail: { run, version: `v:${id}`, step } };
  }
  for (const [id, { run, step }] of before.versions) {
    if (!after.versions.has(id)) yield { type: 'remove', at, detail: { run, version: `v:${id}`, step } };
  }
  for (const [key, { run, tag, versionId, generation }] of after.tags) {
    const old = before.tags.get(key);
    if (old?.versionId === versionId && old.generation === generation) continue;
    yield { type: 'tag', at, detail: { run, tag, version: `v:${versionId}`, generation } };
  }
  for (const [key, { run, tag }] of before.tags) {
    if (!after.tags.has(key)) yield { type: 'tag', at, detail: { run, tag, version: null } };
  }
}
