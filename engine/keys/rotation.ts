// Rotating keys: another secret for a key slot, or another master key under all of them.
//
//   slots of both master keys -> a root that the new one seals, older roots to be erased -> erasure.ts: old slots and
//   old roots go
//
// Invariants
//   1. At every cut the slots on each member open the root on it: those of the new master key are durable before its
//      root, those of the old one go after. What a cut leaves is put right by the next writer, without a key.
//   2. A new master key is under the keys that were given, and a fresh recovery key; all other slots go, and are named.
//   3. Data keys and pages stay as they are: a former master key opens no root record that is left, so no page.
//
// Who knew the former master key and kept an image of the drives can read that image for ever.

import { StoreError } from '../../format/errors.js';
import { KEY_SLOTS_MAX, type KeySlotTable } from '../../format/index.js';

import type { Catalog } from '../contract.js';
import { type OldKeyHolder, beginErasure, finishErasure } from './erasure.js';
import type { StoreKey } from './key_provider.js';
import { rootSealingKey } from './page_seals.js';
import { keyAsSlotMeans } from './token_providers.js';
import { MASTER_KEY_BYTES, type SlotOptions, openSlots, withSlot } from './slots.js';
import {
  type KeyChange,
  type KeySlotInfo,
  epochOf,
  freshRecoveryKey,
  keyOfWrappingKey,
  newestTable,
  putSlots,
  slotInfo,
  slotMaker,
} from './store_keys.js';

export interface RotatedKeys {
  /** Number of the master key in use now. */
  readonly keyEpoch: number;
  /** Slots of the former master key whose secret was not given: they are gone. */
  readonly dropped: readonly KeySlotInfo[];
  /** Members on which the former keys may still stand. */
  readonly notErased: readonly OldKeyHolder[];
}

/** Another secret in the place of slot `id`, in one change. Errors: E_AUTH, E_NOT_FOUND, E_USAGE, E_IO. */
export async function rotateSlot(
  catalog: Catalog,
  opener: StoreKey,
  id: number,
  key: StoreKey,
  options: SlotOptions = {},
): Promise<KeyChange> {
  const { crypt } = catalog.io;
  const table = await newestTable(catalog);
  const slots = table.slots.filter((slot) => slot.id !== id);
  if (slots.length === table.slots.length)
    throw new StoreError('E_NOT_FOUND', `there is no key slot ${id}`, { next: 'ingot key list' });
  const { masterKey, keyEpoch } = await openSlots(crypt, table, opener, epochOf(catalog));
  try {
    const maker = slotMaker(catalog.io);
    const next = await withSlot(maker, { ...table, slots }, { masterKey, keyEpoch }, key, options);
    return await putSlots(catalog, next, table.nextSlotId);
  } finally {
    crypt.releaseSecret(masterKey);
  }
}

export interface RotateOptions {
  /** Keys of the store, beside the opener, that are to open it from now on. */
  readonly keep?: readonly StoreKey[];
  /** Is given the printed form of the new recovery key before anything is written. */
  readonly onRecoveryKey: (text: Uint8Array) => void | Promise<void>;
}

/** Another master key. Errors: E_AUTH (a key is not one of the store's), E_RANGE, E_IO, E_POISONED. */
export async function rotateMaster(
  catalog: Catalog,
  opener: StoreKey,
  options: RotateOptions,
): Promise<RotatedKeys> {
  const { io, storeUuid, seals } = catalog;
  const { crypt } = io;
  // What an earlier rotation left is put right first.
  await finishErasure(catalog);
  const table = await newestTable(catalog);
  const keyEpoch = epochOf(catalog) + 1;
  const masterKey = crypt.randomSecret(io.random, MASTER_KEY_BYTES);
  const outerKey = keyOfWrappingKey(crypt, storeUuid, masterKey);
  try {
    const wrappingKey = await unwrapped(catalog, table, opener);
    const wrapped = crypt.wrapKey(outerKey, wrappingKey);
    crypt.releaseSecret(wrappingKey);
    const { both, dropped } = await withNewSlots(catalog, table, { masterKey, keyEpoch }, opener, options);
    await putSlots(catalog, both, both.nextSlotId - 1);
    const next = { sealingKey: rootSealingKey(crypt, storeUuid, masterKey), keyEpoch, wrapped };
    try {
      await catalog.commit(async (change) => {
        beginErasure(change, catalog, next);
      });
    } catch (error) {
      // Where the root may stand or not, the handle is at its end; the next open finds out.
      if (seals.keyEpoch !== keyEpoch) crypt.releaseSecret(next.sealingKey);
      throw error;
    }
    const notErased = await finishErasure(catalog);
    return { keyEpoch: seals.keyEpoch, dropped, notErased };
  } finally {
    for (const secret of [masterKey, outerKey]) crypt.releaseSecret(secret);
  }
}

/** The wrapping key, by a key of the store: a secret. Errors: E_AUTH. */
async function unwrapped(catalog: Catalog, table: KeySlotTable, opener: StoreKey): Promise<Uint8Array> {
  const { io, storeUuid, seals, superblock } = catalog;
  const { masterKey } = await openSlots(io.crypt, table, opener, epochOf(catalog));
  const outerKey = keyOfWrappingKey(io.crypt, storeUuid, masterKey);
  io.crypt.releaseSecret(masterKey);
  const wrappingKey = io.crypt.unwrapKey(outerKey, seals.openRoot(superblock).wrapped);
  io.crypt.releaseSecret(outerKey);
  if (wrappingKey !== null) return wrappingKey;
  throw new StoreError('E_AUTH', 'the key of data keys does not open', {
    where: { structure: 'RootRecord' },
  });
}

/** The old slots and the new ones, each new one under the secret, and with the label, that an old one had. */
async function withNewSlots(
  catalog: Catalog,
  table: KeySlotTable,
  numbered: { readonly masterKey: Uint8Array; readonly keyEpoch: number },
  opener: StoreKey,
  { keep = [], onRecoveryKey }: RotateOptions,
): Promise<{ both: KeySlotTable; dropped: readonly KeySlotInfo[] }> {
  const { crypt } = catalog.io;
  const maker = slotMaker(catalog.io);
  const keys = [opener, ...keep];
  if (table.slots.length + keys.length + 1 > KEY_SLOTS_MAX)
    throw new StoreError('E_RANGE', `there is no room for ${keys.length + 1} new slots beside the old ones`, {
      next: 'ingot key rm some',
    });
  const kept = new Set<number>();
  let both = table;
  for (const key of keys) {
    const { masterKey, slotId } = await openSlots(crypt, table, key, epochOf(catalog));
    crypt.releaseSecret(masterKey);
    const old = table.slots.find((slot) => slot.id === slotId);
    if (kept.has(slotId)) continue;
    kept.add(slotId);
    const scrypt = old?.scrypt ?? null;
    const slotOptions = { label: old?.label ?? '', ...(scrypt === null ? {} : { scrypt }) };
    const meant = keyAsSlotMeans(key, old?.token ?? null);
    both = await withSlot(maker, both, numbered, meant, slotOptions);
  }
  const text = freshRecoveryKey(catalog.io);
  try {
    both = await withSlot(maker, both, numbered, { kind: 'recovery', secret: text });
    await onRecoveryKey(text);
  } finally {
    crypt.releaseSecret(text);
  }
  const dropped = table.slots.filter(({ id }) => !kept.has(id)).map(slotInfo);
  return { both: { ...both, generation: table.generation + 1 }, dropped };
}
