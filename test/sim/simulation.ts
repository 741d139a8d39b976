// The random simulator: one seed is one history of a store, judged against a plain model all the way.
//
// A history is a few lives. In each a process opens the store and runs operations, several at once on different
// runs, under the faults that the seed drew: failing, short and lying reads, failing writes and flushes, lost and
// misdirected writes on one member. A life ends by close, by death of the process or by a power cut at a random
// event. Then, without faults, the store must open and hold exactly what was acknowledged, and of what was
// still under way each run all or nothing; fsck must find nothing that was not done to it.
//
// After TigerBeetle's VOPR; the fault atlas is as there: silent damage (lost, misdirected, rotten) strikes member 0
// only, so that what must be recoverable always is. Histories without it lose members for a life, or have one that
// fails its writes; each judgement has them all again.
//
// Invariants
//   1. Everything follows from the seed: two runs give one trace hash and one image hash.
//   2. A rejection that is not a StoreError, a wrong byte, a lost or half-visible operation is a violation.
//   3. So is a version with fewer copies than it wants in a history whose roots called every member in sync.

import { RESILVER_START_DELAY_MS } from '../../engine/repair/limits.js';
import type { Store } from '../../engine/store.js';
import { isStoreError } from '../../format/errors.js';
import { Prng } from './prng.js';
import type { SimIo } from './sim_io.js';
import { checkRewound, REWINDABLE_ROOTS, rootOfWrite } from './rewind.js';
import { keepAll, randomDamage, SimWorld, worldImageHash, type WorldImage } from './sim_world.js';
import { type ObjectSpec, StoreModel, type StoreOp } from './store_model.js';
import { smallShape, StoreSession, type StoreShape } from './store_session.js';

const RUNS = ['a', 'b/c', 'd', 'e'] as const;
const TAGS = ['best', 'kept'] as const;
const LIVES_MAX = 4;
const ROUNDS_MAX = 7;
/** Members of one history at most, those that left included. */
const MEMBERS_MAX = 5;
/** Virtual time that a process waits for another's locks, at most. */
const LOCK_TRIES = 50;
/** Seconds of virtual time that a walk may take. */
const WALK_LOOKS = 120;
/** From a history's seed to that of its codecs: far from every seed that is used. */
const CODING_SEED_OFFSET = 2 ** 40;
/** The same for bad spots and for what the judge mends. */
const SPOTS_SEED_OFFSET = 2 ** 41;
/** The same for encryption. */
const ENCRYPTED_SEED_OFFSET = 2 ** 42;
/** Of the histories. */
const ENCRYPTED_CHANCE = 0.25;
/** Of the lives, and of the writes to the area of the data. */
const SPOTS_CHANCE = 0.3;
const SPOT_CHANCE = 0.25;
/** How often a judge has every copy placed that is wanting. */
const MENDS_CHANCE = 0.5;
/** How often nothing is asked of a store for a second before a round of operations. */
const IDLE_CHANCE = 0.2;
/** Of the tensors, and of the versions. */
const WEIGHTS_CHANCE = 0.7;
const CODED_CHANCE = 0.75;
const DELTA_FOR_PUT_CHANCE = 0.5;
const DELTA_FOR_LINK_CHANCE = 0.9;
/** Different contents of each length, and different steps of training: few, so that coding them is remembered. */
const CONTENT_SEEDS = 6;
const STEP_SEEDS = 4;
/** Lengths beside every border: inline, page, shared chunk, 32 sums, chunk, two chunks (smallShape). */
const LENGTHS = [
  2_049, 2_050, 4_095, 4_096, 4_097, 8_192, 12_289, 16_383, 16_384, 16_385, 20_000, 40_000, 65_535, 65_536,
  65_537, 100_000, 131_071, 131_072, 131_073, 135_169, 200_000, 262_143, 262_144, 262_145, 266_240, 300_001,
  393_216, 524_287, 524_288, 524_290, 600_000,
] as const;
const MIDDLE_LENGTH = 40_000;

