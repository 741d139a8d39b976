// The engine's only door to the world: members (devices), time, randomness.
//
// engine/io/native_io.ts implements it over the native core, test/sim/ over simulated members.
// One conformance suite (test/conformance/) runs on every implementation.
//
// Invariants
//   1. Nothing in engine/ reaches a device, a clock or a random source except through these types.
//   2. Data moves in batches; JavaScript runs per batch, never per I/O. All columns of a batch are
//      flat typed arrays of `count` entries (times MAX_COPIES where said), so that crossing into
//      native code copies nothing.
//   3. A read delivers a byte only after the checksum of its whole segment matched. (With `isUnverified` somebody else
//      compares the sums: a GPU does, before anybody is told of the bytes.)
//   4. A batch promise settles only after every I/O that it started has completed, also on
//      abort and on deadline: no buffer is handed back while a device may still touch it.
//   5. A write never becomes durable by itself; only a successful `flush` of its member says so.
//      A failed flush is final: implementations never retry one into success.
//   6. Offsets and lengths are bytes and safe integers; checksums are CRC-64/NVME as bigint.

import type { Crypt, OpenBatch, SealBatch } from './crypt_port.js';
import type { GpuPort } from './gpu_port.js';

/** How bytes reached or left a device. One vocabulary in API, CLI, JSON and docs. */
export type IoPath = 'cufile-direct' | 'cufile-compat' | 'pinned' | 'io_uring' | 'threads' | 'buffered';

/** Copies of one extent or page at most (redundancy 3). */
export const MAX_COPIES = 3;
/** In `copyMember`: no copy in this place. */
export const NO_MEMBER = 0xffff;
/** In `destination` of a read: check only. */
export const NO_DESTINATION = 0xffff_ffff;
/** Operations in one batch at most. */
export const MAX_BATCH_OPS = 65_536;
/** Bytes of one extent at most: 64 MiB of raw bytes, and stored bytes never exceed raw padded. */
export const MAX_EXTENT_BYTES = 64 * 1024 * 1024;

export interface Clock {
  /** Wall time, milliseconds since 1970. Only for people: no decision depends on it. */
  nowMs(): number;
  /** Monotonic milliseconds, for deadlines and rates. */
  monotonicMs(): number;
  /** With `background` the process may end while this sleeps (the writer's heartbeat). */
  sleep(durationMs: number, signal?: AbortSignal, background?: boolean): Promise<void>;
}

export interface Random {
  /** Uniform random bytes (a seeded stream in the simulator). */
  bytes(count: number): Uint8Array;
}

export interface Checksum {
  /** CRC-64/NVME of `bytes`, continuing from `seed` (0n to start). */
  crc64(bytes: Uint8Array, seed?: bigint): bigint;
}

/** Host memory that a caller names by address instead of by view (alignment is checked). */
export interface RawBuffer {
  readonly pointer: bigint;
  readonly byteLength: number;
  /** Kept alive until the batch settles. */
  readonly owner?: object;
}
export type IoBuffer = Uint8Array | RawBuffer;

/** A file opened only to be read by `write` batches (import), read by the native core itself. */
export interface SourceFile {
  readonly id: number;
  readonly path: string;
  readonly byteLength: number;
  /** Size, mtime (ns), ctime (ns), inode and device as one comparable string. */
  identity(): Promise<string>;
  close(): Promise<void>;
}

export interface MemberOpenOptions {
  readonly mode: 'r' | 'rw';
  /** 'prefer' takes buffered I/O where the file system has no O_DIRECT, and reports it. */
  readonly direct: 'require' | 'prefer';
  /** Block devices: open although partitioned or carrying a foreign signature; one in use is never opened to write. */
  readonly force?: boolean;
}
export interface MemberCreateOptions {
  /** Formatted size; files are preallocated to it and synced with their directory before return. */
  readonly sizeBytes?: number;
  /** Overwrite an existing file, or a device that is partitioned or signed; one in use is never taken. */
  readonly force?: boolean;
}

/** An open member. `slot` numbers it inside this Io and is what batches carry. */
export interface MemberDevice {
  readonly slot: number;
  readonly path: string;
  readonly kind: 'file' | 'block' | 'simulated';
  readonly sizeBytes: number;
  /** What reads and writes of this member will take. */
  readonly ioPath: IoPath;
  readonly memoryAlignmentBytes: number;
  readonly offsetAlignmentBytes: number;
  /** Equal for two members that fail together (same drive); '' when unknown. */
  readonly failureDomain: string;
  readonly numaNode: number | null;
}

