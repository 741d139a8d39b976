// ingot prune: removes old versions of a run by rules, and says for each version why it stays or goes.
//
// Invariants
//   1. --dry-run decides exactly as the real run does, and changes nothing.
//   2. Without a rule nothing is removed: that is a usage error.

import type { Retention } from '../../engine/index.js';
import type { CommandModule } from '../cli/program.js';
import { formatBytes } from '../cli/progress.js';
import { parseWhole, usageError } from '../cli/values.js';
import { formatTime, summaryJson } from '../cli/views.js';

interface Options {
  readonly keepLast?: string;
  readonly keepEvery?: string;
  readonly keepBest?: string;
  readonly dryRun?: boolean;
}

export const register: CommandModule = (program, actions) => {
  program
    .command('prune')
    .description('remove versions of a run that no rule keeps')
    .argument('<run>', 'a run')
    .option('--keep-last <n>', 'keep the newest N')
    .option('--keep-every <k>', 'keep those whose step is a multiple of K')
    .option('--keep-best <rule>', 'keep the best N by a metric: min:val_loss:3')
    .option('-n, --dry-run', 'only say what would happen')
    .addHelpText('after', '\nA version that any rule keeps stays; so do the newest one and those with tags.')
    .action(
      actions.action<Options>(async (session, [run = ''], options) => {
        const policy = policyOf(options);
        const dryRun = options.dryRun === true;
        await session.withStore(dryRun ? 'r' : 'rw', async (store) => {
          const decisions = await store.prune(run, policy, { dryRun, signal: session.signal });
          const removed = decisions.filter(({ action }) => action === 'remove');
          const storedBytes = removed.reduce((sum, { version }) => sum + version.storedBytes, 0);
          session.out.object('ingot.prune/1', {
            run,
            dryRun,
            removed: removed.length,
            removedStoredBytes: storedBytes,
            decisions: decisions.map(({ version, action, reasons }) => ({
              action,
              reasons,
              version: summaryJson(version),
            })),
          });
          session.out.table(
            ['VERSION', 'STEP', 'CREATED', 'ACTION', 'WHY'],
            decisions.map(({ version, action, reasons }) => [
              version.id,
              version.step ?? '-',
              formatTime(version.createdAt),
              action,
              reasons.join(', ') || 'no rule keeps it',
            ]),
          );
          const verb = dryRun ? 'would be removed' : 'removed';
          session.out.line(
            `${removed.length} of ${decisions.length} versions ${verb} (${formatBytes(storedBytes)} stored)`,
          );
        });
        return undefined;
      }),
    );
};

function policyOf(options: Options): Retention {
  const best = options.keepBest === undefined ? null : /^(min|max):(.+):(\d+)$/.exec(options.keepBest);
  if (options.keepBest !== undefined && best === null) {
    throw usageError(`--keep-best ${options.keepBest}: must be such as min:val_loss:3.`);
  }
  const policy: Retention = {
    ...(options.keepLast === undefined ? {} : { last: parseWhole('--keep-last', options.keepLast, 0) }),
    ...(options.keepEvery === undefined
      ? {}
      : { everySteps: parseWhole('--keep-every', options.keepEvery, 1) }),
    ...(best === null
      ? {}
      : {
          best: {
            mode: best[1] as 'min' | 'max',
            metric: best[2] ?? '',
            n: parseWhole('--keep-best', best[3] ?? '', 1),
          },
        }),
  };
  if (Object.keys(policy).length === 0) {
    throw usageError(
      'No rule is given, so everything without a tag would go.',
      'ingot prune RUN --keep-last 3 --dry-run',
    );
  }
  return policy;
}
