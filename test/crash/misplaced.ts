// Writes that a drive acknowledged and did not do right: lost, stale, misdirected, swapped. All of it is well-formed
// data with sums of its own, in a wrong place or of a wrong time; only sums kept elsewhere can tell.
//
// Method: a store is built operation by operation, and its image kept after each. One injection then changes blocks of
// the last image, on one member, among those that fsck reads:
//   lost         a block as it was before its last write
//   stale        a block as it was in the oldest image that differs
//   misdirected  a block's content over another block, while its own place keeps what it held before
//   swapped      the contents of two blocks exchanged
//   superblock   one copy of the newest root as it was before
//
// What must hold
//   1. Nothing reads as anything but the right state; with two copies of everything it reads right.
//   2. Every changed block is named by a finding of fsck on its member (or, with one copy, the read says so).
//
// every_bit.ts turns single bits of the same blocks.

import { RING_COPIES, SLOT_BYTES, slotOffset } from '../../format/index.js';
import { isStoreError } from '../../format/errors.js';
import { Prng } from '../sim/prng.js';
import { BLOCK_BYTES } from '../sim/sim_disk.js';
import { keepAll, SimWorld, type WorldImage } from '../sim/sim_world.js';
import { StoreModel, type StoreOp } from '../sim/store_model.js';
import { StoreSession, type StoreShape } from '../sim/store_session.js';
import { rotTarget } from './bit_rot.js';
import { errorText } from './explorer.js';

export const MISPLACED_KINDS = ['lost', 'stale', 'misdirected', 'swapped', 'superblock'] as const;
type Kind = (typeof MISPLACED_KINDS)[number];

export interface MisplacedReport {
  lost: number;
  stale: number;
  misdirected: number;
  swapped: number;
  superblock: number;
  /** Blocks changed, and those that were named or refused: equal when all is well. */
  changed: number;
  detected: number;
  violations: string[];
}

/** A finished store, what led to it, and the blocks that its newest root reaches. */
export interface History {
  readonly shape: StoreShape;
  /** After each operation; the last is the store as it is. */
  readonly images: readonly WorldImage[];
  readonly sequence: number;
  readonly expected: string;
  readonly reached: ReadonlyMap<string, readonly number[]>;
}

interface Place {
  readonly path: string;
  readonly block: number;
}
interface Change extends Place {
  readonly bytes: Uint8Array;
}

const VIOLATIONS_MAX = 5;
/** Head and tail of a member, where rings, hints and heartbeats lie. */
const EDGE_BYTES = 1024 * 1024;
const DRAWS_MAX = 1_000;

export async function buildHistory(
  shape: StoreShape,
  base: WorldImage,
  ops: readonly StoreOp[],
): Promise<History> {
  const world = SimWorld.fromImage(base, 3);
  const session = await StoreSession.open(world.process(), shape);
  const images: WorldImage[] = [];
  for (const op of ops) {
    await session.apply(op);
    images.push(world.crashImage(keepAll, new Prng(1)));
  }
  await session.close();
  const { read, image } = await rotTarget(shape, base, ops);
  const reader = await StoreSession.open(SimWorld.fromImage(image, 4).process(), shape, 'r');
  const { sequence } = reader.store.catalog.superblock;
  await reader.close();
  const reached = new Map<string, number[]>();
  for (const [path, ranges] of read) {
    const blocks = new Set<number>();
    for (const [from, to] of ranges) {
      if (from < EDGE_BYTES || to > shape.memberBytes - EDGE_BYTES) continue;
      for (let block = Math.floor(from / BLOCK_BYTES); block * BLOCK_BYTES < to; block += 1)
        blocks.add(block);
    }
    reached.set(
      path,
      [...blocks].sort((a, b) => a - b),
    );
  }
  return { shape, images: [...images, image], sequence, expected: StoreModel.after(ops).dump(), reached };
}

const ZERO = new Uint8Array(BLOCK_BYTES);

function contentAt(image: WorldImage, { path, block }: Place): Uint8Array {
  return image.members.get(path)?.blocks.get(block) ?? ZERO;
}

const differ = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) !== 0;

/** What a place held before its last write, or in the oldest image that differs. */
function earlier(history: History, place: Place, oldest: boolean): Uint8Array {
  const now = contentAt(history.images.at(-1)!, place);
  const images = oldest ? history.images : [...history.images].reverse();
  for (const image of images) if (differ(contentAt(image, place), now)) return contentAt(image, place);
  return ZERO;
}

function drawPlace(history: History, path: string, prng: Prng): Place {
  return { path, block: prng.pick(history.reached.get(path) ?? []) };
}

