// ingot rm: removes one version.
//
// Invariants
//   1. A bare run is refused: what is removed is named by tag, step or id.
//   2. A version with tags other than `latest` is removed with --force only.

import { parseRef } from '../../format/keys.js';
import type { CommandModule } from '../cli/program.js';
import { formatBytes } from '../cli/progress.js';
import { usageError } from '../cli/values.js';
import { summaryJson } from '../cli/views.js';

interface Options {
  readonly force?: boolean;
}

export const register: CommandModule = (program, actions) => {
  program
    .command('rm')
    .description('remove a version; its space is free again two commits later')
    .argument('<ref>', 'run@tag, run@step or v:ID')
    .option('--force', 'also when it has tags')
    .action(
      actions.action<Options>(async (session, [ref = ''], options) => {
        parseRef(ref);
        if (!ref.includes('@') && !ref.startsWith('v:')) {
          throw usageError(
            `${ref} names a run, not a version.`,
            `ingot rm ${ref}@latest, or ingot ls ${ref} for its versions`,
          );
        }
        await session.withStore('rw', async (store) => {
          const version = await store.get(ref, { signal: session.signal });
          // By id: the version that was looked at is the one that goes.
          await store.remove(version.id, { force: options.force === true, signal: session.signal });
          session.out.object('ingot.rm/1', { removed: summaryJson(version) });
          session.out.line(
            `removed ${version.id} of ${version.run} (${formatBytes(version.storedBytes)} stored)`,
          );
        });
        return undefined;
      }),
    );
};
