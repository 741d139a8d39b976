// The commit of a transaction: what it waits for, what it puts into the catalog change, what watchers are told of it.
//
// Invariants
//   1. The plan is made when every chunk is written: it holds sums and ids, no bytes of callers.
//   2. Nothing is visible before the change is durable, and a commit that fails gives all space back.
//   3. `latest` is among the tags of every plan, once.
//   4. Watchers are told after the root is durable, the version before its tags.
//
// This file never edits trees (commit_change.ts).

import { validateTagName } from '../format/index.js';
import { partsNow } from './chunk_cutter.js';
import { type CommitPlan, applyCommit, buildManifest } from './commit_change.js';
import { keepFiles } from './kept_files.js';
import { LinkedCopies } from './linked_copies.js';
import { recordsOf } from './put_records.js';
import { placeSumLeaves, planSumLeaves } from './sum_leaves.js';
import type { TransactionState } from './transaction_state.js';
import type { CommitOptions } from './types.js';
import { Version } from './version.js';

/** Commits once `settled` says that no put runs any more; else the transaction ends as an aborted one. */
export async function commitTransaction(
  state: TransactionState,
  settled: () => Promise<void>,
  options: CommitOptions,
): Promise<Version> {
  state.checkState('commit');
  state.context.checkWritable('commit');
  for (const tag of options.tags ?? []) validateTagName(tag);
  state.phase = 'committing';
  try {
    state.throwIfAborted(options.signal);
    await settled();
    if (state.writer !== null) await state.writer.finish();
    await state.sources?.check();
    state.throwIfAborted(options.signal);
    const plan = planOf(state, options.tags ?? []);
    state.leaves = plan.leaves;
    await placeSumLeaves(state.context, plan.leaves);
    state.linkedCopies = plan.linkedCopies;
    await plan.linkedCopies.place(options.signal ?? state.options.signal);
    await options.beforeVisible?.(plan.manifest.manifest.files);
    state.throwIfAborted(options.signal);
    // The store was closed meanwhile and took the space back: nothing may be committed on it.
    state.context.checkOpen();
    const signal = options.signal ?? state.options.signal;
    if (state.writer !== null) state.writer.isInCommit = true;
    const made = await state.context.catalog.commit(
      (change) => applyCommit(state.context, change, plan),
      signal === undefined ? {} : { signal },
    );
    state.phase = 'committed';
    plan.linkedCopies.settle();
    state.writer?.close();
    state.leave();
    state.context.counters.commits++;
    tellCommit(state, made.record.id, plan.tags);
    return new Version(state.context, made.record, plan.tags, made.manifest);
  } catch (error) {
    await state.end(error);
    throw error;
  } finally {
    await state.sources?.close();
  }
}

/** The one change that makes the version. Errors: E_FORMAT, E_USAGE for files that its objects do not make up. */
function planOf(state: TransactionState, extraTags: readonly string[]): CommitPlan {
  const { context, options, settings, drafts, writer } = state;
  for (const draft of drafts.objects()) draft.parts = [...partsNow(draft.parts)];
  if (settings.base !== null) keepFiles(settings.base, drafts);
  const tensors = [...drafts.tensors.values()];
  const manifest = buildManifest(context, tensors, [...drafts.blobs.values()], drafts.files);
  const { linkedIds } = manifest;
  return {
    run: state.run,
    step: options.step ?? null,
    tags: [...new Set(['latest', ...extraTags])],
    createdAtMs: context.nowMs(),
    redundancy: settings.redundancy,
    chunkBytes: settings.chunkBytes,
    segmentBytes: settings.segmentBytes,
    metadata: {
      ...options.metadata,
      ...recordsOf(tensors, settings.base?.id ?? ''),
    },
    metrics: options.metrics ?? {},
    baseVersionId: settings.base === null ? 0 : settings.base.number,
    attempt: state.attemptOf(),
    chunks: writer === null ? [] : writer.chunks,
    leaves: planSumLeaves(writer === null ? [] : writer.chunks),
    manifest,
    linkedCopies: new LinkedCopies(context, {
      object: state.run,
      linkedIds,
      redundancy: settings.redundancy,
    }),
  };
}

/** Tells watchers of version `id`, which is durable. */
function tellCommit({ context, run, options }: TransactionState, id: number, tags: readonly string[]): void {
  const { events } = context;
  if (!events.active) return;
  const at = context.now();
  events.emit({
    type: 'commit',
    at,
    detail: {
      run,
      version: `v:${id}`,
      step: options.step ?? null,
      notInSync: context.membersNotInSync,
    },
  });
  for (const tag of tags) events.emit({ type: 'tag', at, detail: { run, tag, version: `v:${id}` } });
}
