// Reads catalog pages from devices: many at once, verified, next copy on a fault.
//
// Requests made in one turn of the event loop travel in one Io.read batch, so a thousand concurrent
// lookups cost JavaScript one crossing. Each page is one operation with one sum.
//
// Invariants
//   1. A page is returned only after its sum matched (in Io) and its structure was validated (decodePage).
//   2. Copies on members that cannot serve them are left out; the others are tried in an order that
//      rotates by request, so that mirrored members share the load. The order is deterministic.
//   3. Every copy that was passed over is reported to `onFault`, also when the read succeeded.
//   4. A batch past its deadline is left to end by itself; its pages are read from any copy that answers.
//   5. At most PAGES_PER_BATCH_MAX pages per batch and BATCHES_IN_FLIGHT_MAX batches are in flight;
//      further requests wait in order. Nothing is retried here: Io tried every copy.
//
// It never caches and never writes.

import type { PagePointer } from './tree_page.js';
import { StoreError, assert } from '../format/errors.js';
import { SECTOR_BYTES } from '../format/limits.js';
import { MAX_COPIES, NO_MEMBER } from './io/port.js';
import type { FaultKind, Io, IoBuffer, IoFault, ReadBatch } from './io/port.js';
import type { HangWatch } from './repair/hang_watch.js';
import { decodeCatalogPage, treeName } from './tree_page.js';
import type { CatalogPage, PageRules } from './tree_page.js';

export const PAGES_PER_BATCH_MAX = 1_024;
export const BATCHES_IN_FLIGHT_MAX = 8;

/** A copy of a page that could not be used. */
export interface PageFault {
  readonly treeId: number;
  readonly pointer: PagePointer;
  readonly member: number;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
  readonly kind: FaultKind;
  readonly errno: number;
}

export interface PageReaderOptions extends PageRules {
  readonly io: Io;
  /** Slot of a member that can serve a page of this birth (format.md F15), or null. */
  readonly resolveSlot: (member: number, birth: number) => number | null;
  readonly onFault?: (fault: PageFault) => void;
  /** Tells when a read is late; without it reads wait as long as they take. */
  readonly hangs?: HangWatch;
}

interface PageRequest {
  readonly pointer: PagePointer;
  readonly treeId: number;
  readonly settle: (page: CatalogPage | null, error: unknown) => void;
  /** Members by copy column of the batch, to name faults. */
  members: number[];
}

export class PageReader {
  readonly #options: PageReaderOptions;
  #queue: PageRequest[] = [];
  #flushScheduled = false;
  #batchesInFlight = 0;
  #rotation = 0;

  constructor(options: PageReaderOptions) {
    this.#options = options;
  }

