// The words of the public API: what callers pass in and get back.
//
// Invariants
//   1. Bytes, offsets and counts are safe integers (8 PiB); ids that leave the API are strings.
//   2. Everything handed out is immutable for its receiver; nothing here holds a resource.
//   3. Where this differs from the first API sketch, the difference is deliberate:
//        - `link` and `TensorRef.extents` are asynchronous: both need catalog pages.
//        - `VersionSummary` (what `lookup` gives, synchronously when cached) has no tags; `VersionInfo` has.
//        - 'copy' and 'borrow' of `put` say until when the caller's memory is needed (PutOptions).
//        - `Transaction.putFile`, `putBlobFile` and `addFile` exist, so that importing moves no byte
//          through JavaScript; `alloc` gives host memory as a Uint8Array.
//        - `prune` returns every version with what was decided and why, not only the removed ones.
//        - `refresh`, `runs`, `lookup` and OpenOptions.cacheBytes are additions.
//        - E_BUFFER_CHANGED is raised for 'borrow' only; 'copy' copies bytes into engine memory and sums them there.
//        - `addFile` returns an index that `put`/`putFile` name, so that a file can be exported exactly.
//
// This file has no behaviour.

import type { DType } from '../format/dtype.js';
import type { StoreError } from '../format/errors.js';
import type { GpuCounters } from './gpu/gpus.js';
import type { FaultKind, IoPath, SourceFile } from './io/port.js';
import type { StoreKey } from './keys/key_provider.js';
import type { EncryptOptions, KeyChange, KeySlotInfo } from './keys/store_keys.js';
import type { RotateOptions, RotatedKeys } from './keys/rotation.js';
import type { ShredReport } from './keys/shred.js';
import type { HealingStats } from './repair/healer.js';

export type { RotateOptions, RotatedKeys, ShredReport };
export type { DType, EncryptOptions, HealingStats, IoPath, KeyChange, KeySlotInfo, StoreKey };

export type Device =
  | { readonly type: 'cpu' }
  | { readonly type: 'cuda_host' }
  | { readonly type: 'cuda'; readonly id: number };

/** Memory named by address, the host's or a GPU's; mirrors DLTensor, minus ownership. */
export interface BufferDesc {
  /** Address of the first byte, in the host's memory or the GPU's. */
  readonly ptr: bigint;
  readonly byteLength: number;
  readonly byteOffset?: number;
  readonly device: Device;
  /** Keeps the owner of the memory alive until the operation settles. */
  readonly owner?: object;
  /** cudaStream_t, GPU memory only: what is queued on it ends before the memory is touched. 0n: the default stream. */
  readonly stream?: bigint;
}
/** GPU memory of the engine's own (`store.alloc`). Reads that use it hold it until they settle. */
export interface DeviceBuffer extends BufferDesc, AsyncDisposable {
  /** A stretch of it, as a destination. E_RANGE. */
  at(byteOffset: number, byteLength: number): BufferDesc;
  /** Its bytes from byteOffset on, to host memory. E_RANGE, E_GPU, E_CLOSED. */
  copyTo(
    bytes: Uint8Array,
    options?: { readonly byteOffset?: number; readonly signal?: AbortSignal },
  ): Promise<void>;
  /** Host memory to it, from byteOffset on. */
  copyFrom(
    bytes: Uint8Array,
    options?: { readonly byteOffset?: number; readonly signal?: AbortSignal },
  ): Promise<void>;
  /** Frees it, once no read uses it any more. */
  close(): Promise<void>;
}
export interface TensorDesc extends BufferDesc {
  readonly dtype: DType;
  readonly shape: readonly number[];
}
/** Where a read puts its bytes: a view, memory named by address, or what `store.alloc` gave. */
export type Destination = Uint8Array | BufferDesc | HostBuffer;

export interface Progress {
  readonly phase: string;
  readonly bytes: number;
  readonly totalBytes: number | null;
  readonly items: number;
  readonly totalItems: number | null;
  /** Mean since the start of the operation, bytes (not GB) per second. */
  readonly bytesPerSec: number;
  readonly etaSec: number | null;
}
export interface OpOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: Progress) => void;
}
export interface ReadOptions extends OpOptions {
  /** Demand one way to the bytes: `E_UNSUPPORTED` when a member involved would take another. */
  readonly path?: 'auto' | IoPath;
  /** Called for every copy that was passed over (the bytes delivered are good all the same). */
  readonly onFault?: (fault: ReadFault) => void;
}
export interface RangeOptions extends ReadOptions {
  /** First byte of the tensor wanted (default 0). */
  readonly offset?: number;
  /** Bytes wanted (default: to the end). */
  readonly length?: number;
}
export interface StreamOptions extends RangeOptions {
  /** Bytes of each chunk yielded (default 4 MiB). */
  readonly chunkBytes?: number;
}
export interface LoadOptions extends ReadOptions {
  /** Only these tensors (default: all). An unknown name is `E_NOT_FOUND`. */
  readonly names?: Iterable<string>;
  /** Bytes being read or landed and not yet taken by the consumer (default 256 MiB). */
  readonly maxInFlight?: number;
}

