// Guards fsck itself: each kind of damage, done on purpose to a sound store, is found and named.
// A sound store is quiet.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { CatalogChange } from '../../engine/contract.js';
import { fsck } from '../../engine/fsck.js';
import { slotOffset, tagKey, versionKey } from '../../format/index.js';
import { decodeExtent, encodeExtent } from '../../format/extent_record.js';
import { extentKey, stepKey } from '../../format/keys.js';
import { encodeTag } from '../../format/records.js';
import type { StoreOp } from '../sim/store_model.js';
import { smallShape, StoreSession } from '../sim/store_session.js';
import { SimWorld } from '../sim/sim_world.js';

const PUT: StoreOp = {
  kind: 'put',
  run: 'r',
  objects: [
    { name: 'w', byteLength: 160_000, seed: 1 },
    { name: 'small', byteLength: 10, seed: 2 },
  ],
};

async function soundStore(members = 2): Promise<{ world: SimWorld; session: StoreSession }> {
  const world = new SimWorld({ seed: 8 });
  const session = await StoreSession.create(world.process(), smallShape(members));
  await session.apply(PUT);
  await session.apply({ kind: 'link', run: 'r', seed: 3 });
  return { world, session };
}

async function damaged(change: (change: CatalogChange) => Promise<void>): Promise<string> {
  const { session } = await soundStore();
  await session.store.catalog.commit(change);
  const findings = await session.check();
  await session.close();
  return findings.join('\n');
}

/** The id of the first extent of `w`. */
const FIRST_EXTENT = 1;

async function extentOf(change: CatalogChange, id: number): Promise<ReturnType<typeof decodeExtent>> {
  const bytes = await change.get(2, extentKey(id));
  assert.ok(bytes !== undefined, 'the extent is there');
  return decodeExtent(bytes);
}

test('a sound store has no finding, on one, two and three members', async () => {
  for (const members of [1, 2, 3]) {
    const { session } = await soundStore(members);
    await session.apply({ kind: 'remove', run: 'r', nth: 0 });
    assert.deepEqual(await session.check(), []);
    await session.close();
  }
});

test('a tag that names no version is found', async () => {
  const tag = encodeTag({ versionId: 999, movedAtMs: 0, generation: 1, protected: false });
  assert.match(
    await damaged((change) => change.put(0, tagKey('r', 'lost'), tag)),
    /tag lost names version 999/,
  );
});

test('a wrong reference count is found', async () => {
  const findings = await damaged(async (change) => {
    const extent = await extentOf(change, FIRST_EXTENT);
    await change.put(2, extentKey(FIRST_EXTENT), encodeExtent({ ...extent, referenceCount: 7 }));
  });
  assert.match(findings, /extent 1 counts 7 users and has 2/);
});

test('a step entry that carries another record than its version has is found, and none is fine', async () => {
  const world = new SimWorld({ seed: 9 });
  const session = await StoreSession.create(world.process(), smallShape(1));
  const { store } = session;
  for (const step of [7, 8]) await (await store.begin('steps', { step })).commit();
  assert.deepEqual(await session.check(), []);
  const first = stepKey('steps', 7, 1);
  const second = stepKey('steps', 8, 2);
  const carried = (key: Uint8Array): Promise<Uint8Array | undefined> =>
    store.catalog.commit((change) => Promise.resolve(change.get(0, key)));
  const record = await carried(second);
  assert.ok(record !== undefined && record.length > 0, 'a step carries its record');
  await store.catalog.commit((change) => change.put(0, first, record));
  assert.match((await session.check()).join('\n'), /step entry of version 1 in run steps differs/);
  await assert.rejects(async () => store.lookup('steps@7'), { code: 'E_FORMAT' });
  // As a writer of the first drafts left it, or for a record over 2,048 bytes.
  await store.catalog.commit((change) => change.put(0, first, new Uint8Array(0)));
  assert.deepEqual(await session.check(), []);
  assert.equal((await store.lookup('steps@7')).id, 'v:1');
  await (await store.begin('steps', { step: 9, metadata: { note: 'n'.repeat(3_000) } })).commit();
  assert.equal((await carried(stepKey('steps', 9, 3)))?.length, 0);
  assert.equal((await store.lookup('steps@9')).metadata['note']?.length, 3_000);
  assert.deepEqual(await session.check(), []);
  await session.close();
});