  /** One page. Rejects with E_CORRUPT, E_FORMAT, E_IO or E_DEVICE_LOST. */
  read(pointer: PagePointer, treeId: number): Promise<CatalogPage> {
    return new Promise((resolve, reject) => {
      this.#queue.push({
        pointer,
        treeId,
        members: [],
        settle: (page, error) => (page === null ? reject(error) : resolve(page)),
      });
      if (!this.#flushScheduled) {
        this.#flushScheduled = true;
        queueMicrotask(() => this.#flush());
      }
    });
  }

  /** Each copy by itself: null when it is good, otherwise its fault. For fsck and scrub. */
  async verifyCopies(pointer: PagePointer, treeId: number): Promise<(PageFault | null)[]> {
    const verdicts: (PageFault | null)[] = [];
    for (const copy of pointer.copies) {
      const slot = this.#options.resolveSlot(copy.member, pointer.birth);
      const offsetBytes = copy.sector * SECTOR_BYTES;
      const blame = { treeId, pointer, member: copy.member, offsetBytes, lengthBytes: pointer.storedBytes };
      if (slot === null) {
        verdicts.push({ ...blame, kind: 'missing', errno: 0 });
        continue;
      }
      const batch = emptyBatch(1);
      fillOperation(batch, 0, pointer, [{ slot, sector: copy.sector }]);
      const result = await this.#options.io.read(batch);
      const fault = result.faults[0];
      if (result.status[0] === 0) verdicts.push(null);
      else verdicts.push({ ...blame, kind: fault?.kind ?? 'io', errno: fault?.errno ?? 0 });
    }
    return verdicts;
  }

  #flush(): void {
    this.#flushScheduled = false;
    while (this.#queue.length > 0 && this.#batchesInFlight < BATCHES_IN_FLIGHT_MAX) {
      const requests = this.#queue.splice(0, PAGES_PER_BATCH_MAX);
      this.#batchesInFlight += 1;
      void this.#readBatch(requests).finally(() => {
        this.#batchesInFlight -= 1;
        this.#flush();
      });
    }
  }

  async #readBatch(requests: readonly PageRequest[]): Promise<void> {
    const sendable: PageRequest[] = [];
    const batch = emptyBatch(requests.length);
    for (const request of requests) {
      const copies = this.#orderCopies(request);
      if (copies.length === 0) request.settle(null, this.#lostError(request));
      else {
        fillOperation(batch, sendable.length, request.pointer, copies);
        sendable.push(request);
      }
    }
    if (sendable.length === 0) return;
    const running = this.#readSome(sendable, batch);
    // Pages are read into memory of our own, so a batch that hangs is left to its device (decisions/0012).
    await new Promise<void>((resolve) => {
      running.then(resolve, resolve);
      this.#options.hangs?.watch(
        running,
        () => void this.#readElsewhere(sendable).then(resolve, () => undefined),
      );
    });
  }

  async #readSome(sendable: readonly PageRequest[], batch: MutableBatch): Promise<void> {
    try {
      const result = await this.#options.io.read({ ...batch, count: sendable.length });
      const faultsByOp = this.#reportFaults(sendable, result.faults);
      for (const [index, request] of sendable.entries()) {
        if (result.status[index] !== 0)
          request.settle(null, this.#readError(request, faultsByOp.get(index) ?? []));
        else this.#settleDecoded(request, batch.destinations[index] as Uint8Array);
      }
    } catch (error) {
      for (const request of sendable) request.settle(null, error);
    }
  }

  /** Each page from whichever of its copies answers first; rejects when one has none but those that hang. */
  async #readElsewhere(requests: readonly PageRequest[]): Promise<void> {
    await Promise.all(
      requests.map(async (request) => {
        const bytes = await Promise.any(
          this.#orderCopies(request).map((copy) => this.#readAlone(request, copy)),
        );
        this.#settleDecoded(request, bytes);
      }),
    );
  }

  async #readAlone(
    { pointer }: PageRequest,
    copy: { readonly slot: number; readonly sector: number },
  ): Promise<Uint8Array> {
    const batch = emptyBatch(1);
    fillOperation(batch, 0, pointer, [copy]);
    const result = await this.#options.io.read(batch);
    if (result.status[0] !== 0) throw new StoreError('E_IO', 'a copy of a page could not be read');
    return batch.destinations[0] as Uint8Array;
  }

  #settleDecoded(request: PageRequest, bytes: Uint8Array): void {
    let page: CatalogPage;
    try {
      page = decodeCatalogPage(bytes, request.pointer, request.treeId, this.#options);
    } catch (error) {
      request.settle(null, error);
      return;
    }
    request.settle(page, undefined);
  }

  #orderCopies(request: PageRequest): { slot: number; sector: number }[] {
    const { copies, birth } = request.pointer;
    const ordered: { slot: number; sector: number }[] = [];
    const start = this.#rotation;
    this.#rotation = (this.#rotation + 1) % 6;
    for (let i = 0; i < copies.length; i += 1) {
      const copy = copies[(start + i) % copies.length];
      assert(copy !== undefined, 'copy index is in range');
      const slot = this.#options.resolveSlot(copy.member, birth);
      if (slot === null) continue;
      ordered.push({ slot, sector: copy.sector });
      request.members.push(copy.member);
    }
    return ordered;
  }

  #reportFaults(requests: readonly PageRequest[], faults: readonly IoFault[]): Map<number, PageFault[]> {
    const byOp = new Map<number, PageFault[]>();
    for (const fault of faults) {
      const request = requests[fault.op];
      assert(request !== undefined, 'a fault names an operation of the batch');
      const pageFault: PageFault = {
        treeId: request.treeId,
        pointer: request.pointer,
        member: request.members[fault.copy] ?? -1,
        offsetBytes: fault.offsetBytes,
        lengthBytes: fault.lengthBytes,
        kind: fault.kind,
        errno: fault.errno,
      };
      const list = byOp.get(fault.op);
      if (list === undefined) byOp.set(fault.op, [pageFault]);
      else list.push(pageFault);
      this.#options.onFault?.(pageFault);
    }
    return byOp;
  }

  #name(member: number): string {
    return this.#options.memberName?.(member) ?? `member ${member}`;
  }

  #lostError(request: PageRequest): StoreError {
    const { copies, storedBytes } = request.pointer;
    const members = copies.map((copy) => this.#name(copy.member)).join(', ');
    return new StoreError(
      'E_DEVICE_LOST',
      `no copy of a page of the ${treeName(request.treeId)} tree can be read: its members (${members}) are not in use`,
      {
        where: this.#where(
          request,
          copies[0]?.member ?? 0,
          (copies[0]?.sector ?? 0) * SECTOR_BYTES,
          storedBytes,
        ),
        safe: 'Nothing was changed. Copies on the missing members are as they were.',
        next: 'Attach the members and open the store again.',
      },
    );
  }

  #readError(request: PageRequest, faults: readonly PageFault[]): StoreError {
    const corrupt = faults.find((fault) => fault.kind === 'checksum');
    const worst = corrupt ?? faults[0];
    const { copies, storedBytes, level } = request.pointer;
    const member = worst?.member ?? copies[0]?.member ?? 0;
    const offsetBytes = worst?.offsetBytes ?? (copies[0]?.sector ?? 0) * SECTOR_BYTES;
    const tried = faults
      .map((fault) => `${this.#name(fault.member)} at byte ${fault.offsetBytes}: ${fault.kind}`)
      .join('; ');
    return new StoreError(
      corrupt === undefined ? 'E_IO' : 'E_CORRUPT',
      `no copy of a page (level ${level}) of the ${treeName(request.treeId)} tree could be verified (${tried})`,
      {
        where: { ...this.#where(request, member, offsetBytes, storedBytes), errno: worst?.errno ?? 0 },
        safe: 'Nothing was changed. Objects that do not need this page can still be read.',
        next: 'Run `ingot fsck` to see what depends on this page.',
      },
    );
  }

  #where(request: PageRequest, member: number, offsetBytes: number, lengthBytes: number) {
    return {
      member: this.#name(member),
      memberIndex: member,
      offsetBytes,
      lengthBytes,
      structure: `${treeName(request.treeId)} tree`,
    };
  }
}

