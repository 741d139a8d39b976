// ingot bench: measures this machine beside what its drives can do. The benchmarks are a program of their own.
//
// Invariants
//   1. All arguments are handed on as they are; the exit code is the benchmark's.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { StoreError } from '../../format/errors.js';
import type { CommandModule } from '../cli/program.js';

/** Where the built benchmarks may be, beside dist/tools/commands/. */
const PLACES = ['../bench/index.js', '../bench.js'];

export const register: CommandModule = (program, actions) => {
  program
    .command('bench')
    .description('measure beside fio and peers (io, catalog, peers, ...: ingot bench --help)')
    .argument('[arguments...]', 'what to measure, and its options')
    .allowUnknownOption()
    .helpOption(false)
    .passThroughOptions(false)
    .action(async (given: string[], _options: unknown, command: { readonly args: readonly string[] }) => {
      const run = actions.action<object>(async (session) => {
        const script = PLACES.map((place) => fileURLToPath(new URL(place, import.meta.url))).find((path) =>
          existsSync(path),
        );
        if (script === undefined) {
          throw new StoreError('E_UNSUPPORTED', 'The benchmarks are not part of this build.', {
            next: 'run npm run bench in a checkout',
          });
        }
        const own = command.args.length > 0 ? command.args : given;
        // The program takes --json wherever it stands, so it is handed on.
        const handed = session.out.json ? [...own, '--json'] : own;
        const child = spawn(process.execPath, [script, ...handed], { stdio: 'inherit' });
        // Ctrl-C reaches the child from the terminal; other signals are handed on.
        session.signal.addEventListener('abort', () => child.kill('SIGTERM'), { once: true });
        return new Promise<number>((resolve, reject) => {
          child.on('error', reject);
          child.on('exit', (code) => resolve(code ?? 1));
        });
      });
      await run(given, _options, command);
    });
};