export interface SimulationResult {
  readonly seed: number;
  readonly operations: number;
  readonly acknowledged: number;
  readonly failed: number;
  readonly crashes: number;
  readonly kills: number;
  /** Lives in which a member was not there. */
  readonly losses: number;
  readonly healed: number;
  /** Members added, removed, set aside, brought back, settled. */
  readonly memberOperations: number;
  readonly faultsFired: number;
  /** Unflushed writes that a power cut took back, tore or scrambled. */
  readonly writesSpoilt: number;
  /** Stores opened and compared without faults, and acknowledged operations that each of them had to show. */
  readonly judgements: number;
  readonly operationsJudged: number;
  readonly ioCount: number;
  /** Chunks that were stored as streams, and parts of streams that were decoded. */
  readonly streamsEncoded: number;
  /** Those of them that are differences to a base. */
  readonly deltasEncoded: number;
  readonly streamsDecoded: number;
  /** Segments, heads and manifests that were sealed, each with a nonce of its own (sim_crypt.ts). */
  readonly segmentsSealed: number;
  readonly traceHash: string;
  readonly imageHash: string;
}

/** What a life was given to suffer. */
interface Weather {
  readonly read: number;
  readonly write: number;
  readonly flush: number;
  readonly silent: number;
}

export interface SimulationOptions {
  /** No version is coded: the history that the seed had before there were codecs. */
  readonly raw?: boolean;
  /** The store is encrypted, whatever the seed says. */
  readonly encrypted?: boolean;
  /** Every drive forgets its flushes: a history that has to fail, if it has a power cut that matters. */
  readonly planted?: boolean;
}

export class Violation extends Error {
  override readonly name = 'Violation';
}

export class Simulation {
  private readonly seed: number;
  private readonly prng: Prng;
  /** Draws contents and codecs; null leaves every version raw. Apart, so that a seed draws the same operations. */
  private readonly codingPrng: Prng | null;
  /** Draws bad spots and what judges mend. */
  private readonly spotsPrng: Prng;
  /** Draws lengths and contents as before there were codecs. */
  private readonly isOld: boolean;
  private readonly isPlanted: boolean;
  private shape: StoreShape;
  /** This history has silent damage to member 0; the others have members that are lost and return. */
  private readonly isSilent: boolean;
  private world: SimWorld;
  private readonly acked: StoreOp[] = [];
  private readonly unknown = new Map<string, StoreOp>();
  private readonly counts = {
    operations: 0,
    acknowledged: 0,
    failed: 0,
    crashes: 0,
    kills: 0,
    losses: 0,
    healed: 0,
    memberOperations: 0,
    faultsFired: 0,
    writesSpoilt: 0,
    judgements: 0,
    operationsJudged: 0,
    ioCount: 0,
    streamsEncoded: 0,
    deltasEncoded: 0,
    streamsDecoded: 0,
    segmentsSealed: 0,
  };
  private readonly hashes: string[] = [];
  /** Roots of which some superblock's flush failed. */
  private readonly doubtedRoots = new Set<number>();
  /** Silent damage was done: fsck may find bad copies on member 0. */
  private damaged = false;
  /** Some root named a member that was not in sync, or members came and went: extents may be short of copies. */
  private degraded = false;
  /** The same of older roots, which no repair changes. */
  private wasDegraded = false;

  constructor(seed: number, { raw = false, encrypted = false, planted = false }: SimulationOptions = {}) {
    this.seed = seed;
    this.isOld = raw;
    this.isPlanted = planted;
    const isEncrypted =
      encrypted || (!raw && new Prng(seed + ENCRYPTED_SEED_OFFSET).chance(ENCRYPTED_CHANCE));
    this.prng = new Prng(seed);
    this.codingPrng = raw ? null : new Prng(seed + CODING_SEED_OFFSET);
    this.spotsPrng = new Prng(seed + SPOTS_SEED_OFFSET);
    const members = this.prng.between(1, 3);
    const redundancy = Math.min(members, this.prng.between(1, 3)) as 1 | 2 | 3;
    this.shape = {
      ...smallShape(members, redundancy),
      memberBytes: this.prng.pick(raw ? [6, 8, 12] : [5, 6, 8]) * 1024 * 1024,
      ...(isEncrypted ? { encrypted: true } : {}),
    };
    this.isSilent = redundancy > 1 && this.prng.chance(0.5);
    this.world = new SimWorld({ seed: this.prng.u32() });
  }

  async run(): Promise<SimulationResult> {
    const first = await StoreSession.create(this.world.process(), this.shape);
    await first.close();
    const lives = this.prng.between(1, LIVES_MAX);
    for (let life = 0; life < lives; life += 1) {
      await this.live();
      await this.judge();
    }
    this.endWorld();
    const imageHash = worldImageHash(this.world.currentImage());
    return { seed: this.seed, ...this.counts, traceHash: this.hashes.join(), imageHash };
  }

