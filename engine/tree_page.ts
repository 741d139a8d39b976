// The engine's view of catalog pages: format/'s pages, plus what a tree asks of them.
//
// Invariants
//   1. Bytes become a page only through `decodeCatalogPage`, which checks every rule that one page
//      can show (format.md F6, F7) and names tree, member and offset when one is broken.
//   2. Nothing here changes a page.
//
// It holds no state and does no I/O; sums were checked by whoever read the bytes.

import { readU16, readU32 } from '../format/binary.js';
import {
  BRANCH_SLOT_BYTES,
  BRANCH_SLOT_KEY_BYTES,
  LEAF_SLOT_BYTES,
  LEAF_SLOT_KEY_BYTES,
  LEAF_SLOT_VALUE_BYTES,
  PAGE_HEADER_BYTES,
} from '../format/layout.gen.js';
import { decodeLargeValue } from '../format/large_value.js';
import { SECTOR_BYTES } from '../format/limits.js';
import { BranchPage, LeafPage, checkPageHeader, decodePage } from '../format/page.js';
import type { PageBase, PageContext } from '../format/page.js';
import { PAGE_KIND_BRANCH, PAGE_KIND_LEAF } from '../format/pointer.js';
import type { PointerSecret } from '../format/pointer.js';
import { decodeSealedPage } from '../format/sealed_page.js';
import type { PageSeals } from './keys/page_seals.js';
import type { PagePointer } from '../format/pointer.js';

export { compareBytes } from '../format/binary.js';
export { BranchPage, LeafPage } from '../format/page.js';
export { SealedPage } from '../format/sealed_page.js';
export type { PageBase } from '../format/page.js';
export type { PagePointer } from '../format/pointer.js';

/** A page in memory: searchable when it belongs to the tree itself, a checked header otherwise. */
export type CatalogPage = LeafPage | BranchPage | PageBase;

export function isLeafPage(page: CatalogPage): page is LeafPage {
  return page.kind === PAGE_KIND_LEAF;
}

export function isBranchPage(page: CatalogPage): page is BranchPage {
  return page.kind === PAGE_KIND_BRANCH;
}

const TREE_NAMES = ['runs', 'versions', 'extents', 'free space', 'members', 'keys'] as const;

export function treeName(treeId: number): string {
  return TREE_NAMES[treeId] ?? `number ${treeId}`;
}

/** What is needed to judge the pages of a store. */
export interface PageRules {
  readonly storeUuid: Uint8Array;
  /** Formatted bytes by member index, 0 for none: no pointer leads out of a member's data area (format.md F5). */
  readonly formattedBytes: () => readonly number[];
  readonly memberName?: (member: number) => string;
  /** What seals and opens pages; absent: a store without encryption. */
  readonly seals?: PageSeals;
}

/** What the last bytes of pointers inside a tree's opened pages are. */
export function secretOf(rules: PageRules, treeId: number): PointerSecret {
  return rules.seals?.isSealed(treeId) === true ? 'key' : 'none';
}

/** What decoders need to know, and what their errors name. */
export function pageContext(rules: PageRules, treeId: number, pointer: PagePointer): PageContext {
  const copy = pointer.copies[0];
  const member = copy === undefined ? undefined : rules.memberName?.(copy.member);
  return {
    storeUuid: rules.storeUuid,
    treeId,
    formattedBytes: rules.formattedBytes(),
    isSealed: rules.seals?.isSealed(treeId) === true,
    where: {
      object: `${treeName(treeId)} tree`,
      ...(copy === undefined ? {} : { memberIndex: copy.member, offsetBytes: copy.sector * SECTOR_BYTES }),
      ...(member === undefined ? {} : { member }),
    },
  };
}

/** Stored bytes whose sum matched, as a page; what can be seen of it without its key. Errors: E_FORMAT, E_AUTH. */
export function decodeCatalogPage(
  bytes: Uint8Array,
  pointer: PagePointer,
  treeId: number,
  rules: PageRules,
): CatalogPage {
  const { seals } = rules;
  const isOfTree = pointer.kind === PAGE_KIND_LEAF || pointer.kind === PAGE_KIND_BRANCH;
  if (!isOfTree || seals?.isSealed(treeId) !== true) return decodePlainPage(bytes, pointer, treeId, rules);
  const context = pageContext(rules, treeId, pointer);
  if (pointer.key === undefined) return decodeSealedPage(bytes, pointer, context);
  return decodePlainPage(seals.openPage(bytes, pointer, context), pointer, treeId, rules);
}

/** A page in its plain form. Errors: E_FORMAT. */
export function decodePlainPage(
  bytes: Uint8Array,
  pointer: PagePointer,
  treeId: number,
  rules: PageRules,
): CatalogPage {
  const context = pageContext(rules, treeId, pointer);
  if (pointer.kind !== PAGE_KIND_LEAF && pointer.kind !== PAGE_KIND_BRANCH) {
    return checkPageHeader(bytes, pointer, context);
  }
  const page = decodePage(bytes, pointer, context);
  if (isLeafPage(page)) checkDescriptors(page, context);
  return page;
}

/** Descriptors of large values are checked with their leaf, so that later only pages can be wrong. */
function checkDescriptors(page: LeafPage, context: PageContext): void {
  const secret = context.isSealed === true ? 'key' : 'none';
  for (let index = 0; index < page.itemCount; index += 1) {
    if (page.isLarge(index))
      decodeLargeValue(page.value(index), { ...context, secret, maxBirth: page.birth });
  }
}

/** Encoded size of one item of a leaf. */
export function leafSlotBytes(page: LeafPage, index: number): number {
  const slot = PAGE_HEADER_BYTES + index * LEAF_SLOT_BYTES;
  const { bytes } = page;
  return (
    LEAF_SLOT_BYTES +
    readU16(bytes, slot + LEAF_SLOT_KEY_BYTES) +
    readU32(bytes, slot + LEAF_SLOT_VALUE_BYTES)
  );
}

/** Length of a separator of a branch. */
export function branchKeyBytes(page: BranchPage, index: number): number {
  return readU16(page.bytes, PAGE_HEADER_BYTES + index * BRANCH_SLOT_BYTES + BRANCH_SLOT_KEY_BYTES);
}

/** The child whose range holds the largest key below `bound`; null stands for above everything. */
export function findChildBelow(page: BranchPage, bound: Uint8Array | null): number {
  if (bound === null) return page.itemCount - 1;
  const index = page.findChild(bound);
  // A separator equal to the bound is not below it: one child to the left.
  return page.isKeyOf(index, bound) ? index - 1 : index;
}
