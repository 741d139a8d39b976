// One simulated machine: members, source files, processes, locks, time, faults and the power switch.
//
// A world outlives processes (SimIo) but not power: `powerCut` freezes it, and `crashImage` gives what
// is left, from which `SimWorld.fromImage` starts the next one.
//
// Invariants
//   1. Everything that happens follows from the seed and from what the engine does: the trace hash
//      and the image hash of two runs with one seed are equal.
//   2. Locks and pins belong to an open of a member (as open-file-description locks do) and die with it,
//      with its process, or with the power.
//   3. After `powerCut` no promise of this world ever settles again.

import { NonceBooks } from './sim_crypt.js';
import { StoreError } from '../../format/errors.js';
import { Prng } from './prng.js';
import { DEFAULT_LATENCY, SimDevice, type LatencyModel } from './sim_device.js';
import { imageHash, scrambledDamage, SimDisk, tornDamage } from './sim_disk.js';
import type { Damage, DamageChooser, DiskImage, PendingWrite } from './sim_disk.js';
import { FaultPlan } from './sim_faults.js';
import { SimIo } from './sim_io.js';
import { SimScheduler } from './sim_scheduler.js';

/** The world's wall clock starts here: 2026-01-01T00:00:00Z. */
const EPOCH_MS = 1_767_225_600_000;

export interface WorldImage {
  readonly members: ReadonlyMap<string, DiskImage>;
}
export interface WorldOptions {
  readonly seed?: number;
  readonly latency?: LatencyModel;
  readonly image?: WorldImage;
}

/** A file that imports read. `read` allows files of any size without their bytes. */
export interface SimFile {
  byteLength: number;
  identity: string;
  read: (offsetBytes: number, target: Uint8Array) => void;
}

/** One open of one member by one process. */
export interface OpenHandle {
  readonly io: SimIo;
  readonly path: string;
  readonly pins: Map<number, number>;
}

export class SimWorld {
  readonly seed: number;
  readonly prng: Prng;
  readonly scheduler = new SimScheduler();
  readonly faults: FaultPlan;
  readonly devices = new Map<string, SimDevice>();
  readonly files = new Map<string, SimFile>();
  readonly handles = new Set<OpenHandle>();
  readonly writerLocks = new Map<string, OpenHandle>();
  /** What the codecs did on this machine: chunks that became streams, those that are deltas, parts that came back. */
  readonly streams = { encoded: 0, deltas: 0, decoded: 0 };
  /** Every nonce that sealed something in this world. */
  nonces = new NonceBooks();
  readonly bootId: string;
  private readonly latency: LatencyModel;
  private readonly processes: SimIo[] = [];
  private fileNumber = 0;

  constructor(options: WorldOptions = {}) {
    this.seed = options.seed ?? 1;
    this.prng = new Prng(this.seed);
    this.faults = new FaultPlan(this.prng.fork());
    this.latency = options.latency ?? DEFAULT_LATENCY;
    this.bootId = `boot-${this.prng.u32().toString(16).padStart(8, '0')}`;
    for (const [path, image] of options.image?.members ?? []) this.putMember(path, image);
  }

  static fromImage(image: WorldImage, seed = 1, latency?: LatencyModel): SimWorld {
    return new SimWorld({ seed, image, ...(latency === undefined ? {} : { latency }) });
  }

  /** A new process on this machine. */
  process(): SimIo {
    const io = new SimIo(this, this.processes.length + 100, this.prng.fork());
    this.processes.push(io);
    return io;
  }

  /** A process that still runs, by pid. */
  runningProcess(processId: number): SimIo | undefined {
    const io = this.processes[processId - 100];
    return io === undefined || io.isDead ? undefined : io;
  }

  get nowMs(): number {
    return EPOCH_MS + this.scheduler.nowMs;
  }

  // ---- members

  /** Adds, or replaces, the drive behind a path. */
  putMember(path: string, image: DiskImage): SimDevice {
    const disk = new SimDisk(path, image);
    const parts = {
      scheduler: this.scheduler,
      faults: this.faults,
      prng: this.prng.fork(),
      latency: this.latency,
    };
    const device = new SimDevice(disk, this.devices.size, parts);
    this.devices.set(path, device);
    return device;
  }