  /** What a replay of a history that did not end well is compared by: its trace and its image as they are now. */
  hashesNow(): { readonly traceHash: string; readonly imageHash: string } {
    const traceHash = [...this.hashes, this.world.traceHash().toString(16)].join();
    return { traceHash, imageHash: worldImageHash(this.world.currentImage()) };
  }

  // ---- one life

  private async live(): Promise<void> {
    const end = this.prng.pick(['close', 'crash', 'crash', 'kill'] as const);
    const io = this.world.process();
    if (this.isPlanted) for (const { disk } of this.world.devices.values()) disk.forgetsFlushes = true;
    const fired = this.addWeather();
    this.loseMember();
    let cut: () => void = () => undefined;
    const over = new Promise<'cut'>((resolve) => {
      cut = () => resolve('cut');
    });
    if (end !== 'close')
      this.endAt(this.world.scheduler.eventCount + this.prng.between(1, 1500), end, io, cut);
    const outcome = await Promise.race([this.work(io), over]);
    this.world.scheduler.afterEvent = null;
    if (outcome !== 'cut' && end !== 'close') {
      if (end === 'crash') this.world.powerCut();
      else this.world.kill(io);
    }
    this.counts.faultsFired += fired();
    this.world.faults.clear();
    for (const path of this.shape.members) this.world.attach(path);
    if (end === 'crash') this.reboot();
    else if (end === 'kill') this.counts.kills += 1;
  }

  /** Ends the process or the power after the event of this number. */
  private endAt(eventNumber: number, end: 'crash' | 'kill', io: SimIo, cut: () => void): void {
    const { scheduler } = this.world;
    scheduler.afterEvent = () => {
      if (scheduler.eventCount < eventNumber) return;
      scheduler.afterEvent = null;
      if (end === 'crash') this.world.powerCut();
      else this.world.kill(io);
      cut();
    };
  }

  private reboot(): void {
    this.noteDoubted();
    this.counts.crashes += 1;
    const damage = randomDamage(this.prng);
    const image: WorldImage = this.world.crashImage((write, path) => {
      const chosen = damage(write, path);
      if (chosen !== 'keep') this.counts.writesSpoilt += 1;
      return chosen;
    }, this.prng);
    this.endWorld();
    const { nonces } = this.world;
    this.world = SimWorld.fromImage(image, this.prng.u32());
    // No nonce comes back in the whole history, whatever was lost.
    this.world.nonces = nonces;
  }

  private endWorld(): void {
    this.counts.ioCount += this.world.faults.totalOperations;
    this.counts.streamsEncoded += this.world.streams.encoded;
    this.counts.deltasEncoded += this.world.streams.deltas;
    this.counts.streamsDecoded += this.world.streams.decoded;
    this.counts.segmentsSealed = this.world.nonces.segments;
    this.hashes.push(this.world.traceHash().toString(16));
  }

  /** A member that is not there in this life; the judge has it again. */
  private loseMember(): void {
    if (this.isSilent || this.shape.members.length < 2 || !this.prng.chance(0.25)) return;
    this.world.detach(this.prng.pick(this.shape.members));
    this.counts.losses += 1;
  }

