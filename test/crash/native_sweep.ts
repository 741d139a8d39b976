// The k-th request of the native core fails, for every k, until a run needs fewer than k: real files, real backends.
//
// The same question as fault_sweep.ts asks over the simulator, of the code that users run: io_uring or threads, the
// fault hook of the core (ingot_core.h), reads, writes and flushes, once and for ever. A power cut cannot be had here.
//
// What must hold for every k
//   1. Nothing rejects with anything but a StoreError; a poisoned handle takes no further change.
//   2. Opened again without the fault, the store holds what was acknowledged, or that plus the one operation whose
//      commit failed; every byte reads as it was put.
//   3. fsck with data finds nothing, but for fewer copies where the table calls a member not in sync; one more
//      operation works.
//
// It asserts nothing: the tests judge the report.

import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { NativeIo, type NativeIoOptions } from '../../engine/io/native_io.js';
import { createWith, openWith } from '../../engine/open_store.js';
import { isStoreError } from '../../format/errors.js';
import { StoreModel, type StoreOp } from '../sim/store_model.js';
import { smallShape, StoreSession } from '../sim/store_session.js';
import { SMALL_OPS } from './store_target.js';

/** Extents with sum leaves, inline tensors, a link, a removal. */
const OPS = [1, 4, 0, 3].map((index) => SMALL_OPS[index]!);
const PROBE: StoreOp = { kind: 'put', run: 'probe', objects: [{ name: 'p', byteLength: 6000, seed: 77 }] };
const K_MAX = 20_000;
const MAX_VIOLATIONS = 5;
const KINDS = ['read', 'write', 'flush'] as const;

export interface NativeRule {
  readonly kind: (typeof KINDS)[number];
  /** As the core's rules name it: EIO, ENOSPC, short, zero, late. */
  readonly effect: string;
  readonly sticky: boolean;
}
export interface NativeSweepReport {
  runs: number;
  /** Runs in which the fault happened. */
  fired: number;
  /** Runs that acknowledged everything although it happened. */
  absorbed: number;
  poisoned: number;
  /** Of this rule alone; the rule ends early with MAX_VIOLATIONS of them. */
  violations: string[];
}

/** Counts and violations of several rules together. */
export function sumOf(reports: readonly NativeSweepReport[]): NativeSweepReport {
  const sum: NativeSweepReport = { runs: 0, fired: 0, absorbed: 0, poisoned: 0, violations: [] };
  for (const report of reports) {
    for (const name of ['runs', 'fired', 'absorbed', 'poisoned'] as const) sum[name] += report[name];
    sum.violations.push(...report.violations);
  }
  return sum;
}

/** Errors of every kind of request, once and for ever. */
export function nativeRules(effects: Readonly<Record<NativeRule['kind'], readonly string[]>>): NativeRule[] {
  return KINDS.flatMap((kind) =>
    effects[kind].flatMap((effect) => [false, true].map((sticky) => ({ kind, effect, sticky }))),
  );
}

