// Finding and reading the members of a store: devices, locks, rings, siblings through hints.
//
// Invariants
//   1. In 'rw' mode a member is locked, and flushed, before any of its superblocks is read (commit.md C14,
//      C16).
//   2. Nothing is written here.
//   3. A path that cannot be used is remembered with its error and never makes another path fail; the
//      caller decides whether what is left suffices.
//   4. Hints only add paths to try: identity comes from superblocks alone (format.md section 8). A file that was
//      moved or copied looks for siblings beside itself only.
//
// It chooses no store root (open.ts does).

import { StoreError, isStoreError } from '../format/errors.js';
import { MEMBERS_MAX, chooseMemberTip, equalBytes, toHex } from '../format/index.js';
import type { MemberTip, ParsedRing } from '../format/index.js';
import { readHints } from './hints_io.js';
import type { Io, MemberDevice } from './io/port.js';
import { lockWriters, readHeartbeat } from './locks.js';
import type { OpenReport } from './open_report.js';
import { readRings } from './superblock_io.js';

/** A device that carries a superblock quorum. */
export interface FoundMember {
  readonly device: MemberDevice;
  readonly tip: MemberTip;
  readonly formattedBytes: number;
}

/**
 * A device that create had prepared, by its identity block, when it was cut short: no superblock quorum
 * yet.
 */
export interface UnbornMember {
  readonly device: MemberDevice;
  readonly storeUuid: Uint8Array;
  readonly memberUuid: Uint8Array;
  /** Roots that single copies hold. */
  readonly rootSums: ReadonlySet<bigint>;
  /** Its place in `unusable`. */
  readonly unusable: UnusablePath;
}

/** What a member whose flush failed says of itself: no state to build on, but news of roots that may exist. */
export interface Witness {
  readonly path: string;
  readonly tip: MemberTip;
}

/** A path that could not be used, and why. */
export interface UnusablePath {
  readonly path: string;
  readonly error: StoreError;
}

export interface FindOptions {
  readonly mode: 'r' | 'rw';
  readonly direct: 'require' | 'prefer';
  readonly force: boolean;
}

/** Opens and reads members one after another; `close` gives every device back. */
export class MemberFinder {
  readonly found: FoundMember[] = [];
  readonly unusable: UnusablePath[] = [];
  readonly unborn: UnbornMember[] = [];
  /** Members that were set aside by this open; a newer root of theirs forbids writing on an older one (C14). */
  readonly witnesses: Witness[] = [];
  readonly #io: Io;
  readonly #options: FindOptions;
  readonly #report: OpenReport;
  readonly #devices = new Map<string, MemberDevice>();
  /** Paths whose flush failed: never asked again by this open (commit.md C1). */
  readonly #refused = new Set<string>();
  readonly #hintedPaths = new Map<string, string>();

  constructor(io: Io, options: FindOptions, report: OpenReport) {
    this.#io = io;
    this.#options = options;
    this.#report = report;
  }