/** Lower runs first inside a member's queue. */
export type Priority = 0 | 1 | 2;
export interface BatchOptions {
  /** 0 = catalog and commit, 1 = caller's reads and writes (default), 2 = maintenance. */
  readonly priority?: Priority;
  /** Monotonic budget; what has not been submitted by then fails with errno 110 (ETIMEDOUT). */
  readonly deadlineMs?: number;
  readonly signal?: AbortSignal;
}

/**
 * Verified reads of parts of extents.
 * Op i reads bytes [wantedOffset, wantedOffset + wanted) of the extent's stored bytes, in whole
 * segments, checks each touched segment against `sums[sumIndex + k]` (k counts from the first
 * touched segment), and puts exactly the wanted bytes at the destination. A copy that fails
 * (I/O error, short, checksum) is noted in `faults` and the next copy is taken for the
 * failing segments. The order of copies in the columns is the order of preference.
 */
export interface ReadBatch extends BatchOptions {
  readonly count: number;
  /** count x MAX_COPIES; slots, NO_MEMBER = none. */
  readonly copyMember: Uint16Array;
  /** count x MAX_COPIES; byte offset of the extent's first byte on that member, 4 KiB aligned. */
  readonly copyOffsetBytes: Float64Array;
  /** Length of the extent on disk, a multiple of 4 KiB, <= MAX_EXTENT_BYTES. */
  readonly storedBytes: Float64Array;
  /** Power of two in 4 KiB..1 MiB, or >= storedBytes for a page with a single sum. */
  readonly segmentBytes: Float64Array;
  readonly wantedOffsetBytes: Float64Array;
  readonly wantedBytes: Float64Array;
  readonly sumIndex: Uint32Array;
  readonly sums: BigUint64Array;
  /** Index into `destinations`, or NO_DESTINATION: the bytes are checked and nobody gets them. */
  readonly destination: Uint32Array;
  readonly destinationOffsetBytes: Float64Array;
  readonly destinations: readonly IoBuffer[];
  /** The first copy as it is, no sums, no second try: for bytes that a GPU verifies (gpu/gpu_reads.ts). */
  readonly isUnverified?: boolean;
}

export type FaultKind = 'io' | 'short' | 'checksum' | 'missing' | 'deadline' | 'aborted' | 'changed';
/** One copy of one place that could not be used. */
export interface IoFault {
  readonly op: number;
  readonly copy: number;
  readonly slot: number;
  /** First byte on the member of the segment (read) or of the copy (write) that failed. */
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly kind: FaultKind;
  readonly errno: number;
}
export interface BatchResult {
  /** Per op: 0 ok, 1 failed (no copy gave verified bytes / a copy was not fully written), 2 aborted. */
  readonly status: Uint8Array;
  readonly faults: readonly IoFault[];
  /** Device bytes moved, per path. */
  readonly bytesByPath: Partial<Record<IoPath, number>>;
}

/** In `inPlace`: gather the op's pieces into the core's own memory. */
export const GATHER = 0;
/** Write lent memory from where it lies; sum it again after its last write, and a change is a fault. */
export const IN_PLACE_LENT = 1;
/** Write from where it lies memory that nobody else knows. */
export const IN_PLACE_OWN = 2;

/**
 * Writes of extents and pages.
 * Op i gathers its pieces [pieceStart[i], pieceStart[i] + pieceCount[i]) into one zero-filled,
 * aligned, engine-owned buffer of storedBytes, computes the sum of every segment of it
 * (padding included), the CRC of its first rawBytes and the CRC of every piece,
 * and then writes that one buffer to every copy. It is ok only when every copy was written in full.
 * With `inPlace` an op of one suitably aligned piece of memory is written from where it lies; whether the
 * implementation does so or gathers is its choice. Either way no copy of an op that is ok was written from bytes that
 * differ from the sums when its writes began and when they had ended.
 */
