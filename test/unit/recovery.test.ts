// Faults guarded: a wrong root after a crash, a false acknowledgement, a write to a store that is not whole.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openCatalog } from '../../engine/catalog.js';
import { createStore } from '../../engine/create.js';
import { isStoreError } from '../../format/errors.js';
import type { StoreErrorCode } from '../../format/errors.js';
import { Prng } from '../sim/prng.js';
import { SimWorld, dropAll, keepAll, randomDamage } from '../sim/sim_world.js';
import type { WorldImage } from '../sim/sim_world.js';
import { MIB, checkPartition, key, makeStore, open, put, read } from './catalog_support.js';
import type { TestStore } from './catalog_support.js';

function failsWith(code: StoreErrorCode, pattern?: RegExp): (error: unknown) => true {
  return (error: unknown) => {
    assert.ok(isStoreError(error, code), `${(error as { code?: string }).code}: ${(error as Error).message}`);
    if (pattern !== undefined) assert.match((error as Error).message, pattern);
    return true;
  };
}

/** The store as another machine finds it. */
function elsewhere(store: TestStore, image: ReturnType<SimWorld['currentImage']>, seed = 7): TestStore {
  const world = SimWorld.fromImage(image, seed);
  return { world, io: world.process(), paths: store.paths };
}

async function storeWithOne(members: number, sizeBytes = 8 * MIB): Promise<TestStore> {
  const store = await makeStore(members, sizeBytes);
  const catalog = await open(store);
  await put(catalog, 'a', 'one');
  await catalog.close();
  return store;
}

for (const operation of ['write', 'flush'] as const) {
  test(`every failing ${operation} of a commit on the only member poisons; a reopen shows a whole root`, async () => {
    for (let nth = 1; ; nth += 1) {
      const store = await makeStore(1, 8 * MIB);
      const catalog = await open(store);
      await put(catalog, 'a', 'one');
      const fired = store.world.faults.add({ operation, action: 'errno', errno: 5, nth });
      const second = await put(catalog, 'a', 'two').then(
        () => 'acked',
        (error: unknown) => error,
      );
      if (fired() === 0) {
        assert.equal(second, 'acked');
        assert.ok(nth > 1, 'some operations were made to fail');
        await catalog.close();
        break;
      }
      assert.ok(isStoreError(second, 'E_POISONED'), String(second));
      assert.ok(catalog.poisoned !== null);
      assert.equal(await read(catalog, 'a'), 'one', 'reads go on from the last acknowledged root');
      await assert.rejects(put(catalog, 'a', 'three'), failsWith('E_POISONED'));
      store.world.faults.clear();
      await catalog.close();
      const image = store.world.crashImage(dropAll, new Prng(nth));
      const again = await open(elsewhere(store, image));
      assert.ok(['one', 'two'].includes((await read(again, 'a')) ?? ''), 'exactly before or after');
      await checkPartition(again);
      await put(again, 'b', 'works');
      await again.close();
    }
  });
}

for (const operation of ['write', 'flush'] as const) {
  test(`every failing ${operation} on one of two members leaves it stale before the ack; it returns`, async () => {
    for (let nth = 1; ; nth += 1) {
      const store = await makeStore(2, 8 * MIB);
      const catalog = await open(store);
      await put(catalog, 'a', 'one');
      const fired = store.world.faults.add({ operation, action: 'errno', errno: 5, nth });
      await put(catalog, 'a', 'two');
      if (fired() === 0) {
        assert.ok(nth > 2, 'some operations were made to fail');
        await catalog.close();
        break;
      }
      assert.equal(catalog.poisoned, null);
      const states = catalog.members.map((member) => member.state).sort();
      assert.deepEqual(states, ['online', 'stale']);
      const table = catalog.superblock.members.map((entry) => entry.state).sort();
      assert.deepEqual(table, [1, 2], 'the root that was acknowledged names it');
      await put(catalog, 'b', 'alone');
      store.world.faults.clear();
      await catalog.close();
      const image = store.world.crashImage(dropAll, new Prng(nth));
      const again = await open(elsewhere(store, image));
      assert.equal(await read(again, 'a'), 'two');
      assert.equal(await read(again, 'b'), 'alone');
      assert.deepEqual(again.members.map((member) => member.state).sort(), ['online', 'resilvering']);
      await checkPartition(again);
      await put(again, 'c', 'works');
      await again.close();
    }
  });
}

interface Cut {
  readonly image: WorldImage;
  readonly label: string;
  readonly acked: boolean;
}

/**
 * Runs `work` and keeps what a power cut after each event would leave: all dropped, all kept, and mixes of
 * damage.
 */
