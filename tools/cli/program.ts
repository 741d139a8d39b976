// The command line as a whole: global options, the commands, and how each way of ending becomes an exit code.
//
// Invariants
//   1. Exit codes: 0 ok, 1 failed, 2 usage; from commands about health (verify, fsck, status) also 3
//      repaired, 4 unrepairable, 5 degraded; 128 + n after signal n (Ctrl-C: 130).
//   2. Every error passes through report.ts; nothing else writes errors.
//   3. `runProgram` returns after stdout and stderr took everything; it never ends the process, except that a second
//      signal does (session.ts).
//
// Commands live in tools/commands/, one file each; this file knows them by name only.

import { Command, CommanderError } from 'commander';
import { isStoreError } from '../../format/errors.js';
import { toJson } from './output.js';
import { describeError, errorJson } from './report.js';
import {
  EXIT_DEGRADED,
  EXIT_FAILED,
  EXIT_OK,
  EXIT_UNREPAIRABLE,
  EXIT_USAGE,
  type GlobalOptions,
  Interrupted,
  Session,
} from './session.js';
import { usageError } from './values.js';

/** What a command does: its positional arguments and options, and the exit code (default 0). */
export type CommandBody<O> = (
  session: Session,
  args: readonly string[],
  options: O,
) => Promise<number | undefined>;

/** Registers one command with the program. */
export type CommandModule = (program: Command, actions: Actions) => void;

/** Makes commander actions that run inside a session. */
export class Actions {
  exitCode = EXIT_OK;
  session: Session | null = null;
  /** Stops listening to signals; called when all output is taken. */
  stop: () => void = () => {};

  /** `health`: damage that stops the command is exit code 4 or 5 instead of 1. */
  action<O>(
    body: CommandBody<O>,
    settings: { readonly health?: boolean } = {},
  ): (...values: unknown[]) => Promise<void> {
    return async (...values) => {
      const command = values.at(-1) as Command;
      const options = command.optsWithGlobals<GlobalOptions & O>();
      const session = new Session(options);
      this.session = session;
      this.stop = session.listen();
      try {
        this.exitCode = (await body(session, command.processedArgs.map(argumentText), options)) ?? EXIT_OK;
      } catch (error) {
        if (settings.health === true && !session.signal.aborted) this.exitCode = healthCode(error);
        throw error;
      } finally {
        session.clearProgress();
      }
    };
  }
}

const argumentText = (value: unknown): string => (typeof value === 'string' ? value : '');

function healthCode(error: unknown): number {
  if (isStoreError(error, 'E_CORRUPT')) return EXIT_UNREPAIRABLE;
  if (isStoreError(error, 'E_DEGRADED') || isStoreError(error, 'E_DEVICE_LOST')) return EXIT_DEGRADED;
  return isStoreError(error, 'E_USAGE') ? EXIT_USAGE : EXIT_FAILED;
}

const DESCRIPTION = 'An object store for AI weights, checkpoints and datasets that owns its drives.';
const AFTER_HELP = `
A REF is run@tag, run@step, run (its latest) or v:ID. The store is a directory of member files or any one member.
Results go to stdout, progress and notes to stderr. Exit codes: 0 ok, 1 failed, 2 usage; verify, fsck and status also
3 repaired, 4 unrepairable, 5 degraded; 130 after Ctrl-C. INGOT_LOG=error|warn|info|debug sets the detail; NO_COLOR is
honoured. Every error code has a section in docs/errors.md.`;

export function makeProgram(modules: readonly CommandModule[], actions: Actions, version: string): Command {
  const program = new Command('ingot');
  program
    .description(DESCRIPTION)
    .version(version, '--version', 'print the version')
    .option('--store <path>', 'the store (default: INGOT_STORE)')
    .option('--key-file <path>', 'opens an encrypted store: a key file')
    .option('--passphrase-file <path>', 'a file with its passphrase')
    .option('--passphrase', 'type its passphrase')
    .option('--recovery-key-file <path>', 'a file with its recovery key')
    .option('--key <uri>', 'a key of a token (pkcs11:...) or of the TPM (tpm2:)')
    .option('--pin-file <path>', "a file with the token's PIN (else it is typed)")
    .option('--json', 'print one JSON object with a versioned schema')
    .option('--progress <kind>', 'auto, bar, plain, json or none (on stderr)')
    .option('-v, --verbose', 'add the causes of an error')
    .addHelpText('after', AFTER_HELP)
    .configureHelp({ showGlobalOptions: true })
    .showHelpAfterError(false)
    // Errors are printed by report.ts, in our own form.
    .configureOutput({ outputError: () => {} })
    .exitOverride();
  for (const register of modules) register(program, actions);
  return program;
}

