// Opening: from paths to one durable root that may be trusted (commit.md sections 3 to 5).
//
//   rw: open -> lock -> flush -> read rings -> choose root -> quorum -> roll forward
//   r:  open -> read rings -> choose root -> pin it -> read again until it stands still
//
// Invariants
//   1. Recovery writes nothing before the root is chosen, and then only that root's own superblock, to
//      copies that do not hold it, and ones over remnants of later commits (C14). A crash in the midst of it
//      leaves the same root to choose.
//   2. A read-only open writes nothing and takes no writer lock (C15).
//   3. Nothing but superblocks (and hints when a member is missing) is read here, so the time to open
//      does not grow with the store.
//   4. Whatever fails, every device opened here is closed and every lock given back.
//   5. A member that is missing, damaged or behind is named in the report or in the error, with what is
//      safe and what to do.
//
// It reads no tree (catalog.ts does).

import { StoreError } from '../format/errors.js';
import {
  MEMBER_IN_SYNC,
  RING_COPIES,
  checkFeatures,
  chooseStoreRoot,
  equalBytes,
  hasWriteQuorum,
  holdsRoots,
  toHex,
} from '../format/index.js';
import type { MemberEntry, MemberTip, StoreRoot, Superblock } from '../format/index.js';
import { burnRemnants } from './burn.js';
import type { BurnTarget } from './burn.js';
import type { OnlineMember } from './catalog_core.js';
import type { Io } from './io/port.js';
import { MAX_PIN_ATTEMPTS } from './limits.js';
import { firstFailure } from './members/member_failures.js';
import type { FailuresByMember } from './members/member_failures.js';
import type { AttachedMember, HeldRoot } from './members/member_set.js';
import { MemberFinder } from './open_members.js';
import type { FoundMember } from './open_members.js';
import { OpenReport } from './open_report.js';
import { writeCopies } from './superblock_io.js';

export interface OpenStoreOptions {
  readonly mode: 'r' | 'rw';
  /** Opens for writing without a member quorum, past another writer's heartbeat, or on a device in use. */
  readonly force?: boolean;
  /** 'require' refuses file systems without O_DIRECT. Default 'prefer', which reports it. */
  readonly direct?: 'require' | 'prefer';
}

/** A store whose root was chosen and, for writers, made whole on every member. */
export interface OpenedStore {
  readonly superblock: Superblock;
  readonly rootSum: bigint;
  readonly root: StoreRoot;
  readonly found: readonly FoundMember[];
  /** Found members that hold the root now. */
  readonly online: readonly OnlineMember[];
  /** Found members that are out of step with exactly what the root knows of them: they can come back. */
  readonly returning: readonly AttachedMember[];
  /** Members whose writes failed while the root was made whole on them. */
  readonly failed: FailuresByMember;
  readonly isDegraded: boolean;
  readonly report: OpenReport;
  readonly finder: MemberFinder;
}

/**
 * Errors: E_NOT_FOUND, E_FORMAT, E_CORRUPT, E_CONFLICT, E_VERSION, E_LOCKED, E_DEGRADED, E_READ_ONLY, E_IO.
 */
export async function openStore(
  io: Io,
  paths: readonly string[],
  options: OpenStoreOptions,
): Promise<OpenedStore> {
  const report = new OpenReport();
  const force = options.force === true;
  const finder = new MemberFinder(
    io,
    { mode: options.mode, direct: options.direct ?? 'prefer', force },
    report,
  );
  try {
    await finder.findAll(paths);
    if (finder.found.length === 0) throw firstError(finder, paths);
    const root =
      options.mode === 'rw' ? await chooseForWriting(io, finder, report) : await choosePinned(io, finder);
    noteUnusable(finder, report);
    noteAbsent(root, finder, report);
    checkVersion(root, options.mode);
    if (options.mode === 'rw') checkWitnesses(root, finder, force);
    if (options.mode === 'rw') checkWritable(root, finder, force);
    const opened = describe(root, finder, report);
    return options.mode === 'rw' ? await makeWhole(io, opened, force) : opened;
  } catch (error) {
    await finder.close();
    throw error;
  }
}