export class NativeSweep {
  readonly #paths: readonly string[];
  readonly #options: NativeIoOptions;
  readonly #base: StoreOp[] = [
    { kind: 'put', run: 'base', objects: [{ name: 'b', byteLength: 70_000, seed: 5 }] },
  ];

  /** Keeps its files in `directory`, which the caller removes. */
  constructor(directory: string, backend: 'io_uring' | 'threads') {
    this.#paths = ['0.member', '1.member'].map((name) => join(directory, name));
    this.#options = { backend };
  }

  /** Makes the mirrored store that every run begins with. */
  async prepare(): Promise<void> {
    const { memberBytes, chunkBytes, segmentBytes } = smallShape(2);
    const members = this.#paths.map((path) => ({ path, sizeBytes: memberBytes }));
    const ports = { io: new NativeIo(this.#options), files: null, closeIo: true };
    await createWith(
      ports,
      { members: [] },
      { members, redundancy: 2, chunkBytes, segmentBytes, force: true },
    );
    const { session, io } = await this.#open('');
    for (const op of this.#base) await session.apply(op);
    await session.close();
    await io.close();
    for (const path of this.#paths) copyFileSync(path, `${path}.base`);
  }

  /** Runs k = from, from + stride, .. until the fault no longer happens, or to `last`. */
  async sweep(rule: NativeRule, from: number, stride: number, last = K_MAX): Promise<NativeSweepReport> {
    const report: NativeSweepReport = { runs: 0, fired: 0, absorbed: 0, poisoned: 0, violations: [] };
    for (let k = from; k <= last && report.violations.length < MAX_VIOLATIONS; k += stride) {
      const text = `${rule.kind}:${k}:${rule.effect}:${rule.sticky ? 'sticky' : 'once'}`;
      try {
        for (const path of this.#paths) copyFileSync(`${path}.base`, path);
        report.runs += 1;
        if (!(await this.#run(rule, k, text, report))) break;
      } catch (error) {
        report.violations.push(`${text}: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
    return report;
  }

  async #open(rule: string): Promise<{ session: StoreSession; io: NativeIo }> {
    const io = new NativeIo(this.#options);
    if (rule !== '') io.configureFaults(rule);
    try {
      const members = { members: this.#paths };
      const store = await openWith({ io, files: null, closeIo: false }, members, { mode: 'rw' });
      return { session: new StoreSession(store), io };
    } catch (error) {
      await io.close();
      throw error;
    }
  }

  /** Whether the fault happened. */
  async #run(rule: NativeRule, k: number, text: string, report: NativeSweepReport): Promise<boolean> {
    const acked = [...this.#base];
    let unknown: StoreOp | null = null;
    let hasFired = true;
    const opened = await this.#open(text).catch(expectStoreError);
    if (opened !== undefined) {
      const { session, io } = opened;
      for (const op of OPS) {
        try {
          await session.apply(op);
          acked.push(op);
        } catch (error) {
          expectStoreError(error);
          if (session.store.catalog.poisoned === null) continue;
          unknown = op;
          await expectPoisoned(session);
          break;
        }
      }
      await session.close().catch(expectStoreError);
      hasFired = (io.coreStats().issued[KINDS.indexOf(rule.kind)] ?? 0) >= k;
      await io.close();
    }
    const isWhole = acked.length === this.#base.length + OPS.length;
    if (!hasFired && !isWhole) throw new Error('a run without a fault did not acknowledge everything');
    if (hasFired) {
      report.fired += 1;
      if (isWhole) report.absorbed += 1;
      if (unknown !== null) report.poisoned += 1;
    }
    await this.#judge(unknown === null ? [acked] : [acked, [...acked, unknown]], rule);
    return hasFired;
  }

  async #judge(states: readonly (readonly StoreOp[])[], rule: NativeRule): Promise<void> {
    const { session, io } = await this.#open('');
    try {
      const dump = await session.dump();
      const held = states.find((ops) => StoreModel.after(ops).dump() === dump);
      if (held === undefined)
        throw new Error(`holds\n${dump}\n-- instead of --\n${StoreModel.after(states[0]!).dump()}`);
      const mayLack = rule.kind !== 'read' && session.wasDegraded();
      const findings = (await session.check()).filter(
        (finding) => !(mayLack && finding.startsWith('warn E_DEGRADED')),
      );
      if (findings.length > 0) throw new Error(`fsck found: ${findings.slice(0, 3).join('; ')}`);
      await session.apply(PROBE);
      if ((await session.dump()) !== StoreModel.after([...held, PROBE]).dump())
        throw new Error('one more operation was not applied rightly');
    } finally {
      await session.close();
      await io.close();
    }
  }
}

function expectStoreError(error: unknown): undefined {
  if (!isStoreError(error)) throw error;
  return undefined;
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