/** One copy of one place that could not be used for a read. */
export interface ReadFault {
  /** Version id. */
  readonly object: string;
  /** Tensor or blob name; '' when unknown. */
  readonly tensor: string;
  /** Path of the member as opened. */
  readonly member: string;
  readonly memberIndex: number;
  readonly copy: number;
  /** Byte offset on the member. */
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly kind: FaultKind;
  readonly errno: number;
}

export interface TensorInfo {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly byteLength: number;
  /** CRC-64/NVME of the tensor's bytes, 8 bytes big-endian. */
  readonly checksum: Uint8Array;
}
export interface BlobInfo {
  readonly name: string;
  readonly byteLength: number;
  readonly contentType: string | null;
  readonly checksum: Uint8Array;
}
/** A file of the imported model that can be written again byte for byte (format F17). */
export interface FileInfo {
  /** Relative path with '/'. */
  readonly name: string;
  readonly sizeBytes: number;
  /** CRC-64/NVME of the whole file. */
  readonly sum: bigint;
  readonly format: 'blob' | 'safetensors';
  /** The first bytes verbatim ('safetensors'), else empty. */
  readonly prefix: Uint8Array;
  readonly mode: number;
  /** Tensors of the file by their offset in it; together with the prefix they are the file. */
  readonly tensors: readonly {
    readonly name: string;
    readonly fileOffset: number;
    readonly byteLength: number;
  }[];
}

/** What `lookup` gives: everything about a version that needs no second look at the catalog. */
export interface VersionSummary {
  readonly id: string;
  readonly run: string;
  readonly step: number | null;
  readonly createdAt: Date;
  readonly tensorCount: number;
  readonly blobCount: number;
  readonly fileCount: number;
  /** Sum of tensor and blob bytes. */
  readonly byteLength: number;
  /** Bytes on members: all copies, padding included; linked extents count here too. */
  readonly storedBytes: number;
  readonly redundancy: number;
  readonly chunkBytes: number;
  /** Id of the version that it was begun against (BeginOptions.base), which may be gone; null: none. */
  readonly base: string | null;
  readonly metadata: Readonly<Record<string, string>>;
  readonly metrics: Readonly<Record<string, number>>;
}
export interface VersionInfo extends VersionSummary {
  readonly tags: readonly string[];
}

export interface ListQuery {
  /** Only this run. */
  readonly run?: string;
  /** Runs whose name starts so. */
  readonly prefix?: string;
  /** Only versions with this tag. */
  readonly tag?: string;
  /** Only versions made at or after. */
  readonly since?: Date;
}

