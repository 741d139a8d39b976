// What add, remove, replace and online have in common: everything that is left to do, done and told.
//
// Invariants
//   1. The exit code is 0 only when no extent is short of copies and no member is on its way; else 5, or 4 when
//      something is lost with a member.
//   2. A run that is cut short is taken up by the same command or by any other of them: the store knows what is left.
//
// It decides nothing about members (engine/members).

import type { OpenOptions, ResilverReport, SettleReport, Store } from '../../engine/index.js';
import type { JsonFields } from './output.js';
import { formatBytes } from './progress.js';
import { EXIT_DEGRADED, EXIT_OK, EXIT_UNREPAIRABLE, type Session } from './session.js';
import { usageError } from './values.js';
import { findingText, storeJson } from './views.js';

/** These commands do by themselves, and wait for, what a writer would do in the background. */
export const OPEN_FOR_MEMBER_JOB: OpenOptions = { resilver: false };

export interface MemberOutcome {
  readonly settled: SettleReport;
  readonly data: ResilverReport;
  readonly exitCode: number;
}

/** Places the catalog, ends resilvering, moves the data, and lets members go that are empty then. */
export async function finishMembers(
  session: Session,
  store: Store,
  bytesPerSec?: number,
): Promise<MemberOutcome> {
  const { signal } = session;
  session.interruptedText =
    'what was moved until the last few seconds stays moved; ingot online does the rest';
  const before = await store.settleMembers({ signal });
  const data = await moveData(session, store, bytesPerSec);
  const after = await store.settleMembers({ signal });
  const settled: SettleReport = {
    pagesMoved: before.pagesMoved + after.pagesMoved,
    inSync: [...before.inSync, ...after.inSync],
    detached: [...before.detached, ...after.detached],
    leaving: after.leaving,
  };
  const isDone = data.underReplicated === 0 && data.onGivenUp === 0 && settled.leaving.length === 0;
  const exitCode = data.lost > 0 ? EXIT_UNREPAIRABLE : isDone ? EXIT_OK : EXIT_DEGRADED;
  return { settled, data, exitCode };
}

async function moveData(session: Session, store: Store, bytesPerSec?: number): Promise<ResilverReport> {
  const events = store.resilver({
    signal: session.signal,
    ...(bytesPerSec === undefined ? {} : { bytesPerSec }),
  });
  const meter = session.progress('moving copies', null);
  let bytes = 0;
  for (;;) {
    const next = await events.next();
    if (next.done === true) {
      meter.finish({ bytes });
      return next.value;
    }
    const event = next.value;
    if (event.type === 'finding') session.out.line(findingText(event));
    if (event.type !== 'progress') continue;
    bytes = event.progress.bytes;
    meter.update({ bytes, phase: event.progress.phase, items: event.progress.items });
  }
}

/** What the command prints at its end, as lines and as JSON. */
export function report(
  session: Session,
  store: Store,
  command: string,
  outcome: MemberOutcome,
  fields: JsonFields,
): void {
  const { settled, data } = outcome;
  session.out.object(`ingot.${command}/1`, {
    ...fields,
    settled: { ...settled },
    data: { ...data },
    store: storeJson(store.info),
  });
  session.out.line(
    `${settled.pagesMoved} catalog pages and ${data.moved} extents (${formatBytes(data.movedBytes)}) placed`,
  );
  for (const index of settled.inSync) session.out.line(`member ${index} is in sync`);
  for (const index of settled.detached) session.out.line(`member ${index} is empty and detached`);
  for (const { member, bytes } of settled.leaving)
    session.out.line(`member ${member} still holds ${formatBytes(bytes)} and stays until they are gone`);
  if (data.underReplicated > 0)
    session.out.line(`${data.underReplicated} extents are short of copies: too few members take writes`);
  if (data.lost > 0) session.out.line(`${data.lost} extents are lost: ingot status --versions names them`);
}

/** A member by its index, its path or the last part of it. */
export function memberIndex(store: Store, text: string): number {
  const { members } = store.info;
  const found = members.filter(
    (member) => String(member.index) === text || member.path === text || member.name === text,
  );
  const alive = found.filter((member) => member.state !== 'detached');
  const [member] = alive.length > 0 ? alive : found;
  if (member === undefined || alive.length > 1) {
    throw usageError(
      `${text} is ${alive.length > 1 ? 'more than one member' : 'no member'} of the store.`,
      `ingot status; members are ${members.map(({ index, name }) => `${index} (${name})`).join(', ')}`,
    );
  }
  return member.index;
}
