// ingot fsck: reads the whole catalog at one root and proves that its parts agree, the free map included.
//
// Invariants
//   1. Without --repair nothing is written, and a live writer is not disturbed.
//   2. --repair makes anew what follows from the rest (the free map), and only when it is wrong; what is lost stays
//      lost and is listed. The store must not be in use.
//   3. Exit code 0 when there is no finding, 3 when everything found was put right, 4 when something cannot be, else 5.

import { fsck, type MaintEvent, type Store } from '../../engine/index.js';
import { runCheck } from '../cli/maintenance.js';
import type { CommandModule } from '../cli/program.js';
import { formatBytes } from '../cli/progress.js';
import { EXIT_OK, EXIT_REPAIRED, type Session } from '../cli/session.js';

interface Options {
  readonly data?: boolean;
  readonly repair?: boolean;
}

/** Structures whose findings mean that the free map has to be made anew. */
const FREE_MAP_STRUCTURES: readonly string[] = ['free map', 'tree 3', 'free space tree', 'region record'];

/** Whether a check without a word finds the free map wrong. */
async function isFreeMapWrong(session: Session): Promise<boolean> {
  return session.withStore('r', async (store) => {
    let wrong = false;
    for await (const event of fsck(store.catalog, { signal: session.signal }))
      if (event.type === 'finding') wrong ||= concernsFreeMap(event);
    return wrong;
  });
}

function concernsFreeMap({ error }: Extract<MaintEvent, { type: 'finding' }>): boolean {
  return (
    FREE_MAP_STRUCTURES.includes(error.where.structure ?? '') || error.message.includes('sectors in use by')
  );
}

async function check(session: Session, store: Store, data: boolean, rebuilt: boolean): Promise<number> {
  const events = fsck(store.catalog, { data, signal: session.signal });
  const outcome = await runCheck(session, events, 'fsck', null);
  const { info } = store;
  const exitCode = rebuilt && outcome.exitCode === EXIT_OK ? EXIT_REPAIRED : outcome.exitCode;
  session.out.object('ingot.fsck/1', {
    store: info.uuid,
    sequence: info.sequence,
    data,
    freeMapRebuilt: rebuilt,
    ...outcome.json,
  });
  const verdict = outcome.findingCount === 0 ? 'no findings' : `${outcome.findingCount} findings`;
  session.out.line(
    `root ${info.sequence}, ${info.versionCount} versions, ` +
      `${formatBytes(outcome.scannedBytes)} read: ${rebuilt ? 'the free map was made anew; ' : ''}${verdict}`,
  );
  return exitCode;
}

export const register: CommandModule = (program, actions) => {
  program
    .command('fsck')
    .description('check the catalog and the free map; with --repair make the free map anew where it is wrong')
    .option('--data', 'also read every copy of every extent')
    .option('--repair', 'make anew what follows from the rest, and list what is lost')
    .action(
      actions.action<Options>(
        async (session, _arguments, options) => {
          const data = options.data === true;
          if (options.repair !== true || !(await isFreeMapWrong(session)))
            return session.withStore('r', (store) => check(session, store, data, false));
          return session.withStore('rw', (store) => check(session, store, data, true), {
            rebuildFreeMap: true,
            resilver: false,
          });
        },
        { health: true },
      ),
    );
};