export interface BeginOptions {
  readonly step?: number;
  /** Ref of the version that `link`, `delta` and a put's `base` refer to. */
  readonly base?: string;
  /**
   * Stores every tensor against the one of its name, dtype and shape in `base`: equal bytes become a link, and a float
   * that differs the XOR of both where a sample says that it is smaller. The codec is then 'auto' unless given; with
   * 'raw' only links are made. `base` can be removed later: what is needed of it stays.
   */
  readonly delta?: boolean;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly metrics?: Readonly<Record<string, number>>;
  readonly redundancy?: 1 | 2 | 3;
  /** 64 KiB .. 64 MiB, a multiple of the segment size. */
  readonly chunkBytes?: number;
  /**
   * How tensors are stored, losslessly (spec/codecs.md): 'raw' (default), 'auto' (what saves at least 3 % of a chunk
   * and decodes fast) or 'max' (smallest; blobs too). Nothing is ever stored larger than raw.
   */
  readonly codec?: 'raw' | 'auto' | 'max';
  readonly signal?: AbortSignal;
}
export interface PutOptions extends OpOptions {
  /** For this object alone; default: that of the transaction ('auto' leaves blobs raw). */
  readonly codec?: 'raw' | 'auto' | 'max';
  /**
   * 'copy' (default): the memory is the caller's again when the promise settles.
   * 'borrow': large aligned memory is written from where it lies; it must stay unchanged until commit() or
   * abort() settles. It is summed before and after: a change that is seen is E_BUFFER_CHANGED.
   */
  readonly buffer?: 'copy' | 'borrow';
  /** Index from `addFile`, when the tensor is part of a file that must be exportable exactly. */
  readonly file?: number;
  /** Byte offset of the tensor in that file, from the file's first byte. */
  readonly fileOffset?: number;
  /**
   * The tensor to store this one against, as `delta` of the transaction does: of the same dtype and shape (E_USAGE),
   * of this name and the transaction's base unless said. null: none.
   */
  readonly base?: { readonly version?: string; readonly tensor?: string } | null;
  /** Lossy: the F32 numbers given are stored as BF16, rounded to nearest even; the version's metadata says so. */
  readonly saveAs?: 'BF16';
}
export interface BlobOptions extends PutOptions {
  readonly contentType?: string;
}
export interface TensorMeta {
  readonly dtype: DType;
  readonly shape: readonly number[];
}
/** A stretch of a file that the native core reads by itself. */
export interface FileSource {
  readonly path: string;
  readonly offset?: number;
  readonly byteLength?: number;
}
export interface AddFileOptions {
  readonly name: string;
  /** First bytes of a safetensors file verbatim; absent for a file that is a blob of the same name. */
  readonly prefix?: Uint8Array;
  readonly mode?: number;
}
export interface LinkAllOptions {
  /** Names of tensors and blobs that are left out. */
  readonly except?: Iterable<string>;
}
export interface CommitOptions {
  /** Tags moved to the new version in the same commit, besides `latest`. */
  readonly tags?: readonly string[];
  readonly signal?: AbortSignal;
  /**
   * Called when every byte is written and nothing is visible yet, with the sums of the files added.
   * When it throws, the transaction is aborted with that error.
   */
  readonly beforeVisible?: (files: readonly WrittenFile[]) => Promise<void>;
}
/** A file of a transaction, as its bytes were written. */
export interface WrittenFile {
  readonly name: string;
  readonly sizeBytes: number;
  /** CRC-64/NVME of the whole file. */
  readonly sum: bigint;
}

/** Union: a version kept by any rule survives; tagged versions (other than `latest` alone) are always kept. */
export interface Retention {
  readonly last?: number;
  readonly everySteps?: number;
  readonly everySec?: number;
  readonly best?: { readonly n: number; readonly metric: string; readonly mode: 'min' | 'max' };
  readonly maxAgeSec?: number;
}
export interface PruneDecision {
  readonly version: VersionInfo;
  readonly action: 'keep' | 'remove';
  /** Why it is kept, e.g. 'last 3', 'tag best'; empty for removed ones. */
  readonly reasons: readonly string[];
}

export type MaintEvent =
  | { readonly type: 'progress'; readonly progress: Progress }
  | {
      readonly type: 'finding';
      readonly severity: 'warn' | 'error' | 'fatal';
      readonly error: StoreError;
      readonly action: 'none' | 'repaired' | 'unrepairable';
    }
  | {
      readonly type: 'done';
      readonly scannedBytes: number;
      readonly repaired: number;
      readonly unrepairable: number;
      readonly durationMs: number;
    };

export type StoreEvent = {
  readonly type: 'commit' | 'tag' | 'remove' | 'device' | 'error' | 'repair' | 'stats';
  readonly at: Date;
  readonly detail: Readonly<Record<string, unknown>>;
};

