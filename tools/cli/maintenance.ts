// Running a check that yields events (verify, fsck): progress, findings, and what they add up to.
//
// Invariants
//   1. The exit code is the worst of what was found: 4 when something is lost, else 5 when a copy or a member is not as
//      it should be, else 3 when something was put right, else 0.
//   2. Findings are printed as they come and kept up to MAX_KEPT; more are counted.
//
// It checks nothing by itself.

import type { MaintEvent } from '../../engine/index.js';
import type { JsonFields } from './output.js';
import { EXIT_DEGRADED, EXIT_OK, EXIT_REPAIRED, EXIT_UNREPAIRABLE, type Session } from './session.js';
import { findingJson, findingText } from './views.js';

/** Findings kept for --json. */
const MAX_KEPT = 10_000;

export interface CheckOutcome {
  readonly exitCode: number;
  readonly findingCount: number;
  readonly scannedBytes: number;
  readonly unrepairable: number;
  readonly durationMs: number;
  /** For --json. */
  readonly json: JsonFields;
}

export async function runCheck(
  session: Session,
  events: AsyncIterable<MaintEvent>,
  label: string,
  totalBytes: number | null,
  path?: string,
): Promise<CheckOutcome> {
  const meter = session.progress(label, totalBytes);
  const taken = path === undefined ? {} : { path };
  const findings: JsonFields[] = [];
  const counts = { found: 0, damaged: 0, repaired: 0, unrepairable: 0 };
  let done = { scannedBytes: 0, repaired: 0, unrepairable: 0, durationMs: 0 };
  for await (const event of events) {
    if (event.type === 'progress') {
      const { bytes, phase, items } = event.progress;
      meter.update({ bytes, phase, items, ...taken });
    } else if (event.type === 'done') done = event;
    else {
      counts.found++;
      if (event.action === 'repaired') counts.repaired++;
      else if (event.action === 'unrepairable') counts.unrepairable++;
      else if (!isUnlooked(event)) counts.damaged++;
      if (findings.length < MAX_KEPT) findings.push(findingJson(event));
      session.out.line(findingText(event));
    }
  }
  meter.finish({ bytes: done.scannedBytes, ...taken });
  const unrepairable = Math.max(counts.unrepairable, done.unrepairable);
  const exitCode = codeOf(unrepairable, counts.damaged, Math.max(counts.repaired, done.repaired));
  const { scannedBytes, durationMs } = done;
  const json = {
    result: RESULTS[exitCode] ?? 'failed',
    findingCount: counts.found,
    findings,
    unrepairable,
    scannedBytes,
    durationMs,
    bytesPerSec: durationMs > 0 ? (scannedBytes * 1000) / durationMs : null,
  };
  return { exitCode, findingCount: counts.found, scannedBytes, unrepairable, durationMs, json };
}

/** Not damage, but what could not be looked at without a key: it is told, and changes no exit code. */
function isUnlooked(event: MaintEvent & { readonly type: 'finding' }): boolean {
  return event.severity === 'warn' && event.error.code === 'E_AUTH';
}

const RESULTS: Readonly<Record<number, string>> = {
  [EXIT_OK]: 'ok',
  [EXIT_REPAIRED]: 'repaired',
  [EXIT_UNREPAIRABLE]: 'unrepairable',
  [EXIT_DEGRADED]: 'degraded',
};

function codeOf(unrepairable: number, damaged: number, repaired: number): number {
  if (unrepairable > 0) return EXIT_UNREPAIRABLE;
  if (damaged > 0) return EXIT_DEGRADED;
  return repaired > 0 ? EXIT_REPAIRED : EXIT_OK;
}
