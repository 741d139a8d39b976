// Sealing and opening of catalog pages and of the root record (spec/encryption.md section 5).
//
//   master key -> key of the root record -> keys of root pages -> a page's key stands in its parent, sealed with it
//
// Invariants
//   1. Every sealing of a page draws a fresh key, which seals that one message; so no nonce is ever used twice,
//      whatever crashes, is made again or comes back from an old image.
//   2. What opens is exactly what was sealed under that key: a page that opens is the one that its parent meant.
//   3. Without a key pages show their clear part only; nothing of a sealed tree can be looked up or changed: E_AUTH.
//   4. Maintenance carries a root record on unchanged; it is made anew only by who has the key.
//
// It reads and writes no device and decides nothing about trees.

import { StoreError, assert } from '../../format/errors.js';
import type { FormatContext, PagePointer, RootSeal, Superblock } from '../../format/index.js';
import {
  INCOMPAT_ENCRYPTION,
  PAGE_HEADER_BYTES,
  PAGE_KEY_BYTES,
  PAGE_TAG_BYTES,
  PageBase,
  ROOT_SALT_BYTES,
  SEALED_TREES,
  WRAPPED_DATA_KEY_BYTES,
  encodeUtf8,
  joinPage,
  pageAad,
  readU64OrInfinity,
  sealedParts,
  splitPage,
  writeU32,
  writeU64,
} from '../../format/index.js';
import * as layout from '../../format/layout.gen.js';
import type { PageContext } from '../../format/page.js';
import type { Crypt } from '../io/crypt_port.js';
import type { Random } from '../io/port.js';

const NONCE_BYTES = 12;
/** Every key here seals one message, but that of a large value, whose pieces have their numbers. */
const ZERO_NONCE = new Uint8Array(NONCE_BYTES);
const INFO_ROOT = encodeUtf8('ingot v1 root');
const INFO_RECORD = encodeUtf8('ingot v1 root record');
const PIECE_AAD_BYTES = 12;
const ROOT_KEY_PLACES: ReadonlyMap<number, number> = new Map([
  [0, layout.ROOT_RECORD_RUNS_KEY],
  [1, layout.ROOT_RECORD_VERSIONS_KEY],
  [5, layout.ROOT_RECORD_KEYS_KEY],
]);

/** What a root record holds. */
export interface RootKeys {
  /** The key that wraps data keys, itself wrapped (store_keys.ts): 40 bytes. */
  readonly wrapped: Uint8Array;
  /** Key of each sealed tree's root page by tree id; absent: the tree is empty. */
  readonly pageKeys: ReadonlyMap<number, Uint8Array>;
}

/** Another master key, of the next epoch, on its way into a root (rotation.ts). */
export interface NextMaster {
  /** A secret; the seals' own once the root stands. */
  readonly sealingKey: Uint8Array;
  readonly keyEpoch: number;
  /** The wrapping key under the new master key. */
  readonly wrapped: Uint8Array;
}

/** The parts of a superblock that a root record is bound to. */
export type RootFacts = Pick<Superblock, 'sequence' | 'nextId' | 'nextVersionId' | 'treeItemCounts'>;

export interface SealedPieceShape {
  readonly index: number;
  readonly rawBytes: number;
  readonly codec: number;
}

/** The key that seals root records, from a master key: secrets both. */
export function rootSealingKey(crypt: Crypt, storeUuid: Uint8Array, masterKey: Uint8Array): Uint8Array {
  return crypt.derive(masterKey, storeUuid, INFO_ROOT);
}

export class PageSeals {
  readonly isEncrypted: boolean;
  readonly #crypt: Crypt;
  readonly #random: Random;
  readonly #storeUuid: Uint8Array;
  #sealingKey: Uint8Array | null = null;
  #keyEpoch = 0;
  readonly #opened = new WeakMap<RootSeal, RootKeys>();

  constructor(crypt: Crypt, random: Random, superblock: Pick<Superblock, 'storeUuid' | 'incompatFeatures'>) {
    this.#crypt = crypt;
    this.#random = random;
    this.#storeUuid = superblock.storeUuid;
    this.isEncrypted = (superblock.incompatFeatures & INCOMPAT_ENCRYPTION) !== 0n;
  }

  isSealed(treeId: number): boolean {
    return this.isEncrypted && SEALED_TREES.includes(treeId);
  }
  /** Encrypted, and nobody has given the key. */
  get isLocked(): boolean {
    return this.isEncrypted && this.#keyEpoch === 0;
  }
  /** Which master key is in use; 0 while locked. */
  get keyEpoch(): number {
    return this.#keyEpoch;
  }

  /** From now on roots of this epoch open. The key is a secret, and theirs from now on. */
  unlock(sealingKey: Uint8Array, keyEpoch: number): void {
    assert(this.isEncrypted && keyEpoch >= 1, 'only an encrypted store has keys');
    this.close();
    this.#sealingKey = sealingKey;
    this.#keyEpoch = keyEpoch;
  }

