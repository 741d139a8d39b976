// The keys of a store as its users manage them: made with it, opened with it, added, listed and removed.
//
// Invariants
//   1. A store is made with the key that was asked for and a recovery key, which is handed out once, before anything
//      is written, and never kept.
//   2. The master key is in memory only while a slot is made or the ring is opened, and then wiped.
//   3. A change of slots is durable on every member that is here before it is acknowledged; members that are not here
//      are named, since they hold the old slots still.
//   4. Asking for a key where a store has no encryption is E_AUTH: a store whose mark was taken off is not written to.

import { StoreError, assert, isStoreError } from '../../format/errors.js';
import {
  INCOMPAT_ENCRYPTION,
  type KeySlot,
  type KeySlotKind,
  type KeySlotTable,
  type RootSeal,
  SUITE_FULL,
  type Superblock,
  encodeUtf8,
} from '../../format/index.js';
import type { Catalog } from '../contract.js';
import { type Crypt, KEY_BYTES } from '../io/crypt_port.js';
import type { Io } from '../io/port.js';
import type { StoreKey } from './key_provider.js';
import { KeyRing, tampered } from './key_ring.js';
import { PageSeals, rootSealingKey } from './page_seals.js';
import { encodeRecoveryKey } from './recovery_key.js';
import { MASTER_KEY_BYTES, type SlotOptions, openSlots, withSlot, withoutSlot } from './slots.js';
import { type SlotPlace, readKeySlots, writeKeySlots } from './slots_io.js';

const RECOVERY_KEY_BYTES = 32;
const INFO_WRAPPING = encodeUtf8('ingot v1 wrapping key');

export interface EncryptOptions extends SlotOptions {
  readonly key: StoreKey;
  /** Is given the printed form of the recovery key (ASCII) before the store is made; the bytes are wiped after it. */
  readonly onRecoveryKey: (text: Uint8Array) => void | Promise<void>;
}

/** What `key list` shows: nothing of it is secret. */
export interface KeySlotInfo {
  readonly id: number;
  readonly kind: KeySlotKind;
  readonly label: string;
  readonly createdAt: Date;
}
export interface KeyChange {
  readonly id: number;
  /** Members that were not here and hold the old slots until they come back or are destroyed. */
  readonly notRewritten: readonly string[];
}

export const slotMaker = (io: Io) => ({ crypt: io.crypt, random: io.random, nowMs: nowOf(io) });
const nowOf = (io: Io): number => Math.max(Math.floor(io.clock.nowMs()), 0);

/** The first master key has this number. */
const FIRST_EPOCH = 1;

/** The slots of a new store, the key that was asked for and a recovery key, and the seal of its first root. */
export async function makeKeySlots(
  io: Io,
  root: Superblock,
  options: EncryptOptions,
): Promise<{ table: KeySlotTable; seal: RootSeal }> {
  const { storeUuid } = root;
  const maker = { crypt: io.crypt, random: io.random, nowMs: nowOf(io) };
  const masterKey = io.crypt.randomSecret(io.random, MASTER_KEY_BYTES);
  const text = freshRecoveryKey(io);
  const empty: KeySlotTable = {
    storeUuid,
    generation: 0,
    writtenAtMs: maker.nowMs,
    suite: SUITE_FULL,
    nextSlotId: 1,
    slots: [],
  };
  try {
    const numbered = { masterKey, keyEpoch: FIRST_EPOCH };
    const own = await withSlot(maker, empty, numbered, options.key, options);
    const both = await withSlot(maker, own, numbered, { kind: 'recovery', secret: text });
    await options.onRecoveryKey(text);
    return { table: { ...both, generation: 1 }, seal: firstSeal(io, root, masterKey) };
  } finally {
    io.crypt.releaseSecret(masterKey);
    io.crypt.releaseSecret(text);
  }
}

/** The printed form of a new recovery key, a secret. */
export function freshRecoveryKey(io: Io): Uint8Array {
  const bytes = io.crypt.randomSecret(io.random, RECOVERY_KEY_BYTES);
  const text = encodeRecoveryKey(io.crypt, bytes);
  io.crypt.releaseSecret(bytes);
  return text;
}

