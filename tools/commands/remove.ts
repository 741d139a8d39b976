// ingot remove: empties a member and lets it go.
//
// Invariants
//   1. The member is detached when nothing is on it any more, not before; what is short of room elsewhere is told.
//   2. Cut short, the member goes on leaving at the next run; --keep takes the wish back.

import type { CommandModule } from '../cli/program.js';
import { OPEN_FOR_MEMBER_JOB, finishMembers, memberIndex, report } from '../cli/member_jobs.js';
import { parseSize } from '../cli/values.js';

interface Options {
  readonly keep?: boolean;
  readonly rate?: string;
}

export const register: CommandModule = (program, actions) => {
  program
    .command('remove')
    .description('empty a member and let it go')
    .argument('<member>', 'its index or path, as ingot status shows them')
    .option('--keep', 'take it back: the member stays')
    .option('--rate <size>', 'move at most so much per second, such as 200MiB')
    .action(
      actions.action<Options>(
        async (session, [member = ''], options) => {
          const rate = options.rate === undefined ? undefined : parseSize('--rate', options.rate);
          return session.withStore(
            'rw',
            async (store) => {
              const index = memberIndex(store, member);
              await store.leaveMember(index, options.keep !== true);
              const outcome = await finishMembers(session, store, rate);
              report(session, store, 'remove', outcome, { member: index, isLeaving: options.keep !== true });
              return outcome.exitCode;
            },
            OPEN_FOR_MEMBER_JOB,
          );
        },
        { health: true },
      ),
    );
};
