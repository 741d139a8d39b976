// Helpers of the catalog tests: a store on simulated members, opened by simulated processes.
//
// Invariants
//   1. Everything is a function of the seed.
//
// It asserts nothing but that space is partitioned.

import assert from 'node:assert/strict';
import { openCatalog } from '../../engine/catalog.js';
import type { CatalogOptions, StoreCatalog } from '../../engine/catalog.js';
import { createStore } from '../../engine/create.js';
import type { CreateStoreOptions } from '../../engine/create.js';
import type { CatalogView } from '../../engine/contract.js';
import { readDeferred, readRegions } from '../../engine/free_records.js';
import { SimWorld } from '../sim/sim_world.js';
import type { SimIo } from '../sim/sim_io.js';

export const MIB = 1024 * 1024;

export function key(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
export function text(bytes: Uint8Array | undefined): string | undefined {
  return bytes === undefined ? undefined : new TextDecoder().decode(bytes);
}

export interface TestStore {
  readonly world: SimWorld;
  readonly io: SimIo;
  readonly paths: readonly string[];
}

/** A store with `count` members of `sizeBytes`, closed. */
export async function makeStore(
  count: number,
  sizeBytes = 64 * MIB,
  options: Partial<CreateStoreOptions> = {},
  seed = 1,
): Promise<TestStore> {
  const world = new SimWorld({ seed });
  const io = world.process();
  const paths = Array.from({ length: count }, (_, i) => `/store/m${i}.member`);
  await createStore(io, { members: paths.map((path) => ({ path, sizeBytes })), ...options });
  return { world, io, paths };
}

export function open(store: TestStore, options: Partial<CatalogOptions> = {}): Promise<StoreCatalog> {
  return openCatalog(store.io, store.paths, { mode: 'rw', ...options });
}

export function put(catalog: StoreCatalog, name: string, value: string): Promise<void> {
  return catalog.commit((change) => change.put(0, key(name), key(value)));
}

export async function read(catalog: StoreCatalog, name: string): Promise<string | undefined> {
  const snapshot = catalog.snapshot();
  try {
    return text(await snapshot.get(0, key(name)));
  } finally {
    snapshot.close();
  }
}

export async function items(view: CatalogView, tree: 0 | 1 | 2 | 3): Promise<Map<string, Uint8Array>> {
  const found = new Map<string, Uint8Array>();
  for await (const item of view.range(tree, new Uint8Array([0]), null))
    found.set(item.key.join(), item.value);
  return found;
}

/** Sectors that the test itself took for data and not given back. */
export interface Held {
  readonly member: number;
  readonly sector: number;
  readonly sectorCount: number;
}

/**
 * Proves that pages, `data`, deferred and free ranges of the newest root partition every member's data
 * area, and that the member table counts them right. Returns free sectors by member.
 */
export async function checkPartition(catalog: StoreCatalog, data: readonly Held[] = []): Promise<number[]> {
  const snapshot = catalog.snapshot();
  const owners = catalog.superblock.members.map((entry) => new Uint8Array(entry.formattedBytes / 4096 - 256));
  const allocated = owners.map(() => 0);
  const claim = (member: number, sector: number, count: number, owner: number): void => {
    for (let i = sector; i < sector + count; i += 1) {
      assert.equal(
        owners[member]?.[i],
        0,
        `sector ${i} of member ${member} is owned by ${owners[member]?.[i]} and ${owner}`,
      );
      (owners[member] as Uint8Array)[i] = owner;
    }
    if (owner !== 3 && owner !== 4) allocated[member] = (allocated[member] ?? 0) + count;
  };
  for (const tree of snapshot.root.trees) {
    for await (const page of tree.walkPages()) {
      for (const copy of page.pointer.copies)
        claim(copy.member, copy.sector, page.pointer.storedBytes / 4096, 1);
    }
  }
  for (const range of data) claim(range.member, range.sector, range.sectorCount, 2);
  for (const ranges of (await readDeferred(snapshot.root.tree(3))).values()) {
    for (const range of ranges) claim(range.member, range.sector, range.sectorCount, 3);
  }
  const withRecord = new Set<string>();
  const free = owners.map(() => 0);
  for await (const { member, region, free: runs } of readRegions(snapshot.root.tree(3))) {
    withRecord.add(`${member}.${region}`);
    for (let i = 0; i < runs.runCount; i += 1)
      claim(member, region * 262_144 + runs.start(i), runs.count(i), 4);
    free[member] = (free[member] ?? 0) + runs.total;
  }
  owners.forEach((sectors, member) => {
    for (let i = 256; i < sectors.length; i += 1) {
      if (sectors[i] !== 0) continue;
      assert.ok(
        !withRecord.has(`${member}.${Math.floor(i / 262_144)}`),
        `sector ${i} of member ${member} is leaked`,
      );
      free[member] = (free[member] ?? 0) + 1;
    }
    assert.equal(
      catalog.superblock.members[member]?.allocatedSectors,
      allocated[member],
      'the table counts allocated sectors',
    );
  });
  snapshot.close();
  return free;
}
