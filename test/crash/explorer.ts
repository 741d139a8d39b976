// The bounded crash explorer: every small workload, cut at every I/O, with several damages each.
//
// After CrashMonkey/ACE (OSDI'18: most crash bugs need at most three operations on a fresh store) with
// the damage rules of SQLite's crash VFS. A workload runs once in a simulated world; after every event
// that changes what a power cut could leave, images are taken: all unflushed writes kept, all dropped, and
// seeded mixes of kept, dropped, torn and scrambled. Each distinct image is opened again and judged.
//
// What must hold for an image taken after a operations were acknowledged
//   1. It opens for writing.
//   2. What it holds is exactly the state after a or after a + 1 operations.
//   3. The store's own check finds nothing.
//   4. One more operation succeeds, is there, and survives a clean reopen (every REOPEN_EVERY images).
//   5. The same holds for images taken at every I/O of the opening itself (recovery), to `recoveryDepth`.
//
// The explorer knows nothing of stores: a CrashTarget does.

import type { SimIo } from '../sim/sim_io.js';
import { Prng } from '../sim/prng.js';
import type { DamageChooser } from '../sim/sim_disk.js';
import {
  dropAll,
  keepAll,
  randomDamage,
  SimWorld,
  worldImageHash,
  type WorldImage,
} from '../sim/sim_world.js';

/** One open store of the kind under test. */
export interface Session<Op> {
  /** Resolves when the operation is acknowledged. */
  apply(op: Op): Promise<void>;
  /** Everything that a user could see, as canonical text. */
  dump(): Promise<string>;
  /** Findings of the store's own checker; none when it is sound. */
  check(): Promise<readonly string[]>;
  close(): Promise<void>;
}
export interface CrashTarget<Op> {
  readonly name: string;
  create(io: SimIo): Promise<Session<Op>>;
  open(io: SimIo): Promise<Session<Op>>;
  /** What `dump` must give after these operations. */
  model(ops: readonly Op[]): string;
  /** The operation that judges whether a recovered store still works. */
  readonly probe: Op;
  /** Whether a store whose creation was cut short may fail to open with this error. */
  mayBeUnformatted(error: unknown): boolean;
}

export interface ExploreOptions {
  readonly seed: number;
  /** Seeded mixes of damage at each crash point, besides all-kept and all-dropped. */
  readonly randomDamages: number;
  /** 0: do not crash inside recovery; 1: do; 2: also inside the recovery from that. */
  readonly recoveryDepth: number;
  /** Crash inside the recovery of one in this many images. */
  readonly recoveryEvery: number;
  /** Judge one in this many distinct images of a workload (default all): short forms spread over all crash points. */
  readonly judgeEvery?: number;
  /** Stop by itself after this many milliseconds (0: never). */
  readonly budgetMs?: number;
}
export interface Violation {
  readonly workload: string;
  readonly seed: number;
  readonly image: number;
  readonly what: string;
}
export interface ExploreReport {
  workloads: number;
  crashPoints: number;
  /** Images made (crash points x damages). */
  images: number;
  /** Images that differed from all before them and were opened and judged. */
  judged: number;
  /** Judged images that were taken inside a recovery. */
  recoveryImages: number;
  violations: Violation[];
}

/** A failing run stops here: one cause tends to break everything after it. */
const VIOLATIONS_MAX = 5;
const REOPEN_EVERY = 8;

interface Candidate {
  readonly image: WorldImage;
  readonly acked: number;
}

export function newReport(): ExploreReport {
  return { workloads: 0, crashPoints: 0, images: 0, judged: 0, recoveryImages: 0, violations: [] };
}

/** Words of an error for a violation, with the stack of ours and not of the runtime. */
export function errorText(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const code = (error as { code?: string }).code;
  const frames = (error.stack ?? '')
    .split('\n')
    .slice(1, 7)
    .map((line) => line.trim())
    .join(' < ');
  const cause = error.cause === undefined ? '' : ` (cause: ${errorText(error.cause)})`;
  return `${error.name} ${code ?? ''} ${error.message}${cause} [${frames}]`;
}