  close(): void {
    if (this.#sealingKey !== null) this.#crypt.releaseSecret(this.#sealingKey);
    this.#sealingKey = null;
  }

  // ---- roots ---------------------------------------------------------------------------------

  /** The root of a tree as it opens; without a key, or of a tree that is not sealed, as it stands. Errors: E_AUTH. */
  rootOf(superblock: Superblock, treeId: number): PagePointer | null {
    const pointer = superblock.treeRoots[treeId] ?? null;
    if (pointer === null || this.isLocked || !this.isSealed(treeId)) return pointer;
    const key = this.openRoot(superblock).pageKeys.get(treeId);
    if (key === undefined) throw tamperedRoot(`has no key for tree ${treeId}`);
    return { ...pointer, key };
  }

  /** The record of a root. Errors: E_AUTH. */
  openRoot(superblock: Superblock): RootKeys {
    const { seal } = superblock;
    if (seal === null) throw tamperedRoot('is not sealed, unlike its store');
    const known = this.#opened.get(seal);
    if (known !== undefined) return known;
    if (seal.keyEpoch !== this.#keyEpoch) {
      throw new StoreError(
        'E_AUTH',
        `the root is sealed by master key ${seal.keyEpoch}, not ${this.#keyEpoch}`,
        {
          safe: 'everything, still sealed',
          next: 'the keys were rotated: open the store again',
        },
      );
    }
    const sealingKey = this.#sealingKey;
    assert(sealingKey !== null, 'roots are opened with a key');
    const plain = this.#withRecordKey(sealingKey, seal.salt, (key) =>
      this.#crypt.open(key, ZERO_NONCE, this.#rootAad(seal, superblock), seal.record),
    );
    if (plain === null) throw tamperedRoot('is not one that was sealed');
    const nextId = readU64OrInfinity(plain, layout.ROOT_RECORD_NEXT_ID);
    if (superblock.nextId < nextId) throw tamperedRoot('gives ids anew');
    const at = (from: number): Uint8Array => plain.slice(from, from + PAGE_KEY_BYTES);
    const pageKeys = new Map<number, Uint8Array>();
    for (const [tree, place] of ROOT_KEY_PLACES)
      if ((superblock.treeItemCounts[tree] ?? 0) > 0) pageKeys.set(tree, at(place));
    const wrappedAt = layout.ROOT_RECORD_WRAPPED_KEY;
    const wrapped = plain.slice(wrappedAt, wrappedAt + WRAPPED_DATA_KEY_BYTES);
    const keys = { wrapped, pageKeys };
    plain.fill(0);
    this.#opened.set(seal, keys);
    return keys;
  }

  /** Seals what a new root holds. */
  sealRoot(facts: RootFacts, keys: RootKeys, eraseBelow: number, next: NextMaster | null = null): RootSeal {
    const salt = this.#random.bytes(ROOT_SALT_BYTES).slice();
    const plain = new Uint8Array(layout.ROOT_RECORD_BYTES);
    plain.set(keys.wrapped, layout.ROOT_RECORD_WRAPPED_KEY);
    for (const [tree, place] of ROOT_KEY_PLACES) {
      const key = keys.pageKeys.get(tree);
      assert(
        (key !== undefined) === (facts.treeItemCounts[tree] ?? 0) > 0,
        'a tree that is not empty has a root key',
      );
      if (key !== undefined) plain.set(key, place);
    }
    writeU64(plain, layout.ROOT_RECORD_NEXT_ID, facts.nextId);
    const { sequence } = facts;
    const sealingKey = next?.sealingKey ?? this.#sealingKey;
    assert(sealingKey !== null, 'roots are sealed with a key');
    const head = { keyEpoch: next?.keyEpoch ?? this.#keyEpoch, sequence, eraseBelow, salt };
    const aad = this.#rootAad(head, facts);
    const record = this.#withRecordKey(sealingKey, salt, (key) =>
      this.#crypt.seal(key, ZERO_NONCE, aad, plain),
    );
    plain.fill(0);
    const seal = { ...head, record };
    this.#opened.set(seal, keys);
    return seal;
  }

