// Choosing roots: format/quorum.ts against a separate reading of the specification in Python
// (test/reference/quorum_model.py), over every combination of what four copies, and up to four
// members, can look like; and torn slots.
//
// The expected verdicts are committed in spec/vectors/quorum.json, made by the Python model. Without
// python3 the committed table is compared; with it the table itself is checked too.
// To make the table anew: INGOT_WRITE_VECTORS=1 node --test dist/test/unit/quorum.test.js

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import type { MemberTip, SlotResult, Superblock } from '../../format/index.js';
import {
  MEMBER_DETACHED,
  MEMBER_FAULTED,
  MEMBER_RESILVERING,
  MEMBER_STALE,
  RING_COPIES,
  SLOT_BYTES,
  chooseMemberTip,
  chooseStoreRoot,
  crc64,
  encodeSuperblock,
  isStoreError,
  rootSumOf,
  slotOf,
  toHex,
} from '../../format/index.js';
import { ZERO_SLOT, memberEntryOf, parseRing, ringsOf, superblockOf, uuidOf } from './format_samples.js';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const MODEL = join(ROOT, 'test', 'reference', 'quorum_model.py');
const TABLE = join(ROOT, 'spec', 'vectors', 'quorum.json');
/** 32 is in slot 0, so that the ring wraps between the live root and the one before. */
const N = 32;
type Ring = Map<number, Uint8Array>;

/** The eight states of one copy: N, N-1, N-2, corrupt, zero, wrong copy number, foreign UUID, fork. */
function statesOf(copy: number): Ring[] {
  const roots = historyOf([N - 2, N - 1, N]);
  const ring = (list: readonly Superblock[], index = copy): Ring =>
    new Map(list.map((root) => [slotOf(root.sequence), encodeSuperblock(root, 0, index)]));
  const corrupt = ring(roots);
  const image = corrupt.get(slotOf(N))!;
  image[4_000]! ^= 0x40;
  const foreign = historyOf([N - 2, N - 1, N]).map((root) => ({ ...root, storeUuid: uuidOf(2) }));
  const fork = [...roots.slice(0, 2), { ...roots[2]!, branchId: 0xf04cn, committedAtMs: 1 }];
  return [
    ring(roots),
    ring(roots.slice(0, 2)),
    ring(roots.slice(0, 1)),
    corrupt,
    new Map(),
    ring(roots, (copy + 1) % RING_COPIES),
    ring(foreign),
    ring(fork),
  ];
}

function historyOf(sequences: readonly number[], memberCount = 1): Superblock[] {
  let parentRootSum = 0n;
  return sequences.map((sequence) => {
    const members = Array.from({ length: memberCount }, (_, index) =>
      memberEntryOf(index, { allocatedSectors: sequence }),
    );
    const root = superblockOf(sequence, { parentRootSum, members });
    parentRootSum = rootSumOf(root);
    return root;
  });
}

function tipVerdict(rings: readonly SlotResult[][]): string {
  try {
    const tip = chooseMemberTip(rings);
    const newer = tip.newerLoneCopies.map((lone) => `${lone.copy}:${lone.sequence}`).join(',');
    const store = toHex(tip.superblock.storeUuid).slice(0, 4);
    return `${store} tip ${tip.sequence} copies ${tip.copies.join('')} newer ${newer === '' ? 'none' : newer}`;
  } catch (error) {
    if (isStoreError(error)) return error.code;
    throw error;
  }
}

function storeVerdict(tips: readonly MemberTip[]): string {
  try {
    const root = chooseStoreRoot(tips);
    const standings = [...root.standings]
      .sort((a, b) => a[0] - b[0])
      .map(([index, standing]) => `${index}=${standing}`);
    const absent = root.absentInSync.join('');
    const verdict = `root ${root.sequence} ${standings.join(' ')} absent ${absent === '' ? 'none' : absent}`;
    return `${verdict} quorum ${root.hasWriteQuorum ? 1 : 0}`;
  } catch (error) {
    if (isStoreError(error)) return error.code;
    throw error;
  }
}

