// ingot dump: superblocks, trees and pages as they lie on the members; any one member alone is enough to begin with.
//
// Invariants
//   1. Nothing is written or locked, and the engine is not asked: what does not open can still be looked at.
//   2. Output is bounded: --limit entries of a tree.

import { hexSum } from '../cli/output.js';
import type { CommandModule } from '../cli/program.js';
import { formatBytes } from '../cli/progress.js';
import { memberPaths, openRawMember, type RawMember } from '../cli/raw_members.js';
import { EXIT_OK, EXIT_UNREPAIRABLE, type Session } from '../cli/session.js';
import {
  type DumpedEntry,
  type DumpedPage,
  TREES,
  treeEntries,
  treePages,
  type TreeName,
} from '../cli/tree_dump.js';
import { parseChoice, parseWhole, usageError } from '../cli/values.js';
import { SECTOR_BYTES, StoreError, type Superblock, toHex } from '../../format/index.js';

interface Options {
  readonly slots?: boolean;
  readonly tree?: string;
  readonly pages?: boolean;
  readonly page?: string;
  readonly limit: string;
}
const MEMBER_STATES = ['unused', 'in sync', 'stale', 'faulted', 'detached', 'resilvering'];
const HEX_LINE_BYTES = 16;
const MAX_PAGE_SECTORS = 64;

export const register: CommandModule = (program, actions) => {
  program
    .command('dump')
    .description('show superblocks, trees and pages as they lie on the members')
    .argument('[members...]', 'member files or devices, or a directory (default: the store)')
    .option('--slots', 'every slot of the superblock rings')
    .option('--tree <name>', `entries of a catalog tree: ${TREES.join(', ')}`)
    .option('--pages', 'with --tree: its pages instead of its entries')
    .option('--page <place>', 'bytes at MEMBER:SECTOR[:SECTORS], MEMBER being an index')
    .option('--limit <n>', 'entries or pages shown at most', '1000')
    .action(async (given: readonly string[], options: unknown, command: unknown) => {
      const run = actions.action<Options>(async (session, _arguments, settings) =>
        dump(session, given, settings),
      );
      await run(given, options, command);
    });
};

async function dump(session: Session, given: readonly string[], options: Options): Promise<number> {
  const limit = parseWhole('--limit', options.limit, 1);
  if (options.pages === true && options.tree === undefined) throw usageError('--pages needs --tree.');
  const locations = given.length > 0 ? given : [session.storePath()];
  const paths = (await Promise.all(locations.map(memberPaths))).flat();
  const members: RawMember[] = [];
  try {
    for (const path of paths) members.push(await openRawMember(path));
    if (options.page !== undefined) return await dumpPage(session, members, options.page);
    if (options.tree !== undefined) {
      return await dumpTree(
        session,
        members,
        parseChoice('--tree', options.tree, TREES),
        options.pages === true,
        limit,
      );
    }
    return dumpSuperblocks(session, members, options.slots === true);
  } finally {
    for (const member of members) await member.close();
  }
}

function dumpSuperblocks(session: Session, members: readonly RawMember[], allSlots: boolean): number {
  session.out.object('ingot.dump.superblocks/1', {
    members: members.map((member) => ({
      path: member.path,
      sizeBytes: member.sizeBytes,
      problem: member.problem,
      tip: member.tip === null ? null : tipJson(member.tip),
      ...(allSlots ? { rings: member.rings.map((ring) => ring?.map(slotJson) ?? null) } : {}),
    })),
  });
  for (const member of members) {
    session.out.line(`${member.path}: ${member.sizeBytes} bytes (${formatBytes(member.sizeBytes)})`);
    if (member.tip === null) session.out.line(`  no root: ${member.problem ?? 'unknown'}`);
    else printSuperblock(session, member.tip.superblock, member.tip);
    if (allSlots) printSlots(session, member);
    session.out.line();
  }
  return members.some(({ tip }) => tip === null) ? EXIT_UNREPAIRABLE : EXIT_OK;
}