  private addWeather(): () => number {
    const { prng } = this;
    const weather: Weather = {
      read: prng.chance(0.5) ? prng.unit() * 0.1 : 0,
      write: prng.chance(0.2) ? prng.unit() * 0.02 : 0,
      flush: prng.chance(0.2) ? prng.unit() * 0.1 : 0,
      silent: this.isSilent && prng.chance(0.6) ? prng.unit() * 0.05 : 0,
    };
    // Where member 0 may hold bad copies the others stay in step, or the only good copy could be lost.
    const where = this.isSilent ? { path: this.shape.members[0] ?? '' } : {};
    const { faults } = this.world;
    const fired: (() => number)[] = [];
    for (const action of ['errno', 'short', 'zero', 'flip'] as const) {
      if (weather.read > 0)
        fired.push(faults.add({ operation: 'read', action, probability: weather.read / 4 }));
    }
    if (weather.write > 0) {
      const errno = prng.pick([5, 28]);
      fired.push(
        faults.add({ operation: 'write', action: 'errno', errno, probability: weather.write / 2, ...where }),
      );
      fired.push(
        faults.add({
          operation: 'write',
          action: prng.pick(['late', 'short', 'zero']),
          probability: weather.write / 2,
          ...where,
        }),
      );
    }
    if (!this.isSilent && prng.chance(0.1)) {
      // One member that takes nothing for a while: it has to be set aside, and comes back.
      const path = prng.pick(this.shape.members);
      const operation = prng.pick(['write', 'flush'] as const);
      fired.push(faults.add({ operation, action: 'errno', errno: 5, probability: 0.5, path }));
    }
    if (this.spotsPrng.chance(SPOTS_CHANCE)) {
      // Bad spots where data lies (pages come from the other end): they cost a copy its place, not a member its state.
      const path = this.isSilent ? this.shape.members[0] : this.spotsPrng.pick(this.shape.members);
      const area = {
        ...(path === undefined ? {} : { path }),
        fromBytes: 1024 * 1024,
        toBytes: this.shape.memberBytes / 2,
      };
      fired.push(
        faults.add({ operation: 'write', action: 'errno', errno: 5, probability: SPOT_CHANCE, ...area }),
      );
    }
    if (weather.flush > 0)
      fired.push(faults.add({ operation: 'flush', action: 'errno', probability: weather.flush, ...where }));
    if (weather.silent > 0) {
      const path = this.shape.members[0] ?? '';
      const area = { path, fromBytes: 1024 * 1024, toBytes: this.shape.memberBytes - 1024 * 1024 };
      const nth = prng.between(1, 40);
      const silent = prng.chance(0.5)
        ? faults.add({ operation: 'write', action: 'lost', probability: weather.silent, ...area })
        : faults.add({
            operation: 'write',
            action: 'misdirect',
            shiftBytes: 4096 * prng.between(1, 40),
            nth,
            ...area,
          });
      fired.push(() => {
        if (silent() > 0) this.damaged = true;
        return silent();
      });
    }
    return () => fired.reduce((sum, count) => sum + count(), 0);
  }

  /** Opens and works until done, poisoned, or refused. */
  private async work(io: SimIo): Promise<void> {
    let session: StoreSession;
    try {
      session = await this.open(io);
    } catch (error) {
      this.expectStoreError(error, 'open under faults');
      return;
    }
    const reader = this.prng.chance(0.3) ? await this.startReader() : null;
    const rounds = this.prng.between(1, ROUNDS_MAX);
    for (let round = 0; round < rounds && session.store.catalog.poisoned === null; round += 1) {
      // Long enough for the writer to begin to place what is short, beside what follows.
      if (this.spotsPrng.chance(IDLE_CHANCE)) await io.clock.sleep(RESILVER_START_DELAY_MS + 1);
      await Promise.all([this.round(session), this.changeMembers(session)]);
      if (this.prng.chance(0.2)) await this.readUnderFaults(session);
    }
    if (reader !== null) await this.judgeReader(reader);
    await session.close().catch((error: unknown) => this.expectStoreError(error, 'close'));
  }

