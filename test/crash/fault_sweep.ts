// The k-th I/O fails, for every k, until a run needs fewer than k: no call site is left out.
//
// After SQLite's loop to success, for errors of reads, writes and flushes, once and for ever.
//
// What must hold for every k
//   1. Nothing rejects with anything but a StoreError; nothing is acknowledged that does not survive.
//   2. After a failed commit the handle is poisoned: the next change is E_POISONED.
//   3. After a power cut, whatever it keeps, the store opens without faults at what was acknowledged, or at that
//      plus the one operation whose commit failed; fsck is clean and one more operation works.
//   4. What a reopen on the running machine showed is still there after a power cut later (a reopen trusts nothing
//      that is not durable).
//   5. Every acknowledged version has all the copies it wants, unless the root's table calls a member not in sync.

import { isStoreError } from '../../format/errors.js';
import { Prng } from '../sim/prng.js';
import type { FaultRule } from '../sim/sim_faults.js';
import { dropAll, keepAll, randomDamage, SimWorld, type WorldImage } from '../sim/sim_world.js';
import { StoreModel, type StoreOp } from '../sim/store_model.js';
import { StoreSession, type StoreShape } from '../sim/store_session.js';
import { errorText } from './explorer.js';

export interface SweepReport {
  runs: number;
  fired: number;
  poisoned: number;
  images: number;
  /** Runs after which a reopen showed something that a later power cut took away again (point 4). */
  reverted: number;
  violations: string[];
}
export interface SweepOptions {
  readonly shape: StoreShape;
  readonly base: WorldImage;
  readonly ops: readonly StoreOp[];
  readonly rule: Omit<FaultRule, 'nth'>;
  readonly seed: number;
  /** Take only every nth k (1 = all). */
  readonly stride: number;
}

const K_MAX = 20_000;
const VIOLATIONS_MAX = 5;
const PROBE: StoreOp = { kind: 'put', run: 'probe', objects: [{ name: 'p', byteLength: 6000, seed: 77 }] };

/** What one faulty run left: the operations that were acknowledged, and the one whose fate is open. */
interface Aftermath {
  readonly world: SimWorld;
  readonly acked: readonly StoreOp[];
  readonly unknown: StoreOp | null;
  readonly fired: boolean;
}

export async function sweep(options: SweepOptions, report: SweepReport): Promise<void> {
  for (let k = 1 + (options.seed % options.stride); k < K_MAX; k += options.stride) {
    if (report.violations.length >= VIOLATIONS_MAX) return;
    const label = `${JSON.stringify(options.rule)} k=${k}`;
    try {
      const aftermath = await faultyRun(options, k, report);
      report.runs += 1;
      if (!aftermath.fired) {
        if (aftermath.acked.length !== options.ops.length)
          throw new Error('a run without a fault did not acknowledge everything');
        return;
      }
      report.fired += 1;
      await judgePowerCuts(options, aftermath, report, k);
      await judgeReopen(options, aftermath, report);
    } catch (error) {
      report.violations.push(`${label}: ${errorText(error)}`);
    }
  }
}

function expectStoreError(error: unknown): void {
  if (!isStoreError(error)) throw error;
}

async function faultyRun(options: SweepOptions, k: number, report: SweepReport): Promise<Aftermath> {
  const world = SimWorld.fromImage(options.base, options.seed + k);
  const fired = world.faults.add({ ...options.rule, nth: k });
  const acked: StoreOp[] = [];
  let unknown: StoreOp | null = null;
  let session: StoreSession | null = null;
  try {
    session = await StoreSession.open(world.process(), options.shape);
  } catch (error) {
    expectStoreError(error);
  }
  for (const op of session === null ? [] : options.ops) {
    try {
      await session!.apply(op);
      acked.push(op);
    } catch (error) {
      expectStoreError(error);
      if (session!.store.catalog.poisoned === null) continue;
      unknown = op;
      report.poisoned += 1;
      await expectPoisoned(session!);
      break;
    }
  }
  const count = fired();
  if (session !== null) await session.close().catch(expectStoreError);
  world.faults.clear();
  return { world, acked, unknown, fired: count > 0 };
}

