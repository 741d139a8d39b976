// ingot status: the store's health: state, what to do, members, space.
//
// Invariants
//   1. Exit code 0 when all members are there and in step, 5 when the store is degraded, 4 when it cannot be used.
//   2. Nothing is written, and no writer is disturbed: the store is opened for reading.

import type { StoreInfo } from '../../engine/index.js';
import type { CommandModule } from '../cli/program.js';
import { formatBytes } from '../cli/progress.js';
import { EXIT_DEGRADED, EXIT_OK, EXIT_UNREPAIRABLE } from '../cli/session.js';
import { MEMBER_HEADINGS, memberRow, storeJson } from '../cli/views.js';

export const register: CommandModule = (program, actions) => {
  program
    .command('status')
    .description('show the health of the store, its members and space')
    .action(
      actions.action<object>(
        async (session) =>
          session.withStore('r', async (store) => {
            const { info } = store;
            const { backend } = store.stats();
            const action = actionFor(info);
            session.out.object('ingot.status/1', { ...storeJson(info), action, backend });
            session.out.fields([
              ['store', info.uuid],
              ['state', info.state],
              ['action', action ?? 'none needed'],
              ['root', `sequence ${info.sequence}, format ${info.formatVersion}`],
              ['versions', info.versionCount],
              [
                'space',
                `${formatBytes(info.freeBytes)} free of ${formatBytes(info.capacityBytes)}, ` +
                  `${formatBytes(info.storedBytes)} used`,
              ],
              ['redundancy', info.redundancy],
              ['path', `${backend.path} (${backend.reason})`],
            ]);
            session.out.line();
            session.out.table(MEMBER_HEADINGS, info.members.map(memberRow));
            for (const line of info.openReport) session.out.line(`note: ${line}`);
            if (info.state === 'failed') return EXIT_UNREPAIRABLE;
            return info.state === 'degraded' ? EXIT_DEGRADED : EXIT_OK;
          }),
        { health: true },
      ),
    );
};

function actionFor(info: StoreInfo): string | null {
  if (info.state === 'online') return null;
  if (info.state === 'failed') return 'close every handle and open the store again';
  const absent = info.members
    .filter((member) => member.state !== 'online')
    .map((member) => `member ${member.index} (${member.state})`);
  return `bring back ${absent.join(', ')}; until then the store opens for reading only`;
}
