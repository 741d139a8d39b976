// Every bit of all metadata and data of a small mirrored store, turned once: found, named, and never returned.
//
// Method: run number i turns bit i (of 32,768) of every block that the newest root reaches on one member, and bit i of
// one superblock copy's two blocks, on either member one. The other member still holds everything, so all must read
// right, and fsck must name every single block that was turned. All 32,768 runs together turn every bit once.
//
// Bits that no reader of this root looks at are not turned here: bit_rot.ts does that.

import { RING_COPIES, slotOffset } from '../../format/index.js';
import { BLOCK_BYTES } from '../sim/sim_disk.js';
import { SimWorld } from '../sim/sim_world.js';
import { errorText } from './explorer.js';
import { type History, isNamed, judgeDamaged } from './misplaced.js';

export const BITS_OF_A_BLOCK = BLOCK_BYTES * 8;

export interface EveryBitReport {
  runs: number;
  turned: number;
  detected: number;
  violations: string[];
}

const VIOLATIONS_MAX = 5;

/** Runs `from`, `from + stride`, .. below BITS_OF_A_BLOCK. The history has two members and two copies of everything. */
export async function turnBits(
  history: History,
  from: number,
  stride: number,
  report: EveryBitReport,
): Promise<void> {
  for (let bit = from; bit < BITS_OF_A_BLOCK && report.violations.length < VIOLATIONS_MAX; bit += stride) {
    try {
      await turnOne(history, bit, report);
    } catch (error) {
      report.violations.push(`bit ${bit}: ${errorText(error)}`);
    }
  }
}

async function turnOne(history: History, bit: number, report: EveryBitReport): Promise<void> {
  const { shape, images, sequence, reached } = history;
  const world = SimWorld.fromImage(images.at(-1)!, bit);
  const victim = shape.members[bit % shape.members.length]!;
  const turned: { path: string; block: number; isSuperblock: boolean }[] = [];
  for (const block of reached.get(victim) ?? []) turned.push({ path: victim, block, isSuperblock: false });
  shape.members.forEach((path, half) => {
    const copy = (bit >> 1) % RING_COPIES;
    const block = slotOffset(copy, sequence, shape.memberBytes) / BLOCK_BYTES + half;
    turned.push({ path, block, isSuperblock: true });
  });
  for (const { path, block } of turned)
    world.flipBits(path, block * BLOCK_BYTES + Math.floor(bit / 8), 1 << (bit % 8));
  report.runs += 1;
  report.turned += turned.length;
  const findings = await judgeDamaged(history, world);
  const missed = turned.filter((each) => !isNamed(each, each.isSuperblock, history, findings ?? []));
  if (missed.length > 0) throw new Error(`not named: ${JSON.stringify(missed)} in [${findings?.join('; ')}]`);
  report.detected += turned.length;
}
