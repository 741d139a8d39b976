// From what a user names (a directory, member paths, a device) to an open Store, over any Io port.
//
// Invariants
//   1. A directory stands for all its `*.member` files; a file or device for itself and the siblings that
//      its hints name; a list for exactly its paths and their hints.
//   2. `create` makes a store only where there is none; an existing one is opened as it is.
//   3. Whatever fails, nothing stays open and no lock is kept.
//
// This file never touches a file system but through the DirectoryPort.

import { StoreError } from '../format/errors.js';
import { openCatalog } from './catalog.js';
import { checkOptions, createStore } from './create.js';
import type { DirectoryPort } from './io/directory_port.js';
import type { Io, MemberDevice } from './io/port.js';
import { finishErasure } from './keys/erasure.js';
import { unlock } from './keys/store_keys.js';
import type { PageFault } from './page_store.js';
import { Store } from './store.js';
import type { CreateOptions, OpenOptions } from './types.js';

/** A store by directory, by one member (file or device), or by the paths of its members. */
export type StoreLocation = string | { readonly members: readonly string[] };

export interface StorePorts {
  readonly io: Io;
  readonly files: DirectoryPort | null;
  /** The Store closes the Io when it is closed. */
  readonly closeIo: boolean;
}

interface Located {
  readonly paths: readonly string[];
  /** Directory that relative member paths of `create` are inside. */
  readonly directory: string | null;
  readonly isDirectoryMissing: boolean;
}

/** Errors: E_NOT_FOUND, E_FORMAT, E_CORRUPT, E_CONFLICT, E_VERSION, E_LOCKED, E_DEGRADED, E_IO, E_EXISTS. */
export async function openWith(
  ports: StorePorts,
  location: StoreLocation,
  options: OpenOptions,
): Promise<Store> {
  try {
    options.signal?.throwIfAborted();
    const located = await locate(ports.files, location);
    const mode = options.mode ?? 'r';
    let { paths } = located;
    if (paths.length === 0) {
      if (options.create === undefined) throw nothingThere(location);
      if (mode !== 'rw') throw new StoreError('E_USAGE', "create needs mode 'rw'");
      paths = await makeStore(ports, located, options.create);
    }
    let told: ((fault: PageFault) => void) | null = null;
    const catalog = await openCatalog(ports.io, paths, {
      mode,
      ...(options.force === undefined ? {} : { force: options.force }),
      ...(options.readDeadlineMs === undefined ? {} : { readDeadlineMs: options.readDeadlineMs }),
      ...(options.rebuildFreeMap === undefined ? {} : { rebuildFreeMap: options.rebuildFreeMap }),
      ...(options.cacheBytes === undefined ? {} : { cacheBytes: options.cacheBytes }),
      onPageFault: (fault) => told?.(fault),
    });
    try {
      catalog.useKeys(await unlock(catalog, options.key));
      // What a shredding or a rotation that was cut short left, and what members that came back still hold.
      await finishErasure(catalog);
      const store = new Store(catalog, ports.files, ports.closeIo, options);
      told = (fault) => store.catalogFault(fault);
      return store;
    } catch (error) {
      await catalog.close();
      catalog.keys.close();
      throw error;
    }
  } catch (error) {
    if (ports.closeIo) await ports.io.close();
    throw error;
  }
}

async function locate(files: DirectoryPort | null, location: StoreLocation): Promise<Located> {
  if (typeof location !== 'string') {
    const present = await presentPaths(files, location.members);
    return { paths: present, directory: null, isDirectoryMissing: false };
  }
  if (files === null) return { paths: [location], directory: null, isDirectoryMissing: false };
  const { kind } = await files.status(location);
  if (kind === 'directory')
    return { paths: await files.memberFiles(location), directory: location, isDirectoryMissing: false };
  if (kind === 'absent') return { paths: [], directory: location, isDirectoryMissing: true };
  return { paths: [location], directory: null, isDirectoryMissing: false };
}

/** All given paths, unless none of them exists yet. */
async function presentPaths(
  files: DirectoryPort | null,
  members: readonly string[],
): Promise<readonly string[]> {
  if (files === null) return members;
  const kinds = await Promise.all(members.map(async (path) => (await files.status(path)).kind));
  return kinds.every((kind) => kind === 'absent') ? [] : members;
}

async function makeStore(
  ports: StorePorts,
  located: Located,
  create: CreateOptions,
): Promise<readonly string[]> {
  const { directory } = located;
  checkOptions(create);
  const makesDirectory = directory !== null && located.isDirectoryMissing;
  if (makesDirectory) await ports.files?.makeDirectory(directory);
  const members = create.members.map((member) => ({
    ...member,
    path:
      directory === null || ports.files === null
        ? member.path
        : ports.files.resolveInside(directory, member.path),
  }));
  const made: MemberDevice[] = [];
  try {
    await createStore(ports.io, { ...create, members }, (device) => made.push(device));
  } catch (error) {
    // No store came to be: the files made for it would only be in the way of the next try.
    for (const { kind, path } of made) if (kind === 'file') await ports.files?.removeFile(path);
    if (makesDirectory) await ports.files?.removeDirectory(directory);
    throw error;
  }
  return members.map((member) => member.path);
}

/** Makes a store at exactly these members, and leaves it closed. E_EXISTS without `force` when something is there. */
export async function createWith(
  ports: StorePorts,
  location: StoreLocation,
  create: CreateOptions,
): Promise<readonly string[]> {
  try {
    const located = await locate(ports.files, location);
    const taken = await existingFiles(ports.files, located.paths);
    if (taken.length > 0 && create.force !== true) {
      throw new StoreError('E_EXISTS', `there are members already: ${taken.join(', ')}`, {
        safe: 'nothing was written',
        next: 'open the store, or create with force to destroy it',
      });
    }
    return await makeStore(ports, located, create);
  } finally {
    if (ports.closeIo) await ports.io.close();
  }
}

/** A block device is always there; whether something lives on it is for the core to find out (signatures, use). */
async function existingFiles(
  files: DirectoryPort | null,
  paths: readonly string[],
): Promise<readonly string[]> {
  if (files === null) return paths;
  const kinds = await Promise.all(paths.map(async (path) => (await files.status(path)).kind));
  return paths.filter((_, index) => kinds[index] !== 'block');
}

function nothingThere(location: StoreLocation): StoreError {
  const what = typeof location === 'string' ? location : location.members.join(', ');
  return new StoreError('E_NOT_FOUND', `there is no store at ${what}`, {
    where: { store: what },
    next: 'ingot create, or open with { create }',
  });
}
