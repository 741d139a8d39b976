// Key slots on members: which copy counts, and how a new table replaces an old one.
//
//   write half A everywhere -> flush -> write half B everywhere -> flush
//
// Invariants
//   1. The older half is overwritten first and made durable on every member before the newer one is touched, so at
//      any cut each member holds a whole table, old or new; the higher generation over all members counts.
//   2. When a change has ended both halves of every member written hold the new table: an old slot stands nowhere on
//      them (what a drive keeps of overwritten blocks apart, SAFETY.md).
//   3. Key slots are maintenance without keys: reading, copying and comparing them needs no secret.
//
// It opens no slot (slots.ts).

import { StoreError, assert } from '../../format/errors.js';
import {
  KEY_SLOTS_HALF_BYTES,
  KEY_SLOTS_HALVES,
  KEY_SLOTS_OFFSET,
  type KeySlotTable,
  decodeKeySlots,
  encodeKeySlots,
  isStoreError,
} from '../../format/index.js';
import type { Io } from '../io/port.js';

/** A member whose slots are read or written. */
export interface SlotPlace {
  readonly slot: number;
  readonly path: string;
}
export interface FoundSlots {
  /** Of the highest generation. */
  readonly table: KeySlotTable;
  /** Members some half of which is not that table: damaged, or older. */
  readonly behind: readonly SlotPlace[];
}

const halfOffset = (half: number): number => KEY_SLOTS_OFFSET + half * KEY_SLOTS_HALF_BYTES;

async function readHalf(
  io: Io,
  place: SlotPlace,
  half: number,
  storeUuid: Uint8Array,
): Promise<KeySlotTable | null> {
  try {
    return decodeKeySlots(await io.readRaw(place.slot, halfOffset(half), KEY_SLOTS_HALF_BYTES), storeUuid);
  } catch (error) {
    if (!isStoreError(error)) throw error;
    return null;
  }
}

/** The slots of a store. E_CORRUPT when no member has a sound half. */
export async function readKeySlots(
  io: Io,
  places: readonly SlotPlace[],
  storeUuid: Uint8Array,
): Promise<FoundSlots> {
  const found = new Map<SlotPlace, readonly (KeySlotTable | null)[]>();
  for (const place of places) {
    const halves: (KeySlotTable | null)[] = [];
    for (let half = 0; half < KEY_SLOTS_HALVES; half += 1)
      halves.push(await readHalf(io, place, half, storeUuid));
    found.set(place, halves);
  }
  let table: KeySlotTable | null = null;
  for (const each of [...found.values()].flat())
    if (each !== null && (table === null || each.generation > table.generation)) table = each;
  if (table === null) {
    throw new StoreError('E_CORRUPT', 'no member has key slots that can be read', {
      where: { member: places[0]?.path ?? '', offsetBytes: KEY_SLOTS_OFFSET, structure: 'KeySlots' },
      safe: 'the data, sealed; without a key slot nothing can open it',
      next: 'attach the other members of the store: each of them has all key slots',
    });
  }
  const { generation } = table;
  const behind = places.filter((place) => found.get(place)?.some((half) => half?.generation !== generation));
  return { table, behind };
}

/** Replaces the slots on these members. Errors: E_IO; then some members may hold the old table still. */
export async function writeKeySlots(
  io: Io,
  places: readonly SlotPlace[],
  table: KeySlotTable,
): Promise<void> {
  assert(places.length > 0, 'key slots are written to some member');
  const bytes = encodeKeySlots(table);
  const first = new Map<SlotPlace, number>();
  for (const place of places) {
    const halves = await Promise.all([0, 1].map((half) => readHalf(io, place, half, table.storeUuid)));
    // The one that counts less goes first; a damaged or empty one counts nothing.
    first.set(place, (halves[0]?.generation ?? 0) <= (halves[1]?.generation ?? 0) ? 0 : 1);
  }
  for (const turn of [0, 1]) {
    for (const place of places) {
      const half = turn === 0 ? (first.get(place) ?? 0) : 1 - (first.get(place) ?? 0);
      await io.writeRaw(place.slot, halfOffset(half), bytes);
    }
    await flushPlaces(io, places);
  }
}

async function flushPlaces(io: Io, places: readonly SlotPlace[]): Promise<void> {
  const results = await io.flush(places.map((place) => place.slot));
  const failed = results.findIndex(({ errno }) => errno !== 0);
  if (failed < 0) return;
  const path = places[failed]?.path ?? '';
  throw new StoreError('E_IO', `the key slots of ${path} could not be made durable`, {
    where: { member: path, errno: results[failed]?.errno ?? 0, structure: 'KeySlots' },
    safe: 'each member holds a whole set of key slots, the old one or the new one',
    next: 'ingot key list, then repeat the change',
  });
}
