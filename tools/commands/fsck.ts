// ingot fsck: reads the whole catalog at one root and proves that its parts agree, the free map included.
//
// Invariants
//   1. Nothing is written; a live writer is not disturbed.
//   2. Exit code 0 when there is no finding, 4 when something cannot be put right from what is there, else 5.

import { fsck } from '../../engine/index.js';
import { runCheck } from '../cli/maintenance.js';
import type { CommandModule } from '../cli/program.js';
import { formatBytes } from '../cli/progress.js';

interface Options {
  readonly data?: boolean;
}

export const register: CommandModule = (program, actions) => {
  program
    .command('fsck')
    .description('check the catalog and the free map, without changing anything')
    .option('--data', 'also read every copy of every extent')
    .action(
      actions.action<Options>(
        async (session, _arguments, options) =>
          session.withStore('r', async (store) => {
            const data = options.data === true;
            const events = fsck(store.catalog, { data, signal: session.signal });
            const outcome = await runCheck(session, events, 'fsck', null);
            const { info } = store;
            session.out.object('ingot.fsck/1', {
              store: info.uuid,
              sequence: info.sequence,
              data,
              ...outcome.json,
            });
            const verdict = outcome.findingCount === 0 ? 'no findings' : `${outcome.findingCount} findings`;
            session.out.line(
              `root ${info.sequence}, ${info.versionCount} versions, ` +
                `${formatBytes(outcome.scannedBytes)} read: ${verdict}`,
            );
            return outcome.exitCode;
          }),
        { health: true },
      ),
    );
};