async function chooseForWriting(io: Io, finder: MemberFinder, report: OpenReport): Promise<StoreRoot> {
  const root = chooseStoreRoot(finder.found.map((member) => member.tip));
  if (!(await finishCreate(io, finder, root, report))) return root;
  return chooseStoreRoot(finder.found.map((member) => member.tip));
}

/** Members that begin with this very root and were not found: of a create, or an add, that was cut short. */
function bornHere(root: StoreRoot): readonly number[] {
  if (root.sequence === 1) return root.absentInSync;
  return root.superblock.members.flatMap((entry, index) =>
    holdsRoots(entry) && entry.birthSequence === root.sequence && !root.standings.has(index) ? [index] : [],
  );
}

/**
 * Gives their first root to members that create or add did not come to: their identity blocks name this store and
 * they hold no other root. Only when nothing is missing then; what the root placed on them was flushed
 * first (C20).
 */
async function finishCreate(
  io: Io,
  finder: MemberFinder,
  root: StoreRoot,
  report: OpenReport,
): Promise<boolean> {
  const awaited = bornHere(root);
  if (awaited.length === 0) return false;
  const targets = [];
  for (const index of awaited) {
    const entry = root.superblock.members[index];
    const unborn = finder.unborn.find(
      (member) =>
        entry !== undefined &&
        equalBytes(member.memberUuid, entry.uuid) &&
        equalBytes(member.storeUuid, root.superblock.storeUuid) &&
        [...member.rootSums].every((sum) => sum === root.rootSum) &&
        member.device.sizeBytes >= entry.formattedBytes,
    );
    if (entry === undefined || unborn === undefined) return false;
    const { formattedBytes, failureDomain } = entry;
    const { slot, path } = unborn.device;
    targets.push({
      unborn,
      member: { index, slot, path, formattedBytes, failureDomain },
      copies: [0, 1, 2, 3],
    });
  }
  const outcome = await writeCopies(io, targets, root.superblock);
  for (const line of outcome.warnings) report.add(line);
  for (const { unborn, member } of targets) {
    if (outcome.failures.has(member.index)) continue;
    report.add(
      `${unborn.device.path}: given root ${root.sequence}, which an interrupted ` +
        `${root.sequence === 1 ? 'create' : 'add'} had not written to it yet`,
    );
    await finder.readBorn(unborn);
  }
  return true;
}

/** Pins the newest root of a store that somebody else may be writing (C17). */
async function choosePinned(io: Io, finder: MemberFinder): Promise<StoreRoot> {
  const { found } = finder;
  let root = await chooseSettled(
    finder,
    found.map((member) => member.tip),
  );
  for (let attempt = 0; attempt < MAX_PIN_ATTEMPTS; attempt += 1) {
    for (const { device } of found) io.pin(device.slot, root.sequence);
    const again = await chooseSettled(finder);
    // What root R freed is written after R + 2 at the earliest, so a tip one further is still whole.
    if (again.sequence - root.sequence <= 1) return root;
    for (const { device } of found) io.unpin(device.slot, root.sequence);
    root = again;
  }
  throw new StoreError('E_CONFLICT', `the root moved ${MAX_PIN_ATTEMPTS} times while it was being pinned`, {
    retryable: true,
    safe: 'nothing was written',
    next: 'try again',
  });
}

/**
 * The root as readers beside a writer see it. Members are read one after another, so a writer can seem to
 * have left one behind, or to be half-way through its superblocks: what looks so is read again, and
 * believed when it stays.
 */
export async function chooseSettled(finder: MemberFinder, tips?: readonly MemberTip[]): Promise<StoreRoot> {
  for (let attempt = 0; ; attempt += 1) {
    const isLast = attempt === MAX_PIN_ATTEMPTS;
    try {
      const root = chooseStoreRoot(attempt === 0 && tips !== undefined ? tips : await finder.readAgain());
      const lags = root.absentInSync.some((index) => root.standings.has(index));
      if (!lags || isLast) return root;
    } catch (error) {
      if (isLast) throw error;
    }
  }
}

function firstError(finder: MemberFinder, paths: readonly string[]): StoreError {
  const first = finder.unusable[0];
  if (first !== undefined) return first.error;
  return new StoreError('E_NOT_FOUND', `no member of a store at ${paths.join(', ')}`);
}

