// Two torn writes of different roots to one superblock slot once made a fork that nobody wrote.
//
// Goal: a root that was cut short before the last open can never come back beside the one written after it.
// Method: plant what a power cut leaves of an abandoned root (one whole copy, one with its first sector only), open for
// writing, and look at the slots; then replay the second torn write, which completes the abandoned copy when
// its first sector is still there (decisions/0006).

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openCatalog } from '../../engine/catalog.js';
import { decodeSlot, encodeSuperblock, slotOffset } from '../../format/index.js';
import type { Superblock } from '../../format/index.js';
import { SimWorld } from '../sim/sim_world.js';
import { MIB, makeStore, open, put } from '../unit/catalog_support.js';

const MEMBER_BYTES = 8 * MIB;
const SECTOR = 512;
const SLOT = 8192;

/** The next root as a session that was cut short would have written it. */
function abandoned(root: Superblock): Superblock {
  return { ...root, sequence: root.sequence + 1, branchId: 99n, committedAtMs: root.committedAtMs + 1 };
}

test('remnants of a commit that was cut short are burned before the next one writes to their slots', async () => {
  const store = await makeStore(2, MEMBER_BYTES);
  const first = await open(store);
  await put(first, 'a', 'one');
  const root = abandoned(first.superblock);
  await first.close();
  const [path] = store.paths as [string];
  const place = (copy: number): number => slotOffset(copy, root.sequence, MEMBER_BYTES);
  store.world.overwrite(path, place(0), encodeSuperblock(root, 0, 0));
  store.world.overwrite(path, place(1), encodeSuperblock(root, 0, 1).subarray(0, SECTOR));

  const reader = await openCatalog(store.world.process(), store.paths, { mode: 'r' });
  assert.equal(reader.superblock.sequence, root.sequence - 1);
  assert.match(reader.openReport.join('\n'), /newer/, 'a lone newer copy is reported');
  await reader.close();

  const writer = await open(store);
  assert.match(writer.openReport.join('\n'), /cut short/);
  await writer.close();

  // The second torn write: everything but the first sector of a root with the same members arrives.
  const world = SimWorld.fromImage(store.world.currentImage(), 11);
  for (const copy of [0, 1]) {
    world.overwrite(path, place(copy) + SECTOR, encodeSuperblock(root, 0, copy).subarray(SECTOR));
  }
  const io = world.process();
  const device = await io.openMember(path, { mode: 'r', direct: 'prefer' });
  for (const copy of [0, 1]) {
    const bytes = await io.readRaw(device.slot, place(copy), SLOT);
    assert.equal(
      decodeSlot(bytes, { copy, slot: root.sequence % 32 }).kind,
      'invalid',
      `copy ${copy} stays dead`,
    );
  }
});

test('an open that finds nothing cut short writes nothing to the next slot', async () => {
  const store = await makeStore(1, MEMBER_BYTES);
  const first = await open(store);
  await put(first, 'a', 'one');
  const next = first.superblock.sequence + 1;
  await first.close();
  const again = await open(store);
  assert.deepEqual(again.openReport, []);
  await again.close();
  const io = store.world.process();
  const device = await io.openMember(store.paths[0] as string, { mode: 'r', direct: 'prefer' });
  const bytes = await io.readRaw(device.slot, slotOffset(0, next, MEMBER_BYTES), SLOT);
  assert.ok(bytes.every((byte) => byte === 0));
});
