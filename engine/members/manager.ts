// Members that come and go while a store is open for writing: add, take back, set aside, leave (spec/members.md).
//
// Invariants
//   1. One of these runs at a time. Each is a root or a few; cut anywhere, the table says what is left to do (M13).
//   2. A new or returning member is attached and locked before a root names it a holder, and its devices are
//      closed again when none does.
//   3. Nothing is placed on a member before it holds a root of this store (M10).
//   4. A member is detached only when nothing is on it (M6).
//
// It moves neither pages (catalog_walk.ts) nor extents (repair jobs).

import { StoreError, assert, isStoreError } from '../../format/errors.js';
import {
  MEMBERS_MAX,
  MEMBER_DETACHED,
  MEMBER_FAULTED,
  MEMBER_RESILVERING,
  MEMBER_STALE,
  chooseMemberTip,
  encodeMember,
  equalBytes,
  formattedBytesFor,
  holdsRoots,
  memberKey,
  standingIn,
  toHex,
} from '../../format/index.js';
import type { MemberEntry, MemberTip } from '../../format/index.js';
import { burnRemnants } from '../burn.js';
import type { CatalogCore, OnlineMember } from '../catalog_core.js';
import { Change } from '../change.js';
import type { CatalogChange, MemberEntryChange } from '../contract.js';
import { domainNumber, zeroAreas } from '../create.js';
import { flushAll } from '../flush.js';
import { writeHints } from '../hints_io.js';
import { readKeySlots, writeKeySlots } from '../keys/slots_io.js';
import { isEncrypted } from '../keys/store_keys.js';
import type { Io, MemberDevice } from '../io/port.js';
import { HeartbeatKeeper, lockWriters } from '../locks.js';
import type { MemberFinder } from '../open_members.js';
import { OpenReport } from '../open_report.js';
import { oweResilver } from '../repair/resilver_record.js';
import { readRings, writeSuperblock } from '../superblock_io.js';
import { MemberFailures } from './member_failures.js';
import type { MemberHealth } from './health.js';
import { NO_MEMBER_ERRORS, forgiveErrors } from './error_record.js';
import { isLeaving, stateName } from './member_table.js';

/** Empty roots that a leaving member's freed space may need before it is detached. */
const DETACH_ROOTS_MAX = 4;

export interface ManagerPorts {
  readonly io: Io;
  readonly core: CatalogCore;
  readonly finder: MemberFinder;
  readonly health: MemberHealth;
  readonly commit: <T>(apply: (change: CatalogChange) => Promise<T>) => Promise<T>;
  /** Makes an empty root so that freed space ages; false when that cannot help. */
  readonly pushRoot: () => Promise<boolean>;
  readonly heartbeat: () => HeartbeatKeeper | null;
  /** What is known of the members has changed. */
  readonly moved: () => void;
}

export interface AddMemberOptions {
  readonly path: string;
  /** Files: how long to make it. */
  readonly sizeBytes?: number;
  /** Take a file or device that has something on it. */
  readonly force?: boolean;
}