function checkVersion(root: StoreRoot, mode: 'r' | 'rw'): void {
  const { writable, unknownReadOnly } = checkFeatures(root.superblock);
  if (writable || mode === 'r') return;
  throw new StoreError(
    'E_VERSION',
    `the store uses features 0x${unknownReadOnly.toString(16)} that this version may read but not write`,
    {
      safe: 'nothing was written',
      next: "open it with mode 'r', or use a newer version",
    },
  );
}

/**
 * C14: a member that was set aside because its flush failed is not built on, but what it says is heard: members that
 * were left behind may be a quorum of an older root, and writing on that one would make a fork of acknowledged
 * roots. (Found by a simulated history: of three members, two failed, the third went on alone, and its flush
 * failed at the next open.)
 */
function checkWitnesses(root: StoreRoot, finder: MemberFinder, force: boolean): void {
  if (force) return;
  for (const { path, tip } of finder.witnesses) {
    if (!equalBytes(tip.superblock.storeUuid, root.superblock.storeUuid)) continue;
    if (tip.sequence < root.sequence || tip.rootSum === root.rootSum) continue;
    const unusable = finder.unusable.find((entry) => entry.path === path);
    throw new StoreError(
      'E_DEGRADED',
      `${path} holds root ${tip.sequence}, newer than root ${root.sequence} of the members that can be used, but it ` +
        `cannot be trusted now: ${unusable?.error.message ?? 'its flush failed'}`,
      {
        where: { member: path },
        ...(unusable === undefined ? {} : { cause: unusable.error }),
        safe: 'nothing was written; the newer root is as it was',
        next: "open it again; if the flush goes on failing, open it with mode 'r', or --force to give that root up",
      },
    );
  }
}

/** C13: a degraded store is written by a quorum, or by force. */
function checkWritable(root: StoreRoot, finder: MemberFinder, force: boolean): void {
  if (root.hasWriteQuorum) return;
  const inSync = root.superblock.members.filter((entry) => entry.state === MEMBER_IN_SYNC).length;
  if (force && root.absentInSync.length < inSync) return;
  const names = root.absentInSync.map((index) => memberName(finder, root.superblock.members[index], index));
  const reasons = finder.unusable.map((entry) => `${entry.path}: ${entry.error.message}`);
  throw new StoreError(
    'E_DEGRADED',
    `${names.join(', ')} missing or not usable, so the store opens read-only; ` +
      'too few members for a quorum: a newer root may exist on the missing ones' +
      (reasons.length > 0 ? ` (${reasons.join('; ')})` : ''),
    {
      where: root.absentInSync.length === 0 ? {} : { memberIndex: root.absentInSync[0] ?? 0 },
      ...(finder.unusable[0] === undefined ? {} : { cause: finder.unusable[0].error }),
      safe: 'nothing was written; every version with a copy on the members present can be read',
      next:
        "bring the member back, open it with mode 'r', or force it (ingot online --force): what the " +
        'missing members alone have acknowledged is then given up, and they are refused as a fork when they return',
    },
  );
}

function memberName(finder: MemberFinder, entry: MemberEntry | undefined, index: number): string {
  const path = entry === undefined ? '' : finder.hintedPath(entry.uuid);
  const uuid = entry === undefined ? 'unknown' : toHex(entry.uuid);
  return `member ${index} (${path === '' ? '' : `last seen at ${path}, `}uuid ${uuid})`;
}

function noteUnusable(finder: MemberFinder, report: OpenReport): void {
  for (const { path, error } of finder.unusable)
    report.add(`${path} is not used: ${error.code} ${error.message}`);
}

function noteAbsent(root: StoreRoot, finder: MemberFinder, report: OpenReport): void {
  for (const index of root.absentInSync) {
    report.add(
      `degraded: ${memberName(finder, root.superblock.members[index], index)} is missing; ` +
        'what it alone holds cannot be read',
    );
  }
  if (root.mayBeBehind)
    report.add('too few members for a quorum: a newer root may exist on the missing ones');
}

