// ingot status: the store's health: state, what to do, members, space; at an interval also rates.
//
// Invariants
//   1. Exit code 0 when all members are there and in step, 5 when the store is degraded, copies are still to be placed
//      or (with --versions) a version is short of them, 4 when it cannot be used or a version has lost something.
//   2. Nothing is written, and no writer is disturbed: the store is opened for reading.
//   3. With --every it shows the newest root each time until it is interrupted, and what this process read meanwhile.

import { setTimeout as sleep } from 'node:timers/promises';
import type { JobRecord, Store, StoreInfo, VersionHealth } from '../../engine/index.js';
import type { CommandModule } from '../cli/program.js';
import { formatBytes, formatDuration, formatRate } from '../cli/progress.js';
import { EXIT_DEGRADED, EXIT_OK, EXIT_UNREPAIRABLE, type Session } from '../cli/session.js';
import { parseDuration, parseWhole } from '../cli/values.js';
import { MEMBER_HEADINGS, memberRow, storeJson } from '../cli/views.js';

/** Names of lost objects shown for one version; --json has all. */
const LOST_NAMES_SHOWN = 8;

interface Options {
  readonly every?: string;
  readonly count?: string;
  readonly versions?: boolean;
}

const ENCRYPTION_TEXT = {
  none: 'none',
  locked: 'data, names and metadata; no key was given',
  open: 'data, names and metadata',
} as const;

export const register: CommandModule = (program, actions) => {
  program
    .command('status')
    .description('show the health of the store, its members and space')
    .option('--every <time>', 'again and again, such as 2s or 500ms')
    .option('--count <n>', 'with --every: so many times')
    .option('--versions', 'which versions are whole, short of copies, or have lost something')
    .action(
      actions.action<Options>(
        async (session, _arguments, options) =>
          session.withStore(
            'r',
            async (store) => {
              if (options.every !== undefined) return watch(session, store, options.every, options.count);
              const health = options.versions === true ? await versions(session, store) : null;
              const exitCode = await show(session, store, null, health);
              return health === null ? exitCode : worse(exitCode, tell(session, health));
            },
            {},
            'shown',
          ),
        { health: true },
      ),
    );
};

/** Shows the status at an interval: members, errors, jobs, and how fast the store is written. */
async function watch(
  session: Session,
  store: Store,
  every: string,
  count: string | undefined,
): Promise<number> {
  const intervalMs = parseDuration('--every', every);
  const times = count === undefined ? Infinity : parseWhole('--count', count, 1, 1_000_000);
  let exitCode = EXIT_OK;
  let before: { readonly sequence: number; readonly storedBytes: number; readonly atMs: number } | null =
    null;
  for (let time = 1; time <= times && !session.signal.aborted; time += 1) {
    await store.refresh();
    const { sequence, storedBytes } = store.info;
    const now = { sequence, storedBytes, atMs: performance.now() };
    exitCode = await show(session, store, rateBetween(before ?? now, now));
    before = now;
    if (time < times) await sleep(intervalMs, undefined, { signal: session.signal }).catch(() => undefined);
  }
  return exitCode;
}

interface Rate {
  readonly seconds: number;
  readonly commits: number;
  /** Bytes by which what is stored grew (or fell) per second. */
  readonly storedBytesPerSec: number;
}

function rateBetween(
  a: { readonly sequence: number; readonly storedBytes: number; readonly atMs: number },
  b: { readonly sequence: number; readonly storedBytes: number; readonly atMs: number },
): Rate {
  const seconds = Math.max((b.atMs - a.atMs) / 1000, 0.001);
  return {
    seconds,
    commits: b.sequence - a.sequence,
    storedBytesPerSec: (b.storedBytes - a.storedBytes) / seconds,
  };
}

async function show(
  session: Session,
  store: Store,
  rate: Rate | null,
  health: readonly VersionHealth[] | null = null,
): Promise<number> {
  const info = await withErrors(store);
  const { backend } = store.stats();
  const scrub = await store.scrubState();
  const owed = await store.resilverState();
  const action = actionFor(info, owed !== null);
  const jobs = {
    scrub: scrub === null ? null : { ...scrub },
    resilver: owed === null ? null : { ...owed, etaSec: etaOf(owed) },
  };
  const state = owed !== null && info.state === 'online' ? 'degraded' : info.state;
  const fields = { ...storeJson(info), state, action, backend, ...jobs };
  if (rate !== null) session.out.record('ingot.status/1', { ...fields, rate: { ...rate } });
  else if (health === null) session.out.object('ingot.status/1', fields);
  else session.out.object('ingot.status/1', { ...fields, versions: health.map((each) => ({ ...each })) });
  session.out.fields([
    ['store', info.uuid],
    ['state', state],
    ['action', action ?? 'none needed'],
    ['root', `sequence ${info.sequence}, format ${info.formatVersion}`],
    ['versions', info.versionCount],
    [
      'space',
      `${formatBytes(info.freeBytes)} free of ${formatBytes(info.capacityBytes)}, ` +
        `${formatBytes(info.storedBytes)} used`,
    ],
    ['redundancy', info.redundancy],
    ['encryption', ENCRYPTION_TEXT[info.encryption]],
    ['path', `${backend.path} (${backend.reason})`],
    ['jobs', jobsText(info, scrub, owed)],
    ...(rate === null ? [] : [['rate', rateText(rate)] as [string, string]]),
  ]);
  session.out.line();
  session.out.table(MEMBER_HEADINGS, info.members.map(memberRow));
  for (const line of info.openReport) session.out.line(`note: ${line}`);
  for (const path of info.oldKeysOn)
    session.out.line(`note: ${path} may still hold keys that were shredded or rotated away`);
  if (state === 'failed') return EXIT_UNREPAIRABLE;
  return state === 'degraded' ? EXIT_DEGRADED : EXIT_OK;
}

