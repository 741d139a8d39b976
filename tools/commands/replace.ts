// ingot replace: a new member in the place of one that is failing, gone, or to be retired.
//
// Invariants
//   1. The new member is in the store before the old one is asked to leave.
//   2. The old one is detached when no extent is left on it; what only it held is named.

import type { CommandModule } from '../cli/program.js';
import { OPEN_FOR_MEMBER_JOB, finishMembers, memberIndex, report } from '../cli/member_jobs.js';
import { parseSize } from '../cli/values.js';

interface Options {
  readonly size?: string;
  readonly force?: boolean;
  readonly rate?: string;
}

export const register: CommandModule = (program, actions) => {
  program
    .command('replace')
    .description('put a new member in the place of another')
    .argument('<member>', 'the old one: its index or path, as ingot status shows them')
    .argument('<path>', 'the new one: a block device, or a file to be made')
    .option('--size <size>', 'length of a file member')
    .option('--rate <size>', 'move at most so much per second, such as 200MiB')
    .option('--force', 'although something is on the new one')
    .action(
      actions.action<Options>(
        async (session, [member = '', path = ''], options) => {
          const rate = options.rate === undefined ? undefined : parseSize('--rate', options.rate);
          const size = options.size === undefined ? {} : { sizeBytes: parseSize('--size', options.size) };
          return session.withStore(
            'rw',
            async (store) => {
              const old = memberIndex(store, member);
              const index = await store.addMember({ path, ...size, force: options.force === true });
              // In sync first: the quorum must not hang on the one that leaves.
              await store.settleMembers({ signal: session.signal });
              await store.leaveMember(old);
              session.out.line(`${path} is member ${index} and takes the place of member ${old}`);
              const outcome = await finishMembers(session, store, rate);
              report(session, store, 'replace', outcome, { member: index, path, replaced: old });
              return outcome.exitCode;
            },
            OPEN_FOR_MEMBER_JOB,
          );
        },
        { health: true },
      ),
    );
};
