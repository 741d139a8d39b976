// Guards healing, scrubbing and resilvering of deltas and of extents that nothing but deltas needs.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isStoreError } from '../../format/errors.js';
import { Prng } from '../sim/prng.js';
import { collect, fsckFindings, makeRig, openRig, reopen, type Rig } from '../unit/store_harness.js';

const BYTES = 400_000;
const META = { dtype: 'BF16' as const, shape: [BYTES / 2] };
const BEFORE = new Prng(1).weights(BYTES);
const AFTER = new Prng(2).stepped(BEFORE, 50);

interface Place {
  readonly member: string;
  readonly offset: number;
  readonly extentId: number;
}
interface DeltaRig {
  readonly rig: Rig;
  /** Copies of the base's chunks, whose version is gone, and of the delta's. */
  readonly base: readonly Place[];
  readonly delta: readonly Place[];
}

/** A version that is a delta, on two members or three, whose base version was removed. */
async function rigWith(members = 2): Promise<DeltaRig> {
  const rig = await makeRig({ members, redundancy: 2, chunkBytes: 131_072, segmentBytes: 16_384 });
  const first = await rig.store.begin('run', { codec: 'auto' });
  await first.put('w', BEFORE, META);
  const { id } = await first.commit();
  const base = await (await rig.store.get(id)).tensor('w').extents();
  const next = await rig.store.begin('run', { base: id, delta: true });
  await next.put('w', AFTER, META);
  await next.commit();
  await rig.store.remove(id);
  const delta = await (await rig.store.get('run')).tensor('w').extents();
  assert.ok(delta.every(({ coding }) => coding?.delta === 'XOR'));
  return { rig, base, delta };
}

async function expectWhole(rig: Rig): Promise<void> {
  assert.deepEqual(await (await rig.store.get('run')).tensor('w').read(), AFTER);
}

function damage(rig: Rig, places: readonly Place[], member: string): void {
  for (const place of places.filter((each) => each.member === member))
    rig.world.flipBits(place.member, place.offset + 5000, 0x10);
}

test('rot in a delta and in its base is healed from the other copies by reads', async () => {
  const { rig, base, delta } = await rigWith();
  damage(rig, base, 'a.member');
  damage(rig, delta.slice(0, 4), 'b.member');
  for (let round = 0; round < 6; round += 1) await expectWhole(rig);
  await rig.store.healed();
  await collect((await rig.store.get('run')).verify());
  assert.ok(rig.store.stats().healing.healed >= base.length / 2);
  const again = (await collect((await rig.store.get('run')).verify())).filter(
    ({ type }) => type === 'finding',
  );
  assert.deepEqual(again, []);
  await rig.store.close();
});

test('a scrub heals the base of a removed version, and with no copy left names the tensors that need it', async () => {
  const { rig, base } = await rigWith();
  damage(rig, base, 'b.member');
  const healed = (await collect(rig.store.scrub())).filter((event) => event.type === 'finding');
  assert.equal(healed.length, base.length / 2);
  assert.ok(healed.every((event) => event.action === 'repaired' && event.error.where.tensor === 'w'));
  await expectWhole(rig);
  for (const member of ['a.member', 'b.member']) damage(rig, base.slice(0, 2), member);
  const lost = (await collect(rig.store.scrub())).filter((event) => event.type === 'finding');
  assert.ok(lost.length > 0 && lost.every((event) => event.action === 'unrepairable'));
  assert.ok(
    lost.every((event) => event.error.where.tensor === 'w'),
    'a base is named by what needs it',
  );
  const findings = (await collect((await rig.store.get('run')).verify())).filter(
    ({ type }) => type === 'finding',
  );
  assert.ok(findings.length > 0, 'verify looks at bases too');
  await assert.rejects((await rig.store.get('run')).tensor('w').read(), (error: unknown) => {
    assert.ok(isStoreError(error, 'E_CORRUPT'), String(error));
    assert.match(
      error.message,
      new RegExp(`w is a delta of extent ${base[0]?.extentId}, which cannot be read`),
    );
    return true;
  });
  await rig.store.close();
});

test('a delta and its base are resilvered onto another member when one is gone for good', async () => {
  const { rig, base } = await rigWith(3);
  const gone = base[0]?.member ?? '';
  await rig.store.close();
  rig.world.detach(gone);
  const left = rig.paths.filter((path) => path !== gone);
  rig.store = await openRig(rig.world, rig.io, left, { mode: 'rw' });
  await expectWhole(rig);
  const index = rig.paths.indexOf(gone);
  await rig.store.catalog.manager.leave(index, true);
  await collect(rig.store.resilver());
  await expectWhole(rig);
  const places = await (await rig.store.get('run')).tensor('w').extents();
  assert.ok(places.every(({ member }) => member !== gone) && places.length >= 8);
  const after = await collect(rig.store.versionHealth());
  assert.deepEqual(
    after.map(({ state }) => state),
    ['whole'],
  );
  await rig.store.close();
  rig.store = await openRig(rig.world, rig.io, left, { mode: 'rw' });
  await expectWhole(rig);
  assert.deepEqual(
    (await fsckFindings(rig.store)).filter((line) => !line.includes('E_DEGRADED')),
    [],
  );
  await rig.store.close();
});

test('the free map made anew counts a base that only a delta needs as used', async () => {
  const { rig } = await rigWith();
  await rig.store.close();
  rig.store = await openRig(rig.world, rig.io, rig.paths, { mode: 'rw', rebuildFreeMap: true });
  assert.deepEqual(await fsckFindings(rig.store), []);
  await expectWhole(rig);
  await reopen(rig);
  await expectWhole(rig);
  await rig.store.close();
});