async function cutEverywhere(world: SimWorld, work: () => Promise<unknown>, mixes = 1): Promise<Cut[]> {
  const cuts: Cut[] = [];
  let acked = false;
  let event = 0;
  world.scheduler.afterEvent = () => {
    event += 1;
    for (let mix = -2; mix < mixes; mix += 1) {
      const prng = new Prng(event * 1000 + mix + 2);
      const choose = mix === -2 ? dropAll : mix === -1 ? keepAll : randomDamage(prng);
      cuts.push({ image: world.crashImage(choose, prng), label: `event ${event}, damage ${mix}`, acked });
    }
  };
  await work().then(() => {
    acked = true;
  });
  world.scheduler.afterEvent = null;
  return cuts;
}

test('a power cut at any moment of a commit leaves the state before or after; what was acked stays', async () => {
  for (const members of [1, 2]) {
    const store = await makeStore(members, 8 * MIB);
    const catalog = await open(store);
    await put(catalog, 'a', 'one');
    const cuts = await cutEverywhere(store.world, () => put(catalog, 'a', 'two'), 20);
    await catalog.close();
    const outcomes = { one: 0, two: 0, rolled: 0 };
    for (const { image, label, acked } of cuts) {
      const again = await open(elsewhere(store, image));
      const value = await read(again, 'a');
      assert.ok(value === 'two' || (value === 'one' && !acked), `${members} members, ${label}: ${value}`);
      outcomes[value] += 1;
      if (again.openReport.join().includes('rolled forward')) outcomes.rolled += 1;
      await checkPartition(again);
      await put(again, 'a', 'three');
      await again.close();
    }
    // The sweep is worth something only when it met both outcomes, and often.
    assert.ok(outcomes.one > 50 && outcomes.two > 50, JSON.stringify(outcomes));
    if (members === 2) assert.ok(outcomes.rolled > 0, JSON.stringify(outcomes));
  }
});

test('a power cut inside recovery leaves the same root to recover', async () => {
  const store = await makeStore(2, 8 * MIB);
  const catalog = await open(store);
  await put(catalog, 'a', 'one');
  const cuts = await cutEverywhere(store.world, () => put(catalog, 'a', 'two'));
  await catalog.close();
  let inner = 0;
  for (const { image, label } of cuts) {
    const recovering = elsewhere(store, image);
    let value: string | undefined;
    const recoveries = await cutEverywhere(recovering.world, async () => {
      const again = await open(recovering);
      value = await read(again, 'a');
      await again.close();
    });
    for (const cut of recoveries.filter((_, i) => i % 7 === 0)) {
      const again = await open(elsewhere(store, cut.image));
      const second = await read(again, 'a');
      // Before the root was made whole another one may still be chosen; afterwards never.
      assert.ok(
        second === value || (!cut.acked && ['one', 'two'].includes(second ?? '')),
        `${label} / ${cut.label}: ${second}`,
      );
      if (cut.acked) assert.equal(second, value);
      await again.close();
      inner += 1;
    }
  }
  assert.ok(inner > 200, `${inner} images`);
});

test('a missing member names itself; a quorum writes without it, and it comes back', async () => {
  const store = await storeWithOne(3);
  store.world.detach(store.paths[1] as string);
  const reader = await open(store, { mode: 'r' });
  assert.equal(await read(reader, 'a'), 'one');
  assert.ok(reader.isDegraded);
  assert.match(reader.openReport.join('\n'), /degraded: member 1/);
  assert.equal(reader.members[1]?.state, 'missing');
  await reader.close();
  const writer = await open(store);
  assert.deepEqual(
    writer.members.map((member) => member.state),
    ['online', 'missing', 'online'],
  );
  assert.equal(writer.superblock.members[1]?.state, 2, 'stale in a root before the store was handed out');
  await put(writer, 'a', 'two');
  await writer.close();
  store.world.attach(store.paths[1] as string);
  const whole = await open(store);
  assert.deepEqual(
    whole.members.map((member) => member.state),
    ['online', 'resilvering', 'online'],
  );
  assert.equal(await read(whole, 'a'), 'two');
  await checkPartition(whole);
  await whole.close();
});

test('too few members write by force alone, and the others are a fork when they return', async () => {
  const store = await storeWithOne(3);
  for (const path of store.paths.slice(1)) store.world.detach(path);
  await assert.rejects(open(store), failsWith('E_DEGRADED', /member 1/));
  const forced = await open(store, { force: true });
  await put(forced, 'a', 'forced');
  await forced.close();
  store.world.detach(store.paths[0] as string);
  for (const path of store.paths.slice(1)) store.world.attach(path);
  const others = await open(store);
  assert.equal(await read(others, 'a'), 'one');
  await put(others, 'a', 'other');
  await others.close();
  store.world.attach(store.paths[0] as string);
  await assert.rejects(open(store), failsWith('E_CONFLICT', /fork.*branch.*branch/));
  await assert.rejects(open(store, { force: true }), failsWith('E_CONFLICT', /fork/));
});