  /** Errors that end the open are thrown (E_LOCKED, forks, aborts); others become `unusable`. */
  async findAll(paths: readonly string[]): Promise<void> {
    if (paths.length === 0 || paths.length > MEMBERS_MAX) {
      throw new StoreError(
        'E_USAGE',
        `a store has 1 to ${MEMBERS_MAX} members, ${paths.length} paths were given`,
      );
    }
    for (const path of paths) await this.#open(path);
    if (this.#options.mode === 'rw') await this.#lockAndFlush([...this.#devices.values()]);
    for (const device of [...this.#devices.values()]) await this.#read(device);
    await this.#findSiblings();
  }

  /** Where hints last saw a member; '' when they do not say. */
  hintedPath(uuid: Uint8Array): string {
    return this.#hintedPaths.get(toHex(uuid)) ?? '';
  }

  /** Reads all found members again (readers, after pinning). */
  async readAgain(): Promise<MemberTip[]> {
    const tips: MemberTip[] = [];
    for (const member of this.found) {
      const { rings } = await readRings(this.#io, member.device);
      tips.push(chooseMemberTip(rings));
    }
    return tips;
  }

  /** Looks for members of this table that are not here yet (readers of a store that got new ones). */
  async lookAgain(): Promise<void> {
    for (const [place, member] of this.found.entries()) {
      const { rings } = await readRings(this.#io, member.device);
      this.found[place] = { ...member, tip: chooseMemberTip(rings) };
    }
    const unusableBefore = this.unusable.length;
    await this.#findSiblings();
    this.unusable.length = Math.min(this.unusable.length, unusableBefore);
  }

  /** A device that joined or came back after the open: found as its tip says, and closed with the others. */
  keep(device: MemberDevice, found: FoundMember | null): void {
    this.#devices.set(device.path, device);
    if (found === null) return;
    const place = this.found.findIndex((member) => member.tip.memberIndex === found.tip.memberIndex);
    if (place < 0) this.found.push(found);
    else this.found[place] = found;
  }

  async close(): Promise<void> {
    for (const device of this.#devices.values()) {
      if (this.#options.mode === 'rw') this.#io.unlockWriter(device.slot);
      await this.#io.closeMember(device.slot).catch(() => undefined);
    }
    this.#devices.clear();
  }

  async #open(path: string): Promise<MemberDevice | null> {
    if (this.#devices.has(path) || this.#refused.has(path)) return null;
    const { mode, direct, force } = this.#options;
    try {
      const device = await this.#io.openMember(path, { mode, direct, force });
      this.#devices.set(path, device);
      return device;
    } catch (error) {
      if (!isStoreError(error)) throw error;
      if (!this.unusable.some((entry) => entry.path === path))
        this.unusable.push({ path, error: error as StoreError });
      return null;
    }
  }

  async #lockAndFlush(devices: readonly MemberDevice[]): Promise<void> {
    await lockWriters(this.#io, devices, this.#options.force);
    if (devices.length === 0) return;
    const results = await this.#io.flush(
      devices.map((device) => device.slot),
      { priority: 0 },
    );
    for (const { slot, errno } of results) {
      if (errno === 0) continue;
      const device = devices.find((entry) => entry.slot === slot);
      if (device !== undefined) await this.#setAside(device, errno);
    }
  }

  /** Nobody knows what is durable on a member whose flush failed: it is as one that was not found. */
  async #setAside(device: MemberDevice, errno: number): Promise<void> {
    const { path, slot } = device;
    const error = new StoreError('E_IO', `flushing ${path} before it is trusted failed with errno ${errno}`, {
      where: { member: path, errno },
      safe: 'nothing was written',
      next: 'ingot doctor; a read-only open still works',
    });
    this.unusable.push({ path, error });
    await this.#hear(device);
    this.#refused.add(path);
    this.#devices.delete(path);
    this.#io.unlockWriter(slot);
    await this.#io.closeMember(slot).catch(() => undefined);
  }

  async #hear(device: MemberDevice): Promise<void> {
    try {
      const { rings } = await readRings(this.#io, device);
      this.witnesses.push({ path: device.path, tip: chooseMemberTip(rings) });
    } catch (error) {
      // One that cannot even be read tells nothing, like one that was not found.
      if (!isStoreError(error)) throw error;
    }
  }

  async #read(device: MemberDevice): Promise<void> {
    const { rings, formattedBytes, truncated, readErrors } = await readRings(this.#io, device);
    for (const line of readErrors) this.#report.add(line);
    try {
      if (readErrors.length === 0 && rings.every((ring) => ring === null)) throw tooShort(device);
      const tip = named(device.path, () => chooseMemberTip(rings));
      if (truncated) throw truncatedError(device, formattedBytes);
      this.#note(device, tip);
      this.found.push({ device, tip, formattedBytes });
    } catch (error) {
      if (!isStoreError(error) || isStoreError(error, 'E_CONFLICT') || isStoreError(error, 'E_VERSION'))
        throw error;
      const unusable = { path: device.path, error: error as StoreError };
      this.unusable.push(unusable);
      await this.#readUnborn(device, rings, unusable);
    }
  }

  /** Reads a member again that was given its first root (open.ts finishes a create that was cut short). */
  async readBorn(member: UnbornMember): Promise<void> {
    this.unborn.splice(this.unborn.indexOf(member), 1);
    this.unusable.splice(this.unusable.indexOf(member.unusable), 1);
    await this.#read(member.device);
  }

  async #readUnborn(
    device: MemberDevice,
    rings: readonly ParsedRing[],
    unusable: UnusablePath,
  ): Promise<void> {
    const identity = await readHeartbeat(this.#io, device);
    if (identity === null) return;
    const rootSums = new Set<bigint>();
    for (const slot of rings.flatMap((ring) => ring ?? [])) {
      if (slot.kind === 'valid' || slot.kind === 'other-version') rootSums.add(slot.rootSum);
    }
    const { storeUuid, memberUuid } = identity;
    this.unborn.push({ device, storeUuid, memberUuid, rootSums, unusable });
  }

  #note(device: MemberDevice, tip: MemberTip): void {
    for (const lone of tip.newerLoneCopies) {
      this.#report.add(
        `${device.path}: copy ${lone.copy} alone holds a newer root ${lone.sequence}: a commit that was cut short, ` +
          'or an acknowledged one after two further faults',
      );
    }
    for (const slot of tip.invalidSlots) {
      // A burned slot is the store's own doing: nothing is wrong with it.
      if (slot.reason === 'burned') continue;
      this.#report.add(
        `${device.path}: superblock copy ${slot.copy}, slot ${slot.slot} is not valid (${slot.reason})`,
      );
    }
  }

  /** Tries the paths that hints name for members of the table which were not found. */
  async #findSiblings(): Promise<void> {
    for (const { device, tip, formattedBytes } of [...this.found]) {
      const missing = tip.superblock.members.filter(
        (entry) =>
          entry.state !== 0 && !this.found.some((member) => equalBytes(member.tip.memberUuid, entry.uuid)),
      );
      if (missing.length === 0) continue;
      const hints = await readHints(this.#io, device.slot, formattedBytes);
      const own = hints?.entries.find((hint) => equalBytes(hint.uuid, tip.memberUuid));
      const isWhereItWas = device.kind === 'block' || own?.path === device.path;
      for (const hint of hints?.entries ?? []) {
        this.#hintedPaths.set(toHex(hint.uuid), hint.path);
        if (!missing.some((entry) => equalBytes(entry.uuid, hint.uuid))) continue;
        for (const path of siblingPaths(device.path, hint.path, isWhereItWas)) {
          if (await this.#tryHint(path, hint.uuid)) break;
        }
      }
    }
  }

  /** Opens a hinted path; keeps it only when it is the member that the hint meant. */
  async #tryHint(path: string, uuid: Uint8Array): Promise<boolean> {
    const unusableBefore = this.unusable.length;
    const device = await this.#open(path);
    if (device === null) return false;
    if (this.#options.mode === 'rw') await this.#lockAndFlush([device]);
    if (!this.#devices.has(path)) return false;
    await this.#read(device);
    const last = this.found.at(-1);
    if (last?.device === device && equalBytes(last.tip.memberUuid, uuid)) {
      this.#report.add(`${path}: found through the hints of a sibling`);
      return true;
    }
    const unborn = this.unborn.at(-1);
    if (unborn?.device === device && equalBytes(unborn.memberUuid, uuid)) return true;
    if (unborn?.device === device) this.unborn.pop();
    if (last?.device === device) this.found.pop();
    this.unusable.length = unusableBefore;
    this.#devices.delete(path);
    if (this.#options.mode === 'rw') this.#io.unlockWriter(device.slot);
    await this.#io.closeMember(device.slot);
    return false;
  }
}

/**
 * The hinted path's last part beside the member that gave the hint, then the hinted path itself. A member file
 * that is not where its own hint saw it was moved or copied: the other paths it names may be those of the store it was
 * copied from, which must not be written through the copy.
 */
function siblingPaths(memberPath: string, hintPath: string, isWhereItWas: boolean): string[] {
  const directory = memberPath.slice(0, memberPath.lastIndexOf('/') + 1);
  const beside = directory + hintPath.slice(hintPath.lastIndexOf('/') + 1);
  return beside === hintPath || !isWhereItWas ? [beside] : [beside, hintPath];
}

/** Adds the member's path to errors of the pure choosers. */
export function named<T>(path: string, choose: () => T): T {
  try {
    return choose();
  } catch (error) {
    if (!isStoreError(error)) throw error;
    const known = error as StoreError;
    throw new StoreError(known.code, `${path}: ${known.message}`, {
      where: { ...known.where, member: path },
      cause: known,
      ...(known.safe === undefined ? {} : { safe: known.safe }),
      ...(known.next === undefined ? {} : { next: known.next }),
    });
  }
}

function tooShort({ path, sizeBytes }: MemberDevice): StoreError {
  const what = `not an Ingot member: ${sizeBytes} bytes, too short for a superblock`;
  return new StoreError('E_FORMAT', `${path}: ${what}`, { where: { member: path } });
}

function truncatedError(device: MemberDevice, formattedBytes: number): StoreError {
  return new StoreError(
    'E_FORMAT',
    `${device.path}: the device has ${device.sizeBytes} bytes but was formatted with ${formattedBytes}: ` +
      'it was cut short',
    {
      where: {
        member: device.path,
        offsetBytes: device.sizeBytes,
        lengthBytes: formattedBytes - device.sizeBytes,
      },
      safe: 'nothing was written; copies on other members are untouched',
      next: 'ingot status',
    },
  );
}