/** The changes of one injection; places whose content would not change are drawn again. */
function draw(history: History, kind: Kind, prng: Prng): Change[] {
  const last = history.images.at(-1)!;
  for (let attempt = 0; attempt < DRAWS_MAX; attempt += 1) {
    const path = prng.pick(history.shape.members);
    if (kind === 'superblock') {
      const copy = prng.below(RING_COPIES);
      const first = slotOffset(copy, history.sequence, history.shape.memberBytes) / BLOCK_BYTES;
      const places = Array.from({ length: SLOT_BYTES / BLOCK_BYTES }, (_unused, i) => ({
        path,
        block: first + i,
      }));
      return places.map((place) => ({ ...place, bytes: earlier(history, place, false) }));
    }
    const a = drawPlace(history, path, prng);
    const b = drawPlace(history, path, prng);
    const [ofA, ofB] = [contentAt(last, a), contentAt(last, b)];
    let changes: Change[];
    if (kind === 'lost' || kind === 'stale')
      changes = [{ ...a, bytes: earlier(history, a, kind === 'stale') }];
    else if (kind === 'swapped')
      changes = [
        { ...a, bytes: ofB },
        { ...b, bytes: ofA },
      ];
    else
      changes = [
        { ...b, bytes: ofA },
        { ...a, bytes: earlier(history, a, false) },
      ];
    if (changes.every((change) => differ(change.bytes, contentAt(last, change)))) return changes;
  }
  throw new Error(`no ${kind} change was found in ${DRAWS_MAX} draws`);
}

/** `count` injections of kinds in turn. */
export async function misplace(
  history: History,
  count: number,
  seed: number,
  report: MisplacedReport,
): Promise<void> {
  const prng = new Prng(seed);
  for (let i = 0; i < count && report.violations.length < VIOLATIONS_MAX; i += 1) {
    const kind = MISPLACED_KINDS[i % MISPLACED_KINDS.length]!;
    const changes = draw(history, kind, prng);
    report[kind] += 1;
    try {
      await injectAndJudge(history, kind, changes, report);
    } catch (error) {
      const where = changes.map((change) => `${change.path} block ${change.block}`).join(', ');
      report.violations.push(`seed ${seed} injection ${i}: ${kind} ${where}: ${errorText(error)}`);
    }
  }
}

async function injectAndJudge(
  history: History,
  kind: Kind,
  changes: readonly Change[],
  report: MisplacedReport,
): Promise<void> {
  const world = SimWorld.fromImage(history.images.at(-1)!, changes[0]!.block);
  for (const { path, block, bytes } of changes) world.overwrite(path, block * BLOCK_BYTES, bytes);
  report.changed += changes.length;
  const findings = await judgeDamaged(history, world);
  if (findings !== null) {
    const missed = changes.filter((change) => !isNamed(change, kind === 'superblock', history, findings));
    if (missed.length > 0)
      throw new Error(`${missed.length} blocks of ${changes.length} not named in [${findings.join('; ')}]`);
  }
  report.detected += changes.length;
}

/** Reads everything; findings of fsck, or null when the read was refused, as it may be where there is one copy. */
export async function judgeDamaged(history: History, world: SimWorld): Promise<readonly string[] | null> {
  const { shape, expected } = history;
  let session: StoreSession | null = null;
  try {
    session = await StoreSession.open(world.process(), shape, 'r');
    const dump = await session.dump();
    if (dump !== expected) throw new Error(`gave\n${dump}\n-- instead of --\n${expected}`);
  } catch (error) {
    if (!isStoreError(error) || shape.redundancy > 1) throw error;
    await session?.close();
    return null;
  }
  const findings = await session.check();
  await session.close();
  return findings;
}

/** Whether a finding names this block: by its range, or, for a superblock, by its member. */
export function isNamed(
  place: Place,
  isSuperblock: boolean,
  history: History,
  findings: readonly string[],
): boolean {
  const memberIndex = history.shape.members.indexOf(place.path);
  const at = place.block * BLOCK_BYTES;
  return findings.some((finding) => {
    const start = finding.indexOf(' {"');
    if (start < 0 || !finding.includes(`"memberIndex":${memberIndex}`)) return false;
    if (isSuperblock) return finding.includes('"Superblock"');
    const where = JSON.parse(finding.slice(start + 1)) as { offsetBytes?: number; lengthBytes?: number };
    if (where.offsetBytes === undefined) return false;
    return (
      where.offsetBytes < at + BLOCK_BYTES && at < where.offsetBytes + (where.lengthBytes ?? BLOCK_BYTES)
    );
  });
}
