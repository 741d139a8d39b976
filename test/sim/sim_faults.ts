// What goes wrong, and when: a list of rules asked once for every device operation.
//
// Invariants
//   1. Rules are asked in the order they were added; the first that applies wins.
//   2. A rule with `nth` counts the operations that match it from the moment it was added.
//   3. Chance comes from the world's seeded stream only.
//
// This file decides; sim_device.ts does.

import type { Prng } from './prng.js';

export type FaultOperation = 'read' | 'write' | 'flush' | 'source' | 'create' | 'open';
/**
 * errno: fails with that number (a failed write may have been applied in part).
 * short: fewer bytes are moved than asked for (the port asks again for the rest).
 * zero: nothing is moved and nothing is said.
 * late: a write says yes, but never becomes durable, and the next flush of its member fails.
 * lost: a write says yes and is dropped (no flush will tell).
 * misdirect: a write says yes and lands `shiftBytes` further on the same member.
 * flip: a read gives bytes with one bit wrong, once; the medium is fine.
 * hang: completes normally after `hangMs`.
 */
export type FaultAction = 'errno' | 'short' | 'zero' | 'late' | 'lost' | 'misdirect' | 'flip' | 'hang';

export interface FaultRule {
  readonly operation: FaultOperation | 'any';
  readonly action: FaultAction;
  /** Applies to the nth matching operation (1 = the next one) and, when sticky, to all after it. */
  readonly nth?: number;
  readonly sticky?: boolean;
  /** Instead of `nth`: applies with this chance to each. */
  readonly probability?: number;
  readonly errno?: number;
  readonly hangMs?: number;
  readonly shiftBytes?: number;
  /** Only this member or file. */
  readonly path?: string;
  /** Only operations that touch [fromBytes, toBytes). */
  readonly fromBytes?: number;
  readonly toBytes?: number;
}

interface ActiveRule {
  readonly rule: FaultRule;
  seen: number;
  fired: number;
  spent: boolean;
}

export class FaultPlan {
  private active: ActiveRule[] = [];
  /** Operations seen, by kind: a sweep fails k = 1, 2, ... until a run sees fewer than k. */
  readonly counts: Record<FaultOperation, number> = {
    read: 0,
    write: 0,
    flush: 0,
    source: 0,
    create: 0,
    open: 0,
  };
  private readonly prng: Prng;

  constructor(prng: Prng) {
    this.prng = prng;
  }

  /** Adds a rule; the function returned says how often it has fired. */
  add(rule: FaultRule): () => number {
    const entry: ActiveRule = { rule, seen: 0, fired: 0, spent: false };
    this.active.push(entry);
    return () => entry.fired;
  }

  clear(): void {
    this.active = [];
  }

  get totalOperations(): number {
    const counts = this.counts;
    return counts.read + counts.write + counts.flush + counts.source + counts.create + counts.open;
  }

  /** The rule that hits this operation, or null. */
  ask(operation: FaultOperation, path: string, offsetBytes: number, lengthBytes: number): FaultRule | null {
    this.counts[operation] += 1;
    if (this.active.length === 0) return null;
    for (const entry of this.active) {
      const rule = entry.rule;
      if (rule.operation !== 'any' && rule.operation !== operation) continue;
      if (rule.path !== undefined && rule.path !== path) continue;
      if (rule.fromBytes !== undefined && offsetBytes + lengthBytes <= rule.fromBytes) continue;
      if (rule.toBytes !== undefined && offsetBytes >= rule.toBytes) continue;
      entry.seen += 1;
      if (entry.spent || !this.hits(entry)) continue;
      entry.fired += 1;
      return rule;
    }
    return null;
  }

  private hits(entry: ActiveRule): boolean {
    const { rule } = entry;
    if (rule.probability !== undefined) return this.prng.chance(rule.probability);
    const nth = rule.nth ?? 1;
    if (entry.seen < nth) return false;
    if (rule.sticky !== true) entry.spent = true;
    return true;
  }
}
