// ingot put: a new version of a run with one more tensor or blob, or another one of that name.
//
// Invariants
//   1. Versions are immutable: what is put becomes part of a new version, and `latest` moves to it. Everything else of
//      the base (the run's latest, when there is one) is carried over: tensors by reference, blobs by copy.
//   2. What cannot be carried over is said: files of tensors can be exported byte for byte from the base only.
//   3. The base is the one that was read: a commit by somebody else in between is not overwritten silently, since
//      the new version says what its base was (metadata `put.base`).

import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename, resolve } from 'node:path';
import type { Store, Transaction, Version } from '../../engine/index.js';
import { isStoreError } from '../../format/errors.js';
import type { CommandModule } from '../cli/program.js';
import { collect, parseDType, parseRedundancy, parseShape, parseWhole, usageError } from '../cli/values.js';
import { refOf, summaryJson } from '../cli/views.js';
import { sourceError } from '../safetensors/walk.js';

interface Options {
  readonly dtype?: string;
  readonly shape?: string;
  readonly step?: string;
  readonly tag?: readonly string[];
  readonly base?: string;
  readonly alone?: boolean;
  readonly redundancy?: string;
}

export const register: CommandModule = (program, actions) => {
  program
    .command('put')
    .description('make a new version of a run with one object added or replaced')
    .argument('<run>', 'a run; it need not exist')
    .argument('<name>', 'name of the object; with one argument, the file, and its name is used')
    .argument('[file]', 'file to read; - is stdin')
    .option('--dtype <dtype>', 'store a tensor of this dtype instead of a blob (with --shape)')
    .option('--shape <sizes>', 'sizes of the tensor, such as 4096,14336')
    .option('--step <n>', 'step of the new version')
    .option('--tag <tag>', 'tag to move to it; may be given again', collect)
    .option('--base <ref>', "version to carry everything else over from (default: the run's latest)")
    .option('--alone', 'carry nothing over')
    .option('--redundancy <n>', "copies of each chunk: 1, 2 or 3 (default: the store's)")
    .action(
      actions.action<Options>(async (session, [run = '', first = '', second = ''], options) => {
        const file = second === '' ? first : second;
        const name = second === '' ? basename(file) : first;
        if (second === '' && file === '-') throw usageError('stdin needs a name: ingot put RUN NAME -');
        if ((options.dtype === undefined) !== (options.shape === undefined)) {
          throw usageError('A tensor needs both --dtype and --shape.');
        }
        if (options.alone === true && options.base !== undefined)
          throw usageError('--alone and --base exclude each other.');
        await session.withStore('rw', async (store) => {
          const base = options.alone === true ? null : await baseOf(store, run, options.base);
          const { signal } = session;
          const transaction = await store.begin(run, {
            signal,
            ...(base === null ? {} : { base: base.id, metadata: { ...base.metadata, 'put.base': base.id } }),
            ...(options.step === undefined ? {} : { step: parseWhole('--step', options.step, 0) }),
            ...(options.redundancy === undefined ? {} : { redundancy: parseRedundancy(options.redundancy) }),
          });
          try {
            const left = base === null ? 0 : await carryOver(transaction, base, name);
            await putFile(transaction, name, file, options);
            const version = await transaction.commit({ signal, tags: options.tag ?? [] });
            if (left > 0 && base !== null) {
              session.log(
                'warn',
                `${left} files of tensors can be exported byte for byte from ${base.id} only`,
              );
            }
            session.out.object('ingot.put/1', { ...summaryJson(version), name, base: base?.id ?? null });
            session.out.line(
              `${refOf(version)} (${version.id}): ${name}${base === null ? '' : `, the rest from ${base.id}`}`,
            );
          } catch (error) {
            await transaction.abort(error);
            throw error;
          }
        });
        return undefined;
      }),
    );
};

async function baseOf(store: Store, run: string, ref: string | undefined): Promise<Version | null> {
  try {
    return await store.get(ref ?? run);
  } catch (error) {
    if (ref === undefined && isStoreError(error, 'E_NOT_FOUND')) return null;
    throw error;
  }
}

/** Links tensors and copies blobs of `base`, except what `name` replaces. Resolves with the tensor files lost. */
async function carryOver(transaction: Transaction, base: Version, name: string): Promise<number> {
  for (const tensor of base.names) if (tensor !== name) await transaction.link(tensor);
  const files = new Map(base.files.map((file) => [file.name, file]));
  for (const blob of base.blobNames) {
    if (blob === name) continue;
    const file = files.get(blob);
    if (file?.format === 'blob') transaction.addFile({ name: blob, mode: file.mode });
    const { contentType } = base.blob(blob);
    await transaction.putBlob(blob, base.blob(blob).stream(), contentType === null ? {} : { contentType });
  }
  return [...files.values()].filter((file) => file.format === 'safetensors').length;
}

async function putFile(
  transaction: Transaction,
  name: string,
  file: string,
  options: Options,
): Promise<void> {
  const meta =
    options.dtype === undefined
      ? null
      : { dtype: parseDType(options.dtype), shape: parseShape(options.shape ?? '') };
  if (file === '-') {
    if (meta === null) await transaction.putBlob(name, process.stdin);
    else await transaction.putStream(name, process.stdin, meta);
    return;
  }
  const path = resolve(file);
  try {
    const found = await stat(path);
    if (!found.isFile()) throw usageError(`${file} is no regular file.`);
    if (meta !== null) {
      await transaction.putFile(name, { path, byteLength: found.size }, meta);
      return;
    }
    transaction.addFile({ name, mode: found.mode & 0o777 });
    await transaction.putBlob(name, createReadStream(path, { highWaterMark: 1024 * 1024 }));
  } catch (error) {
    throw sourceError(error, file);
  }
}
