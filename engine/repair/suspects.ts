// Places that somebody found bad, and what the newest root says of them: the way from a fault to a heal.
//
// Invariants
//   1. A suspect segment becomes a HealItem only if the extent's record, in a root that stays pinned until
//      the heal is done, still names that very place. So space that was freed is never written, whoever has it now.
//   2. A suspect page is kept alive by the hold that was taken when its fault was seen (Catalog.hold): whoever
//      read it had it pinned, and the hold reaches back as far.
//   3. Copies that are stale, or whose member is not here, are neither healed nor read from (format F15).
//
// It does no I/O but look records and sums up.

import { assert } from '../../format/errors.js';
import { type Extent, decodeExtent, extentKey, extentTreeRecordKind } from '../../format/index.js';
import type { PagePointer } from '../../format/index.js';
import type { CatalogSnapshot } from '../contract.js';
import { sumCount } from '../extent_source.js';
import type { FaultKind } from '../io/port.js';
import type { StoreContext } from '../store_context.js';
import type { HealItem, HealPlace } from './heal_stretches.js';

const SECTOR_BYTES = 4096;

/** Segments of one copy of one extent. */
export interface SuspectSegments {
  readonly extentId: number;
  readonly member: number;
  readonly sector: number;
  /** Segment indexes, ascending, without repeats. */
  readonly segments: readonly number[];
}

export interface SuspectPage {
  readonly pointer: PagePointer;
  readonly member: number;
  readonly sector: number;
}

/** Whether a fault of this kind may come from what is on the member. */
export function isHealable(kind: FaultKind): boolean {
  return kind === 'checksum' || kind === 'io' || kind === 'short';
}

/** The slot of a member whose copy of this birth may be read and healed, or undefined. */
export function usableSlot(context: StoreContext, member: number, birth: number): number | undefined {
  const state = context.member(member);
  if (state === undefined || state.device === null) return undefined;
  return birth <= state.servedThrough ? state.device.slot : undefined;
}

/** Items for what the snapshot still has; the others are no longer anybody's. */
export async function segmentItems(
  context: StoreContext,
  snapshot: CatalogSnapshot,
  suspects: readonly SuspectSegments[],
): Promise<Map<SuspectSegments, HealItem[]>> {
  const extents = new Map<number, Extent>();
  for (const id of new Set(suspects.map((suspect) => suspect.extentId))) {
    const found = snapshot.get(2, extentKey(id));
    const bytes = found instanceof Promise ? await found : found;
    if (bytes !== undefined && extentTreeRecordKind(bytes) === 'extent') extents.set(id, decodeExtent(bytes));
  }
  const sums = await context.extents.sums(snapshot, extents.values(), 'repair');
  const items = new Map<SuspectSegments, HealItem[]>();
  for (const suspect of suspects) {
    const extent = extents.get(suspect.extentId);
    const made = extent === undefined ? null : itemsOf(context, extent, suspect);
    if (extent === undefined || made === null) continue;
    const own = new BigUint64Array(sumCount(extent));
    sums.copy(extent, 0, own.length, own, 0);
    items.set(
      suspect,
      suspect.segments.filter((segment) => segment < own.length).map((segment) => made(segment, own)),
    );
  }
  return items;
}

function itemsOf(
  context: StoreContext,
  extent: Extent,
  suspect: SuspectSegments,
): ((segment: number, sums: BigUint64Array) => HealItem) | null {
  const places: (HealPlace & { readonly isBad: boolean })[] = [];
  for (const copy of extent.copies) {
    const slot = usableSlot(context, copy.member, copy.placementBirth);
    if (slot === undefined) continue;
    const isBad = copy.member === suspect.member && copy.sector === suspect.sector;
    places.push({ member: copy.member, slot, offsetBytes: copy.sector * SECTOR_BYTES, isBad });
  }
  const bad = places.find((place) => place.isBad);
  if (bad === undefined) return null;
  const others = places.filter((place) => !place.isBad);
  const segmentBytes = 2 ** extent.segmentShift;
  return (segment, sums) => {
    const fromBytes = segment * segmentBytes;
    const byteLength = Math.min(segmentBytes, extent.storedBytes - fromBytes);
    const sum = sums[segment];
    assert(byteLength > 0 && sum !== undefined, 'a segment lies inside its extent');
    return { bad, others, storedBytes: extent.storedBytes, segmentBytes, fromBytes, byteLength, sum };
  };
}

/** The item of one copy of a page, or null when that copy may not be used. */
export function pageItem(context: StoreContext, suspect: SuspectPage): HealItem | null {
  const { pointer } = suspect;
  const places: HealPlace[] = [];
  let bad: HealPlace | null = null;
  for (const copy of pointer.copies) {
    const slot = usableSlot(context, copy.member, pointer.birth);
    if (slot === undefined) continue;
    const place = { member: copy.member, slot, offsetBytes: copy.sector * SECTOR_BYTES };
    if (copy.member === suspect.member && copy.sector === suspect.sector) bad = place;
    else places.push(place);
  }
  if (bad === null) return null;
  const { storedBytes, sum } = pointer;
  const segmentBytes = 2 ** Math.ceil(Math.log2(storedBytes));
  return { bad, others: places, storedBytes, segmentBytes, fromBytes: 0, byteLength: storedBytes, sum };
}
