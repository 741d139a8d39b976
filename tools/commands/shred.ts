// ingot shred: removes one version of an encrypted store, and what its bytes could be opened with.
//
// Invariants
//   1. A bare run is refused: what is shredded is named by tag, step or id.
//   2. It is told as complete only when no member is left on which old keys may stand.

import { parseRef } from '../../format/keys.js';
import type { CommandModule } from '../cli/program.js';
import { usageError } from '../cli/values.js';
import { summaryJson } from '../cli/views.js';
import { warnOldKeys } from '../cli/old_keys.js';

interface Options {
  readonly force?: boolean;
}

export const register: CommandModule = (program, actions) => {
  program
    .command('shred')
    .description('remove a version of an encrypted store, and every key that opens its bytes')
    .argument('<ref>', 'run@tag, run@step or v:ID')
    .option('--force', 'also when it has tags')
    .action(
      actions.action<Options>(async (session, [ref = ''], options) => {
        parseRef(ref);
        if (!ref.includes('@') && !ref.startsWith('v:')) {
          throw usageError(
            `${ref} names a run, not a version.`,
            `ingot shred ${ref}@latest, or ingot ls ${ref} for its versions`,
          );
        }
        await session.withStore('rw', async (store) => {
          const version = await store.get(ref, { signal: session.signal });
          // By id: the version that was looked at is the one that goes.
          const force = options.force === true;
          const { notErased } = await store.shred(version.id, { force, signal: session.signal });
          const paths = notErased.map(({ path }) => path);
          session.out.object('ingot.shred/1', {
            shredded: summaryJson(version),
            isComplete: paths.length === 0,
            oldKeysOn: paths,
          });
          const done = paths.length === 0 ? 'shredded' : 'removed, not yet shredded everywhere:';
          session.out.line(`${done} ${version.id} of ${version.run}`);
          warnOldKeys(session, paths);
        });
        return undefined;
      }),
    );
};