test('an extent that a version names and that is not there is found, and its space is a leak', async () => {
  const findings = await damaged(async (change) => {
    await change.delete(2, extentKey(FIRST_EXTENT));
  });
  assert.match(findings, /id 1 is named by 2 versions or extents and is not there/);
  assert.match(findings, /sectors belong to nothing and are not free/);
});

test('two extents on one place are found', async () => {
  const findings = await damaged(async (change) => {
    const extent = await extentOf(change, FIRST_EXTENT);
    await change.put(2, extentKey(90_000), encodeExtent(extent));
  });
  assert.match(findings, /extent 90000 shares sector/);
  assert.match(findings, /extent 90000 is not below the root's next id/);
});

test('space that a record frees while it is in use is found', async () => {
  const findings = await damaged(async (change) => {
    const [copy] = (await extentOf(change, FIRST_EXTENT)).copies;
    assert.ok(copy !== undefined);
    change.freeSpace(copy.member, copy.sector, 1);
  });
  assert.match(findings, /what root \d+ freed shares sector/);
});

test('a version without a manifest is found', async () => {
  const findings = await damaged(async (change) => {
    await change.delete(1, versionKey(1, 1));
  });
  assert.match(findings, /version 1 has no manifest/);
});

test('a rotten superblock copy is found and named', async () => {
  const { world, session } = await soundStore();
  const { sequence } = session.store.catalog.superblock;
  world.flipBits('m1', slotOffset(2, sequence, smallShape(2).memberBytes) + 700, 1);
  const findings = await session.check();
  assert.equal(findings.length, 1);
  assert.match(
    findings[0] ?? '',
    /^warn E_CORRUPT superblock copy 2 of root \d+ is not valid.*"member":"m1"/,
  );
});

test('a rotten copy is found with its tensor, member and offset; two rotten copies are fatal', async () => {
  const { world, session } = await soundStore();
  const version = await session.store.get('r@latest');
  const [first] = version.tensorRecord('w').pieces;
  assert.ok(first !== undefined);
  const found = session.store.catalog.snapshot();
  const bytes = await found.get(2, extentKey(first.extentId));
  found.close();
  assert.ok(bytes !== undefined);
  const { copies } = decodeExtent(bytes);
  const events = async (): Promise<string[]> => {
    const lines: string[] = [];
    for await (const event of fsck(session.store.catalog, { data: true })) {
      if (event.type !== 'finding') continue;
      lines.push(
        `${event.severity} ${event.action} ${event.error.code} ${JSON.stringify(event.error.where)}`,
      );
    }
    return lines;
  };
  const rotten = (copies[0]?.sector ?? 0) * 4096 + 8192 + 5;
  world.flipBits(`m${copies[0]?.member}`, rotten, 16);
  const one = await events();
  assert.equal(one.length, 1);
  assert.match(one[0] ?? '', new RegExp(`^error none E_CORRUPT .*"offsetBytes":${rotten - 5}.*"tensor":"w"`));
  world.flipBits(`m${copies[1]?.member}`, (copies[1]?.sector ?? 0) * 4096 + 8192, 16);
  const both = await events();
  assert.equal(both.length, 2);
  assert.ok(both.every((line) => line.startsWith('fatal unrepairable E_CORRUPT')));
});

test('a page with one rotten copy is a warning, and a reader gets its bytes from the other', async () => {
  const { world, session } = await soundStore();
  const pointer = session.store.catalog.superblock.treeRoots[2];
  const copy = pointer?.copies[0];
  assert.ok(copy !== undefined);
  world.flipBits(`m${copy.member}`, copy.sector * 4096 + 100, 1);
  const findings = await session.check();
  assert.equal(findings.length, 1);
  assert.match(findings[0] ?? '', /^warn E_CORRUPT a copy of a page of tree 2 cannot be used \(checksum\)/);
});
