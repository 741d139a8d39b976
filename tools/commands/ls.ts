// ingot ls: the runs of a store, or the versions of a run. No manifest is read.
//
// Invariants
//   1. The work is proportional to what is listed; a run that is not there is E_NOT_FOUND, an empty store is not.

import { StoreError } from '../../format/errors.js';
import type { VersionInfo } from '../../engine/index.js';
import type { CommandModule } from '../cli/program.js';
import { formatBytes } from '../cli/progress.js';
import type { Session } from '../cli/session.js';
import { formatTime, summaryJson, VERSION_HEADINGS, versionRow } from '../cli/views.js';

interface Options {
  readonly tag?: string;
}
interface RunTotals {
  readonly run: string;
  versions: number;
  rawBytes: number;
  storedBytes: number;
  latest: VersionInfo | null;
}

export const register: CommandModule = (program, actions) => {
  program
    .command('ls')
    .description('list runs, or the versions of a run')
    .argument('[run]', 'a run')
    .option('--tag <tag>', 'only versions with this tag')
    .action(
      actions.action<Options>(async (session, [run = ''], options) => {
        const filter = options.tag === undefined ? {} : { tag: options.tag };
        await session.withStore('r', async (store) => {
          const query = run === '' ? filter : { ...filter, run };
          const versions = store.list(query, { signal: session.signal });
          if (run === '') return listRuns(session, versions);
          const found: VersionInfo[] = [];
          for await (const version of versions) found.push(version);
          if (found.length === 0) {
            const what = options.tag === undefined ? `run ${run}` : `version of ${run} tagged ${options.tag}`;
            throw new StoreError('E_NOT_FOUND', `There is no ${what}.`, {
              where: { object: run },
              next: 'ingot ls',
            });
          }
          session.out.object('ingot.ls.versions/1', { run, versions: found.map(summaryJson) });
          session.out.table(VERSION_HEADINGS, found.map(versionRow));
        });
        return undefined;
      }),
    );
};

async function listRuns(session: Session, versions: AsyncIterable<VersionInfo>): Promise<void> {
  const runs = new Map<string, RunTotals>();
  for await (const version of versions) {
    let totals = runs.get(version.run);
    if (totals === undefined) {
      totals = { run: version.run, versions: 0, rawBytes: 0, storedBytes: 0, latest: null };
      runs.set(version.run, totals);
    }
    totals.versions++;
    totals.rawBytes += version.byteLength;
    totals.storedBytes += version.storedBytes;
    if (version.tags.includes('latest') || totals.latest === null) totals.latest = version;
  }
  const list = [...runs.values()];
  session.out.object('ingot.ls/1', {
    runs: list.map(({ latest, ...totals }) => ({
      ...totals,
      latest: latest === null ? null : summaryJson(latest),
    })),
  });
  const rows = list.map(({ run, versions: count, rawBytes, storedBytes, latest }) => [
    run,
    count,
    latest?.id ?? '-',
    latest?.step ?? '-',
    latest === null ? '-' : formatTime(latest.createdAt),
    formatBytes(rawBytes),
    formatBytes(storedBytes),
  ]);
  if (list.length === 0) session.out.line('the store is empty');
  else session.out.table(['RUN', 'VERSIONS', 'LATEST', 'STEP', 'CREATED', 'SIZE', 'STORED'], rows);
}
