// The shape of the native addon: one TypeScript signature per function of native/src/addon.cc.
//
// Invariants
//   1. Every function here exists in the addon and the other way round (a test compares the two).
//   2. Asynchronous calls carry an id chosen by the caller; their results arrive, many at a time, in
//      the function given to `open`.
//   3. Errors thrown are Error objects with `code` (a StoreError code or "ASSERT") and `errno`.

export type NativeHandle = { readonly __ingotNativeHandle: never };

/** Zero or absent means the core's default. Bytes and counts. */
export interface NativeOptions {
  readonly backend?: 0 | 1 | 2;
  readonly workerCount?: number;
  readonly poolBytes?: number;
  readonly transferBytes?: number;
  readonly coalesceBytes?: number;
  readonly queueDepth?: number;
  readonly queueBytes?: number;
}

export interface NativeMember {
  readonly slot: number;
  readonly isBlock: boolean;
  readonly path: number;
  readonly numaNode: number;
  readonly memoryAlignmentBytes: number;
  readonly offsetAlignmentBytes: number;
  readonly sizeBytes: number;
  readonly failureDomain: string;
}

export interface NativeResult {
  readonly id: number;
  readonly code?: string;
  readonly errno?: number;
  readonly message?: string;
  /** Seven numbers per fault: op, copy, slot, kind, errno, offset, length. */
  readonly faults: Float64Array;
  /** Four numbers per fault: op, file, offset, errno. */
  readonly sourceFaults: Float64Array;
  readonly flushErrno: Int32Array;
  /** io_uring, threads, buffered, pinned. */
  readonly bytesByPath: Float64Array;
  readonly member?: NativeMember;
}

export interface NativeStats {
  readonly opsByPath: readonly number[];
  readonly bytesByPath: readonly number[];
  /** Requests submitted so far: read, write, flush, source. */
  readonly issued: readonly number[];
  readonly readBytes: number;
  readonly writtenBytes: number;
  readonly flushes: number;
  readonly poolBytes: number;
  readonly poolPeakBytes: number;
  /** Device transfers after coalescing. */
  readonly transfers: number;
  readonly perSlot: readonly {
    slot: number;
    readErrors: number;
    writeErrors: number;
    checksumErrors: number;
  }[];
}

export interface NativeMemberOptions {
  readonly create: boolean;
  readonly writable: boolean;
  readonly requireDirect: boolean;
  readonly force: boolean;
  readonly sizeBytes?: number;
}

export interface NativeCallOptions {
  readonly priority?: number;
  readonly deadlineMs?: number;
}

/** Coded chunks, synchronously on the calling thread (spec/codecs.md). */
export interface NativeCodec {
  /** Bytes of the stream in `out` (as long as raw), 0: store raw. profile 1 auto, 2 max; blockShift 0: chosen. */
  encode(
    raw: Uint8Array,
    out: Uint8Array,
    transform: number,
    profile: number,
    blockShift: number,
    base?: Uint8Array,
  ): number;
  /** Raw bytes from offsetBytes on into `out`, or XORed into it. Errors: E_FORMAT. */
  decode(stream: Uint8Array, offsetBytes: number, out: Uint8Array, intoXor: boolean): void;
  /** The kernel in use: avx512, avx2, neon, scalar; null when the one asked for is not to be had. */
  kernel(force?: string): string | null;
}

export interface NativeGpu {
  readonly id: number;
  readonly name: string;
  /** Domain, bus and device, as lspci writes them. */
  readonly pci: string;
  /** 90 is compute capability 9.0. */
  readonly capability: number;
  readonly totalBytes: number;
  /** -1: unknown. */
  readonly numaNode: number;
}

/** GPUs, through the driver's library (ingot_core.h). */
export interface NativeGpuFunctions {
  /** What GPUs the driver has, or why none; the architectures of the embedded kernels, '' without. */
  list(): { readonly gpus: readonly NativeGpu[]; readonly reason: string; readonly kernels: string };
  /** `pinned` is registered with the GPU until the core is closed. */
  open(handle: NativeHandle, id: number, gpu: number, pinned: Uint8Array): void;
  /** After an `open` that failed: its memory is not needed any more. */
  forget(handle: NativeHandle, pinned: Uint8Array): void;
  /** Registers the member with cuFile; path -1: it cannot be used, and why. */
  cufile(handle: NativeHandle, slot: number): { readonly path: number; readonly reason: string };
  allocate(handle: NativeHandle, gpu: number, byteLength: number): bigint;
  free(handle: NativeHandle, gpu: number, address: bigint): void;
  copy(handle: NativeHandle, id: number, batch: object, status: Uint8Array): void;
  fetch(
    handle: NativeHandle,
    id: number,
    gpu: number,
    address: bigint,
    bytes: Uint8Array,
    stream: bigint | undefined,
  ): void;
}