async function expectPoisoned(session: StoreSession): Promise<void> {
  try {
    await session.apply(PROBE);
  } catch (error) {
    if (isStoreError(error, 'E_POISONED')) return;
    throw error;
  }
  throw new Error('a poisoned store acknowledged a change');
}

/** The allowed states, as operation lists. */
function allowed(aftermath: Aftermath): (readonly StoreOp[])[] {
  const { acked, unknown } = aftermath;
  return unknown === null ? [acked] : [acked, [...acked, unknown]];
}

async function judgePowerCuts(
  options: SweepOptions,
  aftermath: Aftermath,
  report: SweepReport,
  k: number,
): Promise<void> {
  const prng = new Prng(options.seed * 1_000 + k);
  for (const choose of [dropAll, keepAll, randomDamage(prng)]) {
    report.images += 1;
    const image = aftermath.world.crashImage(choose, prng);
    await judgeImage(options, image, allowed(aftermath), k);
  }
}

/** Fewer copies than wanted are sound where the table says that a member missed something, and nowhere else (M4). */
function isExpected(finding: string, { rule, shape }: SweepOptions, namesOutOfSync: boolean): boolean {
  if (rule.operation === 'read' || shape.redundancy === 1) return false;
  return namesOutOfSync && finding.startsWith('warn E_DEGRADED');
}

async function judgeImage(
  options: SweepOptions,
  image: WorldImage,
  states: readonly (readonly StoreOp[])[],
  seed: number,
): Promise<void> {
  const { shape } = options;
  const session = await StoreSession.open(SimWorld.fromImage(image, seed).process(), shape);
  const dump = await session.dump();
  const held = states.find((ops) => StoreModel.after(ops).dump() === dump);
  if (held === undefined)
    throw new Error(
      `holds\n${dump}\n-- instead of --\n${states.map((ops) => StoreModel.after(ops).dump()).join('\n-- or --\n')}`,
    );
  const degraded = session.wasDegraded();
  const findings = (await session.check()).filter((finding) => !isExpected(finding, options, degraded));
  if (findings.length > 0) throw new Error(`fsck found: ${findings.slice(0, 3).join('; ')}`);
  await session.apply(PROBE);
  if ((await session.dump()) !== StoreModel.after([...held, PROBE]).dump())
    throw new Error('one more operation was not applied rightly');
  await session.close();
}

/** Reopens without a power cut; what that shows must survive a later one. */
async function judgeReopen(options: SweepOptions, aftermath: Aftermath, report: SweepReport): Promise<void> {
  const { world } = aftermath;
  const open = (): Promise<StoreSession> => StoreSession.open(world.process(), options.shape);
  // An error that a device kept for the next flush is told once.
  const session = await open().catch((error: unknown) => {
    expectStoreError(error);
    return open();
  });
  const dump = await session.dump();
  const held = allowed(aftermath).find((ops) => StoreModel.after(ops).dump() === dump);
  if (held === undefined) throw new Error(`a reopen holds\n${dump}`);
  report.images += 1;
  const image = world.crashImage(dropAll, new Prng(1));
  await session.close();
  if (!(await isHeld(options.shape, image, held))) {
    report.reverted += 1;
    throw new Error('what a reopen showed was taken away by a power cut');
  }
  await judgeImage(options, image, allowed(aftermath), 1);
}

async function isHeld(shape: StoreShape, image: WorldImage, ops: readonly StoreOp[]): Promise<boolean> {
  const session = await StoreSession.open(SimWorld.fromImage(image).process(), shape, 'r');
  const dump = await session.dump();
  await session.close();
  return dump === StoreModel.after(ops).dump();
}
