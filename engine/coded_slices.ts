// Partial reads of coded extents: only the segments are fetched that hold the chunk's head and the blocks that a part
// touches; the part is decoded from an excerpt of them (format/codec/excerpt.ts).
//
// Two reads follow each other: the head says where the blocks are. A part of which little would be left out is read
// whole instead, in one.
//
// Invariants
//   1. Every byte that is looked at or decoded came through a verified read: sums, tags and other copies as ever.
//   2. The header of a stream agrees with its extent record before anything else of it is believed (K5).
//   3. Memory is acquired in the order heads, excerpts; who holds excerpts never waits for heads.
//
// It never reads a member: verified stored bytes come from the reader (`StoredReads`).

import { StoreError, assert, isStoreError } from '../format/errors.js';
import type { Extent } from '../format/extent_record.js';
import {
  type Excerpt,
  type StreamHeader,
  codecOfStream,
  directoryStretch,
  excerptOf,
  parseStream,
} from '../format/index.js';
import { CODED_GROUP_BYTES, codedGroups, runGroups } from './coded_groups.js';
import { type CodedPart, codingIds, decodeParts, undecoded } from './coded_reads.js';
import type { HostPart } from './reader.js';
import { HungRead } from './repair/hang_watch.js';
import type { StoreContext } from './store_context.js';

/** What is read first of a stream: header, tables and directory of a chunk of 4 MiB are in it. */
export const SLICE_HEAD_BYTES = 64 * 1024;
/** Heads over all readers of a store, at most: of 128 extents at once. */
export const SLICE_HEADS_BUDGET_BYTES = 8 * 1024 * 1024;
/** Segments that a part touches beside its own bytes, about: both ends of two planes. */
const SEGMENTS_BESIDE = 4;
/** A slice must leave out this share of the stored bytes, or one read of all is quicker than two that follow. */
const WORTHWHILE_SHARE = 0.5;
/** Buffers have sizes that are powers of two, from here on, so that the pool can use them again. */
const BUFFER_BYTES_MIN = 64 * 1024;

/** Delivers verified stored bytes (`isStored`) of these extents. */
export type StoredReads = (parts: readonly HostPart[]) => Promise<void>;

/** Whether these parts of one coded extent are better read by slices. */
export function isSliced(extent: Extent, parts: readonly HostPart[]): boolean {
  const { storedBytes, segmentShift } = extent;
  if (parts.some(({ bytes }) => bytes === 0)) return false;
  const touched = parts.reduce((sum, { bytes }) => sum + bytes, 0);
  const segments = (1 + SEGMENTS_BESIDE * parts.length) * 2 ** segmentShift;
  return touched + segments <= storedBytes * WORTHWHILE_SHARE;
}

/** An extent of which parts are wanted. */
interface Sliced {
  readonly extent: Extent;
  readonly parts: readonly HostPart[];
  readonly head: Uint8Array;
  readonly headBytes: number;
  /** For the codec groups: what the head takes. */
  readonly bytes: number;
}
interface Slice {
  readonly sliced: Sliced;
  readonly part: HostPart;
  readonly excerpt: Excerpt;
  readonly bytes: number;
}

export class SliceReader {
  readonly #context: StoreContext;
  readonly #object: string;
  readonly #read: StoredReads;
  readonly #signal: AbortSignal | undefined;

  constructor(context: StoreContext, object: string, read: StoredReads, signal: AbortSignal | undefined) {
    this.#context = context;
    this.#object = object;
    this.#read = read;
    this.#signal = signal;
  }

