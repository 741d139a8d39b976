// Ingot's public API: everything that users and tools may import.
//
// Invariants
//   1. This is the only file of engine/ that wires the native Io port and node:fs to the engine.
//   2. What is not exported here is private and may change without notice.
//
//   const create = { members: [{ path: 'a.member', sizeBytes: 64 << 20 }] };
//   const store = await open('./demo.ingot', { mode: 'rw', create });
//   const tx = await store.begin('run');
//   await tx.put('w', bytes, { dtype: 'F32', shape: [2, 2] });
//   await tx.commit();
//   const back = await (await store.get('run@latest')).tensor('w').read();
//
// This file has no behaviour of its own.

import { NativeIo, checksumKernel, nativeCodec } from './io/native_io.js';
import { nodeDirectory } from './io/node_directory.js';
import { type StoreLocation, createWith, openWith } from './open_store.js';
import type { Store } from './store.js';
import type { CreateOptions, OpenOptions } from './types.js';

/**
 * Opens the store in a directory of `*.member` files, at one member (siblings are found), or at
 * the members given. With `create` and nothing there, makes it first.
 * Errors: E_NOT_FOUND, E_LOCKED, E_DEGRADED, E_CONFLICT, E_CORRUPT, E_FORMAT, E_VERSION, E_IO, E_NATIVE.
 */
export async function open(location: StoreLocation, options: OpenOptions = {}): Promise<Store> {
  return openWith({ io: new NativeIo(), files: nodeDirectory, closeIo: true }, location, options);
}

/** Makes a store and leaves it closed; resolves with the paths of its members. E_EXISTS, E_NO_SPACE, E_IO. */
export async function create(location: StoreLocation, options: CreateOptions): Promise<readonly string[]> {
  return createWith({ io: new NativeIo(), files: nodeDirectory, closeIo: true }, location, options);
}

export { NativeIo, checksumKernel, nativeCodec, nodeDirectory };
export { createWith, openWith } from './open_store.js';
export type { StoreLocation, StorePorts } from './open_store.js';
export type { DirectoryPort } from './io/directory_port.js';
export { Store } from './store.js';
export type { RemoveOptions, TagOptions } from './store.js';
export { Transaction } from './transaction.js';
export { BlobRef, TensorRef, Version } from './version.js';
export type { ExtentPlace } from './version.js';
export { DELTA_METADATA_KEY, LOSSY_METADATA_KEY } from './put_records.js';
export { decideRetention } from './retention.js';
export { fsck } from './fsck.js';
export type { FsckOptions } from './fsck.js';
export type { AddMemberOptions } from './members/manager.js';
export type { SettleReport } from './members/settle.js';
export type { VersionHealth } from './members/version_health.js';
export type { ResilverOptions, ResilverReport } from './repair/resilver.js';
export type { ScrubOptions } from './repair/scrub.js';
export { releaseSecret, secretState, takeSecret } from './io/native_crypt.js';
export { nativeCrypt } from './io/native_tokens.js';
export { parsePkcs11Uri } from './keys/pkcs11_uri.js';
export { parseTpmUri } from './keys/tpm_uri.js';
export { keyProviders } from './keys/providers.js';
export type { KeyProvider } from './keys/key_provider.js';
export type { SlotOptions } from './keys/slots.js';
export type { JobRecord } from '../format/index.js';
export type { WatchOptions } from './watch.js';
export type * from './types.js';
export type { Io } from './io/port.js';
export { STORE_ERROR_CODES, StoreError, isStoreError } from '../format/errors.js';
export type { ErrorWhere, StoreErrorCode } from '../format/errors.js';