test('half of the members without the lowest index may be behind, and says so', async () => {
  const store = await storeWithOne(2);
  store.world.detach(store.paths[0] as string);
  await assert.rejects(open(store), failsWith('E_DEGRADED', /quorum/));
  const reader = await open(store, { mode: 'r' });
  assert.match(reader.openReport.join('\n'), /newer root may exist/);
  await reader.close();
});

test('a member one root behind rolls forward, and doing it again changes nothing', async () => {
  const store = await storeWithOne(2);
  const old = store.world.currentImage();
  const catalog = await open(store);
  await put(catalog, 'a', 'two');
  await catalog.close();
  const now = store.world.currentImage();
  const [first, second] = store.paths as [string, string];
  // Member 1 has all pages of the new root and the superblocks of the old one.
  const world = SimWorld.fromImage(now);
  const size = 8 * MIB;
  const source = SimWorld.fromImage(old).process();
  const device = await source.openMember(second, { mode: 'r', direct: 'prefer' });
  for (const offset of [64 * 1024, 320 * 1024, size - MIB, size - 768 * 1024]) {
    world.overwrite(second, offset, await source.readRaw(device.slot, offset, 256 * 1024));
  }
  const behind: TestStore = { world, io: world.process(), paths: [first, second] };
  const rolled = await open(behind);
  assert.match(rolled.openReport.join('\n'), /rolled forward to root 3/);
  assert.equal(await read(rolled, 'a'), 'two');
  await rolled.close();
  const again = await open(behind);
  assert.deepEqual(again.openReport, []);
  await again.close();
});

test('zeroed, foreign, truncated and doubled members are named, and nothing is written', async () => {
  const store = await storeWithOne(2);
  const image = store.world.currentImage();
  const [first, second] = store.paths as [string, string];

  const zeroed = elsewhere(store, image);
  zeroed.world.putMember(second, { sizeBytes: 8 * MIB, blocks: new Map() } as never);
  await (await open(zeroed, { mode: 'r' })).close();
  const without = await open(zeroed);
  assert.match(without.openReport.join(), /m1\.member.*not an Ingot member/);
  await without.close();
  const headless = elsewhere(store, image);
  headless.world.putMember(first, { sizeBytes: 8 * MIB, blocks: new Map() } as never);
  await assert.rejects(open(headless), failsWith('E_DEGRADED', /m0\.member.*not an Ingot member/));

  const other = await makeStore(2, 8 * MIB, {}, 99);
  const foreign = elsewhere(store, image);
  foreign.world.putMember(second, other.world.disk(second).currentImage());
  await assert.rejects(open(foreign), failsWith('E_CONFLICT', /two stores/));

  const doubled = elsewhere(store, image);
  doubled.world.putMember(second, doubled.world.disk(first).currentImage());
  await assert.rejects(open(doubled), failsWith('E_CONFLICT', /two members carry/));

  const truncated = elsewhere(store, image);
  const whole = truncated.world.disk(second).currentImage();
  truncated.world.putMember(second, { ...whole, sizeBytes: 5 * MIB });
  const left = await open(truncated);
  assert.match(left.openReport.join(), /5242880 bytes but was formatted with 8388608/);
  assert.equal(await read(left, 'a'), 'one');
  await left.close();

  const swapped = elsewhere(store, image);
  swapped.world.swap(first, second);
  const catalog = await open(swapped);
  assert.equal(await read(catalog, 'a'), 'one', 'members are known by what is on them, not by their path');
  await catalog.close();
  await assert.rejects(openCatalog(store.io, ['/nowhere'], { mode: 'rw' }), failsWith('E_NOT_FOUND'));
});

test('one path is enough: siblings are found through hints', async () => {
  const store = await storeWithOne(3);
  const catalog = await openCatalog(store.io, [store.paths[1] as string], { mode: 'rw' });
  assert.equal(await read(catalog, 'a'), 'one');
  assert.match(catalog.openReport.join('\n'), /found through the hints/);
  assert.equal(catalog.online.length, 3);
  await put(catalog, 'a', 'two');
  await catalog.close();
});

