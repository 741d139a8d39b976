// Which versions of a run a retention policy keeps, and why.
//
// Invariants
//   1. The rules are a union: a version that any rule keeps survives. Tagged versions (other than by
//      `latest` alone) always survive, and so does the newest one.
//   2. Deciding is pure: the same versions, policy and time give the same answer; dry run shows exactly it.
//   3. A policy without any rule removes nothing (E_USAGE): it is more likely a slip than a wish.
//
// This file never removes anything.

import { StoreError } from '../format/errors.js';
import type { PruneDecision, Retention, VersionInfo } from './types.js';

/** Decides for all versions of one run. `versions` in any order; the answer is newest first. */
export function decideRetention(
  versions: readonly VersionInfo[],
  policy: Retention,
  nowMs: number,
): PruneDecision[] {
  checkPolicy(policy);
  const newestFirst = [...versions].sort((a, b) => idNumber(b) - idNumber(a));
  const reasons = new Map<VersionInfo, string[]>(newestFirst.map((version) => [version, []]));
  const keep = (version: VersionInfo | undefined, reason: string): void => {
    if (version !== undefined) reasons.get(version)?.push(reason);
  };
  keep(newestFirst[0], 'newest');
  for (const version of newestFirst) {
    for (const tag of version.tags) if (tag !== 'latest') keep(version, `tag ${tag}`);
  }
  if (policy.last !== undefined)
    for (const version of newestFirst.slice(0, policy.last)) keep(version, `last ${policy.last}`);
  if (policy.everySteps !== undefined) keepEverySteps(newestFirst, policy.everySteps, keep);
  if (policy.everySec !== undefined) keepEverySeconds(newestFirst, policy.everySec, keep);
  if (policy.best !== undefined) keepBest(newestFirst, policy.best, keep);
  if (policy.maxAgeSec !== undefined) {
    const oldestMs = nowMs - policy.maxAgeSec * 1000;
    for (const version of newestFirst)
      if (version.createdAt.getTime() >= oldestMs) keep(version, `younger than ${policy.maxAgeSec} s`);
  }
  return newestFirst.map((version) => {
    const why = reasons.get(version) ?? [];
    return { version, action: why.length > 0 ? 'keep' : 'remove', reasons: why };
  });
}

type Keep = (version: VersionInfo | undefined, reason: string) => void;

function checkPolicy(policy: Retention): void {
  const whole: [string, number | undefined, number][] = [
    ['last', policy.last, 0],
    ['everySteps', policy.everySteps, 1],
    ['best.n', policy.best?.n, 1],
  ];
  for (const [name, value, least] of whole) {
    if (value !== undefined && (!Number.isSafeInteger(value) || value < least)) {
      throw new StoreError(
        'E_USAGE',
        `retention: ${name} is ${value}, but must be a whole number of at least ${least}`,
      );
    }
  }
  for (const [name, value] of [
    ['everySec', policy.everySec],
    ['maxAgeSec', policy.maxAgeSec],
  ] as const) {
    if (value !== undefined && !(value > 0))
      throw new StoreError('E_USAGE', `retention: ${name} is ${value}, but must be positive`);
  }
  const rules = [policy.last, policy.everySteps, policy.everySec, policy.best, policy.maxAgeSec];
  if (rules.every((rule) => rule === undefined)) {
    throw new StoreError(
      'E_USAGE',
      'retention: the policy has no rule, so it would remove everything that has no tag',
    );
  }
}

function idNumber(version: VersionInfo): number {
  return Number(version.id.slice(2));
}

/** The newest version of each step that is a multiple. */
function keepEverySteps(newestFirst: readonly VersionInfo[], every: number, keep: Keep): void {
  const seen = new Set<number>();
  for (const version of newestFirst) {
    const { step } = version;
    if (step === null || step % every !== 0 || seen.has(step)) continue;
    seen.add(step);
    keep(version, `step divisible by ${every}`);
  }
}

/** The oldest version of each interval of wall time, so that kept ones do not shift as time goes on. */
function keepEverySeconds(newestFirst: readonly VersionInfo[], every: number, keep: Keep): void {
  const seen = new Set<number>();
  for (const version of [...newestFirst].reverse()) {
    const interval = Math.floor(version.createdAt.getTime() / 1000 / every);
    if (seen.has(interval)) continue;
    seen.add(interval);
    keep(version, `first of ${every} s`);
  }
}

function keepBest(
  newestFirst: readonly VersionInfo[],
  best: NonNullable<Retention['best']>,
  keep: Keep,
): void {
  const sign = best.mode === 'min' ? 1 : -1;
  const measured = newestFirst.filter((version) => {
    const value = version.metrics[best.metric];
    return value !== undefined && !Number.isNaN(value);
  });
  measured.sort(
    (a, b) =>
      sign * ((a.metrics[best.metric] ?? 0) - (b.metrics[best.metric] ?? 0)) || idNumber(b) - idNumber(a),
  );
  for (const version of measured.slice(0, best.n))
    keep(version, `best ${best.n} by ${best.mode} ${best.metric}`);
}
