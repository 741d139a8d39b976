// Helpers of the catalog tests: a store on simulated members, opened by simulated processes.
//
// Invariants
//   1. Everything is a function of the seed.
//
// It asserts nothing about behaviour.

import { openCatalog } from '../../engine/catalog.js';
import type { CatalogOptions, StoreCatalog } from '../../engine/catalog.js';
import { createStore } from '../../engine/create.js';
import type { CreateStoreOptions } from '../../engine/create.js';
import type { CatalogView } from '../../engine/contract.js';
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
export async function makeStore(count: number, sizeBytes = 64 * MIB, options: Partial<CreateStoreOptions> = {}, seed = 1): Promise<TestStore> {
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
  for await (const item of view.range(tree, new Uint8Array([0]), null)) found.set(item.key.join(), item.value);
  return found;
}