const MEMBER_STATES = ['current', 'one-behind', 'stale', 'missing', 'fork'] as const;
/** States that coming and going adds: out with the root that last named it, back, taken in, gone for good. */
const ALL_STATES = [...MEMBER_STATES, 'left', 'resilvering', 'taken-in', 'detached'] as const;
type MemberState = (typeof ALL_STATES)[number];

/** Rings of the members found, when member i of the store is in states[i] relative to root 10. */
function storeCase(states: readonly MemberState[]): Ring[] {
  const base = states.map((_, index) => memberEntryOf(index));
  const old = superblockOf(7, { members: base });
  const synced = { syncedSequence: 7, syncedRootSum: rootSumOf(old), syncedBranchId: old.branchId };
  const changes: Partial<Record<MemberState, object>> = {
    'stale': { ...synced, state: MEMBER_STALE },
    'left': { state: MEMBER_FAULTED, leftSequence: 7, leftRootSum: rootSumOf(old) },
    'resilvering': { state: MEMBER_RESILVERING },
    'taken-in': { ...synced, state: MEMBER_RESILVERING },
    'detached': { ...synced, state: MEMBER_DETACHED },
  };
  const members = base.map((entry, index) => ({ ...entry, ...changes[states[index] as MemberState] }));
  const before = superblockOf(9, { members });
  const root = superblockOf(10, { members, parentRootSum: rootSumOf(before) });
  const split = superblockOf(9, { members, branchId: 0xbadn });
  const held: Record<MemberState, readonly Superblock[] | null> = {
    'current': [before, root],
    'one-behind': [before],
    'stale': [old],
    'fork': [split],
    'missing': null,
    'left': [old],
    'resilvering': [before, root],
    'taken-in': [old],
    'detached': [old],
  };
  const rings: Ring[] = [];
  states.forEach((state, index) => {
    const roots = held[state];
    if (roots !== null) rings.push(ringsOf(roots, index)[0]!);
  });
  return rings;
}

function allStoreCases(): Ring[][] {
  const cases: Ring[][] = [];
  const extend = (states: MemberState[], count: number, all: readonly MemberState[]): void => {
    if (states.length === count) {
      cases.push(storeCase(states));
      return;
    }
    for (const state of all) extend([...states, state], count, all);
  };
  for (const count of [2, 3, 4]) extend([], count, MEMBER_STATES);
  for (const count of [2, 3]) extend([], count, ALL_STATES);
  return cases;
}

function withCopyIndex(ring: Ring, copy: number): Ring {
  return new Map(
    [...ring].map(([slot, image]) => {
      const changed = image.slice();
      changed[16] = copy;
      return [slot, changed];
    }),
  );
}

function ourVerdicts(
  copies: readonly Ring[][],
  stores: readonly Ring[][],
): { matrix: string[]; stores: string[] } {
  const parsed = copies.map((states, copy) => states.map((ring) => parseRing(copy, ring)));
  const matrix: string[] = [];
  for (let number = 0; number < 4_096; number += 1) {
    matrix.push(tipVerdict(parsed.map((states, copy) => states[(number >>> (3 * (3 - copy))) & 7]!)));
  }
  const storeVerdicts = stores.map((members) =>
    storeVerdict(
      members.map((ring) =>
        chooseMemberTip([0, 1, 2, 3].map((copy) => parseRing(copy, withCopyIndex(ring, copy)))),
      ),
    ),
  );
  return { matrix, stores: storeVerdicts };
}

/** The Python model's verdicts, or null without python3. */
function modelVerdicts(
  copies: readonly Ring[][],
  stores: readonly Ring[][],
): { matrix: string[]; stores: string[] } | null {
  const numbers = new Map<string, number>();
  const slots: string[] = [];
  const places = (ring: Ring): [number, number][] =>
    [...ring].map(([slot, image]) => {
      const text = Buffer.from(image).toString('base64');
      const known = numbers.get(text) ?? slots.push(text) - 1;
      numbers.set(text, known);
      return [slot, known];
    });
  const work = {
    copies: copies.map((states) => states.map(places)),
    stores: stores.map((members) => members.map(places)),
    slots,
  };
  const run = spawnSync('python3', [MODEL], {
    input: JSON.stringify(work),
    encoding: 'utf8',
    maxBuffer: 64 * 1_024 * 1_024,
  });
  if (run.error !== undefined) return null;
  assert.equal(run.status, 0, run.stderr);
  return JSON.parse(run.stdout) as { matrix: string[]; stores: string[] };
}