export interface WriteBatch extends BatchOptions {
  readonly count: number;
  readonly copyMember: Uint16Array;
  readonly copyOffsetBytes: Float64Array;
  readonly rawBytes: Float64Array;
  readonly storedBytes: Float64Array;
  readonly segmentBytes: Float64Array;
  readonly pieceStart: Uint32Array;
  readonly pieceCount: Uint32Array;
  readonly pieceBytes: Float64Array;
  /** Where the piece begins inside the extent; pieces ascend and do not overlap. */
  readonly pieceOffsetBytes: Float64Array;
  /** Index into `sources` (>= 0) or, as -1 - k, into `files`. */
  readonly pieceSource: Int32Array;
  readonly pieceSourceOffsetBytes: Float64Array;
  readonly sources: readonly IoBuffer[];
  readonly files: readonly SourceFile[];
  /** First entry of `segmentSums` for op i. */
  readonly sumIndex: Uint32Array;
  readonly segmentSums: BigUint64Array;
  readonly rawSums: BigUint64Array;
  readonly pieceSums: BigUint64Array;
  /** Per op GATHER, IN_PLACE_LENT or IN_PLACE_OWN; absent: all GATHER. */
  readonly inPlace?: Uint8Array;
}
export interface WriteResult extends BatchResult {
  /** A source file that gave an error or fewer bytes than asked, by op. */
  readonly sourceFaults: readonly {
    readonly op: number;
    readonly file: string;
    readonly offsetBytes: number;
    readonly errno: number;
  }[];
}

/** How hard an encoder tries: 0 not at all (it gathers and sums), 1 fast (`auto`), 2 small (`max`). */
export type CodecProfile = 0 | 1 | 2;

/** In `baseUse`: when every piece equals the base nothing is coded (the destination holds the raw bytes). */
export const BASE_LINK = 1;
/** In `baseUse`: code the difference to the base where a sample says that it is smaller. */
export const BASE_DELTA = 2;

/**
 * Encoding of chunks (spec/codecs.md), away from the event loop. Op i gathers its pieces, which cover its raw
 * bytes but for gaps of zeros, into `destinations[i]` (of at least rawBytes), sums them, and codes them there:
 * `streamBytes[i]` says what the stream takes of it; 0 says that the chunk is better stored raw, and then the
 * destination holds the raw bytes. Where `bases[i]` is not empty the pieces are compared with its bytes at the same
 * places; with BASE_DELTA gaps take the bytes of the base, so that they cost nothing.
 */
export interface EncodeBatch extends BatchOptions {
  readonly count: number;
  readonly rawBytes: Float64Array;
  readonly transform: Uint32Array;
  readonly profile: Uint32Array;
  readonly pieceStart: Uint32Array;
  readonly pieceCount: Uint32Array;
  readonly pieceBytes: Float64Array;
  readonly pieceOffsetBytes: Float64Array;
  readonly pieceSource: Int32Array;
  readonly pieceSourceOffsetBytes: Float64Array;
  /** 1: the source has fp32 numbers, twice as many bytes, and the piece takes them as bf16 (format/bf16.ts). */
  readonly pieceNarrows: Uint32Array;
  readonly sources: readonly IoBuffer[];
  readonly files: readonly SourceFile[];
  readonly destinations: readonly Uint8Array[];
  /** At least rawBytes of the base each, verified; empty: none. */
  readonly bases: readonly Uint8Array[];
  /** BASE_LINK | BASE_DELTA; 0 without a base. */
  readonly baseUse: Uint32Array;
  readonly streamBytes: Float64Array;
  /** The greatest plane codec of each stream. */
  readonly codecs: Uint32Array;
  /** 1: the stream is a difference to the base. */
  readonly deltas: Uint32Array;
  /** 1: the base has the same bytes where this piece lies. */
  readonly pieceEqual: Uint32Array;
  readonly rawSums: BigUint64Array;
  readonly pieceSums: BigUint64Array;
}

/** What a decoder says of one op: right, a broken stream, not the stream of its record, a wrong raw sum. */
export const DECODE_RIGHT = 0;
export const DECODE_BROKEN = 1;
export const DECODE_OTHER = 2;
export const DECODE_WRONG_SUM = 3;

/**
 * Decoding of parts of coded chunks: raw bytes [offset, offset + length) of op i to its destination; XORed into
 * it when the delta of `ids` is 1. Only the blocks that the range touches are decoded. What is not right is zeroed.
 */