function describe(root: StoreRoot, finder: MemberFinder, report: OpenReport): OpenedStore {
  const online: OnlineMember[] = [];
  const returning: AttachedMember[] = [];
  for (const { device, tip } of finder.found) {
    const standing = root.standings.get(tip.memberIndex);
    const entry = root.superblock.members[tip.memberIndex];
    if (entry === undefined) continue;
    const { formattedBytes, failureDomain } = entry;
    const member = {
      index: tip.memberIndex,
      slot: device.slot,
      path: device.path,
      formattedBytes,
      failureDomain,
    };
    // One that is one behind holds every page of the root already: pages are flushed before superblocks are
    // written.
    if (standing === 'current' || standing === 'one-behind') {
      online.push(member);
      continue;
    }
    if (standing === 'returning') returning.push({ ...member, held: heldBy(tip) });
    report.add(
      standing === 'detached'
        ? `${device.path}: member ${tip.memberIndex} was detached from this store; it is not used`
        : `${device.path}: member ${tip.memberIndex} is stale (at root ${tip.sequence} of ${root.sequence})`,
    );
  }
  online.sort((a, b) => a.index - b.index);
  const { superblock, rootSum, isDegraded } = root;
  const failed = new Map<number, StoreError>();
  const { found } = finder;
  return { superblock, rootSum, root, found, online, returning, failed, isDegraded, report, finder };
}

function heldBy(tip: MemberTip): HeldRoot {
  return { sequence: tip.sequence, rootSum: tip.rootSum, branchId: tip.superblock.branchId };
}

/**
 * Rolls forward and burns (C14). A member whose writes fail meanwhile is as one that was not found, when the
 * others are a quorum without it.
 */
async function makeWhole(io: Io, opened: OpenedStore, force: boolean): Promise<OpenedStore> {
  const failed = new Map(await rollForward(io, opened));
  const targets = burnTargets(opened, failed);
  const burned = await burnRemnants(io, targets);
  for (const line of burned.lines) opened.report.add(line);
  for (const [index, error] of burned.failures) failed.set(index, error);
  if (failed.size === 0) return opened;
  const online = opened.online.filter((member) => !failed.has(member.index));
  const present = new Set(online.map((member) => member.index));
  if (!force && !hasWriteQuorum(opened.superblock, present)) throw firstFailure(failed);
  const returning = opened.returning.filter((member) => !failed.has(member.index));
  for (const [index, error] of failed) opened.report.add(`member ${index} is not used: ${error.message}`);
  return { ...opened, online, returning, failed, isDegraded: true };
}

/** Members at the root burn what is above it; returning ones what is above their own tip, and the next slot. */
function burnTargets(opened: OpenedStore, failed: FailuresByMember): BurnTarget[] {
  const { sequence } = opened.superblock;
  return [...opened.online, ...opened.returning].flatMap((member) => {
    const found = opened.found.find(({ tip }) => tip.memberIndex === member.index);
    if (found === undefined || failed.has(member.index)) return [];
    const { tip } = found;
    const isOnline = opened.online.includes(member);
    return isOnline
      ? [{ member, tip, sequence }]
      : [{ member, tip, sequence: tip.sequence, next: sequence + 1 }];
  });
}

/** Writes the root to every in-sync copy that lacks it, as a commit would (C14). Idempotent. */
async function rollForward(io: Io, opened: OpenedStore): Promise<FailuresByMember> {
  const { superblock, rootSum, online, report } = opened;
  const tips = new Map(
    opened.found.map((member): [number, MemberTip] => [member.tip.memberIndex, member.tip]),
  );
  const targets = [];
  for (const member of online) {
    const tip = tips.get(member.index);
    const holds =
      tip !== undefined && tip.rootSum === rootSum && tip.sequence === superblock.sequence ? tip.copies : [];
    const copies = [0, 1, 2, 3].filter((copy) => !holds.includes(copy));
    if (copies.length > 0) targets.push({ member, copies });
  }
  const { failures, warnings } = await writeCopies(io, targets, superblock);
  for (const line of warnings) report.add(line);
  for (const { member, copies } of targets) {
    if (failures.has(member.index)) continue;
    report.add(
      copies.length === RING_COPIES
        ? `${member.path}: rolled forward to root ${superblock.sequence}`
        : `${member.path}: superblock copies ${copies.join(', ')} of root ${superblock.sequence} written again`,
    );
  }
  return failures;
}
