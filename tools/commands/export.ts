// ingot export: a version becomes files again, byte for byte, or fresh safetensors files.
//
// Invariants
//   1. Files appear complete or not at all; none is replaced without --force.
//   2. Every byte was verified on reading, and every file has the sum that was recorded for it.

import type { CommandModule } from '../cli/program.js';
import { formatBytes, formatRate } from '../cli/progress.js';
import { parseChoice, parseSize } from '../cli/values.js';
import { faultText } from '../cli/views.js';
import { exportVersion } from '../export/exporter.js';
import { EXPORT_FORMATS } from '../export/plan.js';
import { hexSum } from '../cli/output.js';

interface Options {
  readonly format: string;
  readonly force?: boolean;
  readonly maxShard?: string;
}

export const register: CommandModule = (program, actions) => {
  program
    .command('export')
    .description('write the files of a version')
    .argument('<ref>', 'run@tag, run@step, run or v:ID')
    .argument('<out>', 'directory, or FILE.safetensors when the export is one file')
    .option(
      '--format <format>',
      'original (every file byte for byte) or safetensors (fresh files)',
      'original',
    )
    .option('--max-shard <size>', 'tensor bytes of a fresh file (default 5GB)')
    .option('--force', 'replace files that exist')
    .action(
      actions.action<Options>(async (session, [ref = '', out = ''], options) => {
        const format = parseChoice('--format', options.format, EXPORT_FORMATS);
        const shard =
          options.maxShard === undefined ? {} : { maxShardBytes: parseSize('--max-shard', options.maxShard) };
        return session.withStore('r', async (store) => {
          const version = await store.get(ref, { signal: session.signal });
          const startedMs = performance.now();
          const meter = session.progress(`export ${ref}`, null);
          const ioPath = store.info.members[0]?.ioPath ?? 'unknown';
          const exported = await exportVersion(store, version, out, {
            format,
            ...shard,
            force: options.force === true,
            signal: session.signal,
            onPlan: (plan) => meter.setTotal(plan.totalBytes),
            onProgress: (bytes, items, path) => meter.update({ bytes, items, path: `${ioPath} to ${path}` }),
            onFault: (fault) => session.log('warn', faultText(fault)),
          });
          meter.finish({ bytes: exported.totalBytes, path: `${ioPath} to ${exported.path}` });
          const durationMs = performance.now() - startedMs;
          for (const note of exported.notes) session.log('warn', note);
          const bytesPerSec = (exported.totalBytes * 1000) / durationMs;
          session.out.object('ingot.export/1', {
            id: version.id,
            run: version.run,
            format,
            directory: exported.directory,
            totalBytes: exported.totalBytes,
            files: exported.files.map(({ name, sizeBytes, sum }) => ({
              name,
              sizeBytes,
              crc64: hexSum(sum),
            })),
            path: exported.path,
            notes: exported.notes,
            durationMs,
            bytesPerSec,
          });
          session.out.line(
            `${exported.files.length} files, ${formatBytes(exported.totalBytes)} at ` +
              `${formatRate(bytesPerSec)} in ${exported.directory}`,
          );
          return undefined;
        });
      }),
    );
};
