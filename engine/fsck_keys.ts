// fsck of the key tree: every data key is there as often as extents and versions need it. Key slots need no key.
//
// Invariants
//   1. Uses are recomputed from key ids of extents and of versions; without a key of the store only that extents are
//      sealed, as the store is, can be told.
//   2. Ids are checked in windows of ID_WINDOW, as in fsck_records.ts, so that memory does not grow with the store.
//   3. In a store without encryption nothing names a key; in an encrypted one every extent does.
//   4. Key slots are compared between members and between their two halves.

import { decodeExtent, extentTreeRecordKind } from '../format/extent_record.js';
import {
  TREE_EXTENTS,
  TREE_KEYS,
  TREE_VERSIONS,
  dataKeyKey,
  decodeDataKey,
  decodeVersion,
  decodeVersionKey,
} from '../format/index.js';
import type { FsckContext } from './fsck_context.js';
import { ITEMS_PER_STEP } from './fsck_pages.js';
import { readKeySlots } from './keys/slots_io.js';
import { placesOf } from './keys/store_keys.js';

/** Ids of one window: an array of 32-bit numbers of 16 MiB. */
const ID_WINDOW = 4 * 1024 * 1024;
const EMPTY = new Uint8Array(0);

function complain(context: FsckContext, message: string): void {
  context.report({ severity: 'error', code: 'E_FORMAT', message, where: { structure: 'DataKey' } });
}

/** Every member that is here has the newest key slots, twice. */
async function checkSlots(context: FsckContext): Promise<void> {
  const { catalog } = context;
  try {
    const { behind } = await readKeySlots(catalog.io, placesOf(catalog).here, catalog.storeUuid);
    for (const { path } of behind) {
      context.report({
        severity: 'error',
        code: 'E_CORRUPT',
        message: `the key slots of ${path} are damaged or older than those of other members`,
        where: { member: path, structure: 'KeySlots' },
        next: 'open the store for writing: it gives them the newest ones',
      });
    }
  } catch (error) {
    context.reportError(error, 'fatal', 'unrepairable');
  }
}

export async function* checkKeys(context: FsckContext): AsyncGenerator<void, void, undefined> {
  const { nextId } = context.root;
  const { isEncrypted, isLocked } = context.catalog.keys;
  if (isEncrypted) await checkSlots(context);
  for (let first = 0; first < nextId; first += ID_WINDOW) {
    const uses = new Uint32Array(Math.min(ID_WINDOW, nextId - first));
    const use = (keyId: number): void => {
      if (keyId >= first && keyId < first + uses.length) uses[keyId - first] = (uses[keyId - first] ?? 0) + 1;
      else if (keyId >= nextId && first === 0)
        complain(context, `data key ${keyId} is named and was never made`);
    };
    let step = 0;
    for await (const { value } of context.tree(TREE_EXTENTS).range(EMPTY, null)) {
      if (extentTreeRecordKind(value) === 'extent') {
        const keyId = decodeExtent(value).sealing?.keyId ?? 0;
        if (keyId > 0) use(keyId);
        if (keyId > 0 !== isEncrypted && first === 0)
          complain(context, `an extent is ${isEncrypted ? 'not sealed' : 'sealed'}, unlike its store`);
      }
      step += 1;
      if (step % ITEMS_PER_STEP === 0) yield;
    }
    if (isLocked) continue;
    for await (const { key, value } of context.tree(TREE_VERSIONS).range(EMPTY, null)) {
      if (decodeVersionKey(key).part !== 0) continue;
      const { keyId, id } = decodeVersion(value);
      if (keyId > 0) use(keyId);
      if (keyId > 0 && !isEncrypted && first === 0)
        complain(context, `version ${id} names a data key, unlike its store`);
      step += 1;
      if (step % ITEMS_PER_STEP === 0) yield;
    }
    yield* compare(context, first, uses);
  }
}

async function* compare(
  context: FsckContext,
  first: number,
  uses: Uint32Array,
): AsyncGenerator<void, void, undefined> {
  const from = dataKeyKey(Math.max(first, 1));
  for await (const { key, value } of context.tree(TREE_KEYS).range(from, dataKeyKey(first + uses.length))) {
    const keyId = Number(new DataView(key.buffer, key.byteOffset).getBigUint64(0));
    const found = uses[keyId - first] ?? 0;
    const { useCount } = decodeDataKey(value);
    if (useCount !== found) complain(context, `data key ${keyId} counts ${useCount} uses and has ${found}`);
    uses[keyId - first] = 0;
  }
  for (const [index, count] of uses.entries())
    if (count > 0) complain(context, `data key ${first + index} has ${count} uses and is not there`);
  yield;
}