type Tip = NonNullable<RawMember['tip']>;

function tipJson(tip: Tip): object {
  const { superblock } = tip;
  return {
    memberIndex: tip.memberIndex,
    memberUuid: toHex(tip.memberUuid),
    sequence: tip.sequence,
    rootSum: tip.rootSum,
    copies: tip.copies,
    newerLoneCopies: tip.newerLoneCopies,
    invalidSlots: tip.invalidSlots,
    superblock: { ...superblock, storeUuid: toHex(superblock.storeUuid) },
  };
}

function slotJson(slot: NonNullable<RawMember['rings'][number]>[number]): object {
  if (slot.kind === 'empty') return { kind: slot.kind };
  if (slot.kind === 'invalid') return { kind: slot.kind, reason: slot.reason };
  return { kind: slot.kind, sequence: slot.sequence, rootSum: slot.rootSum, memberIndex: slot.memberIndex };
}

function printSuperblock(session: Session, superblock: Superblock, tip: Tip): void {
  const { out } = session;
  out.fields([
    ['  member', `${tip.memberIndex}, ${toHex(tip.memberUuid)}`],
    ['  store', toHex(superblock.storeUuid)],
    [
      '  format',
      `${superblock.formatMajor}.${superblock.formatMinor}, incompatible features ` +
        `0x${superblock.incompatFeatures.toString(16)}, read-only features ` +
        `0x${superblock.readOnlyCompatFeatures.toString(16)}`,
    ],
    [
      '  root',
      `sequence ${superblock.sequence}, sum ${hexSum(tip.rootSum)}, copies ${tip.copies.join(' ')} of 0 1 2 3`,
    ],
    ['  parent', hexSum(superblock.parentRootSum)],
    ['  branch', hexSum(superblock.branchId)],
    ['  committed', new Date(superblock.committedAtMs).toISOString()],
    ['  versions', superblock.versionCount],
    ['  next ids', `extent ${superblock.nextId}, version ${superblock.nextVersionId}`],
    [
      '  defaults',
      `redundancy ${superblock.defaultRedundancy}, chunk ${formatBytes(superblock.defaultChunkBytes)}, ` +
        `segment ${superblock.defaultSegmentBytes}, catalog copies ${superblock.catalogCopies}`,
    ],
  ]);
  for (const lone of tip.newerLoneCopies)
    out.line(`  newer lone copy: copy ${lone.copy}, sequence ${lone.sequence}`);
  out.table(
    ['  TREE', 'ITEMS', 'LEVEL', 'BYTES', 'BIRTH', 'COPIES'],
    TREES.map((name, id) => {
      const root = superblock.treeRoots[id] ?? null;
      const items = superblock.treeItemCounts[id] ?? 0;
      if (root === null) return [`  ${name}`, items, '-', '-', '-', 'empty'];
      return [`  ${name}`, items, root.level, root.storedBytes, root.birth, placesText(root.copies)];
    }),
  );
  out.table(
    ['  MEMBER', 'UUID', 'STATE', 'SIZE', 'SYNCED', 'SECTORS'],
    superblock.members.map((entry, index) => [
      `  ${index}`,
      toHex(entry.uuid),
      MEMBER_STATES[entry.state] ?? String(entry.state),
      formatBytes(entry.formattedBytes),
      entry.syncedSequence,
      entry.allocatedSectors,
    ]),
  );
}

const placesText = (copies: readonly { readonly member: number; readonly sector: number }[]): string =>
  copies.map(({ member, sector }) => `${member}:${sector}`).join(' ');

function printSlots(session: Session, member: RawMember): void {
  const rows = member.rings.flatMap((ring, copy) => {
    if (ring === null) return [[copy, '-', 'unreadable', '-', '-']];
    return ring.flatMap((slot, index) => {
      if (slot.kind === 'empty') return [];
      if (slot.kind === 'invalid') return [[copy, index, `invalid (${slot.reason})`, '-', '-']];
      return [[copy, index, slot.kind, slot.sequence, hexSum(slot.rootSum)]];
    });
  });
  session.out.table(
    ['  RING', 'SLOT', 'STATE', 'SEQUENCE', 'ROOT SUM'],
    rows.map(([first, ...rest]) => [`  ${first}`, ...rest]),
  );
}

