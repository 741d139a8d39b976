// ingot import: a safetensors file or a Hugging Face directory becomes a version.
//
// Invariants
//   1. Either the whole model becomes visible, with its tags, or nothing does.
//   2. A codec that this version does not have is refused before anything is read. Coding and deltas are lossless: the
//      exported files are those that were imported. Only --save-as loses, and the version says so for ever.

import { basename, resolve } from 'node:path';
import { DELTA_METADATA_KEY, LOSSY_METADATA_KEY, type VersionSummary } from '../../engine/index.js';
import type { CommandModule } from '../cli/program.js';
import { formatBytes, formatRate } from '../cli/progress.js';
import {
  collect,
  parseChoice,
  parseCodec,
  parseCodecRule,
  parseRedundancy,
  parseSize,
  parseWhole,
} from '../cli/values.js';
import { refOf, storedText, summaryJson } from '../cli/views.js';
import { importModel } from '../import/importer.js';

/** A third less of bf16 weights for a quarter of an import's rate on two cores (decisions/0018). */
const DEFAULT_CODEC = 'auto';
const SAVE_AS = ['bf16'] as const;

interface Options {
  readonly as: string;
  readonly step?: string;
  readonly tag?: readonly string[];
  readonly redundancy?: string;
  readonly chunk?: string;
  readonly codec: string;
  readonly codecFor?: readonly string[];
  readonly delta?: string;
  readonly saveAs?: string;
  readonly verifySource?: boolean;
}

export const register: CommandModule = (program, actions) => {
  program
    .command('import')
    .description('store a .safetensors file or a Hugging Face directory as a version')
    .argument('<path>', 'file or directory')
    .requiredOption('--as <run>', 'run that the version belongs to')
    .option('--step <n>', 'step of the version in its run')
    .option('--tag <tag>', 'tag to move to the version; may be given again', collect)
    .option('--redundancy <n>', "copies of each chunk: 1, 2 or 3 (default: the store's)")
    .option('--chunk <size>', "bytes of a chunk (default: the store's)")
    .option('--codec <codec>', 'raw, auto (smaller where it helps) or max (smallest)', DEFAULT_CODEC)
    .option('--codec-for <glob=codec>', 'another codec for tensors of this name; may be given again', collect)
    .option('--delta <ref>', 'store tensors as differences to those of a version; equal ones are linked')
    .option('--save-as <dtype>', 'bf16: store fp32 tensors as bf16, rounded to nearest even (lossy)')
    .option('--verify-source', 'read every source again before the commit and compare')
    .addHelpText(
      'after',
      '\nExamples:\n  ingot import ./Meta-Llama-3-8B --as llama-3-8b --redundancy 1\n' +
        '  ingot import step-1200.safetensors --as exp42/ckpt --step 1200 --tag best\n' +
        '  ingot import step-1300.safetensors --as exp42/ckpt --step 1300 --delta exp42/ckpt@1200' +
        '\n\nSize, times and inode of every source are compared before and after. --verify-source also reads' +
        '\nthe bytes a second time; a change that was made and undone between the two reads is seen by neither.',
    )
    .action(
      actions.action<Options>(async (session, [path = ''], options) => {
        const codec = parseCodec('--codec', options.codec);
        const settings = {
          run: options.as,
          tags: options.tag ?? [],
          verifySource: options.verifySource === true,
          codec,
          codecRules: (options.codecFor ?? []).map((rule) => parseCodecRule('--codec-for', rule)),
          metadata: { 'import.source': basename(resolve(path)) },
          ...(options.delta === undefined ? {} : { delta: options.delta }),
          ...(options.saveAs === undefined
            ? {}
            : { saveAs: parseChoice('--save-as', options.saveAs, SAVE_AS) }),
          ...(options.step === undefined ? {} : { step: parseWhole('--step', options.step, 0) }),
          ...(options.redundancy === undefined ? {} : { redundancy: parseRedundancy(options.redundancy) }),
          ...(options.chunk === undefined ? {} : { chunkBytes: parseSize('--chunk', options.chunk) }),
        };
        await session.withStore('rw', async (store) => {
          const startedMs = performance.now();
          const meter = session.progress(`import ${options.as}`, null);
          const ioPath = store.info.members[0]?.ioPath ?? 'unknown';
          const { version, source } = await importModel(store, path, {
            ...settings,
            signal: session.signal,
            onSource: (found) => meter.setTotal(found.totalBytes),
            onProgress: (bytes, phase, items) => meter.update({ bytes, phase, items, path: ioPath }),
          });
          meter.finish({ bytes: source.totalBytes, path: ioPath });
          const durationMs = performance.now() - startedMs;
          const notes = [...source.notes, ...lossNotes(version, source.sidecars.length)];
          for (const note of notes) session.log('warn', note);
          const bytesPerSec = (source.totalBytes * 1000) / durationMs;
          session.out.object('ingot.import/1', {
            ...summaryJson(version),
            format: source.format,
            sourceBytes: source.totalBytes,
            codec,
            base: version.base,
            notes,
            verifiedSource: options.verifySource === true,
            path: ioPath,
            durationMs,
            bytesPerSec,
          });
          const files = source.files.length + source.sidecars.length;
          const sizes = `${formatBytes(source.totalBytes)} (${storedText(version)})`;
          session.out.line(
            `${refOf(version)} (${version.id}): ${source.tensorCount} tensors in ${files} files, ` +
              `${sizes} at ${formatRate(bytesPerSec)} through ${ioPath}`,
          );
          const { [DELTA_METADATA_KEY]: against } = version.metadata;
          if (against !== undefined) session.out.line(`against ${against}`);
        });
        return undefined;
      }),
    );
};

/** What --save-as lost, and what it does not touch. */
function lossNotes({ metadata }: VersionSummary, sidecarCount: number): string[] {
  const { [LOSSY_METADATA_KEY]: lost } = metadata;
  if (lost === undefined) return [];
  const kept =
    sidecarCount === 0
      ? ''
      : '; the other files are kept as they were, with what they say of sizes and types';
  return [`${lost}: an export gives these, not the files imported${kept}.`];
}
