// Sum leaves: 4 KiB pages that hold the segment sums of extents with more than 32 of them (format.md F12, F13).
//
// A sum leaf is named by a record of the extent tree, not by a page pointer, so its page is checked
// against that record.
//
// Invariants
//   1. A decoded page has exactly the sums that its record counts, and carries the leaf's own id.
//   2. The page is one sector, of kind 5 and tree 2, zero after its last sum.
//
// The page's own sum is in the record and is checked before the page comes here.

import type { FormatContext } from './binary.js';
import { readSum, refuse, writeSum } from './binary.js';
import { assert } from './errors.js';
import { TREE_EXTENTS } from './keys.js';
import { PAGE_HEADER_BYTES } from './layout.gen.js';
import { SECTOR_BYTES, SUM_LEAF_SUMS_MAX } from './limits.js';
import type { SumLeaf } from './extent_record.js';
import type { PageContext } from './page.js';
import { checkPageHeader } from './page.js';
import { beginPage } from './page_encode.js';
import type { PagePointer } from './pointer.js';
import { PAGE_KIND_SUM_LEAF } from './pointer.js';

/** What identifies a sum leaf's page beside its sums. */
export interface SumLeafPageFields {
  readonly storeUuid: Uint8Array;
  /** Sequence of the root that the leaf was written for. */
  readonly birth: number;
  /** Id of the sum leaf. */
  readonly ownerId: number;
}

/** The 4,096 bytes of a leaf with 1..504 sums. */
export function encodeSumLeafPage(
  leaf: SumLeafPageFields & { readonly sums: BigUint64Array | readonly bigint[] },
): Uint8Array {
  const count = leaf.sums.length;
  assert(count >= 1 && count <= SUM_LEAF_SUMS_MAX, 'a sum leaf has 1..504 sums');
  assert(Number.isSafeInteger(leaf.ownerId) && leaf.ownerId >= 1, 'a sum leaf has an id');
  const usedBytes = PAGE_HEADER_BYTES + count * 8;
  const page = beginPage(
    { treeId: TREE_EXTENTS, birth: leaf.birth, storeUuid: leaf.storeUuid },
    { kind: PAGE_KIND_SUM_LEAF, level: 0, itemCount: count, usedBytes, ownerId: leaf.ownerId },
  );
  for (let index = 0; index < count; index += 1)
    writeSum(page, PAGE_HEADER_BYTES + index * 8, leaf.sums[index]!);
  assert(page.length === SECTOR_BYTES, 'a sum leaf is one sector');
  return page;
}

/** The pointer that a sum leaf's record stands for (kind 5, one sector). */
export function sumLeafPointer(leaf: Pick<SumLeaf, 'sum' | 'birth' | 'copies'>): PagePointer {
  const { sum, birth, copies } = leaf;
  return { sum, birth, copies, storedBytes: SECTOR_BYTES, level: 0, kind: PAGE_KIND_SUM_LEAF };
}

/** The sums of the leaf that a record names. Errors: E_FORMAT. */
export function decodeSumLeafPage(
  bytes: Uint8Array,
  leaf: SumLeafPageFields & { readonly sumCount: number; readonly where?: FormatContext },
): BigUint64Array {
  const pointer = sumLeafPointer({ sum: 0n, birth: leaf.birth, copies: [] });
  const context = { storeUuid: leaf.storeUuid, treeId: TREE_EXTENTS, ownerId: leaf.ownerId };
  const sums = decodeSumLeafAt(
    bytes,
    pointer,
    leaf.where === undefined ? context : { ...context, where: leaf.where },
  );
  if (sums.length !== leaf.sumCount) {
    refuse(leaf.where, 'SumLeafPage', 'itemCount', `is ${sums.length}, the record says ${leaf.sumCount}`);
  }
  return sums;
}

/** The same by pointer (walks of every page); `context.ownerId` is the id that it has to carry. */
export function decodeSumLeafAt(
  bytes: Uint8Array,
  pointer: PagePointer,
  context: PageContext,
): BigUint64Array {
  assert(bytes.length === SECTOR_BYTES, 'a sum leaf is read whole');
  const where: FormatContext | undefined = context.where;
  const page = checkPageHeader(bytes, pointer, context);
  if (page.kind !== PAGE_KIND_SUM_LEAF) refuse(where, 'SumLeafPage', 'kind', `is ${page.kind}, not 5`);
  if (context.ownerId !== undefined && page.ownerId !== context.ownerId) {
    refuse(where, 'SumLeafPage', 'ownerId', `is ${page.ownerId}, not ${context.ownerId}`);
  }
  if (page.itemCount > SUM_LEAF_SUMS_MAX || page.usedBytes !== PAGE_HEADER_BYTES + page.itemCount * 8) {
    refuse(where, 'SumLeafPage', 'itemCount', `is ${page.itemCount} with ${page.usedBytes} bytes used`);
  }
  const sums = new BigUint64Array(page.itemCount);
  for (let index = 0; index < sums.length; index += 1)
    sums[index] = readSum(bytes, PAGE_HEADER_BYTES + index * 8);
  return sums;
}
