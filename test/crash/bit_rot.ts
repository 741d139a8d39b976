// Bits flip on the medium, one at a time: each is detected or provably harmless, and no wrong byte is returned.
//
// What must hold for every flip
//   1. Opening and reading give the right state or a StoreError; with two copies of everything, the right state.
//   2. When fsck read the flipped byte in a clean run, it must report something now (all that it reads is summed).
//   3. Nothing rejects with anything else, hangs or crashes.

import { isStoreError } from '../../format/errors.js';
import { Prng } from '../sim/prng.js';
import { BLOCK_BYTES } from '../sim/sim_disk.js';
import { keepAll, SimWorld, type WorldImage } from '../sim/sim_world.js';
import { StoreModel, type StoreOp } from '../sim/store_model.js';
import { StoreSession, type StoreShape } from '../sim/store_session.js';
import { errorText } from './explorer.js';

export interface RotReport {
  flips: number;
  detected: number;
  /** In bytes that no reader of this root looks at. */
  harmless: number;
  /** Read with a StoreError: only where no second copy exists. */
  refused: number;
  violations: string[];
}

/** A closed store after some operations, and what a clean fsck of it reads. */
export interface RotTarget {
  readonly shape: StoreShape;
  readonly image: WorldImage;
  readonly expected: string;
  /** By member: ranges that fsck reads, as [from, to). */
  readonly read: ReadonlyMap<string, readonly [number, number][]>;
}

const VIOLATIONS_MAX = 5;

export async function rotTarget(
  shape: StoreShape,
  base: WorldImage,
  ops: readonly StoreOp[],
): Promise<RotTarget> {
  const world = SimWorld.fromImage(base, 3);
  const session = await StoreSession.open(world.process(), shape);
  for (const op of ops) await session.apply(op);
  await session.close();
  const image = world.crashImage(keepAll, new Prng(1));
  const clean = SimWorld.fromImage(image, 4);
  const reader = await StoreSession.open(clean.process(), shape, 'r');
  for (const { disk } of clean.devices.values()) disk.readLog = [];
  const findings = await reader.check();
  if (findings.length > 0) throw new Error(`a clean store has findings: ${findings[0]}`);
  await reader.close();
  const read = new Map<string, [number, number][]>();
  for (const [path, { disk }] of clean.devices) {
    read.set(
      path,
      (disk.readLog ?? []).map(([offset, length]) => [offset, offset + length]),
    );
  }
  return { shape, image, expected: StoreModel.after(ops).dump(), read };
}

/** `count` flips drawn from the blocks that are not zero, or from what fsck reads when `onlyRead`. */
export async function rot(
  target: RotTarget,
  count: number,
  seed: number,
  report: RotReport,
  onlyRead: boolean,
): Promise<void> {
  const prng = new Prng(seed);
  const blocks = [...target.image.members].flatMap(([path, disk]) =>
    [...disk.blocks.keys()].map((block) => ({ path, block })),
  );
  const ranges = [...target.read].flatMap(([path, list]) => list.map(([from, to]) => ({ path, from, to })));
  for (let i = 0; i < count && report.violations.length < VIOLATIONS_MAX; i += 1) {
    let path: string;
    let offset: number;
    if (onlyRead) {
      const range = prng.pick(ranges);
      path = range.path;
      offset = prng.between(range.from, range.to - 1);
    } else {
      const at = prng.pick(blocks);
      path = at.path;
      offset = at.block * BLOCK_BYTES + prng.below(BLOCK_BYTES);
    }
    const mask = 1 << prng.below(8);
    try {
      await flipOnce(target, path, offset, mask, report);
    } catch (error) {
      report.violations.push(
        `seed ${seed} flip ${i}: ${path} byte ${offset} mask ${mask}: ${errorText(error)}`,
      );
    }
  }
}

async function flipOnce(
  target: RotTarget,
  path: string,
  offset: number,
  mask: number,
  report: RotReport,
): Promise<void> {
  report.flips += 1;
  const world = SimWorld.fromImage(target.image, offset % 1_000);
  world.flipBits(path, offset, mask);
  const redundant = target.shape.redundancy > 1;
  let session: StoreSession;
  try {
    session = await StoreSession.open(world.process(), target.shape, 'r');
    const dump = await session.dump();
    if (dump !== target.expected) throw new Error(`gave\n${dump}\n-- instead of --\n${target.expected}`);
  } catch (error) {
    if (!isStoreError(error) || redundant) throw error;
    report.refused += 1;
    report.detected += 1;
    return;
  }
  const findings = await session.check();
  await session.close();
  const wasRead = (target.read.get(path) ?? []).some(([from, to]) => offset >= from && offset < to);
  if (wasRead && findings.length === 0) throw new Error('fsck read the flipped byte and found nothing');
  if (findings.length > 0) report.detected += 1;
  else report.harmless += 1;
}
