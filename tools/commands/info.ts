// ingot info: one version in figures: sizes, dtypes, files, where its bytes are.
//
// Invariants
//   1. `storedBytes` is what the version takes on members (all copies, padding), `rawBytes` what it holds.
//   2. Extents are looked up only of versions that were begun against another.

import { DELTA_METADATA_KEY, type ExtentPlace, type Store, type Version } from '../../engine/index.js';
import { DeltaNames, type DeltaSummary, deltaText } from '../cli/delta_names.js';
import type { CommandModule } from '../cli/program.js';
import { formatBytes } from '../cli/progress.js';
import type { Session } from '../cli/session.js';
import { formatTime, storedText, summaryJson } from '../cli/views.js';

export const register: CommandModule = (program, actions) => {
  program
    .command('info')
    .description('show one version in figures')
    .argument('<ref>', 'run@tag, run@step, run or v:ID')
    .action(
      actions.action<object>(async (session, [ref = '']) => {
        await session.withStore('r', async (store) => {
          const version = await store.get(ref, { signal: session.signal });
          const dtypes = new Map<string, { tensors: number; rawBytes: number; elements: number }>();
          let parameters = 0;
          for (const { dtype, shape, byteLength } of version.tensors) {
            const totals = dtypes.get(dtype) ?? { tensors: 0, rawBytes: 0, elements: 0 };
            const elements = shape.reduce((product, size) => product * size, 1);
            totals.tensors++;
            totals.rawBytes += byteLength;
            totals.elements += elements;
            parameters += elements;
            dtypes.set(dtype, totals);
          }
          const files = version.files.map(({ name, sizeBytes, sum, format }) => ({
            name,
            sizeBytes,
            crc64: sum,
            format,
          }));
          const deltas = await deltasOf(session, store, version);
          session.out.object('ingot.info/1', {
            ...summaryJson(version),
            deltas,
            elementCount: parameters,
            dtypes: Object.fromEntries(dtypes),
            files,
          });
          const ratio =
            version.storedBytes === 0
              ? ''
              : ` (${(version.storedBytes / (version.byteLength - version.catalogBytes)).toFixed(4)} of raw)`;
          session.out.fields([
            ['run', version.run],
            ['version', version.id],
            ['step', version.step ?? '-'],
            ['tags', version.tags.join(', ') || '-'],
            ['created', formatTime(version.createdAt)],
            ['tensors', `${version.tensorCount}, ${parameters} elements`],
            ['blobs', version.blobCount],
            [
              'files',
              `${version.fileCount}${version.fileCount > 0 ? ', each exportable byte for byte' : ''}`,
            ],
            ['raw', `${formatBytes(version.byteLength)} (${version.byteLength} bytes)`],
            ['stored', storedText(version).replace(' stored', ratio)],
            ['redundancy', version.redundancy],
            ['chunk', formatBytes(version.chunkBytes)],
            ...(deltas === null ? [] : [['deltas', deltas.text] as const]),
            ...[...dtypes].map(
              ([dtype, { tensors, rawBytes }]) =>
                [dtype, `${tensors} tensors, ${formatBytes(rawBytes)}`] as const,
            ),
            ...Object.entries(version.metadata).map(([key, value]) => [key, value] as const),
            ...Object.entries(version.metrics).map(([key, value]) => [key, String(value)] as const),
          ]);
        });
        return undefined;
      }),
    );
};

/** Of a version that was stored against another: what of it is differences. Null of any other. */
async function deltasOf(
  session: Session,
  store: Store,
  version: Version,
): Promise<(DeltaSummary & { readonly text: string }) | null> {
  if (version.base === null && version.metadata[DELTA_METADATA_KEY] === undefined) return null;
  const names = await DeltaNames.of(store, version, session.signal);
  const places: ExtentPlace[] = [];
  for (const name of version.names) {
    session.signal.throwIfAborted();
    places.push(...(await version.tensor(name).extents()).filter(({ copy }) => copy === 0));
  }
  const summary = names.summarize(places);
  const against = version.base === null ? '' : `; begun against ${names.base}`;
  return { ...summary, text: `${deltaText(summary) ?? 'none'}${against}` };
}
