// Bytes of a file to be written, window by window: prefix and tensors laid into the caller's memory.
//
// Invariants
//   1. The layout covers the file exactly: the prefix, then tensors, each beginning where the one before ends
//      (checked when the reader is made; E_CORRUPT otherwise).
//   2. Every byte of a window is written by exactly one read, and every read was verified by the engine.
//
// It writes no file.

import type { ReadFault, TensorRef, Version } from '../../engine/index.js';
import { StoreError } from '../../format/errors.js';

/** From this many whole tensors in one window on, they are read as one batch. */
const BATCH_FROM_TENSORS = 4;

export interface PlacedTensor {
  readonly name: string;
  readonly fileOffset: number;
  readonly byteLength: number;
}
export interface LaidOutFile {
  readonly name: string;
  readonly sizeBytes: number;
  readonly prefix: Uint8Array;
  /** By offset. */
  readonly tensors: readonly PlacedTensor[];
}
export interface WindowOptions {
  readonly signal?: AbortSignal;
  readonly onFault?: (fault: ReadFault) => void;
}

export class WindowReader {
  readonly #version: Version;
  readonly #file: LaidOutFile;
  readonly #tensors: readonly PlacedTensor[];
  readonly #options: WindowOptions;

  constructor(version: Version, file: LaidOutFile, options: WindowOptions) {
    requireCoverage(version, file);
    this.#version = version;
    this.#file = file;
    // Empty tensors have no bytes to read.
    this.#tensors = file.tensors.filter((tensor) => tensor.byteLength > 0);
    this.#options = options;
  }

  /** Fills `memory` with the file's bytes [offset, offset + lengthBytes). */
  async read(memory: Uint8Array, offset: number, lengthBytes: number): Promise<void> {
    const end = offset + lengthBytes;
    const { prefix } = this.#file;
    if (offset < prefix.byteLength) memory.set(prefix.subarray(offset, Math.min(end, prefix.byteLength)), 0);
    const whole: PlacedTensor[] = [];
    const reads: Promise<unknown>[] = [];
    for (let index = this.#firstAfter(offset); index < this.#tensors.length; index++) {
      const tensor = this.#tensors[index];
      if (tensor === undefined || tensor.fileOffset >= end) break;
      const isWhole = tensor.fileOffset >= offset && tensor.fileOffset + tensor.byteLength <= end;
      if (isWhole) whole.push(tensor);
      else reads.push(this.#readPart(memory, offset, end, tensor));
    }
    if (whole.length < BATCH_FROM_TENSORS)
      for (const tensor of whole) reads.push(this.#readPart(memory, offset, end, tensor));
    else reads.push(this.#readBatch(memory, offset, whole));
    // All have settled before the memory may be used again, also when one fails.
    const settled = await Promise.allSettled(reads);
    for (const result of settled) if (result.status === 'rejected') throw result.reason;
  }

  /** Index of the first tensor that ends after `offset`. */
  #firstAfter(offset: number): number {
    let low = 0;
    let high = this.#tensors.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const tensor = this.#tensors[middle];
      if (tensor !== undefined && tensor.fileOffset + tensor.byteLength <= offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #readPart(memory: Uint8Array, offset: number, end: number, placed: PlacedTensor): Promise<number> {
    const from = Math.max(offset, placed.fileOffset);
    const to = Math.min(end, placed.fileOffset + placed.byteLength);
    const tensor: TensorRef = this.#version.tensor(placed.name);
    return tensor.readInto(memory.subarray(from - offset, to - offset), {
      offset: from - placed.fileOffset,
      length: to - from,
      ...this.#options,
    });
  }

  async #readBatch(memory: Uint8Array, offset: number, tensors: readonly PlacedTensor[]): Promise<void> {
    const places = new Map(tensors.map((tensor) => [tensor.name, tensor]));
    const into = ({ name }: { readonly name: string }): Uint8Array | null => {
      const place = places.get(name);
      if (place === undefined) return null;
      const at = place.fileOffset - offset;
      return memory.subarray(at, at + place.byteLength);
    };
    for await (const _loaded of this.#version.load(into, { names: places.keys(), ...this.#options }));
  }
}

function requireCoverage(version: Version, file: LaidOutFile): void {
  let at = file.prefix.byteLength;
  for (const tensor of file.tensors) {
    if (tensor.fileOffset !== at) throw uncovered(version, file, at);
    at += tensor.byteLength;
  }
  if (at !== file.sizeBytes) throw uncovered(version, file, at);
}

function uncovered(version: Version, file: LaidOutFile, at: number): StoreError {
  return new StoreError(
    'E_CORRUPT',
    `the version does not say what is at byte ${at} of its file ${file.name}`,
    {
      where: { object: version.id, file: file.name, offsetBytes: at },
      safe: 'everything else of the version; nothing was written',
      next: `ingot export ${version.id} OUT --format safetensors`,
    },
  );
}