type MutableBatch = ReadBatch & { destinations: IoBuffer[] };

function emptyBatch(count: number): MutableBatch {
  return {
    count,
    priority: 0,
    copyMember: new Uint16Array(count * MAX_COPIES).fill(NO_MEMBER),
    copyOffsetBytes: new Float64Array(count * MAX_COPIES),
    storedBytes: new Float64Array(count),
    segmentBytes: new Float64Array(count),
    wantedOffsetBytes: new Float64Array(count),
    wantedBytes: new Float64Array(count),
    sumIndex: new Uint32Array(count),
    sums: new BigUint64Array(count),
    destination: new Uint32Array(count),
    destinationOffsetBytes: new Float64Array(count),
    destinations: [],
  };
}

function fillOperation(
  batch: MutableBatch,
  index: number,
  pointer: PagePointer,
  copies: readonly { slot: number; sector: number }[],
): void {
  for (const [column, copy] of copies.entries()) {
    batch.copyMember[index * MAX_COPIES + column] = copy.slot;
    batch.copyOffsetBytes[index * MAX_COPIES + column] = copy.sector * SECTOR_BYTES;
  }
  batch.storedBytes[index] = pointer.storedBytes;
  // A page has one sum; the segment is the smallest power of two that covers it.
  batch.segmentBytes[index] = 2 ** Math.ceil(Math.log2(pointer.storedBytes));
  batch.wantedBytes[index] = pointer.storedBytes;
  batch.sumIndex[index] = index;
  batch.sums[index] = pointer.sum;
  batch.destination[index] = index;
  batch.destinations.push(new Uint8Array(pointer.storedBytes));
}