  #withRecordKey<T>(sealingKey: Uint8Array, salt: Uint8Array, use: (key: Uint8Array) => T): T {
    const key = this.#crypt.derive(sealingKey, salt, INFO_RECORD);
    try {
      return use(key);
    } finally {
      this.#crypt.releaseSecret(key);
    }
  }

  /** Store, epoch, root that made it, next version id, and the items of the sealed trees. */
  #rootAad(
    seal: Pick<RootSeal, 'keyEpoch' | 'sequence'>,
    facts: Omit<RootFacts, 'sequence' | 'nextId'>,
  ): Uint8Array {
    const numbers = [seal.keyEpoch, seal.sequence, facts.nextVersionId];
    for (const tree of SEALED_TREES) numbers.push(facts.treeItemCounts[tree] ?? 0);
    const aad = new Uint8Array(this.#storeUuid.length + numbers.length * 8);
    aad.set(this.#storeUuid);
    for (const [index, value] of numbers.entries()) writeU64(aad, this.#storeUuid.length + index * 8, value);
    return aad;
  }

  // ---- pages ---------------------------------------------------------------------------------

  /** The stored form of a plain leaf or branch, under a key of its own. */
  sealPage(page: PageBase): { readonly bytes: Uint8Array; readonly key: Uint8Array } {
    const { bytes, sealed, tag } = splitPage(page);
    const key = this.#random.bytes(PAGE_KEY_BYTES).slice();
    const message = this.#crypt.seal(key, ZERO_NONCE, pageAad(bytes), sealed);
    sealed.set(message.subarray(0, sealed.length));
    tag.set(message.subarray(sealed.length));
    return { bytes, key };
  }

  /** The plain form of a page that `pointer`, with its key, names. Errors: E_AUTH, E_FORMAT. */
  openPage(bytes: Uint8Array, pointer: PagePointer, context: PageContext): Uint8Array {
    const { key } = pointer;
    assert(key !== undefined, 'a page is opened with its key');
    const parts = sealedParts(bytes, pointer, context);
    const message = new Uint8Array(parts.sealed.length + PAGE_TAG_BYTES);
    message.set(parts.sealed);
    message.set(parts.tag, parts.sealed.length);
    const opened = this.#crypt.open(key, ZERO_NONCE, pageAad(bytes), message);
    if (opened === null) throw tamperedPage(context.where);
    return joinPage(parts, opened, context);
  }

  /** A key for the pieces of one large value. */
  valueKey(): Uint8Array {
    return this.#random.bytes(PAGE_KEY_BYTES).slice();
  }

  /** Encrypts the body of a piece's page in place; the tag goes into its entry. */
  sealPiece(key: Uint8Array, page: Uint8Array, shape: SealedPieceShape): Uint8Array {
    writeU32(page, layout.PAGE_HEADER_SEALED_OFFSET, PAGE_HEADER_BYTES);
    const body = page.subarray(PAGE_HEADER_BYTES, new PageBase(page).usedBytes);
    const message = this.#crypt.seal(key, pieceNonce(shape.index), pieceAad(page, shape), body);
    body.set(message.subarray(0, body.length));
    return message.slice(body.length);
  }

  /** The stored bytes of a piece (which is still packed as its codec says). Errors: E_AUTH. */
  openPiece(
    key: Uint8Array,
    page: PageBase,
    tag: Uint8Array,
    shape: SealedPieceShape,
    where: FormatContext | undefined,
  ): Uint8Array {
    const { bytes, usedBytes } = page;
    const message = new Uint8Array(usedBytes - PAGE_HEADER_BYTES + PAGE_TAG_BYTES);
    message.set(bytes.subarray(PAGE_HEADER_BYTES, usedBytes));
    message.set(tag, usedBytes - PAGE_HEADER_BYTES);
    const opened = this.#crypt.open(key, pieceNonce(shape.index), pieceAad(bytes, shape), message);
    if (opened === null) throw tamperedPage(where);
    return opened;
  }
}

function pieceNonce(index: number): Uint8Array {
  const nonce = new Uint8Array(NONCE_BYTES);
  writeU32(nonce, 8, index);
  return nonce;
}

function pieceAad(page: Uint8Array, { index, rawBytes, codec }: SealedPieceShape): Uint8Array {
  const aad = new Uint8Array(PAGE_HEADER_BYTES + PIECE_AAD_BYTES);
  aad.set(pageAad(page));
  writeU32(aad, PAGE_HEADER_BYTES, index);
  writeU32(aad, PAGE_HEADER_BYTES + 4, rawBytes);
  writeU32(aad, PAGE_HEADER_BYTES + 8, codec);
  return aad;
}

const TOUCHED = {
  safe: 'nothing of it was returned; every sum on the way was right, so this is no plain bit rot',
  next: 'treat the drives as touched by somebody else; restore from a copy that you trust',
};

function tamperedPage(where: FormatContext | undefined): StoreError {
  const what = where?.object ?? 'catalog';
  return new StoreError('E_AUTH', `a page of the ${what} is not the one that was sealed`, {
    where: { ...where, structure: 'Page' },
    ...TOUCHED,
  });
}

function tamperedRoot(what: string): StoreError {
  return new StoreError('E_AUTH', `the root ${what}`, { where: { structure: 'Superblock' }, ...TOUCHED });
}