/** What the root record has the wrapping key under, so that it is nowhere in ordinary memory: a secret. */
export function keyOfWrappingKey(crypt: Crypt, storeUuid: Uint8Array, masterKey: Uint8Array): Uint8Array {
  return crypt.derive(masterKey, storeUuid, INFO_WRAPPING);
}

/** The record of a root without sealed pages, with a fresh key for wrapping data keys. */
function firstSeal(io: Io, root: Superblock, masterKey: Uint8Array): RootSeal {
  const { crypt } = io;
  const seals = new PageSeals(crypt, io.random, root);
  const wrappingKey = crypt.randomSecret(io.random, KEY_BYTES);
  const outerKey = keyOfWrappingKey(crypt, root.storeUuid, masterKey);
  try {
    seals.unlock(rootSealingKey(crypt, root.storeUuid, masterKey), FIRST_EPOCH);
    const wrapped = crypt.wrapKey(outerKey, wrappingKey);
    return seals.sealRoot({ ...root, sequence: 1 }, { wrapped, pageKeys: new Map() }, 0);
  } finally {
    seals.close();
    for (const secret of [wrappingKey, outerKey]) crypt.releaseSecret(secret);
  }
}

export function isEncrypted(superblock: Superblock): boolean {
  return (superblock.incompatFeatures & INCOMPAT_ENCRYPTION) !== 0n;
}

/** Members that are here with their devices, and the paths of those that are not. */
export function placesOf(catalog: Catalog): { here: readonly SlotPlace[]; away: readonly string[] } {
  const here: SlotPlace[] = [];
  const away: string[] = [];
  for (const { device, path, state } of catalog.members) {
    if (state === 'detached') continue;
    if (device === null) away.push(path);
    else here.push({ slot: device.slot, path });
  }
  return { here, away };
}

/** The ring of a store: open with the key, locked without. Errors: E_AUTH, E_CORRUPT, E_USAGE, E_VERSION. */
export async function unlock(catalog: Catalog, key: StoreKey | undefined): Promise<KeyRing> {
  const { io, storeUuid, superblock } = catalog;
  if (!isEncrypted(superblock)) {
    if (key === undefined) return KeyRing.none(io.crypt, storeUuid);
    throw new StoreError('E_AUTH', 'a key was given and the store is not encrypted', {
      safe: 'nothing was read and nothing was changed',
      next: 'open it without a key if that is right; if it was made encrypted, somebody has changed its drives',
    });
  }
  const { table, behind } = await readKeySlots(io, placesOf(catalog).here, storeUuid);
  if (table.suite !== SUITE_FULL) {
    throw new StoreError(
      'E_VERSION',
      `the store is encrypted by suite ${table.suite}, which is unknown here`,
      {
        next: 'open it with a newer version of Ingot',
      },
    );
  }
  if (catalog.writable) await catchUp(catalog, table, behind);
  if (key === undefined) return KeyRing.locked(io.crypt, table);
  const { masterKey } = await openSlots(io.crypt, table, key, epochOf(catalog));
  const outerKey = keyOfWrappingKey(io.crypt, storeUuid, masterKey);
  try {
    catalog.seals.unlock(rootSealingKey(io.crypt, storeUuid, masterKey), epochOf(catalog));
    const wrappingKey = io.crypt.unwrapKey(outerKey, catalog.seals.openRoot(superblock).wrapped);
    if (wrappingKey === null) throw tampered('the key of data keys does not open', 'RootRecord');
    return KeyRing.open(io.crypt, table, wrappingKey);
  } finally {
    io.crypt.releaseSecret(outerKey);
    io.crypt.releaseSecret(masterKey);
  }
}

/** Number of the master key that seals the newest root. */
export function epochOf(catalog: Catalog): number {
  const { seal } = catalog.superblock;
  assert(seal !== null, 'the roots of encrypted stores are sealed');
  return seal.keyEpoch;
}