  /** Reads and decodes all parts; a group holds those of one extent. Bases of deltas are in place already. */
  async run(
    groups: readonly { readonly extent: Extent; readonly parts: readonly HostPart[] }[],
  ): Promise<void> {
    const sized = groups.map((group) => ({ ...group, bytes: SLICE_HEAD_BYTES }));
    await runGroups(
      [...codedGroups(sized)].map((group) => async (isOver) => {
        const bytes = group.length * SLICE_HEAD_BYTES;
        await this.#context.sliceHeadBudget.acquire(bytes);
        const buffers: Uint8Array[] = [];
        await this.#holding(buffers, async () => {
          if (!isOver()) await this.#heads(group, buffers);
        }).finally(() => this.#context.sliceHeadBudget.release(bytes));
      }),
    );
  }

  /** Gives the buffers back when `work` has ended; to the port, not the pool, where a read may still be under way. */
  async #holding(buffers: readonly Uint8Array[], work: () => Promise<void>): Promise<void> {
    let isAbandoned = false;
    try {
      await work();
    } catch (error) {
      isAbandoned = error instanceof HungRead;
      throw error;
    } finally {
      for (const buffer of buffers) {
        if (isAbandoned) this.#context.io.release(buffer);
        else this.#context.gatherPool.give(buffer);
      }
    }
  }

  async #heads(
    group: readonly { readonly extent: Extent; readonly parts: readonly HostPart[] }[],
    buffers: Uint8Array[],
  ): Promise<void> {
    const all = group.map(({ extent, parts }): Sliced => {
      const head = this.#context.gatherPool.take(SLICE_HEAD_BYTES);
      buffers.push(head);
      const headBytes = Math.min(extent.storedBytes, SLICE_HEAD_BYTES);
      return { extent, parts, head, headBytes, bytes: headBytes };
    });
    await this.#read(all.map(({ parts, head, headBytes }) => stored(parts[0], 0, headBytes, head, 0)));
    const slices = await this.#plan(all);
    await runGroups(
      [...codedGroups(slices)].map((few) => async (isOver) => {
        const bytes = few.reduce((sum, slice) => sum + slice.bytes, 0);
        await this.#context.codedBudget.acquire(bytes);
        const taken: Uint8Array[] = [];
        await this.#holding(taken, async () => {
          if (!isOver()) await this.#decode(few, taken);
        }).finally(() => this.#context.codedBudget.release(bytes));
      }),
    );
  }

  /** Parses the heads, fetches the directories that lie behind them, and says what each part needs. */
  async #plan(all: readonly Sliced[]): Promise<Slice[]> {
    const beyond: HostPart[] = [];
    const found = all.map((sliced) => {
      const { extent, parts, head, headBytes } = sliced;
      const header = this.#checked(sliced, () =>
        parseStream(head.subarray(0, headBytes), undefined, extent.storedBytes),
      );
      checkHeader(this.#object, sliced, header);
      const directories = header.planes.map((plane) => {
        const { fromBytes, lengthBytes } = this.#checked(sliced, () =>
          directoryStretch(plane, header.elementCount),
        );
        if (fromBytes + lengthBytes <= headBytes) return head.subarray(fromBytes, fromBytes + lengthBytes);
        const directory = new Uint8Array(lengthBytes);
        beyond.push(stored(parts[0], fromBytes, lengthBytes, directory, 0));
        return directory;
      });
      return { sliced, header, directories };
    });
    if (beyond.length > 0) await this.#read(beyond);
    return found.flatMap(({ sliced, header, directories }) =>
      sliced.parts.map((part): Slice => {
        const excerpt = this.#checked(sliced, () => excerptOf(header, directories, part.offset, part.bytes));
        return { sliced, part, excerpt, bytes: bufferBytes(excerpt.streamBytes) };
      }),
    );
  }

  async #decode(slices: readonly Slice[], taken: Uint8Array[]): Promise<void> {
    const reads: HostPart[] = [];
    const parts = slices.map(({ sliced, part, excerpt, bytes }): CodedPart => {
      const stream = this.#context.gatherPool.take(bytes);
      taken.push(stream);
      for (const { toBytes, bytes: made } of excerpt.made) stream.set(made, toBytes);
      for (const { fromBytes, toBytes, lengthBytes } of excerpt.stretches) {
        if (fromBytes + lengthBytes <= sliced.headBytes)
          stream.set(sliced.head.subarray(fromBytes, fromBytes + lengthBytes), toBytes);
        else reads.push(stored(part, fromBytes, lengthBytes, stream, toBytes));
      }
      return { ...part, extent: sliced.extent, stream, excerpt };
    });
    if (reads.length > 0) await this.#read(reads);
    await decodeParts(this.#context.io, this.#object, parts, this.#signal);
  }

  /** What a stream breaks is told as of any stream that does not decode. */
  #checked<T>({ extent, parts }: Sliced, look: () => T): T {
    try {
      return look();
    } catch (error) {
      const part = parts[0];
      if (!isStoreError(error) || part === undefined) throw error;
      throw undecoded(this.#object, { ...part, extent }, false, error);
    }
  }
}

function checkHeader(object: string, { extent, parts }: Sliced, header: StreamHeader): void {
  const ids = header.transform | (header.delta << 8) | (codecOfStream(header) << 16);
  if (ids === codingIds(extent) && header.rawBytes === extent.rawBytes) return;
  const part = parts[0];
  assert(part !== undefined, 'an extent is sliced for a part');
  throw undecoded(
    object,
    { ...part, extent },
    false,
    new StoreError('E_FORMAT', 'the record says otherwise'),
  );
}

const bufferBytes = (bytes: number): number => 2 ** Math.ceil(Math.log2(Math.max(bytes, BUFFER_BYTES_MIN)));

/** A read of stored bytes of the extent of `part`. */
function stored(
  part: HostPart | undefined,
  offset: number,
  bytes: number,
  destination: Uint8Array,
  destinationOffset: number,
): HostPart {
  assert(
    part !== undefined && bytes <= Math.max(CODED_GROUP_BYTES, destination.byteLength),
    'a bounded read',
  );
  return { ...part, offset, bytes, destination, destinationOffset, isStored: true };
}