/** With the errors of all writers, as the catalog keeps them. */
async function withErrors(store: Store): Promise<StoreInfo> {
  const errors = new Map((await store.memberErrors()).map((each) => [each.index, each]));
  const members = store.info.members.map((member) => {
    const found = errors.get(member.index);
    if (found === undefined) return member;
    const { read, write, checksum, lastAtMs } = found;
    const lastAt = lastAtMs === 0 ? null : new Date(lastAtMs).toISOString();
    return { ...member, errors: { read, write, checksum, lastAt } };
  });
  return { ...store.info, members };
}

function rateText({ commits, seconds, storedBytesPerSec }: Rate): string {
  const sign = storedBytesPerSec < 0 ? '-' : '+';
  return `${(commits / seconds).toFixed(1)} commits/s, ${sign}${formatRate(Math.abs(storedBytesPerSec))} stored`;
}

/** At the rate of the walk so far, over all the time that it took; null when that says nothing. */
function etaOf({ startedAtMs, updatedAtMs, scannedBytes, totalBytes }: JobRecord): number | null {
  const seconds = (updatedAtMs - startedAtMs) / 1000;
  if (scannedBytes === 0 || seconds <= 0 || totalBytes < scannedBytes) return null;
  return ((totalBytes - scannedBytes) * seconds) / scannedBytes;
}

function resilverText(owed: JobRecord): string {
  const eta = etaOf(owed);
  const far =
    owed.totalBytes === 0
      ? 'not begun'
      : `${formatBytes(owed.scannedBytes)} of ${formatBytes(owed.totalBytes)}` +
        (eta === null ? '' : `, ETA ${formatDuration(eta)}`);
  return `copies that are missing are placed while a writer stays open: ${far}`;
}

function jobsText(info: StoreInfo, scrub: JobRecord | null, owed: JobRecord | null): string {
  const jobs = info.members.flatMap(({ index, state, isLeaving, allocatedBytes }) => {
    if (state === 'detached') return [];
    if (isLeaving) return [`member ${index} leaves, ${formatBytes(allocatedBytes)} to move`];
    return state === 'resilvering' ? [`member ${index} resilvers while a writer is open`] : [];
  });
  if (owed !== null) jobs.push(resilverText(owed));
  if (scrub !== null && scrub.state !== 'finished' && scrub.state !== 'cancelled')
    jobs.push(`scrub ${scrub.state} after ${formatBytes(scrub.scannedBytes)}`);
  return jobs.length === 0 ? 'none' : jobs.join('; ');
}

/** The exact list of what is whole and what is not. */
async function versions(session: Session, store: Store): Promise<VersionHealth[]> {
  const all: VersionHealth[] = [];
  for await (const health of store.versionHealth({ signal: session.signal })) all.push(health);
  return all;
}

/** Prints what is not whole; the exit code for it. */
function tell(session: Session, all: readonly VersionHealth[]): number {
  const counts = { whole: 0, short: 0, lost: 0 };
  for (const health of all) {
    counts[health.state] += 1;
    if (health.state !== 'whole') session.out.line(healthText(health));
  }
  session.out.line(
    `${counts.whole} versions whole, ${counts.short} short of copies, ${counts.lost} with losses`,
  );
  return counts.lost > 0 ? EXIT_UNREPAIRABLE : counts.short > 0 ? EXIT_DEGRADED : EXIT_OK;
}

/** Of two exit codes the one that says more: lost before degraded before good. */
function worse(a: number, b: number): number {
  if (a === EXIT_UNREPAIRABLE || b === EXIT_UNREPAIRABLE) return EXIT_UNREPAIRABLE;
  return Math.max(a, b);
}

function healthText({ id, run, state, lostExtents, lostObjects, shortExtents }: VersionHealth): string {
  if (state === 'short')
    return `short  v:${id} of ${run}: ${shortExtents} extents have fewer copies than wanted`;
  const names = lostObjects.slice(0, LOST_NAMES_SHOWN).join(', ');
  const more =
    lostObjects.length > LOST_NAMES_SHOWN ? ` and ${lostObjects.length - LOST_NAMES_SHOWN} more` : '';
  return `lost   v:${id} of ${run}: ${lostExtents} extents, in ${names}${more}`;
}

function actionFor(info: StoreInfo, isOwed: boolean): string | null {
  const finish =
    'ingot online places the copies that are missing; a writer that stays open does it, too, but short commands ' +
    'end before they get to it';
  if (info.state === 'online') return isOwed ? finish : null;
  if (info.state === 'failed') return 'close every handle and open the store again';
  const wanting = info.members.filter(({ state }) => !['online', 'evacuating', 'detached'].includes(state));
  const away = wanting.filter(({ state }) => state !== 'resilvering');
  if (away.length === 0) return finish;
  const names = away.map((member) => `member ${member.index} (${member.state})`).join(', ');
  return `bring back ${names} and run ingot online, or ingot replace; until then copies are fewer than wanted`;
}
