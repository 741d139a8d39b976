// Guards the rebuilt free map: leaks, space that is free and used, and a free tree that cannot be read are put right
// from everything else, at any crash, and nothing that is reachable is ever called free.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeExtent, extentKey } from '../../format/index.js';
import { openWith } from '../../engine/open_store.js';
import type { Store } from '../../engine/store.js';
import { Prng } from '../sim/prng.js';
import { dropAll, keepAll, randomDamage, SimWorld, type WorldImage } from '../sim/sim_world.js';
import type { StoreOp } from '../sim/store_model.js';
import { StoreModel } from '../sim/store_model.js';
import { StoreSession, smallShape } from '../sim/store_session.js';

const SHAPE = smallShape(2);
const OPS: readonly StoreOp[] = [
  { kind: 'put', run: 'r', step: 1, objects: [{ name: 'w', byteLength: 300_000, seed: 1 }] },
  { kind: 'put', run: 'r', step: 2, objects: [{ name: 'w', byteLength: 160_000, seed: 2 }] },
  { kind: 'put', run: 's', objects: [{ name: 'x', byteLength: 50_000, seed: 3 }] },
];

async function madeStore(): Promise<{ world: SimWorld; session: StoreSession }> {
  const world = new SimWorld({ seed: 3 });
  const session = await StoreSession.create(world.process(), SHAPE);
  for (const op of OPS) await session.apply(op);
  return { world, session };
}

function rebuilt(world: SimWorld): Promise<Store> {
  const ports = { io: world.process(), files: null, closeIo: true };
  return openWith(ports, { members: SHAPE.members }, { mode: 'rw', rebuildFreeMap: true });
}

async function expectSound(session: StoreSession): Promise<void> {
  assert.equal(await session.dump(), StoreModel.after(OPS).dump());
  assert.deepEqual(await session.check(), []);
  await session.apply({ kind: 'put', run: 'probe', objects: [{ name: 'p', byteLength: 90_000, seed: 9 }] });
  assert.deepEqual(await session.check(), []);
}

/** A store whose free map calls some sectors of version r@1 free, and some free sectors used. */
async function wronged(): Promise<SimWorld> {
  const { world, session } = await madeStore();
  const { catalog } = session.store;
  await catalog.commit(async (change) => {
    const bytes = await change.get(2, extentKey(1));
    assert.ok(bytes !== undefined);
    const [copy] = decodeExtent(bytes).copies;
    assert.ok(copy !== undefined);
    change.freeSpace(copy.member, copy.sector, 3);
  });
  const grant = await catalog.allocate({ member: 1, sectorCount: 40, purpose: 'data' });
  await catalog.commit(async (change) => change.useSpace(grant));
  for (let root = 0; root < 3; root++) await catalog.commit(async () => undefined);
  const findings = (await session.check()).join('\n');
  assert.match(findings, /in use and free at once/);
  assert.match(findings, /belong to nothing and are not free/);
  await session.close();
  return world;
}

test('leaks, and space that is free and used at once, are put right', async () => {
  const world = await wronged();
  await (await rebuilt(world)).close();
  const session = await StoreSession.open(world.process(), SHAPE);
  await expectSound(session);
  await session.close();
});

test('a free tree of which no copy can be read is made anew; without, the store opens for reading only', async () => {
  const { world, session } = await madeStore();
  const pointer = session.store.catalog.superblock.treeRoots[3];
  await session.close();
  assert.ok(pointer !== null && pointer !== undefined);
  for (const { member, sector } of pointer.copies)
    world.flipBits(SHAPE.members[member] ?? '', sector * 4096 + 70, 1);
  await assert.rejects(StoreSession.open(world.process(), SHAPE), { code: 'E_CORRUPT' });
  const reader = await StoreSession.open(world.process(), SHAPE, 'r');
  assert.equal(await reader.dump(), StoreModel.after(OPS).dump());
  await reader.close();
  await (await rebuilt(world)).close();
  const again = await StoreSession.open(world.process(), SHAPE);
  await expectSound(again);
  await again.close();
});

test('where another tree is not whole nothing is rebuilt and nothing written', async () => {
  const { world, session } = await madeStore();
  const pointer = session.store.catalog.superblock.treeRoots[2];
  await session.close();
  assert.ok(pointer !== null && pointer !== undefined);
  for (const { member, sector } of pointer.copies)
    world.flipBits(SHAPE.members[member] ?? '', sector * 4096 + 70, 1);
  const before = (await StoreSession.open(world.process(), SHAPE, 'r')).store.catalog.superblock.sequence;
  await assert.rejects(rebuilt(world), { code: 'E_CORRUPT', message: /cannot be rebuilt/ });
  const after = await StoreSession.open(world.process(), SHAPE, 'r');
  assert.equal(after.store.catalog.superblock.sequence, before);
  await after.close();
});

test('a crash at any I/O of a rebuild loses nothing: the next rebuild ends it', async () => {
  const base = (await wronged()).currentImage();
  const world = SimWorld.fromImage(base, 5);
  const prng = new Prng(6);
  const images: WorldImage[] = [];
  let generation = -1;
  world.scheduler.afterEvent = () => {
    if (world.generation === generation) return;
    generation = world.generation;
    for (const choose of [keepAll, dropAll, randomDamage(prng), randomDamage(prng)])
      images.push(world.crashImage(choose, prng));
  };
  const store = await rebuilt(world);
  world.scheduler.afterEvent = null;
  await store.close();
  assert.ok(images.length > 40, `${images.length} images`);
  for (const [index, image] of images.entries()) {
    if (index % 3 !== 0) continue;
    const crashed = SimWorld.fromImage(image, index + 1);
    await (await rebuilt(crashed)).close();
    const session = await StoreSession.open(crashed.process(), SHAPE);
    await expectSound(session);
    await session.close();
  }
});
