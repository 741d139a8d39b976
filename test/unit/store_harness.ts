// What the tests of the store layer share: a store on simulated members, contents, small helpers.
//
// Invariants
//   1. Nothing here touches the host: members, files and time are a SimWorld's.
//   2. Contents follow from name and length, so that a read can be judged without the write.
//
// It asserts nothing about the store itself.

import { createStore } from '../../engine/create.js';
import type { DirectoryPort, PathStatus } from '../../engine/io/directory_port.js';
import { openWith } from '../../engine/open_store.js';
import type { Store } from '../../engine/store.js';
import type { CreateOptions, OpenOptions, StoreKey } from '../../engine/types.js';
import { Prng } from '../sim/prng.js';
import type { SimIo } from '../sim/sim_io.js';
import { SimWorld } from '../sim/sim_world.js';

export const MEBIBYTE = 1024 * 1024;

export interface Rig {
  readonly world: SimWorld;
  readonly paths: readonly string[];
  io: SimIo;
  store: Store;
}
export interface RigOptions extends Omit<CreateOptions, 'members'> {
  readonly members?: number;
  readonly memberBytes?: number;
  readonly seed?: number;
  /** For a store made with `encrypt`. */
  readonly key?: StoreKey;
}

/** Files of the simulated machine, for values that live in the catalog. */
export function simDirectory(world: SimWorld): DirectoryPort {
  return {
    async status(path): Promise<PathStatus> {
      const file = world.files.get(path);
      if (file !== undefined) return { kind: 'file', byteLength: file.byteLength };
      return { kind: world.devices.has(path) ? 'file' : 'absent', byteLength: 0 };
    },
    memberFiles: async (directory) => world.memberPaths().filter((path) => path.startsWith(`${directory}/`)),
    makeDirectory: async () => undefined,
    removeFile: async () => undefined,
    removeDirectory: async () => undefined,
    resolveInside: (directory, path) => `${directory}/${path}`,
    async readRange(path, offsetBytes, byteLength) {
      const bytes = new Uint8Array(byteLength);
      world.files.get(path)?.read(offsetBytes, bytes);
      return bytes;
    },
  };
}

export async function makeRig(options: RigOptions = {}): Promise<Rig> {
  const { members = 2, memberBytes = 64 * MEBIBYTE, seed = 1, key, ...rest } = options;
  const world = new SimWorld({ seed });
  const paths = Array.from({ length: members }, (_, index) => `${String.fromCharCode(97 + index)}.member`);
  const io = world.process();
  await createStore(io, { ...rest, members: paths.map((path) => ({ path, sizeBytes: memberBytes })) });
  const store = await openRig(world, io, paths, { mode: 'rw', ...(key === undefined ? {} : { key }) });
  return { world, paths, io, store };
}

export function openRig(
  world: SimWorld,
  io: SimIo,
  paths: readonly string[],
  options: OpenOptions,
): Promise<Store> {
  return openWith({ io, files: simDirectory(world), closeIo: false }, { members: paths }, options);
}

/** Closes the store and opens it again in the same process. */
export async function reopen(rig: Rig, mode: 'r' | 'rw' = 'rw'): Promise<void> {
  await rig.store.close();
  rig.store = await openRig(rig.world, rig.io, rig.paths, { mode });
}

/** Bytes that follow from a number. */
export function contents(seed: number, byteLength: number): Uint8Array {
  return new Prng(seed + 1).bytes(byteLength);
}

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

/** fsck findings as text; [] for a clean store. */
export async function fsckFindings(store: Store): Promise<string[]> {
  const found: string[] = [];
  for await (const event of store.fsck({})) {
    if (event.type === 'finding') found.push(`${event.severity} ${event.error.code} ${event.error.message}`);
  }
  return found;
}