/** Secret memory and the small messages of encrypted stores (native/src/addon_keys.cc). Outputs have exact lengths. */
export interface NativeKeys {
  /** Zeroed, locked where the system allows it, and in no core dump; wiped when it is released or collected. */
  memory(bytes: number): ArrayBuffer;
  /** Wipes and detaches. */
  release(memory: ArrayBuffer): void;
  state(): NativeSecretState;
  /** AES-256-GCM; the tag of 16 bytes is last. */
  seal(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, plain: Uint8Array, out: Uint8Array): void;
  /** False when the tag does not match; `out` is zeroed then. */
  open(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, sealed: Uint8Array, out: Uint8Array): boolean;
  /** AES-256-GCM-SIV, the same shapes. */
  sealKey(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, plain: Uint8Array, out: Uint8Array): void;
  openKey(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, sealed: Uint8Array, out: Uint8Array): boolean;
  /** AES-256 key wrap with padding. */
  wrap(key: Uint8Array, plain: Uint8Array, out: Uint8Array): void;
  /** Bytes of the key in `out`; 0 when it was not wrapped with this one. */
  unwrap(key: Uint8Array, wrapped: Uint8Array, out: Uint8Array): number;
  /** HKDF-SHA256. */
  derive(secret: Uint8Array, salt: Uint8Array, info: Uint8Array, out: Uint8Array): void;
  /** False when there is no memory for it. */
  scrypt(
    secret: Uint8Array,
    salt: Uint8Array,
    logN: number,
    r: number,
    p: number,
    out: Uint8Array,
  ): Promise<boolean>;
  /** Scheme 0 wraps the secret of 32 bytes; another unwraps with that scheme, into `out`. */
  token(
    key: NativeTokenKey,
    pin: Uint8Array,
    scheme: number,
    input: Uint8Array,
    out?: Uint8Array,
  ): Promise<NativeTokenResult>;
  /** [read end, write end] of a pipe, closed on exec. */
  pipe(): [number, number];
}

/** A key of a PKCS#11 token; what is left out says nothing. */
export interface NativeTokenKey {
  readonly module: string;
  readonly token?: string;
  readonly manufacturer?: string;
  readonly model?: string;
  readonly serial?: string;
  readonly object?: string;
  readonly id?: Uint8Array;
}
export interface NativeTokenResult {
  /** What failed, in words; empty: nothing did. */
  readonly failed: string;
  /** The CKR_ code of it; 0: none. */
  readonly code: number;
  /** 1 AES key wrap, 2 RSA-OAEP. */
  readonly scheme: number;
  readonly token: string;
  readonly serial: string;
  readonly object: string;
  readonly id: Uint8Array;
  readonly wrapped: Uint8Array;
}

export interface NativeSecretState {
  readonly mappedBytes: number;
  readonly unlockedBytes: number;
  readonly dumpedBytes: number;
  /** Why the last lock was refused; 0: none was. */
  readonly lockErrno: number;
}

export interface NativeBinding {
  readonly abiVersion: number;
  open(
    options: NativeOptions,
    onResults: (results: readonly NativeResult[]) => void,
  ): {
    readonly handle: NativeHandle;
    readonly path: number;
    readonly reason: string;
  };
  close(handle: NativeHandle): void;
  memberOpen(handle: NativeHandle, id: number, path: string, options: NativeMemberOptions): void;
  memberClose(handle: NativeHandle, id: number, slot: number): void;
  sourceOpen(handle: NativeHandle, path: string): { id: number; byteLength: number; direct: boolean };
  sourceClose(handle: NativeHandle, id: number): void;
  sourceIdentity(handle: NativeHandle, id: number): string;
  allocate(byteLength: number): ArrayBuffer;
  release(buffer: ArrayBufferLike): void;
  copyToPointer(target: { readonly pointer: bigint; readonly byteLength: number }, bytes: Uint8Array): void;
  read(handle: NativeHandle, id: number, batch: object, status: Uint8Array, unverified: boolean): void;
  write(handle: NativeHandle, id: number, batch: object, status: Uint8Array): void;
  /** Encodes or decodes chunks on the workers. */
  code(handle: NativeHandle, id: number, batch: object, status: Uint8Array, what: 'encode' | 'decode'): void;
  /** Seals or opens extents on the workers. */
  crypt(handle: NativeHandle, id: number, batch: object, status: Uint8Array, what: 'seal' | 'open'): void;
  writeRaw(
    handle: NativeHandle,
    id: number,
    slot: number,
    offsetBytes: number,
    bytes: Uint8Array,
    status: Uint8Array,
    options?: NativeCallOptions,
  ): void;
  flush(handle: NativeHandle, id: number, slots: readonly number[], options?: NativeCallOptions): void;
  abort(handle: NativeHandle, id: number): void;
  writerLock(handle: NativeHandle, slot: number, lock: boolean): boolean;
  pin(handle: NativeHandle, slot: number, sequence: number, pinned: boolean): void;
  pinnedBelow(handle: NativeHandle, slot: number, sequence: number): boolean;
  identity(): { hostId: string; bootId: string };
  processStart(processId: number): string | null;
  stats(handle: NativeHandle): NativeStats;
  fault(handle: NativeHandle, rules: string): void;
  crc64(bytes: Uint8Array, seed?: bigint): bigint;
  crc64Combine(first: bigint, second: bigint, secondBytes: number): bigint;
  /** Takes the kernel of that name for the whole process (null: not on this processor); else names the one in use. */
  crc64Kernel(name?: 'vpclmul' | 'pclmul' | 'table'): string | null;
  readonly codec: NativeCodec;
  readonly keys: NativeKeys;
  readonly gpu: NativeGpuFunctions;
}