export interface MemberInfo {
  readonly name: string;
  readonly path: string;
  readonly index: number;
  readonly uuid: string;
  readonly kind: string;
  readonly ioPath: IoPath | null;
  readonly numaNode: number | null;
  readonly failureDomain: string;
  readonly syncedSequence: number;
  readonly state: 'online' | 'resilvering' | 'evacuating' | 'stale' | 'faulted' | 'detached' | 'missing';
  /** Asked to leave: `remove` goes on until it is empty. */
  readonly isLeaving: boolean;
  readonly capacityBytes: number;
  readonly allocatedBytes: number;
  readonly errors: { readonly read: number; readonly write: number; readonly checksum: number };
}
export interface StoreInfo {
  readonly uuid: string;
  readonly formatVersion: string;
  readonly state: 'online' | 'degraded' | 'failed';
  readonly writable: boolean;
  readonly sequence: number;
  readonly versionCount: number;
  readonly members: readonly MemberInfo[];
  readonly capacityBytes: number;
  readonly freeBytes: number;
  /** Data-area bytes neither free nor deferred, all members. */
  readonly storedBytes: number;
  readonly chunkBytes: number;
  readonly segmentBytes: number;
  readonly redundancy: number;
  /** Whether it was made with encryption, and whether a key was given. */
  readonly encryption: 'none' | 'locked' | 'open';
  /** Paths of members, here or away, on which keys may still stand that were shredded or rotated away. */
  readonly oldKeysOn: readonly string[];
  /** What open had to report: lone newer copies, members rolled forward, degraded state. */
  readonly openReport: readonly string[];
}
/** What this writer does by itself so that every extent has the copies it wants. */
export interface ResilverStats {
  /** 'stopped': something is in the way (`error`); it is tried again by itself. */
  readonly state: 'idle' | 'catalog' | 'copies' | 'stopped';
  /** Bytes of new copies written, and to be written in all, by this walk. */
  readonly bytes: number;
  readonly totalBytes: number;
  readonly bytesPerSec: number;
  readonly etaSec: number | null;
  /** Extents short of copies when the last pass ended; null before. */
  readonly underReplicated: number | null;
  readonly error: string | null;
}
export interface StoreStats {
  readonly readBytes: number;
  readonly writtenBytes: number;
  readonly byPath: Readonly<Partial<Record<IoPath, { readonly ops: number; readonly bytes: number }>>>;
  readonly backend: { readonly path: IoPath; readonly reason: string };
  /** Segments and page copies healed by this handle since open. */
  readonly repairs: number;
  readonly healing: HealingStats;
  /** Reads into GPU memory: who decoded coded chunks; chunks whose raw sum was wrong there. */
  readonly gpu: Readonly<GpuCounters>;
  /** Null: this handle places no copies by itself (open for reading, or `resilver: false`). */
  readonly resilver: ResilverStats | null;
  /** Copies passed over by reads of this handle since open. */
  readonly copiesPassedOver: number;
  /** Reads that passed their deadline (decisions/0012). */
  readonly lateReads: number;
  /** Reads asked for again because every copy had failed for a passing reason. */
  readonly readRetries: number;
  readonly flushes: number;
  readonly commits: number;
  readonly openTransactions: number;
  readonly perMember: readonly MemberInfo[];
}

export interface CreateOptions {
  readonly members: readonly { readonly path: string; readonly sizeBytes?: number }[];
  /** Copies of each chunk by default: 2 with two or more members. */
  readonly redundancy?: 1 | 2 | 3;
  readonly chunkBytes?: number;
  readonly segmentBytes?: number;
  readonly force?: boolean;
  /** Encrypts what the store will hold (SAFETY.md says what stays in the clear). It cannot be turned on later. */
  readonly encrypt?: EncryptOptions;
  readonly signal?: AbortSignal;
}
export interface OpenOptions {
  readonly mode?: 'r' | 'rw';
  /** Make the store when nothing is there yet; an existing one is opened. */
  readonly create?: CreateOptions;
  /**
   * Opens what is sealed. An encrypted store opened without one lists runs and versions, and can be scrubbed, healed
   * and resilvered; what needs a key is E_AUTH.
   */
  readonly key?: StoreKey;
  /** Bytes of catalog pages kept in memory (default 96 MiB). A million small versions take about 400 MB. */
  readonly cacheBytes?: number;
  /** Milliseconds after which a read counts as hung and is taken from another copy where it can be (default 10,000). */
  readonly readDeadlineMs?: number;
  /** Writers: make the free map anew from everything else before anything is written (`ingot fsck --repair`). */
  readonly rebuildFreeMap?: boolean;
  /**
   * Writers: place by themselves the copies that members lack which came back, with at most `bytesPerSec` of new copies
   * beside other work (default 64 MiB/s, Infinity for no cap). False: only `Store.resilver` does.
   */
  readonly resilver?: false | { readonly bytesPerSec?: number };
  /** Open although a quorum is missing or a device is in use (see `docs/errors.md`). */
  readonly force?: boolean;
  readonly signal?: AbortSignal;
}

/** Host memory of the engine's own, aligned for direct I/O. */
export interface HostBuffer extends AsyncDisposable {
  readonly bytes: Uint8Array;
  readonly byteLength: number;
  readonly device: Device;
  close(): Promise<void>;
}

/** A source file as one transaction sees it: opened once, compared before and after. */
export interface OpenSource {
  readonly file: SourceFile;
  readonly identityBefore: string;
}