/** Gives the newest slots to members that were away when they changed, or cut short. It needs no key. */
async function catchUp(catalog: Catalog, table: KeySlotTable, behind: readonly SlotPlace[]): Promise<void> {
  const holders = new Set(catalog.online.map(({ slot }) => slot));
  for (const place of behind) {
    // A member that does not hold the newest root keeps the slots which open its own.
    if (!holders.has(place.slot)) continue;
    try {
      await writeKeySlots(catalog.io, [place], table);
    } catch (error) {
      // The others have them: opening goes on, and fsck names this member.
      if (!isStoreError(error)) throw error;
      const member = catalog.members.find(({ device }) => device?.slot === place.slot);
      if (member !== undefined) catalog.noteError(member.index, 'write');
    }
  }
}

function tableOf(catalog: Catalog): KeySlotTable {
  const { slots } = catalog.keys;
  if (slots !== null) return slots;
  throw new StoreError('E_UNSUPPORTED', 'the store is not encrypted: it has no key slots', {
    next: 'make a store with encryption and copy the versions there',
  });
}

export function listKeys(catalog: Catalog): readonly KeySlotInfo[] {
  return tableOf(catalog).slots.map(slotInfo);
}

export function slotInfo({ id, kind, label, createdAtMs }: KeySlot): KeySlotInfo {
  return { id, kind, label, createdAt: new Date(createdAtMs) };
}

/** Adds a slot; `opener` is a key that the store has. Errors: E_AUTH, E_RANGE, E_IO. */
export async function addKey(
  catalog: Catalog,
  opener: StoreKey,
  key: StoreKey,
  options: SlotOptions = {},
): Promise<KeyChange> {
  const { io } = catalog;
  const table = await newestTable(catalog);
  const maker = { crypt: io.crypt, random: io.random, nowMs: nowOf(io) };
  const { masterKey, keyEpoch } = await openSlots(io.crypt, table, opener, epochOf(catalog));
  try {
    const next = await withSlot(maker, table, { masterKey, keyEpoch }, key, options);
    return await putSlots(catalog, next, table.nextSlotId);
  } finally {
    io.crypt.releaseSecret(masterKey);
  }
}

/** Adds a fresh recovery key, whose printed form is given to `onText` and then wiped. */
export async function addRecoveryKey(
  catalog: Catalog,
  opener: StoreKey,
  onText: (text: Uint8Array) => void | Promise<void>,
  options: SlotOptions = {},
): Promise<KeyChange> {
  const { io } = catalog;
  const secret = freshRecoveryKey(io);
  try {
    await onText(secret);
    return await addKey(catalog, opener, { kind: 'recovery', secret }, options);
  } finally {
    io.crypt.releaseSecret(secret);
  }
}

/** Removes a slot. The master key stays: who kept it, or an old copy of the slots, can still open the store. */
export async function removeKey(catalog: Catalog, opener: StoreKey, id: number): Promise<KeyChange> {
  const { io } = catalog;
  const table = await newestTable(catalog);
  const { masterKey } = await openSlots(io.crypt, table, opener, epochOf(catalog));
  io.crypt.releaseSecret(masterKey);
  const maker = { crypt: io.crypt, random: io.random, nowMs: nowOf(io) };
  return putSlots(catalog, withoutSlot(maker, table, id), id);
}

export async function newestTable(catalog: Catalog): Promise<KeySlotTable> {
  tableOf(catalog);
  return (await readKeySlots(catalog.io, placesOf(catalog).here, catalog.storeUuid)).table;
}

/** Makes the slots durable on every member that is here. */
export async function putSlots(catalog: Catalog, table: KeySlotTable, id: number): Promise<KeyChange> {
  assert(catalog.writable, 'key slots are changed by the writer of the store alone');
  const { here, away } = placesOf(catalog);
  await writeKeySlots(catalog.io, here, table);
  catalog.keys.slotsChanged(table);
  return { id, notRewritten: away };
}
