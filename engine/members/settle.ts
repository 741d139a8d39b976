// What is left to do for members that come and go, done: pages placed, resilvering ended, empty ones detached.
//
// Invariants
//   1. What there is to do is read from the newest root, so a run that was cut short is taken up by the next one.
//   2. A member is in sync only after a walk over the catalog found nothing wanting (M11).
//   3. Nothing is claimed: a leaving member that still holds extents is reported with its bytes.
//
// It moves no extents: a resilver of the data (repair/) runs before it where extents are wanting.

import { MEMBER_RESILVERING, MEMBER_UNUSED } from '../../format/index.js';
import type { StoreContext } from '../store_context.js';
import { settleCatalog } from './catalog_walk.js';
import type { CatalogWalkOptions } from './catalog_walk.js';
import { isLeaving } from './member_table.js';

const SECTOR_BYTES = 4096;

export interface SettleReport {
  /** Pages of the catalog that were placed anew. */
  readonly pagesMoved: number;
  /** Members that are in sync now and were resilvering. */
  readonly inSync: readonly number[];
  /** Members that left. */
  readonly detached: readonly number[];
  /** Leaving members and the bytes that are still on them (extents; what is lost with them included). */
  readonly leaving: readonly { readonly member: number; readonly bytes: number }[];
}

/** Errors: as settleCatalog, E_READ_ONLY, E_POISONED. */
export async function settleMembers(
  context: StoreContext,
  options: CatalogWalkOptions = {},
): Promise<SettleReport> {
  context.checkWritable('settling members');
  const { catalog } = context;
  const { pagesWanting } = await settleCatalog(context, options);
  const inSync: number[] = [];
  const detached: number[] = [];
  const leaving: { member: number; bytes: number }[] = [];
  for (const [index, entry] of catalog.superblock.members.entries()) {
    if (entry.state === MEMBER_UNUSED) continue;
    if (entry.state === MEMBER_RESILVERING && !isLeaving(entry)) {
      await catalog.manager.finishResilver(index);
      inSync.push(index);
    }
    if (!isLeaving(entry)) continue;
    if (await catalog.manager.detach(index)) detached.push(index);
    else {
      const bytes = (catalog.superblock.members[index]?.allocatedSectors ?? 0) * SECTOR_BYTES;
      leaving.push({ member: index, bytes });
    }
  }
  return { pagesMoved: pagesWanting, inSync, detached, leaving };
}
