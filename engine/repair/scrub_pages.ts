// The catalog half of a scrub: every copy of every page of one tree, the pages of sums with the extent tree.
//
// Invariants
//   1. Each copy is read by itself; a page without a good copy is named, and what hangs below it is not judged.
//   2. The root that names the pages stays pinned (by the FsckContext) until the last heal of the tree is done.
//   3. At most PAGES_TOGETHER pages are read at once.
//
// It decides nothing about trees: the walker checks their structure as every reader does.

import { StoreError, isStoreError } from '../../format/errors.js';
import { decodeSumLeaf, extentTreeRecordKind } from '../../format/extent_record.js';
import type { PagePointer } from '../../format/index.js';
import type { TreeId } from '../contract.js';
import type { FsckContext } from '../fsck_context.js';
import type { PageFault } from '../page_store.js';
import type { StoreContext } from '../store_context.js';
import type { MaintEvent } from '../types.js';
import type { Throttle } from './throttle.js';

/** Pages whose copies are read at the same time. */
const PAGES_TOGETHER = 32;
const SECTOR_BYTES = 4096;
const KIND_SUM_LEAF = 5;
const TREE_EXTENTS = 2;

type Finding = Extract<MaintEvent, { type: 'finding' }>;

export interface PageStep {
  readonly scannedBytes: number;
  readonly finding: Finding | null;
}

export async function* scrubPages(
  context: StoreContext,
  check: FsckContext,
  tree: TreeId,
  throttle: Throttle,
): AsyncGenerator<PageStep, void, undefined> {
  let pages: PagePointer[] = [];
  try {
    for await (const pointer of pointersOf(check, tree)) {
      pages.push(pointer);
      if (pages.length < PAGES_TOGETHER) continue;
      yield* scrubSome(context, check, tree, pages, throttle);
      pages = [];
    }
  } catch (error) {
    check.options.signal?.throwIfAborted();
    if (!isStoreError(error) || error.code === 'E_CLOSED') throw error;
    yield {
      scannedBytes: 0,
      finding: { type: 'finding', severity: 'fatal', action: 'unrepairable', error },
    };
  }
  yield* scrubSome(context, check, tree, pages, throttle);
}

/** Pages of the tree in the order of a walk; those of the extent tree are followed by the pages of sums. */
async function* pointersOf(check: FsckContext, tree: TreeId): AsyncGenerator<PagePointer, void, undefined> {
  const { signal } = check.options;
  const options = { readPieces: false, ...(signal === undefined ? {} : { signal }) };
  for await (const { pointer } of check.tree(tree).walkPages(options)) yield pointer;
  if (tree !== TREE_EXTENTS) return;
  for await (const { value } of check.tree(tree).range(new Uint8Array(0), null)) {
    if (extentTreeRecordKind(value) !== 'sum-leaf') continue;
    const { sum, birth, copies } = decodeSumLeaf(value);
    yield { sum, birth, copies, storedBytes: SECTOR_BYTES, level: 0, kind: KIND_SUM_LEAF };
  }
}

async function* scrubSome(
  context: StoreContext,
  check: FsckContext,
  tree: TreeId,
  pages: readonly PagePointer[],
  throttle: Throttle,
): AsyncGenerator<PageStep, void, undefined> {
  if (pages.length === 0) return;
  const { signal } = check.options;
  signal?.throwIfAborted();
  const scannedBytes = pages.reduce((sum, page) => sum + page.storedBytes * page.copies.length, 0);
  await throttle.take(scannedBytes, signal);
  const verdicts = await Promise.all(pages.map((page) => check.pages.verifyCopies(page, tree)));
  yield { scannedBytes, finding: null };
  for (const faults of verdicts) {
    const lost = faults.every((fault) => fault !== null);
    for (const fault of faults) {
      if (fault === null || fault.kind === 'missing') continue;
      const finding = await judge(context, fault, tree, lost, signal);
      if (finding !== null) yield { scannedBytes: 0, finding };
    }
  }
}

async function judge(
  context: StoreContext,
  fault: PageFault,
  tree: TreeId,
  lost: boolean,
  signal: AbortSignal | undefined,
): Promise<Finding | null> {
  const { catalog, healer } = context;
  let verdict: 'healed' | 'sound' | 'lost' | 'failed' | 'reported' = lost ? 'lost' : 'reported';
  if (!lost && catalog.writable && catalog.poisoned === null) {
    const suspect = {
      pointer: fault.pointer,
      member: fault.member,
      sector: fault.offsetBytes / SECTOR_BYTES,
    };
    verdict = (await healer.healPageNow(suspect, signal))?.verdict ?? 'reported';
  }
  if (verdict === 'sound') return null;
  const isHealed = verdict === 'healed';
  const isLost = verdict === 'lost';
  const state = isHealed
    ? 'was bad and is healed'
    : isLost
      ? 'is bad, and so is every other copy'
      : verdict === 'failed'
        ? 'is bad and could not be written anew'
        : 'is bad; another copy is good';
  const error = new StoreError(
    isHealed ? 'E_CORRUPT_REPAIRED' : fault.kind === 'checksum' ? 'E_CORRUPT' : 'E_IO',
    `a copy of a page of tree ${tree} (birth ${fault.pointer.birth}) ${state} (${fault.kind})`,
    {
      where: {
        member: context.memberPath(fault.member),
        memberIndex: fault.member,
        offsetBytes: fault.offsetBytes,
        lengthBytes: fault.lengthBytes,
        structure: `tree ${tree}`,
      },
      next: isLost
        ? 'ingot fsck --repair'
        : isHealed
          ? 'nothing'
          : 'ingot scrub with the store free for writing',
    },
  );
  const severity = isLost ? 'fatal' : isHealed ? 'warn' : 'error';
  return {
    type: 'finding',
    severity,
    action: isLost ? 'unrepairable' : isHealed ? 'repaired' : 'none',
    error,
  };
}
