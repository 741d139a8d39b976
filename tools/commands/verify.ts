// ingot verify: reads every copy of everything in a version and checks it against its sums.
//
// Invariants
//   1. Exit code 0 when all is as written, 5 when a copy is damaged or a member missing while the data is whole,
//      4 when something is lost.
//   2. Nothing is written: `ingot scrub` heals.

import type { CommandModule } from '../cli/program.js';
import { formatBytes, formatRate } from '../cli/progress.js';
import { EXIT_DEGRADED, EXIT_OK, EXIT_UNREPAIRABLE } from '../cli/session.js';
import { runCheck } from '../cli/maintenance.js';

export const register: CommandModule = (program, actions) => {
  program
    .command('verify')
    .description('read every copy of a version and check its sums')
    .argument('<ref>', 'run@tag, run@step, run or v:ID')
    .action(
      actions.action<object>(
        async (session, [ref = '']) =>
          session.withStore('r', async (store) => {
            const version = await store.get(ref, { signal: session.signal });
            const ioPath = store.info.members[0]?.ioPath ?? 'unknown';
            const events = version.verify({ signal: session.signal });
            const outcome = await runCheck(session, events, `verify ${ref}`, version.storedBytes, ioPath);
            session.out.object('ingot.verify/1', {
              id: version.id,
              run: version.run,
              step: version.step,
              rawBytes: version.byteLength,
              storedBytes: version.storedBytes,
              path: ioPath,
              ...outcome.json,
            });
            const rate =
              outcome.durationMs > 0
                ? ` at ${formatRate((outcome.scannedBytes * 1000) / outcome.durationMs)}`
                : '';
            session.out.line(
              `${version.id}: ${formatBytes(outcome.scannedBytes)} read${rate}: ${VERDICTS[outcome.exitCode] ?? ''}`,
            );
            return outcome.exitCode;
          }),
        { health: true },
      ),
    );
};

const VERDICTS: Readonly<Record<number, string>> = {
  [EXIT_OK]: 'every copy is as it was written',
  [EXIT_DEGRADED]: 'the data is whole, but not every copy is good: ingot scrub heals what it can',
  [EXIT_UNREPAIRABLE]: 'some of it is lost; what is not named above is whole',
};
