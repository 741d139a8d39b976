// ingot stat: one tensor: type, shape, sum, where its pieces lie, and on request what its values are.
//
// Invariants
//   1. Without --values no byte of the tensor is read.
//   2. --values streams: memory does not grow with the tensor.

import { formatShape, hexSum } from '../cli/output.js';
import type { CommandModule } from '../cli/program.js';
import { formatBytes } from '../cli/progress.js';
import { tensorJson } from '../cli/views.js';
import { ValueStatistics } from '../cli/value_statistics.js';

interface Options {
  readonly values?: boolean;
  readonly all?: boolean;
}
/** Pieces shown without --all. */
const SHOWN_PIECES = 16;
const STREAM_CHUNK_BYTES = 4 * 1024 * 1024;

export const register: CommandModule = (program, actions) => {
  program
    .command('stat')
    .description('show one tensor: type, shape, sum and where its pieces lie')
    .argument('<ref>', 'run@tag, run@step, run or v:ID')
    .argument('<tensor>', 'name of a tensor')
    .option('--values', 'read it, and show minimum, maximum, mean and counts of NaN and infinity')
    .option('--all', 'show every piece')
    .action(
      actions.action<Options>(async (session, [ref = '', name = ''], options) => {
        await session.withStore('r', async (store) => {
          const version = await store.get(ref, { signal: session.signal });
          const tensor = version.tensor(name);
          const pieces = await tensor.extents();
          const members = [...new Set(pieces.map(({ member }) => member))];
          let values: ReturnType<ValueStatistics['result']> | null = null;
          if (options.values === true) {
            const statistics = new ValueStatistics(tensor.dtype);
            const meter = session.progress(`stat ${name}`, tensor.byteLength);
            let bytes = 0;
            for await (const chunk of tensor.stream({
              chunkBytes: STREAM_CHUNK_BYTES,
              signal: session.signal,
            })) {
              statistics.add(chunk);
              bytes += chunk.byteLength;
              meter.update({ bytes });
            }
            meter.finish({ bytes });
            values = statistics.result();
          }
          session.out.object('ingot.stat/1', {
            version: version.id,
            ...tensorJson(tensor),
            inCatalog: pieces.length === 0,
            members,
            pieces,
            values,
          });
          session.out.fields([
            ['tensor', tensor.name],
            ['version', version.id],
            ['dtype', tensor.dtype],
            ['shape', formatShape(tensor.shape)],
            ['bytes', `${tensor.byteLength} (${formatBytes(tensor.byteLength)})`],
            ['crc64', hexSum(Buffer.from(tensor.checksum).readBigUInt64BE())],
            ['members', pieces.length === 0 ? 'inside the catalog' : members.join(', ')],
            ...(values === null
              ? []
              : Object.entries(values).map(([key, value]) => [key, String(value)] as const)),
          ]);
          if (pieces.length === 0) return;
          const shown = options.all === true ? pieces : pieces.slice(0, SHOWN_PIECES);
          session.out.line();
          session.out.table(
            ['MEMBER', 'COPY', 'OFFSET', 'LENGTH'],
            shown.map(({ member, copy, offset, length }) => [member, copy, offset, length]),
          );
          if (shown.length < pieces.length)
            session.out.line(`and ${pieces.length - shown.length} more (--all)`);
        });
        return undefined;
      }),
    );
};
