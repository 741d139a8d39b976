// ingot scrub: reads every copy of everything in the store, heals what is bad, and remembers where it was.
//
// Invariants
//   1. Exit code 0 when all is as written, 3 when all that was not is healed, 5 when a copy stays bad or a member
//      is missing while the data is whole, 4 when something is lost.
//   2. Ctrl-C pauses: what is done is written down, and the next scrub goes on from there.
//   3. With --read-only nothing is written, whatever is found.

import type { JobRecord } from '../../engine/index.js';
import { runCheck } from '../cli/maintenance.js';
import type { CommandModule } from '../cli/program.js';
import { formatBytes, formatRate } from '../cli/progress.js';
import { EXIT_DEGRADED, EXIT_OK, EXIT_REPAIRED, EXIT_UNREPAIRABLE, type Session } from '../cli/session.js';
import { parseSize } from '../cli/values.js';
import { formatTime } from '../cli/views.js';

interface Options {
  readonly rate?: string;
  readonly restart?: boolean;
  readonly readOnly?: boolean;
  readonly show?: boolean;
  readonly cancel?: boolean;
}

export const register: CommandModule = (program, actions) => {
  program
    .command('scrub')
    .description('read every copy of everything in the store, and heal what is bad')
    .option('--rate <size>', 'read at most so much per second, such as 200MiB')
    .option('--restart', 'begin anew although an earlier scrub was cut short')
    .option('--read-only', 'report and heal nothing')
    .option('--show', 'say where the scrub is, and do nothing')
    .option('--cancel', 'forget where a paused scrub was')
    .action(
      actions.action<Options>(
        async (session, _arguments, options) => {
          if (options.show === true) return show(session);
          if (options.cancel === true) return cancel(session);
          return run(session, options);
        },
        { health: true },
      ),
    );
};

function run(session: Session, options: Options): Promise<number> {
  const bytesPerSec = options.rate === undefined ? undefined : parseSize('--rate', options.rate);
  return session.withStore(options.readOnly === true ? 'r' : 'rw', async (store) => {
    const before = await store.scrubState();
    const goesOn = before?.state === 'paused' || before?.state === 'running';
    if (goesOn && options.restart !== true)
      session.log('info', `going on at extent ${before.position}, after ${formatBytes(before.scannedBytes)}`);
    const { info } = store;
    session.interruptedText =
      options.readOnly === true
        ? 'nothing was written'
        : 'the scrub is paused, and the next goes on from there; what it healed stays healed';
    const events = store.scrub({
      signal: session.signal,
      ...(bytesPerSec === undefined ? {} : { bytesPerSec }),
      ...(options.restart === undefined ? {} : { restart: options.restart }),
    });
    const path = info.members[0]?.ioPath ?? 'unknown';
    const outcome = await runCheck(session, events, 'scrub', info.storedBytes, path);
    session.out.object('ingot.scrub/1', { store: info.uuid, sequence: info.sequence, path, ...outcome.json });
    const seconds = outcome.durationMs / 1000;
    const rate = seconds > 0 ? ` at ${formatRate(outcome.scannedBytes / seconds)}` : '';
    session.out.line(`${formatBytes(outcome.scannedBytes)} read${rate}: ${VERDICTS[outcome.exitCode] ?? ''}`);
    return outcome.exitCode;
  });
}

function show(session: Session): Promise<number> {
  return session.withStore('r', async (store) => {
    const state = await store.scrubState();
    session.out.object('ingot.scrub-state/1', { state: state === null ? null : { ...state } });
    session.out.line(state === null ? 'no scrub ever ran' : stateText(state));
    return EXIT_OK;
  });
}

function stateText(state: JobRecord): string {
  const found = `${state.repaired} healed, ${state.unrepairable} lost`;
  const at = formatTime(new Date(state.updatedAtMs));
  if (state.state === 'finished')
    return `finished ${at}: ${formatBytes(state.scannedBytes)} read, ${found}; ${state.rounds} rounds in all`;
  if (state.state === 'cancelled') return `cancelled ${at}`;
  return `${state.state} at extent ${state.position}, ${at}: ${formatBytes(state.scannedBytes)} read, ${found}`;
}

function cancel(session: Session): Promise<number> {
  return session.withStore('rw', async (store) => {
    await store.cancelScrub();
    session.out.object('ingot.scrub-state/1', { state: { ...(await store.scrubState()) } });
    session.out.line('the next scrub begins anew');
    return EXIT_OK;
  });
}

const VERDICTS: Readonly<Record<number, string>> = {
  [EXIT_OK]: 'every copy is as it was written',
  [EXIT_REPAIRED]: 'everything that was bad is healed',
  [EXIT_DEGRADED]: 'the data is whole, but not every copy is good',
  [EXIT_UNREPAIRABLE]: 'some of it is lost; what is not named above is whole',
};
