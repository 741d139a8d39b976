// Somebody who can write to a drive, knows the format, has no key, and makes every checksum match.
//
// Invariants
//   1. Works on the image of one member alone, through clear parts: what an attacker has.
//   2. After each change all sums on the way to the superblock fit, and all its copies say the same.
//
// It judges nothing.

import assert from 'node:assert/strict';
import {
  LARGE_VALUE_BYTES,
  PAGE_HEADER_BYTES,
  RING_COPIES,
  RING_SLOTS,
  SLOT_BYTES,
  type Superblock,
  crc64,
  decodeSlot,
  encodeSuperblock,
  slotOf,
  slotOffset,
} from '../../format/index.js';
import { PAGE_HEADER_SEALED_OFFSET } from '../../format/layout.gen.js';
import type { WorldImage } from '../sim/sim_world.js';

const BLOCK = 4096;
const POINTERS_AT = PAGE_HEADER_BYTES + 16;
const CLEAR_BYTES = 48;
assert.equal(LARGE_VALUE_BYTES, 112);

/** What of a page pointer an attacker can read and write. */
export interface ClearPointer {
  readonly storedBytes: number;
  readonly level: number;
  /** Byte offsets of the copies. */
  readonly places: readonly number[];
}

function clearPointerAt(bytes: Uint8Array, at: number): ClearPointer {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, CLEAR_BYTES);
  const places = Array.from(
    { length: view.getUint8(20) },
    (_, copy) =>
      (view.getUint32(24 + 8 * copy, true) + view.getUint16(28 + 8 * copy, true) * 2 ** 32) * BLOCK,
  );
  return { storedBytes: view.getUint32(16, true), level: view.getUint8(21), places };
}

export class ImageAttacker {
  readonly #path: string;
  readonly #image: WorldImage;
  readonly #blocks: Map<number, Uint8Array>;
  superblock: Superblock;

  constructor(image: WorldImage, path: string) {
    this.#path = path;
    this.#image = image;
    const disk = image.members.get(path);
    assert.ok(disk !== undefined);
    this.#blocks = new Map(disk.blocks);
    this.superblock = this.#newest();
  }

  /** The world's image with what was changed. */
  image(): WorldImage {
    const disk = this.#image.members.get(this.#path);
    assert.ok(disk !== undefined);
    const members = new Map(this.#image.members);
    members.set(this.#path, { ...disk, blocks: new Map(this.#blocks) });
    return { members };
  }

  read(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length; at += BLOCK) {
      const block = this.#blocks.get((offset + at) / BLOCK);
      if (block !== undefined) bytes.set(block, at);
    }
    return bytes;
  }

  write(offset: number, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += BLOCK)
      this.#blocks.set((offset + at) / BLOCK, bytes.slice(at, at + BLOCK));
  }

  #newest(): Superblock {
    let newest: Superblock | null = null;
    for (let slot = 0; slot < RING_SLOTS; slot += 1) {
      const result = decodeSlot(
        this.read(
          slotOffset(0, slot + RING_SLOTS, this.#image.members.get(this.#path)?.sizeBytes ?? 0),
          SLOT_BYTES,
        ),
        { copy: 0, slot },
      );
      if (result.kind === 'valid' && result.superblock.sequence > (newest?.sequence ?? 0))
        newest = result.superblock;
    }
    assert.ok(newest !== null);
    return newest;
  }

  /** Puts another superblock in place of the newest one, on all four rings. */
  writeSuperblock(superblock: Superblock): void {
    const formattedBytes = superblock.members[0]?.formattedBytes ?? 0;
    for (let copy = 0; copy < RING_COPIES; copy += 1)
      this.write(
        slotOffset(copy, superblock.sequence, formattedBytes),
        encodeSuperblock(superblock, 0, copy),
      );
    assert.equal(slotOf(superblock.sequence), superblock.sequence % RING_SLOTS);
    this.superblock = superblock;
  }

  rootOf(tree: number): ClearPointer {
    const root = this.superblock.treeRoots[tree];
    assert.ok(root != null);
    const places = root.copies.map(({ sector }) => sector * BLOCK);
    return { storedBytes: root.storedBytes, level: root.level, places };
  }

  /** The page at the end of `path`, child numbers (of a leaf: large values; of a value index: pieces) from the root. */
  page(tree: number, path: readonly number[]): { pointer: ClearPointer; bytes: Uint8Array } {
    let pointer = this.rootOf(tree);
    let bytes = this.read(pointer.places[0] ?? 0, pointer.storedBytes);
    for (const index of path) {
      pointer = clearPointerAt(bytes, pointerPlace(bytes, index));
      bytes = this.read(pointer.places[0] ?? 0, pointer.storedBytes);
    }
    return { pointer, bytes };
  }

  /** Changes the page at the end of `path` and all sums above it. */
  change(tree: number, path: readonly number[], change: (bytes: Uint8Array) => void): void {
    const { pointer, bytes } = this.page(tree, path);
    change(bytes);
    for (const place of pointer.places) this.write(place, bytes);
    const sum = crc64(bytes);
    const last = path.at(-1);
    if (last === undefined) {
      const treeRoots = this.superblock.treeRoots.map((root, id) =>
        id === tree && root !== null ? { ...root, sum } : root,
      );
      this.writeSuperblock({ ...this.superblock, treeRoots });
      return;
    }
    this.change(tree, path.slice(0, -1), (parent) => {
      new DataView(parent.buffer).setBigUint64(pointerPlace(parent, last), sum, true);
    });
  }
}

/** Where pointer `index` of a stored page is. */
export function pointerPlace(bytes: Uint8Array, index: number): number {
  const isSealed =
    new DataView(bytes.buffer, bytes.byteOffset).getUint32(PAGE_HEADER_SEALED_OFFSET, true) > 0;
  return isSealed ? POINTERS_AT + CLEAR_BYTES * index : PAGE_HEADER_BYTES + 96 * index;
}

/** How many clear pointers a stored leaf or branch has. */
export function clearPointers(bytes: Uint8Array): number {
  const sealedOffset = new DataView(bytes.buffer, bytes.byteOffset).getUint32(
    PAGE_HEADER_SEALED_OFFSET,
    true,
  );
  return (sealedOffset - POINTERS_AT) / CLEAR_BYTES;
}
