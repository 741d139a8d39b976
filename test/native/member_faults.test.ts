// Faults guarded: a member that fails while a mirror is written or read on real devices, through the kernel and the
// native core: an acknowledged version that lacks a copy unnamed, a lost ack, a member that does not come back.
//
// Loop devices where this machine has them, else files: the raw block path, O_DIRECT, and io_uring or threads.
//
// What must hold for every fault
//   1. A commit is acknowledged or fails with a StoreError; an acknowledged version is whole, or the root calls a
//      member not in sync.
//   2. After a reopen without the fault every acknowledged version is there byte for byte, the member comes back, every
//      copy is placed, and fsck finds nothing.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createWith, openWith, type Store } from '../../engine/index.js';
import { NativeIo } from '../../engine/io/native_io.js';
import { MEMBER_IN_SYNC } from '../../format/index.js';
import { isStoreError } from '../../format/errors.js';
import { Prng } from '../sim/prng.js';

const MEMBER_BYTES = 48 * 1024 * 1024;
const VERSION_BYTES = 1_500_000;
const run = (...words: string[]) => spawnSync(words[0] ?? '', words.slice(1), { encoding: 'utf8' });
const hasLoops =
  process.getuid?.() === 0 && existsSync('/dev/loop-control') && run('losetup', '--version').status === 0;

/** Faults of member 1 alone, as ingot_core.h names them. `k` counts requests from where the fault begins. */
const WRITE_FAULTS = ['EIO', 'ENOSPC', 'EAGAIN', 'EINTR', 'short', 'zero', 'late'] as const;
const RULES: readonly string[] = [
  ...WRITE_FAULTS.flatMap((effect) => [`write@1:1:${effect}:once`, `write@1:5:${effect}:sticky`]),
  'flush@1:1:EIO:once',
  'flush@1:2:EIO:sticky',
  'write@1:3:hang=300:once',
  'flush@1:1:hang=300:once',
  ...['EIO', 'short', 'zero'].map((effect) => `read@1:1:${effect}:sticky`),
  'read@1:2:hang=300:once',
];

interface Rig {
  readonly paths: readonly string[];
  readonly acked: Map<string, number>;
  seed: number;
}

const contents = (seed: number): Uint8Array => new Prng(seed).bytes(VERSION_BYTES);

async function put(store: Store, rig: Rig, runName: string): Promise<boolean> {
  const seed = ++rig.seed;
  try {
    await using tx = await store.begin(runName);
    await tx.put('t', contents(seed), { dtype: 'U8', shape: [VERSION_BYTES] });
    await tx.commit();
    rig.acked.set(runName, seed);
    return true;
  } catch (error) {
    if (!isStoreError(error)) throw error;
    return false;
  }
}

async function expectContents(store: Store, rig: Rig): Promise<void> {
  for (const [runName, seed] of rig.acked) {
    const bytes = await (await store.get(runName)).tensor('t').read();
    assert.ok(Buffer.from(bytes).equals(contents(seed)), `${runName} is what was acknowledged`);
  }
}

async function expectNamed(store: Store): Promise<void> {
  const inSync = store.catalog.superblock.members.filter(({ state }) => state === MEMBER_IN_SYNC).length;
  for await (const { run: runName, state } of store.versionHealth())
    assert.ok(state === 'whole' || inSync < 2, `${runName} is ${state} with ${inSync} members in sync`);
}

/** Writes and reads under the fault, then everything again without it. Resolves to what became of member 1. */
async function suffer(rig: Rig, rule: string): Promise<string> {
  const io = new NativeIo();
  const store = await openWith({ io, files: null, closeIo: true }, { members: rig.paths }, { mode: 'rw' });
  io.configureFaults(rule);
  for (const name of ['first', 'second']) await put(store, rig, name);
  if (store.catalog.poisoned === null) await expectContents(store, rig);
  io.configureFaults('');
  if (store.catalog.poisoned === null) {
    await put(store, rig, 'after');
    await expectNamed(store);
  }
  const state = store.catalog.poisoned === null ? (store.info.members[1]?.state ?? 'gone') : 'poisoned';
  await store.close();
  await recover(rig);
  return state;
}

async function recover(rig: Rig): Promise<void> {
  const io = new NativeIo();
  const store = await openWith({ io, files: null, closeIo: true }, { members: rig.paths }, { mode: 'rw' });
  await expectContents(store, rig);
  for (const { index, state } of store.info.members)
    if (state === 'faulted' || state === 'stale') await store.onlineMember(index);
  await store.settleMembers();
  for await (const event of store.resilver()) void event;
  assert.deepEqual(
    store.info.members.map(({ state }) => state),
    ['online', 'online'],
  );
  assert.equal(await store.resilverState(), null);
  for await (const event of store.fsck({ data: true }))
    assert.notEqual(event.type, 'finding', event.type === 'finding' ? event.error.message : '');
  await store.close();
}

async function withDevices(body: (paths: readonly string[]) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'ingot-faults-'));
  const paths: string[] = [];
  try {
    for (const name of ['a.member', 'b.member']) {
      const image = join(directory, name);
      if (!hasLoops) {
        paths.push(image);
        continue;
      }
      writeFileSync(image, '');
      truncateSync(image, MEMBER_BYTES);
      const made = run('losetup', '--find', '--show', image);
      assert.equal(made.status, 0, made.stderr);
      paths.push(made.stdout.trim());
    }
    await body(paths);
  } finally {
    if (hasLoops) for (const path of paths) run('losetup', '--detach', path);
    rmSync(directory, { recursive: true, force: true });
  }
}

const kind = hasLoops ? 'loop devices' : 'files';
test(`a member that fails at runtime, on ${kind}: no ack lost, no copy missing unnamed`, (t) =>
  withDevices(async (paths) => {
    const members = paths.map((path) => (hasLoops ? { path } : { path, sizeBytes: MEMBER_BYTES }));
    const ports = { io: new NativeIo(), files: null, closeIo: true };
    await createWith(ports, { members: [] }, { members, redundancy: 2, chunkBytes: 256 * 1024, force: true });
    const rig: Rig = { paths, acked: new Map(), seed: 0 };
    const outcomes: Record<string, number> = {};
    for (const rule of RULES) {
      const state = await suffer(rig, rule).catch((error: unknown) => {
        throw new Error(`${rule}: ${String(error)}`, { cause: error });
      });
      outcomes[state] = (outcomes[state] ?? 0) + 1;
    }
    t.diagnostic(
      `${RULES.length} faults, member 1 afterwards: ${JSON.stringify(outcomes)}; ${rig.seed} versions`,
    );
    assert.ok((outcomes['stale'] ?? 0) + (outcomes['faulted'] ?? 0) >= 5, 'members were set aside');
    assert.ok((outcomes['online'] ?? 0) >= 5, 'passing faults cost no member');
  }));