/** Runs one command line (without node and script). Resolves with the exit code. */
export async function runProgram(
  modules: readonly CommandModule[],
  argv: readonly string[],
  version: string,
): Promise<number> {
  const actions = new Actions();
  const shown = argv.includes('--json') ? toJson({ schema: 'ingot.version/1', version }, 0) : version;
  const program = makeProgram(modules, actions, shown);
  const onPipeClosed = (): void => actions.session?.cancel(new Interrupted('SIGPIPE', 141));
  process.stdout.on('error', onPipeClosed);
  process.stderr.on('error', () => {});
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return actions.exitCode;
  } catch (error) {
    return endWith(error, actions, argv);
  } finally {
    await drain(process.stdout);
    await drain(process.stderr);
    process.stdout.off('error', onPipeClosed);
    actions.stop();
  }
}

function endWith(error: unknown, actions: Actions, argv: readonly string[]): number {
  const { session } = actions;
  const reason: unknown = session?.signal.aborted === true ? session.signal.reason : null;
  if (reason instanceof Interrupted) return endInterrupted(error, reason, session);
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return EXIT_OK;
    if (error.code === 'commander.help') return EXIT_USAGE;
    return printError(usageError(sentence(error.message), helpCommand(error, argv)), false, argv);
  }
  const code = printError(error, session?.verbose ?? false, argv);
  return actions.exitCode === EXIT_OK ? code : actions.exitCode;
}

/** Cut short on request: said in one line, unless something else went wrong on the way out. */
function endInterrupted(error: unknown, reason: Interrupted, session: Session | null): number {
  const expected = error === reason || (error instanceof Error && error.name === 'AbortError');
  if (!expected) {
    for (const line of describeError(error, session?.verbose ?? false)) process.stderr.write(`${line}\n`);
  }
  if (reason.exitCode !== 141) {
    const stays = session?.interruptedText ?? 'nothing of this command is visible';
    process.stderr.write(`${reason.message}: ${stays}\n`);
  }
  return reason.exitCode;
}

function printError(error: unknown, verbose: boolean, argv: readonly string[]): number {
  const shown = verbose || argv.includes('--verbose') || argv.includes('-v');
  const text = argv.includes('--json')
    ? errorJson(error, shown)
    : describeError(error, shown).map(paint).join('\n');
  process.stderr.write(`${text}\n`);
  return isStoreError(error, 'E_USAGE') ? EXIT_USAGE : EXIT_FAILED;
}

/** The first words of an error in red, on a terminal that wants colour. */
function paint(line: string, index: number): string {
  if (index > 0 || process.stderr.isTTY !== true || process.env['NO_COLOR']) return line;
  return line.replace(/^error( E_\w+)?:/, (words) => `\x1b[31m${words}\x1b[0m`);
}

/** `error: unknown option '--x'` to `Unknown option '--x'.` */
function sentence(message: string): string {
  const text = message
    .replace(/^error: /, '')
    .replace(/\s+/g, ' ')
    .trim();
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.?!]$/.test(text) ? '' : '.'}`;
}

function helpCommand(error: CommanderError, argv: readonly string[]): string {
  const command = argv.find((argument) => !argument.startsWith('-'));
  const isUnknown = command === undefined || error.code === 'commander.unknownCommand';
  return isUnknown ? 'ingot --help' : `ingot ${command} --help`;
}

/** Resolves when the stream took what was written, or is gone. */
function drain(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => {
    if (stream.destroyed || stream.writableEnded) resolve();
    else stream.write('', () => resolve());
  });
}
