// ingot add: takes a new member into the store and spreads what is short of copies onto it.
//
// Invariants
//   1. A device or file that has something on it is taken with --force only.
//   2. Cut short, the store is as before or has the member; `ingot online` does the rest.

import type { CommandModule } from '../cli/program.js';
import { OPEN_FOR_MEMBER_JOB, finishMembers, report } from '../cli/member_jobs.js';
import { parseSize } from '../cli/values.js';

interface Options {
  readonly size?: string;
  readonly force?: boolean;
  readonly rate?: string;
}

export const register: CommandModule = (program, actions) => {
  program
    .command('add')
    .description('take a new member into the store')
    .argument('<path>', 'a block device, or a file to be made')
    .option('--size <size>', 'length of a file member')
    .option('--rate <size>', 'move at most so much per second, such as 200MiB')
    .option('--force', 'although something is on it')
    .action(
      actions.action<Options>(
        async (session, [path = ''], options) => {
          const rate = options.rate === undefined ? undefined : parseSize('--rate', options.rate);
          const size = options.size === undefined ? {} : { sizeBytes: parseSize('--size', options.size) };
          return session.withStore(
            'rw',
            async (store) => {
              const index = await store.addMember({ path, ...size, force: options.force === true });
              session.out.line(`${path} is member ${index}`);
              const outcome = await finishMembers(session, store, rate);
              report(session, store, 'add', outcome, { member: index, path });
              return outcome.exitCode;
            },
            OPEN_FOR_MEMBER_JOB,
          );
        },
        { health: true },
      ),
    );
};
