// The quickstart: what Ingot is for, shown on a generated model, with the rates beside what the disk can do.
//
//   model -> store over two members -> import -> tree -> verify -> cold load -> export, every byte compared
//   -> mirrored checkpoint -> one member's copy overwritten -> loaded intact all the same -> table
//
// Invariants
//   1. Everything lies in one directory that is the quickstart's own; a second run removes it and starts anew.
//   2. Every claim on the screen was checked in this run: bytes are compared, reads are shown to be cold (or that
//      nobody could check), rates come with the yardstick's rate on the same disk in the same run.
//   3. Big data is removed at the end unless --keep; after a Ctrl-C too.
//
// Setup (tools/setup.mjs) has asked already whether to go on; this program asks nothing.
// Usage: node dist/tools/quickstart.js [--dir DIR] [--size SIZE] [--keep] [--progress KIND]

import { mkdir, rm, statfs } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { Command, CommanderError } from 'commander';
import { describeError } from './cli/report.js';
import { formatBytes } from './cli/progress.js';
import { EXIT_FAILED, EXIT_OK, EXIT_USAGE, Interrupted, Session } from './cli/session.js';
import { parseSize } from './cli/values.js';
import { isStoreError } from '../format/errors.js';
import { StoreError } from '../engine/index.js';
import { Demonstration } from './quickstart/demonstration.js';

interface Options {
  readonly dir?: string;
  readonly size: string;
  readonly keep?: boolean;
  readonly progress?: string;
  readonly verbose?: boolean;
}
/** Where everything lies below --dir; below the current directory otherwise. */
const OWN_DIRECTORY = 'ingot-quickstart';
const DEFAULT_DIRECTORY = join('.ingot-data', 'quickstart');
/** Model, members (with the checkpoint and some room) and export, over the model's size. */
const SPACE_FACTOR = 4;
const SPACE_EXTRA_BYTES = 64 * 1024 * 1024;
const MIN_MODEL_BYTES = 1024 * 1024;

function parseArguments(argv: readonly string[]): Options {
  const command = new Command('quickstart')
    .option('--dir <dir>', `directory on the disk to use (default: ${DEFAULT_DIRECTORY})`)
    .option('--size <size>', 'size of the generated model', '2GiB')
    .option('--keep', 'leave model, store and export where they are')
    .option('-y, --yes', 'nothing is asked here; for setup')
    .option('--progress <kind>', 'auto, bar, plain, json or none')
    .option('-v, --verbose', 'add the causes of an error')
    .exitOverride();
  command.parse([...argv], { from: 'user' });
  return command.opts<Options>();
}

async function main(argv: readonly string[]): Promise<number> {
  const options = parseArguments(argv);
  const sizeBytes = parseSize('--size', options.size);
  if (sizeBytes < MIN_MODEL_BYTES)
    throw new StoreError('E_USAGE', `--size ${options.size}: must be at least 1MiB.`);
  const directory = resolve(options.dir === undefined ? DEFAULT_DIRECTORY : join(options.dir, OWN_DIRECTORY));
  const session = new Session(options);
  const stop = session.listen();
  try {
    await rm(directory, { recursive: true, force: true });
    await mkdir(directory, { recursive: true });
    await requireSpace(directory, sizeBytes);
    await new Demonstration(session, directory, sizeBytes).run();
    return EXIT_OK;
  } catch (error) {
    session.clearProgress();
    if (session.signal.aborted && session.signal.reason instanceof Interrupted) {
      process.stderr.write(`${session.signal.reason.message}\n`);
      return session.signal.reason.exitCode;
    }
    throw error;
  } finally {
    stop();
    session.clearProgress();
    if (options.keep === true) session.out.line(`Kept in ${directory}.`);
    else {
      await rm(directory, { recursive: true, force: true });
      session.out.line(`Removed ${directory} (--keep leaves it).`);
    }
  }
}

async function requireSpace(directory: string, sizeBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  const free = Number(bavail) * Number(bsize);
  const needed = SPACE_FACTOR * sizeBytes + SPACE_EXTRA_BYTES;
  if (free >= needed) return;
  throw new StoreError(
    'E_NO_SPACE',
    `${directory} has ${formatBytes(free)} free and ${formatBytes(needed)} are needed.`,
    {
      where: { file: directory },
      safe: 'everything; nothing was written',
      next: 'npm run quickstart -- --size 256MiB   (or --dir DIRECTORY on another disk)',
    },
  );
}

async function run(): Promise<number> {
  const argv = process.argv.slice(2);
  try {
    return await main(argv);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT_OK : EXIT_USAGE;
    for (const line of describeError(error, argv.includes('--verbose'))) process.stderr.write(`${line}\n`);
    return isStoreError(error, 'E_USAGE') ? EXIT_USAGE : EXIT_FAILED;
  }
}

process.exit(await run());