test('two lost copies of a superblock are written again, a third is a lost quorum', async () => {
  const store = await storeWithOne(1);
  const [path] = store.paths as [string];
  const slot = (sequence: number): number => 64 * 1024 + sequence * 8192;
  store.world.overwrite(path, slot(2), new Uint8Array(8192));
  store.world.overwrite(path, slot(2) + 256 * 1024, new Uint8Array(8192));
  const catalog = await open(store);
  assert.match(catalog.openReport.join('\n'), /superblock copies 0, 1 of root 2 written again/);
  await catalog.close();
  assert.deepEqual(
    (
      await (async () => {
        const again = await open(store);
        await again.close();
        return again;
      })()
    ).openReport,
    [],
  );
});

test('a create that is cut short anywhere is not a store or a whole one', async () => {
  const world = new SimWorld({ seed: 5 });
  const io = world.process();
  const paths = ['/store/m0.member', '/store/m1.member'];
  const cuts = await cutEverywhere(world, () =>
    createStore(io, { members: paths.map((path) => ({ path, sizeBytes: 8 * MIB })) }),
  );
  const outcomes = new Map<string, number>();
  for (const { image, label, acked } of cuts) {
    const next = SimWorld.fromImage(image, 3);
    const outcome = await openCatalog(next.process(), paths, { mode: 'rw' }).then(
      async (catalog) => {
        assert.equal(catalog.superblock.sequence, 1);
        const finished = catalog.openReport.join().includes('interrupted create');
        await put(catalog, 'a', 'b');
        await checkPartition(catalog);
        await catalog.close();
        return finished ? 'finished' : 'whole';
      },
      (error: unknown) => (isStoreError(error) ? error.code : String(error)),
    );
    assert.ok(outcome === 'whole' || outcome === 'finished' || !acked, `${label}: ${outcome}`);
    assert.ok(
      ['whole', 'finished', 'E_FORMAT', 'E_NOT_FOUND', 'E_CORRUPT'].includes(outcome),
      `${label}: ${outcome}`,
    );
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  for (const outcome of ['whole', 'finished', 'E_FORMAT'])
    assert.ok((outcomes.get(outcome) ?? 0) > 0, JSON.stringify([...outcomes]));
});

test('root sums of a reader stay put while a writer goes on, and refresh follows', async () => {
  const store = await storeWithOne(2);
  const writer = await open(store);
  const reading = store.world.process();
  const reader = await openCatalog(reading, store.paths, { mode: 'r' });
  assert.equal(await reader.refresh(), false);
  const pinned = reader.snapshot();
  let told = 0;
  reader.onRoot(() => {
    told += 1;
  });
  for (let i = 0; i < 20; i += 1) await put(writer, 'a', `v${i}`);
  reader.pages.dropCache();
  assert.equal(
    new TextDecoder().decode(await pinned.get(0, key('a'))),
    'one',
    'what a pin holds is not overwritten',
  );
  assert.equal(await reader.refresh(), true);
  assert.equal(told, 1);
  assert.equal(await read(reader, 'a'), 'v19');
  pinned.close();
  for (let i = 0; i < 5; i += 1) await put(writer, 'a', `w${i}`);
  await checkPartition(writer);
  await reader.close();
  await writer.close();
});

test('a reader that lost its pin is told of a conflict, not of corruption', async () => {
  const store = await storeWithOne(1);
  const writer = await open(store);
  const reading = store.world.process();
  const reader = await openCatalog(reading, store.paths, { mode: 'r' });
  const pinned = reader.snapshot();
  const slot = reader.online[0]?.slot ?? -1;
  reading.unpin(slot, pinned.sequence);
  for (let i = 0; i < 60; i += 1) await put(writer, `k${i}`, 'x'.repeat(2000));
  reader.pages.dropCache();
  await assert.rejects(async () => pinned.get(0, key('a')), failsWith('E_CONFLICT', /root 2 is gone/));
  reading.pin(slot, pinned.sequence);
  await reader.close();
  await writer.close();
});

test('create does not overwrite the member of a store, even where the device itself would allow it', async () => {
  const store = await storeWithOne(1);
  // A block device exists always, so its Io does not refuse it.
  const device = new Proxy(store.io, {
    get: (io, name) =>
      name === 'createMember'
        ? (path: string, options: object) => io.createMember(path, { ...options, force: true })
        : typeof io[name as keyof typeof io] === 'function'
          ? (io[name as keyof typeof io] as (...values: never[]) => unknown).bind(io)
          : io[name as keyof typeof io],
  });
  const members = store.paths.map((path) => ({ path, sizeBytes: 8 * MIB }));
  await assert.rejects(createStore(device, { members }), failsWith('E_EXISTS', /is a member of store/));
  const catalog = await open(store);
  assert.equal(await read(catalog, 'a'), 'one');
  await catalog.close();
  await createStore(device, { members, force: true });
  const fresh = await open(store);
  assert.equal(fresh.superblock.sequence, 1);
  await fresh.close();
});
