// A few members in memory, just enough Io for trees: verified page reads with copies and faults.
//
// Invariants
//   1. A read delivers a page only when its sum matched; the other copies are tried in order.
//   2. Bytes written are copied; nothing is reordered or delayed (crashes are test/sim's business).
//
// It stands in for the simulated Io where only page reads matter and speed does.

import { PageStore } from '../../engine/page_store.js';
import type { PageFault, PageStoreOptions } from '../../engine/page_store.js';
import type { PageSink, PageWrite, SealedTree, Tree } from '../../engine/btree.js';
import type { BatchResult, Io, IoFault, ReadBatch } from '../../engine/io/port.js';
import { MAX_COPIES, NO_MEMBER } from '../../engine/io/port.js';
import { crc64 } from '../../format/checksum.js';

const SECTOR_BYTES = 4_096;
/** First sector of a data area (format.md section 2). */
const FIRST_SECTOR = 256;
/** What the members seem to have; they hold what is written only. */
const FORMATTED_BYTES = 64 * 1024 * 1024 * 1024;

export class MemoryMembers {
  readonly storeUuid = new Uint8Array(16).fill(7);
  readonly faults: PageFault[] = [];
  readonly missing = new Set<number>();
  readonly io: Io;
  readBatches = 0;
  readPages = 0;
  /** Bytes placed by every seal so far. */
  placedBytes = 0;
  readonly #pages: Map<number, Uint8Array>[];
  readonly #next: number[];
  readonly #copies: number;

  constructor(memberCount: number, copies: number) {
    this.#pages = Array.from({ length: memberCount }, () => new Map<number, Uint8Array>());
    this.#next = new Array<number>(memberCount).fill(FIRST_SECTOR);
    this.#copies = copies;
    const partial: Partial<Io> = {
      checksum: { crc64: (bytes) => crc64(bytes) },
      read: (batch) => this.#read(batch),
    };
    this.io = partial as Io;
  }

  /** Each page on `copies` members in rotation, one after the other. */
  readonly sink: PageSink = {
    place: (storedBytes) => {
      const first = this.placedBytes / SECTOR_BYTES;
      this.placedBytes += storedBytes;
      const copies: { member: number; sector: number }[] = [];
      for (let i = 0; i < this.#copies; i += 1) {
        const member = (first + i) % this.#pages.length;
        const sector = this.#next[member] as number;
        this.#next[member] = sector + storedBytes / SECTOR_BYTES;
        copies.push({ member, sector });
      }
      return { copies };
    },
  };

  store(options: Omit<Partial<PageStoreOptions>, 'formattedBytes'> = {}): PageStore {
    return new PageStore({
      io: this.io,
      storeUuid: this.storeUuid,
      formattedBytes: () => this.#pages.map(() => FORMATTED_BYTES),
      resolveSlot: (member) => (this.missing.has(member) ? null : member),
      memberName: (member) => `m${member}`,
      onFault: (fault) => this.faults.push(fault),
      ...options,
    });
  }

  write(writes: readonly PageWrite[]): void {
    for (const { pointer, bytes } of writes) {
      for (const copy of pointer.copies) this.pages(copy.member).set(copy.sector, bytes.slice());
    }
  }

  /** Seals, writes and adopts, as a commit would. */
  commit(tree: Tree, birth: number): SealedTree {
    const sealed = tree.seal(this.sink, birth);
    this.write(sealed.writes);
    tree.adopt(sealed);
    return sealed;
  }

  pages(member: number): Map<number, Uint8Array> {
    const pages = this.#pages[member];
    if (pages === undefined) throw new Error(`no member ${member}`);
    return pages;
  }

  async #read(batch: ReadBatch): Promise<BatchResult> {
    this.readBatches += 1;
    this.readPages += batch.count;
    await Promise.resolve();
    const faults: IoFault[] = [];
    const status = new Uint8Array(batch.count);
    for (let op = 0; op < batch.count; op += 1) status[op] = this.#readOne(batch, op, faults) ? 0 : 1;
    return { status, faults, bytesByPath: {} };
  }

  #readOne(batch: ReadBatch, op: number, faults: IoFault[]): boolean {
    const storedBytes = batch.storedBytes[op] as number;
    for (let copy = 0; copy < MAX_COPIES; copy += 1) {
      const slot = batch.copyMember[op * MAX_COPIES + copy] as number;
      if (slot === NO_MEMBER) continue;
      const offsetBytes = batch.copyOffsetBytes[op * MAX_COPIES + copy] as number;
      const page = this.pages(slot).get(offsetBytes / SECTOR_BYTES);
      if (page === undefined || page.byteLength < storedBytes) {
        faults.push({ op, copy, slot, offsetBytes, lengthBytes: storedBytes, kind: 'io', errno: 5 });
        continue;
      }
      const bytes = page.subarray(0, storedBytes);
      if (crc64(bytes) !== batch.sums[batch.sumIndex[op] as number]) {
        faults.push({ op, copy, slot, offsetBytes, lengthBytes: storedBytes, kind: 'checksum', errno: 0 });
        continue;
      }
      const destination = batch.destinations[batch.destination[op] as number] as Uint8Array;
      destination.set(bytes, batch.destinationOffsetBytes[op] as number);
      return true;
    }
    return false;
  }
}