/** All workloads of 1..length operations over `ops`, shortest first. */
export function* workloads<Op>(ops: readonly Op[], length: number): Generator<Op[]> {
  let level: Op[][] = [[]];
  for (let n = 1; n <= length; n += 1) {
    const next: Op[][] = [];
    for (const prefix of level) for (const op of ops) next.push([...prefix, op]);
    yield* next;
    level = next;
  }
}

/** A fresh store, made and closed: where every workload starts. */
export async function freshImage<Op>(target: CrashTarget<Op>, seed: number): Promise<WorldImage> {
  const world = new SimWorld({ seed });
  const session = await target.create(world.process());
  await session.close();
  return world.crashImage(dropAll, new Prng(seed));
}

export class Explorer<Op> {
  readonly report = newReport();
  private readonly target: CrashTarget<Op>;
  private readonly options: ExploreOptions;
  private readonly seen = new Set<string>();
  private readonly prng: Prng;
  private readonly startedAt = performance.now();

  constructor(target: CrashTarget<Op>, options: ExploreOptions) {
    this.target = target;
    this.options = options;
    this.prng = new Prng(options.seed);
  }

  get stopped(): boolean {
    const { budgetMs } = this.options;
    if (this.report.violations.length >= VIOLATIONS_MAX) return true;
    return budgetMs !== undefined && budgetMs > 0 && performance.now() - this.startedAt > budgetMs;
  }

  /**
   * Runs one workload and judges every distinct image taken during its last operation (what is taken
   * earlier is taken by the shorter workloads).
   */
  async workload(base: WorldImage, ops: readonly Op[]): Promise<void> {
    this.report.workloads += 1;
    const label = JSON.stringify(ops);
    let candidates: Candidate[];
    try {
      candidates = await this.collect(base, ops);
    } catch (error) {
      this.violation(label, `the workload itself failed: ${errorText(error)}`);
      return;
    }
    const every = this.options.judgeEvery ?? 1;
    for (const [place, candidate] of candidates.entries()) {
      if (this.stopped) return;
      if (place % every !== this.report.workloads % every) continue;
      const { acked } = candidate;
      const allowed = [ops.slice(0, acked), ops.slice(0, Math.min(acked + 1, ops.length))];
      await this.judge(candidate.image, allowed, label, this.options.recoveryDepth);
    }
  }

  /** Crashes at every I/O of creation: it opens empty, or says that it is not formatted and can be made anew. */
  async creation(): Promise<void> {
    this.report.workloads += 1;
    const world = new SimWorld({ seed: this.options.seed });
    const candidates = await this.capture(
      world,
      () => 0,
      () => true,
      async () => {
        const session = await this.target.create(world.process());
        await session.close();
      },
    );
    for (const { image } of candidates) {
      if (this.stopped) return;
      this.report.judged += 1;
      try {
        await this.judgeCreation(image);
      } catch (error) {
        this.violation('create', errorText(error));
      }
    }
  }

  private async judgeCreation(image: WorldImage): Promise<void> {
    const world = SimWorld.fromImage(image, this.prng.u32());
    let session: Session<Op>;
    try {
      session = await this.target.open(world.process());
    } catch (error) {
      if (!this.target.mayBeUnformatted(error)) throw error;
      session = await this.target.create(world.process());
    }
    await this.expectDump(session, this.target.model([]));
    await session.apply(this.target.probe);
    await this.expectDump(session, this.target.model([this.target.probe]));
    await session.close();
  }

  private async collect(base: WorldImage, ops: readonly Op[]): Promise<Candidate[]> {
    const world = SimWorld.fromImage(base, this.options.seed);
    let acked = 0;
    return this.capture(
      world,
      () => acked,
      () => acked >= ops.length - 1,
      async () => {
        const session = await this.target.open(world.process());
        for (const op of ops) {
          await session.apply(op);
          acked += 1;
        }
        await this.expectDump(session, this.target.model(ops));
        await session.close();
      },
    );
  }

