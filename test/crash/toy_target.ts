// A store small enough to be right by inspection, and to be made wrong on purpose: the explorer is
// judged by whether it passes the right one and catches each wrong one.
//
// One member, values 0..255 appended to a list. Block 0 and 1 hold the list in turn: sequence, sum, items.
//
// The faults it can be given: no flush between data and root, no flush at the end, overwriting the live root.

import { simCrc64 } from '../sim/sim_checksum.js';
import type { SimIo } from '../sim/sim_io.js';
import { isStoreError } from '../../format/errors.js';
import type { CrashTarget, Session } from './explorer.js';

export type ToyFault = 'none' | 'no-last-flush' | 'overwrite-root' | 'no-sum' | 'acknowledge-early';
const PATH = 'toy';
const BLOCK = 4096;

class ToySession implements Session<number> {
  private readonly io: SimIo;
  private readonly slot: number;
  private readonly fault: ToyFault;
  private sequence: number;
  private items: number[];

  constructor(io: SimIo, slot: number, fault: ToyFault, sequence: number, items: number[]) {
    this.io = io;
    this.slot = slot;
    this.fault = fault;
    this.sequence = sequence;
    this.items = items;
  }

  async apply(op: number): Promise<void> {
    this.sequence += 1;
    this.items = [...this.items, op];
    const commit = this.commit();
    if (this.fault === 'acknowledge-early') void commit.catch(() => undefined);
    else await commit;
  }

  async commit(): Promise<void> {
    const bytes = new Uint8Array(BLOCK);
    bytes[8] = this.sequence;
    bytes[9] = this.items.length;
    bytes.set(this.items, 10);
    // The last unit carries the sequence too, so that a torn block shows.
    bytes[BLOCK - 1] = this.sequence;
    new DataView(bytes.buffer).setBigUint64(0, simCrc64(bytes.subarray(8)), true);
    const block = this.fault === 'overwrite-root' ? 0 : this.sequence % 2;
    await this.io.writeRaw(this.slot, block * BLOCK, bytes);
    if (this.fault === 'no-last-flush') return;
    const [flushed] = await this.io.flush([this.slot]);
    if (flushed?.errno !== 0) throw new Error('flush failed');
  }

  dump(): Promise<string> {
    return Promise.resolve(this.items.join());
  }

  check(): Promise<readonly string[]> {
    return Promise.resolve([]);
  }

  close(): Promise<void> {
    return this.io.close();
  }
}

export function toyTarget(fault: ToyFault): CrashTarget<number> {
  const open = async (io: SimIo): Promise<Session<number>> => {
    const { slot } = await io.openMember(PATH, { mode: 'rw', direct: 'prefer' });
    await io.flush([slot]);
    let sequence = 0;
    let items: number[] = [];
    for (const block of [0, 1]) {
      const bytes = await io.readRaw(slot, block * BLOCK, BLOCK);
      const sum = new DataView(bytes.buffer).getBigUint64(0, true);
      const good = fault === 'no-sum' || sum === simCrc64(bytes.subarray(8));
      if (good && bytes[8]! > sequence) {
        sequence = bytes[8]!;
        items = [...bytes.subarray(10, 10 + bytes[9]!)];
      }
    }
    return new ToySession(io, slot, fault, sequence, items);
  };
  return {
    name: `toy ${fault}`,
    probe: 99,
    create: async (io) => {
      const { slot } = await io.createMember(PATH, { sizeBytes: 1 << 20 });
      return new ToySession(io, slot, fault, 0, []);
    },
    open,
    model: (ops) => ops.join(),
    mayBeUnformatted: (error) => isStoreError(error, 'E_NOT_FOUND'),
  };
}
