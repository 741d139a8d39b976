// The part of the Io port that reaches GPUs: what there is, memory on it, and copies of verified host memory.
//
// Invariants
//   1. A machine without a GPU, a driver or kernels is a finding of `list`, never a failure to load or to open a store.
//   2. `copy` and `fetch` settle only when the GPU touches no memory of the call any more, also on abort and on errors.
//   3. Host memory handed to `copy` was verified by whoever hands it over, or comes with the sums of its segments,
//      which the GPU computes before anything else is done with them; decoded chunks are checked there by their raw
//      sums.
//
// This file has no behaviour.

/** Memory on a GPU, by address. */
export interface GpuBuffer {
  readonly gpu: number;
  readonly pointer: bigint;
  readonly byteLength: number;
  /** cudaStream_t of the caller: what is queued on it ends before the memory is written. */
  readonly stream?: bigint;
  /** Kept alive until the read settles. */
  readonly owner?: object;
}

export interface GpuInfo {
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
export interface GpuList {
  readonly gpus: readonly GpuInfo[];
  /** Why there is none; '' when there is one. */
  readonly reason: string;
  /** Architectures of the kernels in this build; '' when it was built without nvcc. */
  readonly kernels: string;
}

/** What cuFile does with a member: its path, or null where it cannot be used, and why. */
export interface CufilePath {
  readonly path: 'cufile-direct' | 'cufile-compat' | null;
  readonly reason: string;
}

/** No member: an op takes host memory. */
export const GPU_NO_MEMBER = 0xffff;

/**
 * Op i takes sourceBytes of host memory, or, with a member's slot, of that member, which cuFile reads straight into the
 * GPU: then in whole sectors, with sums, and without rawBytes the destination gets wantedBytes from skipBytes on.
 * rawBytes 0: the bytes go to the destination as they are. Else they are the stored stream of a chunk of so many raw
 * bytes with these ids (transform | delta << 8 | codec << 16) and raw sum, and are decoded into it; with a delta in the
 * ids the destination has the base, and they are XORed into it. segmentBytes 0: the bytes were verified. Else they are
 * compared, segment by segment, with sums[sumIndex...].
 */
export interface GpuBatch {
  readonly count: number;
  readonly gpu: number;
  readonly source: Uint32Array;
  /** Slot, or GPU_NO_MEMBER. */
  readonly member: Uint32Array;
  readonly sourceOffsetBytes: Float64Array;
  readonly sourceBytes: Float64Array;
  readonly skipBytes: Float64Array;
  readonly wantedBytes: Float64Array;
  readonly rawBytes: Float64Array;
  readonly ids: Uint32Array;
  readonly rawSums: BigUint64Array;
  readonly segmentBytes: Uint32Array;
  readonly sumIndex: Uint32Array;
  readonly sums: BigUint64Array;
  readonly destination: Uint32Array;
  readonly destinationOffsetBytes: Float64Array;
  readonly sources: readonly Uint8Array[];
  readonly destinations: readonly GpuBuffer[];
  /** Filled in: DECODE_RIGHT and so on (port.ts), or GPU_*; what is not right is zeroed where it ends. */
  readonly verdict: Uint32Array;
  readonly signal?: AbortSignal;
}

/** A verdict: the sum of a stored segment was wrong on the GPU. */
export const GPU_WRONG_STORED = 4;
/** A verdict: cuFile did not bring all bytes. */
export const GPU_NOT_ARRIVED = 5;

export interface GpuPort {
  list(): GpuList;
  /** Once for each GPU. `pinned`, of `allocate`, stays registered until the Io is closed. E_UNSUPPORTED, E_GPU. */
  open(gpu: number, pinned: Uint8Array): Promise<void>;
  /** What cuFile does with the member in this slot. */
  cufile(slot: number): CufilePath;
  /** Device memory of the core's own. E_GPU. */
  allocate(gpu: number, byteLength: number): bigint;
  free(gpu: number, pointer: bigint): void;
  /** Rejects with E_GPU (the driver refused) or E_USAGE (not memory of that GPU); else `verdict` has the outcome. */
  copy(batch: GpuBatch): Promise<void>;
  /** GPU memory to host memory, once what is queued on `stream` has ended. */
  fetch(
    gpu: number,
    pointer: bigint,
    bytes: Uint8Array,
    signal?: AbortSignal,
    stream?: bigint,
  ): Promise<void>;
}
