// ingot get: the bytes of one tensor or blob, to a file or to stdout.
//
// Invariants
//   1. A file appears complete or not at all, and replaces nothing without --force.
//   2. Every byte was verified before it is written; memory does not grow with the object.

import { once } from 'node:events';
import { link, open, rename, rm } from 'node:fs/promises';
import type { Version } from '../../engine/index.js';
import { StoreError } from '../../format/errors.js';
import { fileError } from '../cli/file_error.js';
import type { CommandModule } from '../cli/program.js';
import { formatBytes } from '../cli/progress.js';
import type { Session } from '../cli/session.js';
import { usageError } from '../cli/values.js';
import { faultText } from '../cli/views.js';

interface Options {
  readonly output?: string;
  readonly force?: boolean;
}
const CHUNK_BYTES = 4 * 1024 * 1024;

export const register: CommandModule = (program, actions) => {
  program
    .command('get')
    .description('write the bytes of one tensor or blob')
    .argument('<ref>', 'run@tag, run@step, run or v:ID')
    .argument('<name>', 'name of a tensor or blob')
    .option('-o, --output <file>', 'file to write; - is stdout (default)')
    .option('--force', 'replace the file if it exists')
    .action(
      actions.action<Options>(async (session, [ref = '', name = ''], options) => {
        const output = options.output ?? '-';
        if (output === '-' && session.out.json)
          throw usageError('--json needs -o FILE: stdout carries the bytes.');
        await session.withStore('r', async (store) => {
          const version = await store.get(ref, { signal: session.signal });
          const object = find(version, name);
          const meter = session.progress(`get ${name}`, object.byteLength);
          const onFault = (fault: Parameters<typeof faultText>[0]): void =>
            session.log('warn', faultText(fault));
          const chunks = object.stream({ chunkBytes: CHUNK_BYTES, signal: session.signal, onFault });
          let bytes = 0;
          const counted = (async function* () {
            for await (const chunk of chunks) {
              yield chunk;
              bytes += chunk.byteLength;
              meter.update({ bytes });
            }
          })();
          if (output === '-') await toStdout(session, counted);
          else await toFile(output, counted, options.force === true);
          meter.finish({ bytes });
          session.out.object('ingot.get/1', {
            version: version.id,
            kind: object.kind,
            name,
            rawBytes: bytes,
            output,
          });
          if (output !== '-') session.log('info', `${output}: ${formatBytes(bytes)}`);
        });
        return undefined;
      }),
    );
};

function find(version: Version, name: string) {
  if (version.hasTensor(name)) {
    const tensor = version.tensor(name);
    return { kind: 'tensor' as const, byteLength: tensor.byteLength, stream: tensor.stream.bind(tensor) };
  }
  if (!version.hasBlob(name)) {
    throw new StoreError('E_NOT_FOUND', `${version.id} has no tensor and no blob ${name}.`, {
      where: { object: version.id, tensor: name },
      next: `ingot tree ${version.id}`,
    });
  }
  const blob = version.blob(name);
  return { kind: 'blob' as const, byteLength: blob.byteLength, stream: blob.stream.bind(blob) };
}

async function toStdout(session: Session, chunks: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const chunk of chunks) {
    if (!process.stdout.write(chunk)) await once(process.stdout, 'drain', { signal: session.signal });
  }
}

async function toFile(path: string, chunks: AsyncIterable<Uint8Array>, force: boolean): Promise<void> {
  const staged = `${path}.ingot-${process.pid}`;
  try {
    const handle = await open(staged, 'wx');
    try {
      for await (const chunk of chunks) {
        for (let done = 0; done < chunk.byteLength; ) done += (await handle.write(chunk, done)).bytesWritten;
      }
      await handle.sync();
    } finally {
      await handle.close();
    }
    // A link fails where a file exists; a rename would replace it.
    if (force) await rename(staged, path);
    else await link(staged, path);
  } catch (error) {
    throw fileError(error, { file: path, doing: 'writing', safe: 'the store, and what was at that path' });
  } finally {
    await rm(staged, { force: true });
  }
}
