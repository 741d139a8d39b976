// ingot online, ingot offline: a member that comes back, or is set aside on purpose.
//
// Invariants
//   1. A member comes back only when it is exactly where the store last knew it; what it missed is placed then.
//   2. One that is set aside stays out until `online`, whoever opens the store.

import type { Store } from '../../engine/index.js';
import type { CommandModule } from '../cli/program.js';
import { OPEN_FOR_MEMBER_JOB, finishMembers, memberIndex, report } from '../cli/member_jobs.js';
import { storeJson } from '../cli/views.js';
import { parseSize } from '../cli/values.js';

interface Options {
  readonly force?: boolean;
  readonly rate?: string;
}

export const register: CommandModule = (program, actions) => {
  program
    .command('online')
    .description('bring a member back, and finish whatever is left to do for members')
    .argument(
      '[member]',
      'its index or path, as ingot status shows them; without it only what is left is done',
    )
    .argument('[path]', 'where its device is now, when it was not found')
    .option('--force', 'write without a quorum: what only missing members acknowledged is given up')
    .option('--rate <size>', 'move at most so much per second, such as 200MiB')
    .action(
      actions.action<Options>(
        async (session, [member = '', path = ''], options) => {
          const rate = options.rate === undefined ? undefined : parseSize('--rate', options.rate);
          const open = { ...OPEN_FOR_MEMBER_JOB, ...(options.force === true ? { force: true } : {}) };
          const body = async (store: Store): Promise<number> => {
            const index = member === '' ? null : memberIndex(store, member);
            if (index !== null) await store.onlineMember(index, path === '' ? undefined : path);
            const outcome = await finishMembers(session, store, rate);
            report(session, store, 'online', outcome, { member: index });
            return outcome.exitCode;
          };
          return session.withStore('rw', body, open);
        },
        { health: true },
      ),
    );
  program
    .command('offline')
    .description('set a member aside; the others go on without it')
    .argument('<member>', 'its index or path, as ingot status shows them')
    .action(
      actions.action<object>(async (session, [member = '']) => {
        await session.withStore('rw', async (store) => {
          const index = memberIndex(store, member);
          await store.offlineMember(index);
          session.out.object('ingot.offline/1', { member: index, store: storeJson(store.info) });
          session.out.line(`member ${index} is set aside; ingot online ${index} brings it back`);
        });
        return undefined;
      }),
    );
};