export class MemberManager {
  readonly #ports: ManagerPorts;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(ports: ManagerPorts) {
    this.#ports = ports;
  }

  /** Takes a new member in (M12); resolves to its index. Errors: E_EXISTS, E_LOCKED, E_RANGE, E_IO, E_NO_SPACE. */
  add(options: AddMemberOptions): Promise<number> {
    return this.#inTurn(() => this.#add(options));
  }

  /** Brings a member back that is out of step (M10). `path` when its device was not found. */
  online(index: number, path?: string): Promise<void> {
    return this.#inTurn(() => this.#online(index, path));
  }

  /** Sets a member aside on purpose: the others go on without it. Errors: E_DEGRADED when they could not. */
  offline(index: number): Promise<void> {
    return this.#inTurn(async () => {
      this.#entry(index);
      this.#checkLoss(index, 'set aside');
      await this.#ports.commit(async (change) =>
        change.putMember(index, { state: 'stale', isKeptOut: true }),
      );
      this.#ports.moved();
    });
  }

  /** Asks a member to leave (M6), or, with false, to stay. One that is away is given up at once. */
  leave(index: number, leaves: boolean): Promise<void> {
    return this.#inTurn(async () => {
      const entry = this.#entry(index);
      if (leaves && holdsRoots(entry)) this.#checkLoss(index, 'removed');
      const isAway = !holdsRoots(entry) && entry.state !== MEMBER_FAULTED;
      const change: MemberEntryChange = {
        isLeaving: leaves,
        ...(leaves && isAway ? { state: 'faulted' as const } : {}),
      };
      const isStaying = isLeaving(entry) && !leaves;
      await this.#ports.commit(async (target) => {
        if (isStaying) await this.#stay(target, index);
        else target.putMember(index, change);
      });
      this.#ports.moved();
    });
  }

  /** Detaches a leaving member on which nothing is left; false while something is. */
  detach(index: number): Promise<boolean> {
    return this.#inTurn(() => this.#detach(index));
  }

  /** The catalog has its copies (M11): the member counts in the quorum from the next root on. */
  finishResilver(index: number): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#ports.core.superblock.members[index]?.state !== MEMBER_RESILVERING) return;
      await this.#ports.commit(async (change) => {
        change.putMember(index, { state: 'in-sync' });
        // The member's own state has said until now that extents may be short; from this root on the record does (M14).
        await oweResilver(change, Math.max(Math.floor(this.#ports.io.clock.nowMs()), 0));
      });
      this.#ports.moved();
    });
  }

  // ---- add

  async #add(options: AddMemberOptions): Promise<number> {
    const { io, core, finder } = this.#ports;
    const index = core.members.draft.length;
    if (index >= MEMBERS_MAX) {
      throw new StoreError('E_RANGE', `a store has at most ${MEMBERS_MAX} members over its life`, {
        safe: 'nothing was written',
      });
    }
    const force = options.force === true;
    const size = options.sizeBytes === undefined ? {} : { sizeBytes: options.sizeBytes };
    const device = await io.createMember(options.path, { ...size, force });
    try {
      await lockWriters(io, [device], force);
      if (!force) await refuseForeign(io, device);
      const { member, entry } = await this.#prepare(device, index);
      core.members.attach({ ...member, held: null });
      core.allocator.addMember({ index, formattedBytes: member.formattedBytes, allocatedSectors: 0 });
      try {
        await this.#ports.commit((change) => this.#addTo(change, index, entry, options.path, device));
      } catch (error) {
        if (core.superblock.members[index] === undefined) {
          core.members.release(index);
          core.allocator.dropMember(index);
        }
        throw error;
      }
      await this.#adopt(device, member);
      return index;
    } catch (error) {
      if (core.superblock.members[index] === undefined) {
        io.unlockWriter(device.slot);
        await io.closeMember(device.slot).catch(() => undefined);
      } else finder.keep(device, null);
      throw error;
    }
  }

  /** As create does it: identity blocks on zeroed areas, flushed, so that a cut leaves no member and no riddle. */
  async #prepare(device: MemberDevice, index: number): Promise<{ member: OnlineMember; entry: MemberEntry }> {
    const { io, core } = this.#ports;
    const formattedBytes = formattedBytesFor(device.sizeBytes);
    if (formattedBytes === 0)
      throw new StoreError('E_RANGE', `${device.path} is too small for a member: ${device.sizeBytes} bytes`);
    const failureDomain = domainNumber(io, device.failureDomain);
    const member = { index, slot: device.slot, path: device.path, formattedBytes, failureDomain };
    const entry: MemberEntry = {
      uuid: io.random.bytes(16).slice(),
      failureDomain,
      formattedBytes,
      syncedSequence: 0,
      syncedRootSum: 0n,
      syncedBranchId: 0n,
      allocatedSectors: 0,
      state: MEMBER_RESILVERING,
      flags: 0,
      birthSequence: 0,
      leftSequence: 0,
      leftRootSum: 0n,
    };
    await zeroAreas(io, [member], [device]);
    await flushAll(io, [member], 'the zeroed areas of a new member');
    await this.#giveKeySlots(member);
    const table = { ...core.superblock, members: [...core.members.draft, entry] };
    await writeHints(io, [...core.members.holders, member], table, new OpenReport());
    await new HeartbeatKeeper(io, [member], table).markClosed();
    await flushAll(io, [member], 'the identity of a new member');
    return { member, entry };
  }

  /** What opens the store stands on each of its members. It is copied as it is: no key is needed. */
  async #giveKeySlots(member: OnlineMember): Promise<void> {
    const { io, core } = this.#ports;
    if (!isEncrypted(core.superblock)) return;
    const { table } = await readKeySlots(io, core.members.holders, core.superblock.storeUuid);
    await writeKeySlots(io, [member], table);
  }

  async #addTo(
    change: CatalogChange,
    index: number,
    entry: MemberEntry,
    path: string,
    device: MemberDevice,
  ): Promise<void> {
    const { core, io } = this.#ports;
    assert(core.members.draft.length === index, 'members join one at a time');
    assert(change instanceof Change, "changes of the table are the committer's own");
    change.addMember({ ...entry, birthSequence: change.sequence });
    const record = {
      uuid: entry.uuid,
      path,
      failureDomain: device.failureDomain,
      serial: '',
      formattedBytes: entry.formattedBytes,
      addedAtMs: Math.max(io.clock.nowMs(), 0),
      ...NO_MEMBER_ERRORS,
    };
    await change.put(4, memberKey(index), encodeMember(record));
  }

  // ---- coming back

  /** What was written while the member was leaving may be short of the copy that it takes from now on (M14). */
  async #stay(change: CatalogChange, index: number): Promise<void> {
    change.putMember(index, { isLeaving: false });
    await oweResilver(change, Math.max(Math.floor(this.#ports.io.clock.nowMs()), 0));
  }

  async #online(index: number, path: string | undefined): Promise<void> {
    const { io, core, finder, health } = this.#ports;
    const entry = this.#entry(index);
    if (holdsRoots(entry) && core.members.failure(index) === null) {
      health.forgive(index);
      await this.#ports.commit(async (change) => {
        if (isLeaving(entry)) await this.#stay(change, index);
        await forgiveErrors(change, index);
      });
      this.#ports.moved();
      return;
    }
    if (core.members.isUnsettled) await this.#ports.commit(async () => undefined);
    const known = finder.found.find((found) => found.tip.memberIndex === index)?.device;
    const device = known ?? (await this.#openAgain(index, path));
    const { rings, formattedBytes } = await readRings(io, device);
    const tip = chooseMemberTip(rings);
    this.#checkTip(index, entry, tip);
    finder.keep(device, { device, tip, formattedBytes });
    const member = {
      index,
      slot: device.slot,
      path: device.path,
      formattedBytes,
      failureDomain: entry.failureDomain,
    };
    const { sequence, rootSum } = tip;
    const held = { sequence, rootSum, branchId: tip.superblock.branchId };
    await this.#giveKeySlots(member);
    core.members.attach({ ...member, held });
    health.forgive(index);
    await this.#ports.commit(async (change) => {
      const { failures } = await burnRemnants(io, [{ member, tip, sequence, next: change.sequence }]);
      if (failures.size > 0) throw new MemberFailures(failures);
      change.putMember(index, { state: 'resilvering', isLeaving: false, isKeptOut: false });
      await forgiveErrors(change, index);
    });
    await this.#adopt(device, member);
  }

  /** E_CONFLICT unless the member is exactly where the table left it (M10). */
  #checkTip(index: number, entry: MemberEntry, tip: MemberTip): void {
    if (!equalBytes(tip.memberUuid, entry.uuid) || tip.memberIndex !== index) {
      throw new StoreError(
        'E_CONFLICT',
        `this device is member ${tip.memberIndex} (uuid ${toHex(tip.memberUuid)})`,
        {
          where: { memberIndex: index },
          safe: 'nothing was written',
        },
      );
    }
    if (standingIn(entry, tip) === 'returning') return;
    throw new StoreError(
      'E_CONFLICT',
      `member ${index} is at root ${tip.sequence}, not where this store last knew it (${entry.syncedSequence} ` +
        `or ${entry.leftSequence}): it was written elsewhere or restored from a copy`,
      {
        where: { memberIndex: index },
        safe: 'nothing was written',
        next: 'ingot replace it; what it alone holds is read with the store open for reading',
      },
    );
  }

  async #openAgain(index: number, path: string | undefined): Promise<MemberDevice> {
    const { io } = this.#ports;
    if (path === undefined) {
      throw new StoreError('E_NOT_FOUND', `the device of member ${index} was not found`, {
        where: { memberIndex: index },
        next: 'say where it is',
      });
    }
    const device = await io.openMember(path, { mode: 'rw', direct: 'prefer' });
    try {
      await lockWriters(io, [device], false);
      const { rings } = await readRings(io, device);
      const tip = chooseMemberTip(rings);
      if (tip.memberIndex === index) return device;
      throw new StoreError('E_CONFLICT', `${path} is member ${tip.memberIndex}, not ${index}`);
    } catch (error) {
      io.unlockWriter(device.slot);
      await io.closeMember(device.slot).catch(() => undefined);
      throw error;
    }
  }

  // ---- leaving

  async #detach(index: number): Promise<boolean> {
    const { core } = this.#ports;
    // The store's own job (resilver_keeper.ts) may have let it go meanwhile.
    if (core.superblock.members[index]?.state === MEMBER_DETACHED) return true;
    const entry = this.#entry(index);
    if (!isLeaving(entry)) {
      throw new StoreError('E_CONFLICT', `member ${index} was not asked to leave`, {
        where: { memberIndex: index },
        next: 'ingot remove',
      });
    }
    for (let roots = 0; core.allocator.deferred.sectorsOf(index) > 0; roots += 1) {
      if (roots >= DETACH_ROOTS_MAX || !(await this.#ports.pushRoot())) return false;
    }
    if ((core.superblock.members[index]?.allocatedSectors ?? 1) > 0) return false;
    const member = core.members.attached(index);
    await this.#ports.commit(async (change) => change.putMember(index, { state: 'detached' }));
    if (core.allocator.deferred.sectorsOf(index) === 0) core.allocator.dropMember(index);
    // Told last, and only told: the others are at this root already (M6).
    if (member !== null && core.members.failure(index) === null)
      await writeSuperblock(this.#ports.io, [member], core.superblock);
    this.#ports.moved();
    return true;
  }

  // ---- helpers

  /** The device is the store's from now on: found, beaten and closed with it. */
  async #adopt(device: MemberDevice, member: OnlineMember): Promise<void> {
    const { io, core, finder } = this.#ports;
    const { rings, formattedBytes } = await readRings(io, device);
    finder.keep(device, { device, tip: chooseMemberTip(rings), formattedBytes });
    await this.#ports.heartbeat()?.add(member, core.superblock);
    await writeHints(io, core.members.holders, core.superblock, new OpenReport());
    this.#ports.moved();
  }

  #entry(index: number): MemberEntry {
    const entry = this.#ports.core.superblock.members[index];
    if (entry === undefined || entry.state === MEMBER_DETACHED || entry.formattedBytes === 0) {
      throw new StoreError('E_NOT_FOUND', `there is no member ${index}`, { next: 'ingot status' });
    }
    return entry;
  }

  #checkLoss(index: number, what: string): void {
    const { members } = this.#ports.core;
    const entry = this.#entry(index);
    if (entry.state === MEMBER_STALE || entry.state === MEMBER_FAULTED) return;
    const rest = members.placeable.filter((member) => member.index !== index);
    if (rest.length > 0 && members.canLose(index)) return;
    throw new StoreError(
      'E_DEGRADED',
      `member ${index} (${stateName(entry.state)}) cannot be ${what}: too few others are in step`,
      {
        where: { memberIndex: index },
        safe: 'nothing was written',
        next: 'add or bring back another member first',
      },
    );
  }

  #inTurn<T>(task: () => Promise<T>): Promise<T> {
    const run = this.#turn.then(task, task);
    this.#turn = run.catch(() => undefined);
    return run;
  }
}

/** A device that carries a store is not taken without force, unless that store let it go. */
async function refuseForeign(io: Io, device: MemberDevice): Promise<void> {
  let tip: MemberTip;
  try {
    tip = chooseMemberTip((await readRings(io, device)).rings);
  } catch (error) {
    if (isStoreError(error, 'E_FORMAT')) return;
    throw error;
  }
  if (tip.superblock.members[tip.memberIndex]?.state === MEMBER_DETACHED) return;
  throw new StoreError('E_EXISTS', `${device.path} is a member of store ${toHex(tip.superblock.storeUuid)}`, {
    where: { member: device.path },
    safe: 'nothing was written',
    next: 'use another device, or force to destroy what is there',
  });
}