  private async open(io: SimIo): Promise<StoreSession> {
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await StoreSession.open(io, this.shape);
      } catch (error) {
        if (!isStoreError(error, 'E_LOCKED') || attempt >= LOCK_TRIES) throw error;
        // A process that was killed keeps its locks until its last I/O ended.
        const next = this.world.process();
        await next.clock.sleep(5);
        io = next;
      }
    }
  }

  /** One operation on each of several runs at once. */
  private async round(session: StoreSession): Promise<void> {
    const runs = RUNS.filter(() => this.prng.chance(0.5));
    await Promise.all(
      runs.map(async (run) => {
        const op = this.drawOp(run);
        this.counts.operations += 1;
        this.unknown.set(run, op);
        try {
          await session.apply(op);
          this.counts.acknowledged += 1;
          this.acked.push(op);
          this.unknown.delete(run);
        } catch (error) {
          this.expectStoreError(error, JSON.stringify(op));
          this.counts.failed += 1;
          // A refusal without poison left no trace; after one the outcome shows at the next open.
          if (session.store.catalog.poisoned === null) this.unknown.delete(run);
        }
      }),
    );
  }

  /** Sometimes one member comes, goes, or is set aside while versions are written. */
  private async changeMembers(session: StoreSession): Promise<void> {
    if (this.isSilent || !this.prng.chance(0.15)) return;
    const { store } = session;
    const index = this.prng.below(store.info.members.length);
    const kind = this.prng.pick([
      'add',
      'leave',
      'offline',
      'online',
      'settle',
      'resilver',
      'resilver',
    ] as const);
    this.counts.memberOperations += 1;
    this.degraded = true;
    try {
      if (kind === 'add' && this.shape.members.length < MEMBERS_MAX) {
        const path = `m${this.shape.members.length}`;
        this.shape = { ...this.shape, members: [...this.shape.members, path] };
        await store.addMember({ path, sizeBytes: this.shape.memberBytes });
      } else if (kind === 'leave') await store.leaveMember(index);
      else if (kind === 'offline') await store.offlineMember(index);
      else if (kind === 'online') await store.onlineMember(index);
      else if (kind === 'resilver') for await (const event of store.resilver()) void event;
      else await store.settleMembers();
    } catch (error) {
      this.expectStoreError(error, `members: ${kind}`);
    }
  }

  private async readUnderFaults(session: StoreSession): Promise<void> {
    if (session.store.catalog.poisoned !== null) return;
    const expected = StoreModel.after(this.acked).dump();
    try {
      const dump = await session.dump();
      if (dump !== expected) throw new Violation(`a read gave\n${dump}\n-- instead of --\n${expected}`);
    } catch (error) {
      this.expectStoreError(error, 'read under faults');
    }
  }

  /** A reader in another process: it must go on seeing the state it opened. */
  private async startReader(): Promise<{ session: StoreSession; expected: string } | null> {
    const expected = StoreModel.after(this.acked).dump();
    try {
      return { session: await StoreSession.open(this.world.process(), this.shape, 'r'), expected };
    } catch (error) {
      this.expectStoreError(error, 'reader open');
      return null;
    }
  }

  private async judgeReader(reader: { session: StoreSession; expected: string }): Promise<void> {
    try {
      const dump = await reader.session.dump();
      if (dump !== reader.expected)
        throw new Violation(`a pinned reader saw\n${dump}\n-- instead of --\n${reader.expected}`);
      await reader.session.close();
    } catch (error) {
      this.expectStoreError(error, 'reader');
    }
  }

  // ---- judgement, without faults

  private async judge(): Promise<void> {
    // A write that failed late behind a process's back is told to the next flush, once; the last writes of a process
    // that was killed may end so while this one opens.
    const again = (): Promise<StoreSession> => this.open(this.world.process());
    const late = 2 + [...this.world.devices.values()].filter(({ disk }) => disk.lateErrno !== 0).length;
    let opening = again();
    for (let i = 0; i < late; i += 1) opening = opening.catch(again);
    let session = await opening.catch((error: unknown) => {
      throw new Violation(`the store does not open: ${String(error)}`, { cause: error });
    });
    // A member whose late error came to light was left out; the next open has it again.
    for (let i = 0; i < late && session.isShort(); i += 1) {
      await session.close();
      session = await again();
    }
    if (session.wasDegraded()) this.degraded = true;
    this.wasDegraded ||= this.degraded;
    await this.bringBack(session);
    if (this.degraded && this.spotsPrng.chance(MENDS_CHANCE)) await this.mend(session);
    const dump = await session.dump();
    for (const run of RUNS) this.judgeRun(run, dump);
    this.counts.judgements += 1;
    this.counts.operationsJudged += this.acked.length;
    const findings = (await session.check()).filter((finding) => !this.isExpected(finding));
    if (findings.length > 0) throw new Violation(`fsck found: ${findings.slice(0, 5).join('; ')}`);
    await this.judgeOlderRoots(session);
    if (this.damaged) await this.heal(session);
    await session.close();
  }

  /** What was lost, misdirected or rotten on member 0 is healed from the others: a scrub leaves no bad copy. */
  private async heal(session: StoreSession): Promise<void> {
    for await (const event of session.store.scrub({ restart: true })) {
      if (event.type !== 'finding' || event.error.code === 'E_DEGRADED') continue;
      if (event.action !== 'repaired') throw new Violation(`not healed: ${event.error.message}`);
      this.counts.healed += 1;
    }
    const left = (await session.check()).filter((finding) => finding.includes('(checksum)'));
    if (left.length > 0) throw new Violation(`bad after a scrub: ${left.slice(0, 5).join('; ')}`);
    const dump = await session.dump();
    for (const run of RUNS) this.judgeRun(run, dump);
  }

  /** Without faults every member that is not gone for good comes back, and the catalog gets its copies. */
  private async bringBack(session: StoreSession): Promise<void> {
    try {
      for (const { index, state } of session.store.info.members) {
        // One that leaves may go on leaving: its data moves in a later life, or never.
        const isWanted = state === 'evacuating' && this.prng.chance(0.5);
        if (isWanted || state === 'faulted' || state === 'stale') await session.store.onlineMember(index);
      }
      if (this.prng.chance(0.7)) await session.store.settleMembers();
      await this.giveUpNewborns(session.store);
    } catch (error) {
      // Small members fill up: then the catalog stays where it is.
      if (isStoreError(error, 'E_NO_SPACE')) return;
      throw new Violation(`members do not come back: ${String(error)}`, { cause: error });
    }
    const out = session.store.info.members.filter(({ state }) => state !== 'online' && state !== 'detached');
    if (out.some(({ state }) => state !== 'resilvering' && state !== 'evacuating'))
      throw new Violation(`members stay out: ${out.map(({ index, state }) => `${index} ${state}`).join()}`);
  }

  /** A member that failed in the very root that took it in never held one (members.md M12): it can be given up. */
  private async giveUpNewborns(store: Store): Promise<void> {
    for (const { index, state } of store.info.members) {
      const entry = store.catalog.superblock.members[index];
      if (state !== 'missing' || entry?.syncedSequence !== 0) continue;
      await store.leaveMember(index);
      await store.settleMembers();
    }
  }

  /** With all members here and room for them, every extent gets its copies: from then on none may lack one. */
  private async mend(session: StoreSession): Promise<void> {
    const { store } = session;
    try {
      let isComplete = false;
      if (this.spotsPrng.chance(0.5)) isComplete = await this.walked(store);
      else {
        await store.settleMembers();
        const job = store.resilver();
        let step = await job.next();
        while (step.done !== true) step = await job.next();
        await store.settleMembers();
        isComplete = step.value.isComplete && step.value.onGivenUp === 0;
      }
      const isWhole = store.info.members.every(({ state }) => state === 'online' || state === 'detached');
      if (isComplete && isWhole) this.degraded = false;
    } catch (error) {
      if (!isStoreError(error, 'E_NO_SPACE')) throw error;
    }
  }

  /** Asks for nothing: whether the writer by itself says that nothing is owed and nothing in its way. */
  private async walked(store: Store): Promise<boolean> {
    const { clock } = store.catalog.io;
    for (let i = 0; i < WALK_LOOKS; i += 1) {
      await clock.sleep(RESILVER_START_DELAY_MS + 1);
      const state = store.stats().resilver?.state ?? 'stopped';
      if (state === 'stopped') return false;
      // Owed only while some extent was short since the last whole pass: idle without it says that none is.
      if (state === 'idle')
        return (await store.resilverState()) === null && store.stats().resilver?.error === null;
    }
    throw new Violation('a walk that began by itself does not end');
  }

  private async judgeOlderRoots(session: StoreSession): Promise<void> {
    if (this.damaged) return;
    this.noteDoubted();
    const { sequence } = session.store.catalog.superblock;
    // One depth each time, drawn: half of a history's cost otherwise, for the same roots over and over.
    const roots = this.prng.between(1, REWINDABLE_ROOTS);
    // A root that was taken up after its own flush had failed was never acknowledged: its superblocks may be gone.
    if (this.doubtedRoots.has(sequence - roots)) return;
    const image = this.world.crashImage(keepAll, this.prng);
    const rewound = await checkRewound(this.shape, image, sequence, roots);
    const found = rewound.filter((finding) => !this.isExpected(finding, this.wasDegraded));
    if (found.length > 0) throw new Violation(`${roots} roots back: ${found.slice(0, 3).join('; ')}`);
  }

  private noteDoubted(): void {
    for (const { disk } of this.world.devices.values()) {
      for (const head of disk.doubted) {
        const root = rootOfWrite(head);
        if (root !== null) this.doubtedRoots.add(root);
      }
    }
  }

  private judgeRun(run: string, dump: string): void {
    const before = linesOf(StoreModel.after(this.acked).dump(), run);
    const held = linesOf(dump, run);
    const op = this.unknown.get(run);
    this.unknown.delete(run);
    if (held === before) return;
    const after = op === undefined ? before : linesOf(StoreModel.after([...this.acked, op]).dump(), run);
    if (op === undefined || held !== after) {
      throw new Violation(`run ${run} holds\n${held}\n-- instead of --\n${before}\n-- or --\n${after}`);
    }
    this.acked.push(op);
  }

  /** After silent damage to member 0, bad copies on it are what fsck should find, as long as another copy is good. */
  private isExpected(finding: string, degraded = this.degraded): boolean {
    // What was written with fewer members is short of copies until somebody places them, and a root of that time has
    // copies on members that were out of step.
    if (degraded && finding.startsWith('warn E_DEGRADED')) return true;
    return (
      this.damaged &&
      finding.includes('"memberIndex":0') &&
      finding.includes('copy') &&
      !finding.startsWith('fatal')
    );
  }

  private expectStoreError(error: unknown, what: string): void {
    if (isStoreError(error)) return;
    if (error instanceof Violation) throw error;
    throw new Violation(
      `${what}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
      { cause: error },
    );
  }

  // ---- drawing operations

  private drawOp(run: string): StoreOp {
    const { prng } = this;
    const draw = prng.below(12);
    if (draw < 5) {
      const redundancy = prng.chance(0.2)
        ? (prng.between(this.shape.redundancy > 1 ? 2 : 1, this.shape.members.length) as 1 | 2 | 3)
        : undefined;
      const put: StoreOp = {
        kind: 'put',
        run,
        objects: this.drawObjects(),
        tags: prng.chance(0.2) ? [prng.pick(TAGS)] : [],
        ...(prng.chance(0.5) ? { step: prng.below(5) } : {}),
        ...(redundancy === undefined ? {} : { redundancy }),
        ...(this.codingPrng?.chance(CODED_CHANCE) === true
          ? { codec: this.codingPrng.pick(['auto', 'auto', 'max'] as const) }
          : {}),
      };
      return this.orDelta(put, run, DELTA_FOR_PUT_CHANCE);
    }
    if (draw < 6) return this.orDelta({ kind: 'link', run, seed: prng.u32() }, run, DELTA_FOR_LINK_CHANCE);
    if (draw < 7) return { kind: 'tag', run, tag: prng.pick(TAGS), nth: prng.below(8) };
    if (draw < 8) return { kind: 'untag', run, tag: prng.pick(TAGS) };
    if (draw < 11) return { kind: 'remove', run, nth: prng.below(8) };
    return { kind: 'abort', run, objects: this.drawObjects() };
  }

  /** The operation, or in its place one that stores against the newest version of the run. */
  private orDelta(op: StoreOp, run: string, chance: number): StoreOp {
    const { codingPrng } = this;
    if (codingPrng === null || !codingPrng.chance(chance)) return op;
    return { kind: 'delta', run, seed: codingPrng.below(STEP_SEEDS) };
  }

  private drawObjects(): ObjectSpec[] {
    const { prng } = this;
    return Array.from({ length: prng.between(1, 5) }, (_unused, i): ObjectSpec => {
      const drawn = prng.pick([
        prng.below(16),
        prng.below(2049),
        prng.between(2049, 40_000),
        prng.between(4096, 600_000),
      ]);
      return {
        name: `o${i}`,
        byteLength: this.isOld ? drawn : borderLength(drawn),
        seed: prng.below(this.isOld ? 64 : CONTENT_SEEDS),
        ...(prng.chance(0.2) ? { blob: true } : {}),
        ...(this.codingPrng?.chance(WEIGHTS_CHANCE) === true ? { weights: true } : {}),
      };
    });
  }
}

/** One of LENGTHS, as long as what was drawn or about that; short ones as they are. */
function borderLength(drawn: number): number {
  if (drawn < LENGTHS[0]) return drawn;
  const share = (from: number, to: number): number => (drawn - from) / (to + 1 - from);
  const middle = LENGTHS.indexOf(MIDDLE_LENGTH) + 1;
  const place =
    drawn <= MIDDLE_LENGTH
      ? share(LENGTHS[0], MIDDLE_LENGTH) * middle
      : middle + share(MIDDLE_LENGTH, LENGTHS[LENGTHS.length - 1]!) * (LENGTHS.length - middle);
  return LENGTHS[Math.floor(place)] ?? LENGTHS[0];
}

function linesOf(dump: string, run: string): string {
  return dump
    .split('\n')
    .filter((line) => line.startsWith(`${run}#`))
    .join('\n');
}