  /** Runs `body` in `world` and takes images at every change while `wanted`. */
  private async capture(
    world: SimWorld,
    ackedNow: () => number,
    wanted: () => boolean,
    body: () => Promise<void>,
  ): Promise<Candidate[]> {
    const candidates: Candidate[] = [];
    let generation = -1;
    world.scheduler.afterEvent = () => {
      if (world.generation === generation || !wanted()) return;
      generation = world.generation;
      this.report.crashPoints += 1;
      for (const image of this.damages(world)) {
        this.report.images += 1;
        const acked = ackedNow();
        const key = `${acked} ${worldImageHash(image)}`;
        if (this.seen.has(key)) continue;
        this.seen.add(key);
        candidates.push({ image, acked });
      }
    };
    await body();
    world.scheduler.afterEvent = null;
    return candidates;
  }

  private *damages(world: SimWorld): Generator<WorldImage> {
    yield world.crashImage(keepAll, this.prng);
    let pending = 0;
    for (const { disk } of world.devices.values())
      pending += disk.pendingWrites.length + (disk.creating ? 1 : 0);
    if (pending === 0) return;
    yield world.crashImage(dropAll, this.prng);
    // A power cut that one member survives better than the others: what roll forward is for.
    const paths = world.memberPaths();
    if (paths.length > 1) {
      for (const path of paths) {
        const keepOnly: DamageChooser = (_write, at) => (at === path ? 'keep' : 'drop');
        yield world.crashImage(keepOnly, this.prng);
      }
    }
    for (let i = 0; i < this.options.randomDamages; i += 1)
      yield world.crashImage(randomDamage(this.prng), this.prng);
  }

  /** Opens one image and holds it to what may be true of it. */
  private async judge(
    image: WorldImage,
    allowed: readonly (readonly Op[])[],
    label: string,
    depth: number,
  ): Promise<void> {
    this.report.judged += 1;
    const number = this.report.judged;
    const world = SimWorld.fromImage(image, this.prng.u32());
    const crashHere = depth > 0 && number % this.options.recoveryEvery === 0;
    let inner: Candidate[] = [];
    try {
      let session: Session<Op> | null = null;
      const open = async (): Promise<void> => {
        session = await this.target.open(world.process());
      };
      if (crashHere)
        inner = await this.capture(
          world,
          () => 0,
          () => true,
          open,
        );
      else await open();
      await this.judgeSession(session as Session<Op> | null, allowed, world, number);
    } catch (error) {
      this.violation(label, errorText(error), number);
    }
    for (const candidate of inner) {
      if (this.stopped) return;
      this.report.recoveryImages += 1;
      await this.judge(candidate.image, allowed, `${label} then a crash in recovery`, depth - 1);
    }
  }

  private async judgeSession(
    session: Session<Op> | null,
    allowed: readonly (readonly Op[])[],
    world: SimWorld,
    number: number,
  ): Promise<void> {
    if (session === null) throw new Error('open gave no session');
    const dump = await session.dump();
    const held = allowed.find((ops) => this.target.model(ops) === dump);
    if (held === undefined) {
      const wanted = allowed.map((ops) => this.target.model(ops)).join('\n-- or --\n');
      throw new Error(`holds\n${dump}\n-- instead of --\n${wanted}\n`);
    }
    const findings = await session.check();
    if (findings.length > 0) throw new Error(`check found: ${findings.slice(0, 5).join('; ')}`);
    await session.apply(this.target.probe);
    const after = this.target.model([...held, this.target.probe]);
    await this.expectDump(session, after);
    await session.close();
    if (number % REOPEN_EVERY !== 0) return;
    const again = await this.target.open(world.process());
    await this.expectDump(again, after);
    const later = await again.check();
    if (later.length > 0)
      throw new Error(`check after one more operation found: ${later.slice(0, 5).join('; ')}`);
    await again.close();
  }

  private async expectDump(session: Session<Op>, wanted: string): Promise<void> {
    const dump = await session.dump();
    if (dump !== wanted) throw new Error(`holds\n${dump}\n-- instead of --\n${wanted}\n`);
  }

  private violation(workload: string, what: string, image = 0): void {
    this.report.violations.push({ workload, seed: this.options.seed, image, what });
  }
}
