// ingot put: a new version of a run with one more tensor or blob, or another one of that name.
//
// Invariants
//   1. Versions are immutable: what is put becomes part of a new version, and `latest` moves to it. Everything else of
//      the base (the run's latest, when there is one) is carried over by reference, its files too.
//   2. What cannot be carried over is said: a file of tensors one of which has another dtype or shape now, or became a
//      blob, can be exported byte for byte from the base only.
//   3. The base is the one that was read: a commit by somebody else in between is not overwritten silently, since
//      the new version says what its base was (metadata `put.base`).

import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename, resolve } from 'node:path';
import type { Store, Transaction, Version } from '../../engine/index.js';
import { isStoreError } from '../../format/errors.js';
import { fileNameProblem } from '../../format/manifest_record.js';
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
            if (base !== null) await transaction.linkAll({ except: [name] });
            await putFile(transaction, name, file, options, base);
            const version = await transaction.commit({ signal, tags: options.tag ?? [] });
            const filesLost = base === null ? [] : filesMissing(base, version);
            for (const lost of filesLost) {
              session.log('warn', `${lost} can be exported byte for byte from ${base?.id} only`);
            }
            session.out.object('ingot.put/1', {
              ...summaryJson(version),
              name,
              base: base?.id ?? null,
              filesLost,
            });
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

/** Names of the base's files that the version does not have. */
function filesMissing(base: Version, version: Version): string[] {
  const kept = new Set(version.files.map((file) => file.name));
  return base.files.map((file) => file.name).filter((name) => !kept.has(name));
}

async function putFile(
  transaction: Transaction,
  name: string,
  file: string,
  options: Options,
  base: Version | null,
): Promise<void> {
  // Only a blob whose name is a path can be a file of an export.
  const mayBeFile = fileNameProblem(name) === null;
  const meta =
    options.dtype === undefined
      ? null
      : { dtype: parseDType(options.dtype), shape: parseShape(options.shape ?? '') };
  if (file === '-') {
    const mode = base?.files.find((each) => each.name === name)?.mode;
    if (meta === null && mayBeFile) transaction.addFile({ name, ...(mode === undefined ? {} : { mode }) });
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
    if (mayBeFile) transaction.addFile({ name, mode: found.mode & 0o777 });
    await transaction.putBlob(name, createReadStream(path, { highWaterMark: 1024 * 1024 }));
  } catch (error) {
    throw sourceError(error, file);
  }
}