export interface DecodeBatch extends BatchOptions {
  readonly count: number;
  /** Index into `streams`. */
  readonly stream: Uint32Array;
  readonly streamOffsetBytes: Float64Array;
  readonly storedBytes: Float64Array;
  readonly rawBytes: Float64Array;
  /** transform | delta << 8 | codec << 16, as the extent record has them. */
  readonly ids: Uint32Array;
  readonly offsetBytes: Float64Array;
  readonly lengthBytes: Float64Array;
  /** 1: compare the delivered bytes with rawSums (whole chunks). */
  readonly checkSum: Uint32Array;
  readonly rawSums: BigUint64Array;
  readonly destination: Uint32Array;
  readonly destinationOffsetBytes: Float64Array;
  readonly streams: readonly Uint8Array[];
  readonly destinations: readonly IoBuffer[];
  /** Filled in: DECODE_RIGHT and so on. */
  readonly verdict: Uint32Array;
}

export interface FlushResult {
  readonly slot: number;
  readonly errno: number;
}

export interface IoStats {
  readonly byPath: Partial<Record<IoPath, { ops: number; bytes: number }>>;
  readonly readBytes: number;
  readonly writtenBytes: number;
  readonly flushes: number;
  readonly perSlot: readonly {
    slot: number;
    readErrors: number;
    writeErrors: number;
    checksumErrors: number;
  }[];
}

export interface Io {
  readonly clock: Clock;
  readonly random: Random;
  readonly checksum: Checksum;
  readonly crypt: Crypt;
  /** Name of the backend and why it was chosen, for `doctor` and `stats`. */
  readonly backend: { readonly path: IoPath; readonly reason: string };

  createMember(path: string, options: MemberCreateOptions): Promise<MemberDevice>;
  openMember(path: string, options: MemberOpenOptions): Promise<MemberDevice>;
  closeMember(slot: number): Promise<void>;
  openSource(path: string): Promise<SourceFile>;

  /** Page-aligned memory of the engine's own; freed by garbage collection or `release`. */
  allocate(byteLength: number): Uint8Array;
  release(buffer: Uint8Array): void;
  /** Copies a few bytes to host memory named by address (values that live in the catalog). Optional. */
  copyToPointer?(pointer: bigint, bytes: Uint8Array): void;

  read(batch: ReadBatch): Promise<BatchResult>;
  write(batch: WriteBatch): Promise<WriteResult>;
  /** Codes chunks on the workers; nothing of it touches a member. */
  encode(batch: EncodeBatch): Promise<WriteResult>;
  decode(batch: DecodeBatch): Promise<BatchResult>;
  /** Encrypts and opens extents on the workers (crypt_port.ts); nothing of it touches a member. */
  sealExtents(batch: SealBatch): Promise<BatchResult>;
  openExtents(batch: OpenBatch): Promise<BatchResult>;
  /** Makes everything completed so far on these members durable. One result per slot; never retries. */
  flush(slots: readonly number[], options?: BatchOptions): Promise<readonly FlushResult[]>;

  /** Unverified device bytes, for superblocks and fsck only. Rejects with StoreError E_IO. */
  readRaw(
    slot: number,
    offsetBytes: number,
    lengthBytes: number,
    options?: BatchOptions,
  ): Promise<Uint8Array>;
  /** Overwrites in place, for superblocks, membership hints and heartbeat only. 4 KiB multiples. */
  writeRaw(slot: number, offsetBytes: number, bytes: Uint8Array, options?: BatchOptions): Promise<void>;

  /** Exclusive writer lock of the member, at once: false when somebody else holds it. Dies with us and our I/O. */
  tryLockWriter(slot: number): boolean;
  unlockWriter(slot: number): void;
  /** Shared lock that says "sequence s is being read here". Counted; dies with the process. */
  pin(slot: number, sequence: number): void;
  unpin(slot: number, sequence: number): void;
  /** True when another open of the member, in any process, pins a sequence < `sequence`. */
  pinnedBelow(slot: number, sequence: number): boolean;
  /** This process and machine, for the heartbeat block. */
  identity(): {
    readonly hostId: string;
    readonly bootId: string;
    readonly processId: number;
    readonly processStart: string;
  };
  /** Whether a process of this boot still runs (pid and start time both match). */
  processAlive(processId: number, processStart: string): boolean;
  /**
   * Heartbeat sessions of writers that this process holds open over any Io of this kind: two device nodes of
   * one drive share no lock, not even inside one process. Simulated worlds restart in one process and have none.
   */
  readonly openSessions?: Set<bigint>;

  stats(): IoStats;
  /** Absent: this kind of I/O reaches no GPU. */
  readonly gpu?: GpuPort;
  close(): Promise<void>;
}