  disk(path: string): SimDisk {
    const device = this.devices.get(path);
    if (device === undefined)
      throw new StoreError('E_NOT_FOUND', `no simulated member ${path}`, {
        where: { member: path, errno: 2 },
      });
    return device.disk;
  }

  memberPaths(): readonly string[] {
    return [...this.devices.keys()];
  }

  /** Pulls a drive: it can no longer be opened and everything under way on it fails. */
  detach(path: string): void {
    this.disk(path).attached = false;
  }

  attach(path: string): void {
    this.disk(path).attached = true;
  }

  /** Exchanges the drives behind two paths, as a wrong cabling would. Both must be closed. */
  swap(left: string, right: string): void {
    const leftImage = this.disk(left).currentImage();
    this.putMember(left, this.disk(right).currentImage());
    this.putMember(right, leftImage);
  }

  /** Flips the bits of `mask` in one byte of the medium. */
  flipBits(path: string, offsetBytes: number, mask: number): void {
    this.disk(path).corrupt(
      offsetBytes,
      (bytes) => {
        bytes[0] = bytes[0]! ^ mask;
      },
      1,
    );
  }

  /** Overwrites bytes of the medium behind everybody's back. */
  overwrite(path: string, offsetBytes: number, bytes: Uint8Array): void {
    this.disk(path).corrupt(offsetBytes, (target) => target.set(bytes), bytes.length);
  }

  // ---- source files

  addFile(path: string, bytes: Uint8Array): void {
    this.addLargeFile(path, bytes.length, (offsetBytes, target) => {
      target.set(bytes.subarray(offsetBytes, offsetBytes + target.length));
    });
  }

  /** A file whose bytes are computed when read. Every call gives it a new identity. */
  addLargeFile(path: string, byteLength: number, read: SimFile['read']): void {
    this.fileNumber += 1;
    this.files.set(path, { byteLength, identity: `sim:${this.fileNumber}:${byteLength}`, read });
  }

  // ---- the end of processes and of power

  /** A process dies: what it had sent to devices still happens, then its locks and pins go. */
  kill(io: SimIo): void {
    io.die();
  }

  dropHandles(which: (handle: OpenHandle) => boolean): void {
    for (const handle of [...this.handles]) {
      if (!which(handle)) continue;
      this.handles.delete(handle);
      if (this.writerLocks.get(handle.path) === handle) this.writerLocks.delete(handle.path);
    }
  }

  /** Power fails now. Nothing in this world moves any more. */
  powerCut(): void {
    for (const io of this.processes) io.die();
    this.handles.clear();
    this.writerLocks.clear();
    this.scheduler.halt();
  }

  /** Moves whenever what a power cut would leave may have changed. */
  get generation(): number {
    let sum = this.devices.size;
    for (const { disk } of this.devices.values()) sum += disk.generation;
    return sum;
  }

  /** What a power cut at this moment leaves. The world itself goes on. */
  crashImage(choose: DamageChooser, prng: Prng): WorldImage {
    const members = new Map<string, DiskImage>();
    for (const [path, { disk }] of this.devices) {
      if (disk.creating && prng.chance(0.5)) continue;
      members.set(path, disk.crashImage(choose, prng));
    }
    return { members };
  }

  /** What all processes dying at this moment leaves: the page cache and the drives live on. */
  currentImage(): WorldImage {
    const members = new Map<string, DiskImage>();
    for (const [path, { disk }] of this.devices) members.set(path, disk.currentImage());
    return { members };
  }

  traceHash(): bigint {
    return this.scheduler.traceHash();
  }
}

export const keepAll: DamageChooser = () => 'keep';
export const dropAll: DamageChooser = () => 'drop';

/** Each write kept, dropped, torn or scrambled: 37.5 / 37.5 / 12.5 / 12.5 %, as SQLite's crash VFS does. */
export function randomDamage(prng: Prng): DamageChooser {
  return (write: PendingWrite): Damage => {
    const draw = prng.below(8);
    if (draw < 3) return 'keep';
    if (draw < 6) return 'drop';
    return draw === 6 ? tornDamage(write, prng) : scrambledDamage(write, prng);
  };
}

/** One hash for a whole image; equal images hash equal. */
export function worldImageHash(image: WorldImage): string {
  return [...image.members]
    .map(([path, disk]) => `${path}:${imageHash(disk).toString(16)}`)
    .sort()
    .join(' ');
}
