// ingot stat: one tensor: type, shape, sum, codec, where its pieces lie, and on request what its values are;
// or, without a tensor, one line for each tensor of a version: type, codec, ratio.
//
// Invariants
//   1. Without --values and --entropy no byte of a tensor is read.
//   2. Both stream: memory does not grow with the tensor.

import { formatShape, hexSum } from '../cli/output.js';
import type { CommandModule } from '../cli/program.js';
import { formatBytes } from '../cli/progress.js';
import { tensorJson } from '../cli/views.js';
import { codingOf, PlaneEntropy } from '../cli/tensor_coding.js';
import { DeltaNames, deltaText } from '../cli/delta_names.js';
import { ValueStatistics } from '../cli/value_statistics.js';
import type { Session } from '../cli/session.js';
import type { TensorRef, Version } from '../../engine/index.js';

interface Options {
  readonly values?: boolean;
  readonly all?: boolean;
  readonly entropy?: boolean;
}
/** Pieces shown without --all. */
const SHOWN_PIECES = 16;
const STREAM_CHUNK_BYTES = 4 * 1024 * 1024;

export const register: CommandModule = (program, actions) => {
  program
    .command('stat')
    .description('show one tensor: type, shape, sum, codec and where its pieces lie; or the codecs of all')
    .argument('<ref>', 'run@tag, run@step, run or v:ID')
    .argument('[tensor]', 'name of a tensor; without it every tensor is listed')
    .option('--values', 'read it, and show minimum, maximum, mean and counts of NaN and infinity')
    .option('--entropy', 'read it, and show the bits that each byte of its planes holds')
    .option('--all', 'show every piece')
    .action(
      actions.action<Options>(async (session, [ref = '', name], options) => {
        await session.withStore('r', async (store) => {
          const version = await store.get(ref, { signal: session.signal });
          if (name === undefined || name === '') {
            await listCodings(session, version, await DeltaNames.of(store, version, session.signal), options);
            return;
          }
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
          const coding = codingOf(tensor, pieces);
          const delta = (await DeltaNames.of(store, version, session.signal)).summarize(pieces);
          const planeBits = options.entropy === true ? await entropyOf(session, tensor) : null;
          session.out.object('ingot.stat/1', {
            version: version.id,
            ...tensorJson(tensor),
            inCatalog: pieces.length === 0,
            members,
            pieces,
            values,
            coding,
            delta,
            planeBits,
          });
          session.out.fields([
            ['tensor', tensor.name],
            ['version', version.id],
            ['dtype', tensor.dtype],
            ['shape', formatShape(tensor.shape)],
            ['bytes', `${tensor.byteLength} (${formatBytes(tensor.byteLength)})`],
            ['crc64', hexSum(Buffer.from(tensor.checksum).readBigUInt64BE())],
            ['codec', coding.codec],
            ...(delta.deltaExtents === 0 ? [] : [['base', deltaText(delta) ?? ''] as const]),
            ['stored', `${coding.storedBytes} (${coding.ratio.toFixed(4)} of raw, one copy)`],
            ...(planeBits === null ? [] : [['plane bits', planeBits.join(', ')] as const]),
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

async function entropyOf(session: Session, tensor: TensorRef): Promise<readonly number[]> {
  const entropy = new PlaneEntropy(tensor.dtype);
  for await (const chunk of tensor.stream({ chunkBytes: STREAM_CHUNK_BYTES, signal: session.signal }))
    entropy.add(chunk);
  return entropy.result();
}

async function listCodings(
  session: Session,
  version: Version,
  names: DeltaNames,
  options: Options,
): Promise<void> {
  const rows: object[] = [];
  const lines: (string | number)[][] = [];
  let rawBytes = 0;
  let storedBytes = 0;
  for (const { name } of version.tensors) {
    const tensor = version.tensor(name);
    const places = await tensor.extents();
    const coding = codingOf(tensor, places);
    const delta = names.summarize(places);
    const planeBits = options.entropy === true ? await entropyOf(session, tensor) : null;
    rawBytes += tensor.byteLength;
    storedBytes += coding.storedBytes;
    rows.push({ name, dtype: tensor.dtype, byteLength: tensor.byteLength, ...coding, delta, planeBits });
    lines.push([
      name,
      tensor.dtype,
      formatBytes(tensor.byteLength),
      coding.codec,
      coding.ratio.toFixed(4),
      deltaText(delta) ?? '-',
      ...(planeBits === null ? [] : [planeBits.map((bits) => bits.toFixed(2)).join(' ')]),
    ]);
  }
  const ratio = rawBytes === 0 ? 1 : storedBytes / rawBytes;
  session.out.object('ingot.stat-version/1', {
    version: version.id,
    rawBytes,
    storedBytes,
    ratio,
    tensors: rows,
  });
  const bits = options.entropy === true ? ['PLANE BITS'] : [];
  session.out.table(['TENSOR', 'DTYPE', 'BYTES', 'CODEC', 'RATIO', 'BASE', ...bits], lines);
  session.out.line(
    `${formatBytes(rawBytes)} in ${formatBytes(storedBytes)}: ${ratio.toFixed(4)} of raw, one copy`,
  );
}