interface PackedTable {
  readonly verdicts: readonly string[];
  readonly indexes: readonly number[];
}
function pack(list: readonly string[]): PackedTable {
  const verdicts = [...new Set(list)].sort();
  const number = new Map(verdicts.map((verdict, index) => [verdict, index]));
  return { verdicts, indexes: list.map((verdict) => number.get(verdict)!) };
}
const unpack = (table: PackedTable): string[] => table.indexes.map((index) => table.verdicts[index]!);

const copies = [0, 1, 2, 3].map(statesOf);
const stores = allStoreCases();

test('4,096 superblock states and 1,585 member states agree with the Python model', (t) => {
  const model = modelVerdicts(copies, stores);
  if (model === null) {
    t.skip('python3 is not installed; the committed table is compared below');
    return;
  }
  if (process.env['INGOT_WRITE_VECTORS'] === '1') {
    const table = { matrix: pack(model.matrix), stores: pack(model.stores) };
    writeFileSync(TABLE, `${JSON.stringify(table)}\n`);
  }
  const ours = ourVerdicts(copies, stores);
  assert.equal(model.matrix.length, 4_096);
  assert.equal(model.stores.length, 1_585);
  assert.deepEqual(ours, model);
});

test('the committed table of verdicts is what the code says', () => {
  assert.ok(existsSync(TABLE), 'spec/vectors/quorum.json exists');
  const table = JSON.parse(readFileSync(TABLE, 'utf8')) as { matrix: PackedTable; stores: PackedTable };
  const ours = ourVerdicts(copies, stores);
  assert.deepEqual(ours.matrix, unpack(table.matrix));
  assert.deepEqual(ours.stores, unpack(table.stores));
});

/** Writes root N over what `before` holds, cut after `cutBytes` of copy `cutCopy` in the order given. */
function tornRings(
  sequence: number,
  order: readonly number[],
  cutPosition: number,
  cutBytes: number,
): SlotResult[][] {
  const past = [sequence - 32, sequence - 2, sequence - 1].filter((earlier) => earlier >= 1);
  // 64 members, whose entries all change with each root: every 512 bytes of the slot count.
  const roots = historyOf([...past, sequence], 64);
  const rings = ringsOf(roots.slice(0, -1));
  order.forEach((copy, position) => {
    if (position > cutPosition) return;
    const fresh = encodeSuperblock(roots.at(-1)!, 0, copy);
    const place = slotOf(sequence);
    const old = rings[copy]!.get(place) ?? ZERO_SLOT;
    const torn = old.slice();
    torn.set(fresh.subarray(0, position < cutPosition ? SLOT_BYTES : cutBytes));
    rings[copy]!.set(place, torn);
  });
  return rings.map((ring, copy) => parseRing(copy, ring));
}

test('a slot torn at any 512 bytes of any copy opens at N or N-1, also where the ring wraps', () => {
  for (const sequence of [2, 32, 33, 64]) {
    for (const order of [
      [0, 1, 2, 3],
      [3, 2, 1, 0],
    ]) {
      for (let position = 0; position < RING_COPIES; position += 1) {
        for (let cutBytes = 0; cutBytes <= SLOT_BYTES; cutBytes += 512) {
          const tip = chooseMemberTip(tornRings(sequence, order, position, cutBytes));
          const whole = position + (cutBytes === SLOT_BYTES ? 1 : 0);
          assert.equal(
            tip.sequence,
            whole >= 2 ? sequence : sequence - 1,
            `${sequence} ${order} ${position} ${cutBytes}`,
          );
          assert.equal(tip.newerLoneCopies.length, whole === 1 ? 1 : 0);
        }
      }
    }
  }
});

