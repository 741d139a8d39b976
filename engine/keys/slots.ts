// Making and opening key slots: the master key of a store under what its users hold (spec/encryption.md section 6).
//
// Invariants
//   1. A slot has a salt and a nonce of its own, drawn when it is made; its tag covers the store, the suite and all of
//      the slot, so that none can be moved, weakened or taken from another store.
//   2. Opening says which slot opened, or only that none did: not how near the secret was, nor which slot it meant.
//   3. Every key derived here is released before the call settles; the master key is the caller's to release.

import { StoreError, assert } from '../../format/errors.js';
import {
  KEY_SLOTS_MAX,
  type KeySlot,
  type KeySlotTable,
  isAllowedCost,
  keySlotAad,
} from '../../format/index.js';
import type { Crypt, ScryptCost } from '../io/crypt_port.js';
import type { Random } from '../io/port.js';
import type { StoreKey } from './key_provider.js';
import { DEFAULT_SCRYPT, providerOf } from './providers.js';

export const MASTER_KEY_BYTES = 32;
const SALT_BYTES = 32;
const NONCE_BYTES = 12;
const WRAPPED_BYTES = 48;

export interface NumberedKey {
  readonly masterKey: Uint8Array;
  /** 1 for the one that the store was made with. */
  readonly keyEpoch: number;
}

export interface SlotOptions {
  readonly label?: string;
  /** Passphrases: what each guess costs. */
  readonly scrypt?: ScryptCost;
}

interface SlotMaker {
  readonly crypt: Crypt;
  readonly random: Random;
  readonly nowMs: number;
}

/** The table with one slot more, of the next generation. Errors: E_USAGE, E_RANGE, E_UNSUPPORTED. */
export async function withSlot(
  maker: SlotMaker,
  table: KeySlotTable,
  { masterKey, keyEpoch }: NumberedKey,
  key: StoreKey,
  options: SlotOptions = {},
): Promise<KeySlotTable> {
  assert(masterKey.length === MASTER_KEY_BYTES, 'a master key has 32 bytes');
  if (table.slots.length >= KEY_SLOTS_MAX)
    throw new StoreError('E_RANGE', `a store has at most ${KEY_SLOTS_MAX} key slots`, {
      next: 'ingot key rm one',
    });
  const cost = options.scrypt ?? DEFAULT_SCRYPT;
  if (!isAllowedCost(cost))
    throw new StoreError('E_RANGE', `scrypt cannot be run with N = 2^${cost.logN}, r ${cost.r}, p ${cost.p}`);
  const draft: KeySlot = {
    kind: key.kind,
    id: table.nextSlotId,
    createdAtMs: maker.nowMs,
    scrypt: key.kind === 'passphrase' ? cost : null,
    salt: maker.random.bytes(SALT_BYTES).slice(),
    nonce: maker.random.bytes(NONCE_BYTES).slice(),
    wrapped: new Uint8Array(WRAPPED_BYTES),
    label: options.label ?? '',
    token: null,
    keyEpoch,
  };
  const { wrapping, token } = await providerOf(key).enrol(maker.crypt, key, draft, maker.random);
  try {
    const slot = { ...draft, token };
    const aad = keySlotAad(table.storeUuid, table.suite, slot);
    const wrapped = maker.crypt.sealKey(wrapping, draft.nonce, aad, masterKey);
    assert(wrapped.length === WRAPPED_BYTES, 'a wrapped key has 48 bytes');
    return next(maker, table, [...table.slots, { ...slot, wrapped }], table.nextSlotId + 1);
  } finally {
    maker.crypt.releaseSecret(wrapping);
  }
}

/** The table without a slot, of the next generation. E_NOT_FOUND; E_CONFLICT when it is the last one. */
export function withoutSlot(maker: SlotMaker, table: KeySlotTable, id: number): KeySlotTable {
  const left = table.slots.filter((slot) => slot.id !== id);
  if (left.length === table.slots.length) throw new StoreError('E_NOT_FOUND', `there is no key slot ${id}`);
  if (left.length === 0) {
    throw new StoreError('E_CONFLICT', `key slot ${id} is the last one: without it nothing opens the store`, {
      safe: 'nothing was changed',
      next: 'ingot key add another one first',
    });
  }
  return next(maker, table, left, table.nextSlotId);
}

function next(
  maker: SlotMaker,
  table: KeySlotTable,
  slots: readonly KeySlot[],
  nextSlotId: number,
): KeySlotTable {
  return { ...table, slots, nextSlotId, generation: table.generation + 1, writtenAtMs: maker.nowMs };
}

/** Master key `keyEpoch`, a secret, and the slot that gave it. E_AUTH when none opens; E_USAGE, E_UNSUPPORTED. */
export async function openSlots(
  crypt: Crypt,
  table: KeySlotTable,
  key: StoreKey,
  keyEpoch: number,
): Promise<NumberedKey & { slotId: number }> {
  const provider = providerOf(key);
  for (const slot of table.slots) {
    if (slot.kind !== key.kind || slot.keyEpoch !== keyEpoch) continue;
    const wrapping = await provider.wrappingKey(crypt, key, slot);
    if (wrapping === null) continue;
    const aad = keySlotAad(table.storeUuid, table.suite, slot);
    const masterKey = crypt.openKey(wrapping, slot.nonce, aad, slot.wrapped);
    crypt.releaseSecret(wrapping);
    // A wrong secret and a changed slot look the same, and are to look the same.
    if (masterKey !== null) return { masterKey, keyEpoch, slotId: slot.id };
  }
  throw new StoreError('E_AUTH', `no key slot opens with this ${key.kind}`, {
    safe: 'nothing was read and nothing was changed',
    next: 'try another key of the store, or its recovery key; ingot key list names the slots',
  });
}
