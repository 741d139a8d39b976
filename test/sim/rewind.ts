// Takes the newest roots away and looks at the one before: nothing that the last roots reach may be overwritten
// (commit.md C2, C8). A crash alone never goes back past an acknowledged root, so only this shows it.
//
// It changes a copy of the image and never the image.

import { SUPERBLOCK_SEQUENCE } from '../../format/layout.gen.js';
import { RING_COPIES, SLOT_BYTES, slotOffset, SUPERBLOCK_MAGIC_TEXT } from '../../format/index.js';
import { SimWorld, type WorldImage } from './sim_world.js';
import { StoreSession, type StoreShape } from './store_session.js';

const MAGIC = Buffer.from(SUPERBLOCK_MAGIC_TEXT);

/** Roots below the newest that stay whole: what root s freed is reusable after roots s + 1 and s + 2. */
export const REWINDABLE_ROOTS = 2;

/** The root that a write of a superblock is of, from its first bytes; null for any other write. */
export function rootOfWrite(head: Uint8Array): number | null {
  const isSuperblock = Buffer.from(head.subarray(0, SUPERBLOCK_MAGIC_TEXT.length)).equals(MAGIC);
  if (!isSuperblock) return null;
  return Number(new DataView(head.buffer, head.byteOffset).getBigUint64(SUPERBLOCK_SEQUENCE, true));
}

/** Findings of the store as of root `sequence - roots`; empty when it is whole. */
export async function checkRewound(
  shape: StoreShape,
  image: WorldImage,
  sequence: number,
  roots: number,
): Promise<readonly string[]> {
  if (sequence - roots < 1) return [];
  const world = SimWorld.fromImage(image, sequence);
  const zeroes = new Uint8Array(SLOT_BYTES);
  // A member whose creation is under way may be in no image yet.
  for (const path of shape.members.filter((each) => image.members.has(each))) {
    for (let copy = 0; copy < RING_COPIES; copy += 1) {
      for (let gone = 0; gone < roots; gone += 1) {
        world.overwrite(path, slotOffset(copy, sequence - gone, shape.memberBytes), zeroes);
      }
    }
  }
  const session = await StoreSession.open(world.process(), shape, 'r');
  const found = session.store.catalog.superblock.sequence;
  const wrong = found === sequence - roots ? [] : [`opened at root ${found}, not ${sequence - roots}`];
  await session.dump();
  // A root that was never acknowledged may have been taken up after its flush had failed: its copies can lack.
  const findings = (await session.check()).filter((finding) => !finding.includes('superblock copy'));
  await session.close();
  return [...wrong, ...findings];
}