test('a newer format on a quorum is refused, not passed over for an older root', () => {
  const roots = historyOf([4, 5]);
  const encodeNewer = (copy: number): Uint8Array => {
    // The encoder refuses unknown features, so the image is patched and summed again.
    const image = encodeSuperblock(superblockOf(6), 0, copy);
    image[88] = 1;
    resum(image);
    return image;
  };
  const rings = ringsOf(roots).map((ring, copy) => (copy < 2 ? ring.set(6, encodeNewer(copy)) : ring));
  assert.throws(() => chooseMemberTip(rings.map((ring, copy) => parseRing(copy, ring))), {
    code: 'E_VERSION',
  });
  const lone = ringsOf(roots).map((ring, copy) => (copy < 1 ? ring.set(6, encodeNewer(copy)) : ring));
  const tip = chooseMemberTip(lone.map((ring, copy) => parseRing(copy, ring)));
  assert.deepEqual([tip.sequence, tip.newerLoneCopies.length], [5, 1]);
});

test('two members of one index, of one uuid or of two stores are refused', () => {
  const tipOf = (root: Superblock, index: number): MemberTip =>
    chooseMemberTip(ringsOf([root], index).map((ring, copy) => parseRing(copy, ring)));
  const members = [memberEntryOf(0), memberEntryOf(1)];
  const root = superblockOf(3, { members });
  assert.throws(() => chooseStoreRoot([tipOf(root, 0), tipOf(root, 0)]), { code: 'E_CONFLICT' });
  const other = superblockOf(3, { members, storeUuid: uuidOf(9) });
  assert.throws(() => chooseStoreRoot([tipOf(root, 0), tipOf(other, 1)]), { code: 'E_CONFLICT' });
  const swapped = superblockOf(2, { members: [memberEntryOf(0), memberEntryOf(5)] });
  assert.throws(() => chooseStoreRoot([tipOf(root, 0), tipOf(swapped, 1)]), { code: 'E_CONFLICT' });
  assert.throws(() => chooseStoreRoot([]), { code: 'E_NOT_FOUND' });
});

test('an empty device and a wiped one are told apart from a damaged member', () => {
  const empty = [0, 1, 2, 3].map((copy) => parseRing(copy, new Map()));
  assert.throws(() => chooseMemberTip(empty), { code: 'E_FORMAT', message: /not an Ingot member/ });
  // A file too short for the rings at the end of a member, with nothing of ours in it.
  assert.throws(() => chooseMemberTip([...empty.slice(0, 2), null, null]), {
    code: 'E_FORMAT',
    message: /not an Ingot member: no superblock in the 2 of 4 rings that could be read/,
  });
  assert.throws(() => chooseMemberTip([null, null, null, null]), { code: 'E_FORMAT', message: /unreadable/ });
  const lone = ringsOf([superblockOf(1)]).map((ring, copy) => parseRing(copy, copy === 2 ? ring : new Map()));
  assert.throws(() => chooseMemberTip(lone), { code: 'E_CORRUPT', message: /quorum lost/ });
});

function resum(image: Uint8Array): void {
  const view = new DataView(image.buffer, image.byteOffset);
  view.setBigUint64(24, crc64(image, 64), true);
  view.setBigUint64(8, crc64(image, 24, 64), true);
}

test('an ancestor is recognised by candidates of a current member, never by a lone copy', () => {
  const members = [memberEntryOf(0), memberEntryOf(1)];
  const roots: Superblock[] = [];
  for (const sequence of [8, 9, 10]) {
    const parent = roots.at(-1);
    roots.push(
      superblockOf(sequence, { members, parentRootSum: parent === undefined ? 0n : rootSumOf(parent) }),
    );
  }
  const tipOf = (rings: Ring[]): MemberTip =>
    chooseMemberTip(rings.map((ring, copy) => parseRing(copy, ring)));
  const late = tipOf(ringsOf(roots.slice(0, 1), 1));
  const root = chooseStoreRoot([tipOf(ringsOf(roots, 0)), late]);
  assert.deepEqual([root.standings.get(1), root.absentInSync, root.hasWriteQuorum], ['stale', [1], true]);
  const lone = ringsOf(roots, 0).map((ring, copy) => {
    if (copy > 0) ring.delete(slotOf(8));
    return ring;
  });
  assert.throws(() => chooseStoreRoot([tipOf(lone), late]), {
    code: 'E_CONFLICT',
    message: /fork: both halves/,
  });
});