/** The members by index, and the newest root among them. */
function newestRoot(members: readonly RawMember[]) {
  const byIndex = new Map<number, RawMember>();
  let newest: Tip | null = null;
  for (const member of members) {
    if (member.tip === null) continue;
    byIndex.set(member.tip.memberIndex, member);
    if (newest === null || member.tip.sequence > newest.sequence) newest = member.tip;
  }
  if (newest !== null) return { members: byIndex, superblock: newest.superblock };
  throw new StoreError(
    'E_CORRUPT',
    `No root can be chosen: ${members.map(({ problem }) => problem).join('; ')}`,
    {
      next: 'ingot dump --slots',
    },
  );
}

async function dumpTree(
  session: Session,
  members: readonly RawMember[],
  tree: TreeName,
  pages: boolean,
  limit: number,
): Promise<number> {
  const source = newestRoot(members);
  const shown: (DumpedEntry | DumpedPage)[] = [];
  let more = false;
  for await (const item of pages ? treePages(source, tree) : treeEntries(source, tree)) {
    session.signal.throwIfAborted();
    more = shown.length >= limit;
    if (more) break;
    shown.push(item);
    if ('key' in item) session.out.line(`${item.key}  ${brief(item.value)}`);
    else
      session.out.line(
        `${item.kind} level ${item.level} at ${placesText(item.copies)}: ${item.items} items, ` +
          `${item.usedBytes} of ${item.storedBytes} bytes, birth ${item.birth}`,
      );
  }
  const { sequence } = source.superblock;
  session.out.object(`ingot.dump.${pages ? 'pages' : 'tree'}/1`, {
    tree,
    sequence,
    truncated: more,
    items: shown,
  });
  if (more) session.out.line(`and more (--limit ${limit})`);
  return EXIT_OK;
}

/** A record on one line. */
function brief(value: unknown): string {
  return JSON.stringify(value, (_key, held: unknown) => {
    if (typeof held === 'bigint') return hexSum(held);
    if (held instanceof Uint8Array) return toHex(held);
    return held instanceof BigUint64Array ? Array.from(held, hexSum) : held;
  });
}

async function dumpPage(session: Session, members: readonly RawMember[], place: string): Promise<number> {
  const match = /^(\d+):(\d+)(?::(\d+))?$/.exec(place);
  if (match === null) throw usageError(`--page ${place}: must be MEMBER:SECTOR or MEMBER:SECTOR:SECTORS.`);
  const index = Number(match[1]);
  const sector = parseWhole('--page', match[2] ?? '', 0, 2 ** 41);
  const sectors = parseWhole('--page', match[3] ?? '1', 1, MAX_PAGE_SECTORS);
  const member =
    members.find(({ tip }) => tip?.memberIndex === index) ?? (members.length === 1 ? members[0] : undefined);
  if (member === undefined) throw new StoreError('E_NOT_FOUND', `Member ${index} is not among those given.`);
  const bytes = await member.read(sector * SECTOR_BYTES, sectors * SECTOR_BYTES);
  session.out.object('ingot.dump.page/1', {
    member: member.path,
    offsetBytes: sector * SECTOR_BYTES,
    hex: toHex(bytes),
  });
  for (let at = 0; at < bytes.byteLength; at += HEX_LINE_BYTES) {
    const line = bytes.subarray(at, at + HEX_LINE_BYTES);
    if (line.every((byte) => byte === 0)) continue;
    const hex = Array.from(line, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
    const text = Array.from(line, (byte) =>
      byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.',
    ).join('');
    session.out.line(
      `${(sector * SECTOR_BYTES + at).toString(16).padStart(12, '0')}  ${hex.padEnd(47)}  ${text}`,
    );
  }
  return EXIT_OK;
}
