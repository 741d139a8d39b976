// Faults guarded: two writers at once, a writer locked out by a dead one or by an open that failed, a heartbeat
// that lies.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openCatalog } from '../../engine/catalog.js';
import { HEARTBEAT_OFFSET, decodeHeartbeat, encodeHeartbeat } from '../../format/index.js';
import type { Heartbeat } from '../../format/index.js';
import { isStoreError } from '../../format/errors.js';
import { MIB, makeStore, open, put, read } from './catalog_support.js';
import type { TestStore } from './catalog_support.js';

async function heartbeatOf(store: TestStore): Promise<Heartbeat> {
  const io = store.world.process();
  const device = await io.openMember(store.paths[0] as string, { mode: 'r', direct: 'prefer' });
  const heartbeat = decodeHeartbeat(await io.readRaw(device.slot, HEARTBEAT_OFFSET, 4096));
  await io.closeMember(device.slot);
  assert.ok(heartbeat !== null);
  return heartbeat;
}

test('a second writer is refused at once and told who holds the store; readers are not', async () => {
  const store = await makeStore(2, 8 * MIB);
  const writer = await open(store);
  const other = store.world.process();
  const before = other.clock.monotonicMs();
  await assert.rejects(openCatalog(other, store.paths, { mode: 'rw' }), (error: unknown) => {
    assert.ok(isStoreError(error, 'E_LOCKED'));
    assert.match(error.message, /process 100 on host simulated-host/);
    return true;
  });
  assert.ok(other.clock.monotonicMs() - before < 1000);
  const reader = await openCatalog(other, store.paths, { mode: 'r' });
  await put(writer, 'a', '1');
  await reader.refresh();
  assert.equal(await read(reader, 'a'), '1');
  await reader.close();
  await writer.close();
  const next = await openCatalog(other, store.paths, { mode: 'rw' });
  await next.close();
});

test('the lock of a writer that died is free, and its heartbeat does not stand in the way', async () => {
  const store = await makeStore(2, 8 * MIB);
  const dying = store.world.process();
  const writer = await openCatalog(dying, store.paths, { mode: 'rw' });
  await put(writer, 'a', '1');
  assert.equal((await heartbeatOf(store)).closedCleanly, false);
  store.world.kill(dying);
  const next = await open(store);
  assert.equal(await read(next, 'a'), '1');
  await next.close();
  assert.equal((await heartbeatOf(store)).closedCleanly, true);
});

test('a live writer behind another device node is refused; force lifts that', async () => {
  const store = await makeStore(1, 8 * MIB);
  const other = store.world.process();
  const beat = await heartbeatOf(store);
  const { processId, processStart, hostId, bootId } = other.identity();
  store.world.overwrite(
    store.paths[0] as string,
    HEARTBEAT_OFFSET,
    encodeHeartbeat({
      ...beat,
      processId,
      processStart,
      hostId,
      bootId,
      closedCleanly: false,
    }),
  );
  await assert.rejects(open(store), (error: unknown) => isStoreError(error, 'E_LOCKED'));
  await (await open(store, { force: true })).close();
});

test('another host is taken for dead when its heartbeat stands still for two intervals, and only then', async () => {
  const store = await makeStore(1, 8 * MIB);
  const path = store.paths[0] as string;
  const beat: Heartbeat = {
    ...(await heartbeatOf(store)),
    hostId: 'elsewhere',
    closedCleanly: false,
    counter: 5,
  };
  store.world.overwrite(path, HEARTBEAT_OFFSET, encodeHeartbeat(beat));
  const opening = open(store);
  setImmediate(() => store.world.overwrite(path, HEARTBEAT_OFFSET, encodeHeartbeat({ ...beat, counter: 6 })));
  await assert.rejects(opening, (error: unknown) => isStoreError(error, 'E_LOCKED'));
  const before = store.io.clock.monotonicMs();
  await (await open(store)).close();
  assert.ok(store.io.clock.monotonicMs() - before >= 10_000);
});

test('the heartbeat moves by itself and stops at close', async () => {
  const store = await makeStore(1, 8 * MIB);
  const catalog = await open(store, { heartbeatIntervalMs: 5000 });
  const first = await heartbeatOf(store);
  await store.io.clock.sleep(16_000);
  const later = await heartbeatOf(store);
  assert.ok(later.counter >= first.counter + 3, `${first.counter} -> ${later.counter}`);
  await catalog.close();
  assert.equal((await heartbeatOf(store)).closedCleanly, true);
});

/** A store whose last writer was killed: the next one makes a root of its own before it is open. */
async function leftOpen(): Promise<TestStore> {
  const store = await makeStore(2, 8 * MIB);
  const dying = store.world.process();
  await put(await openCatalog(dying, store.paths, { mode: 'rw' }), 'a', '1');
  store.world.kill(dying);
  return store;
}

/** The kth read, write or flush fails, and all after it. Whether the open failed. */
async function failOpen(operation: 'read' | 'write' | 'flush', k: number): Promise<boolean> {
  const where = `${operation} ${k}`;
  const store = await leftOpen();
  const { world, paths } = store;
  const openSessions = new Set<bigint>();
  const io = Object.assign(world.process(), { openSessions });
  world.faults.add({ operation, action: 'errno', errno: 5, nth: k, sticky: true });
  const options = { mode: 'rw', heartbeatIntervalMs: 5000 } as const;
  const opened = await openCatalog(io, paths, options).catch((error: unknown) => {
    assert.ok(isStoreError(error), `${where}: ${String(error)}`);
    return null;
  });
  world.faults.clear();
  if (opened !== null) {
    await opened.close();
    return false;
  }
  assert.equal(openSessions.size, 0, `${where}: no session is left`);
  const beat = await heartbeatOf(store);
  // Nobody made what this open read durable, so the next writer must see that there is something to wonder about.
  assert.equal(beat.closedCleanly, false, `${where}: the beat does not speak of a clean close`);
  await io.clock.sleep(16_000);
  assert.equal((await heartbeatOf(store)).counter, beat.counter, `${where}: the heartbeat has ended`);
  const again = await openCatalog(io, paths, options);
  assert.equal(await read(again, 'a'), '1');
  await again.close();
  assert.equal(openSessions.size, 0, `${where}: a close ends its session`);
  return true;
}

for (const operation of ['read', 'write', 'flush'] as const) {
  test(`an open that fails at any ${operation} ends its heartbeat and lets the same process open again`, async () => {
    let k = 1;
    while (await failOpen(operation, k)) k += 1;
    assert.ok(k > 3, `only ${k - 1} opens failed`);
  });
}
