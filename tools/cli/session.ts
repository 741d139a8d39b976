// What every command has at hand: global options, output, progress, the log, cancelling, the store.
//
// Invariants
//   1. Results go to stdout (output.ts); progress, notes and errors go to stderr.
//   2. The first SIGINT, SIGTERM or SIGHUP aborts `signal` and lets the command end in order: open
//      transactions are given back and the store is closed. The second one ends the process at once,
//      which is safe too: what was not acknowledged is not visible.
//   3. A store opened by `withStore` is closed on every way out.
//
// It parses no command line (program.ts) and formats no error (report.ts).

import { setMaxListeners } from 'node:events';
import { open, type OpenOptions, type Store } from '../../engine/index.js';
import { type KeyOptions, withKey } from './keys.js';
import { Output, type OutputStream, toJson } from './output.js';
import {
  chooseProgressMode,
  printable,
  ProgressMeter,
  type ProgressMode,
  type ProgressStream,
} from './progress.js';
import { usageError } from './values.js';

export const EXIT_OK = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;
export const EXIT_REPAIRED = 3;
export const EXIT_UNREPAIRABLE = 4;
export const EXIT_DEGRADED = 5;

/** Why a command was cut short, and the exit code by the shell's custom of 128 + signal. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
  readonly exitCode: number;
  constructor(signalName: string, exitCode: number) {
    super(`interrupted by ${signalName}`);
    this.exitCode = exitCode;
  }
}

const SIGNALS: readonly (readonly [NodeJS.Signals, number])[] = [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
];

export const LOG_LEVELS = ['error', 'warn', 'info', 'debug'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Options that every command takes. */
export interface GlobalOptions extends KeyOptions {
  readonly store?: string;
  readonly json?: boolean;
  readonly progress?: string;
  readonly verbose?: boolean;
}

export class Session {
  readonly out: Output;
  readonly signal: AbortSignal;
  readonly verbose: boolean;
  readonly progressMode: ProgressMode;
  /** What stays of the command when it is cut short. */
  interruptedText = 'nothing of this command is visible, and the store is consistent';
  readonly #level: LogLevel;
  readonly #storePath: string | undefined;
  readonly #keyOptions: KeyOptions;
  readonly #stderr: ProgressStream;
  readonly #controller = new AbortController();
  readonly #handlers: (readonly [NodeJS.Signals, () => void])[] = [];
  #meter: ProgressMeter | null = null;

  constructor(
    options: GlobalOptions,
    stdout: OutputStream = process.stdout,
    stderr: ProgressStream = process.stderr,
  ) {
    const mode = chooseProgressMode(options.progress, stderr);
    if (mode === null)
      throw usageError(`--progress ${options.progress}: must be auto, bar, plain, json or none.`);
    const level = process.env['INGOT_LOG'] || 'warn';
    if (!LOG_LEVELS.includes(level as LogLevel)) {
      throw usageError(`INGOT_LOG=${level}: must be ${LOG_LEVELS.join(', ')}.`);
    }
    this.out = new Output(stdout, options.json === true);
    this.signal = this.#controller.signal;
    // Every operation in flight listens to it; there are more than the ten that Node warns of.
    setMaxListeners(0, this.signal);
    this.verbose = options.verbose === true || level === 'debug';
    this.progressMode = mode;
    this.#level = level as LogLevel;
    this.#storePath = options.store ?? (process.env['INGOT_STORE'] || undefined);
    this.#stderr = stderr;
    this.#keyOptions = options;
  }

  /** Starts to listen to signals; the result stops. */
  listen(): () => void {
    for (const [name, exitCode] of SIGNALS) {
      const handler = (): void => {
        if (this.signal.aborted) process.exit(exitCode);
        this.#controller.abort(new Interrupted(name, exitCode));
      };
      process.on(name, handler);
      this.#handlers.push([name, handler]);
    }
    return () => {
      for (const [name, handler] of this.#handlers.splice(0)) process.off(name, handler);
    };
  }

  /** Ends the command although nobody pressed anything: the reader of stdout is gone. */
  cancel(reason: Error): void {
    if (!this.signal.aborted) this.#controller.abort(reason);
  }

  /** Writes a note to stderr when the level asks for it. */
  log(level: LogLevel, text: string): void {
    if (LOG_LEVELS.indexOf(level) > LOG_LEVELS.indexOf(this.#level)) return;
    this.clearProgress();
    this.#stderr.write(`${level === 'warn' ? 'note' : level}: ${printable(text)}\n`);
  }

  /** A meter on stderr for one operation. Only one is drawn at a time. */
  progress(label: string, totalBytes: number | null): ProgressMeter {
    this.clearProgress();
    this.#meter = new ProgressMeter({ stream: this.#stderr, mode: this.progressMode, label, totalBytes });
    return this.#meter;
  }

  /** Takes an unfinished bar away. */
  clearProgress(): void {
    this.#meter?.clear();
    this.#meter = null;
  }

  /** Path of the store given by --store or INGOT_STORE. */
  storePath(): string {
    if (this.#storePath !== undefined) return this.#storePath;
    throw usageError('No store is named.', 'Give --store PATH, or set INGOT_STORE.');
  }

  /** Opens the store, runs `body`, closes the store. What open reported is logged, unless `body` shows it itself. */
  async withStore<T>(
    mode: 'r' | 'rw',
    body: (store: Store) => Promise<T>,
    options: OpenOptions = {},
    report: 'logged' | 'shown' = 'logged',
  ): Promise<T> {
    const path = this.storePath();
    const store = await withKey(this.#keyOptions, (key) =>
      open(path, { mode, signal: this.signal, ...(key === undefined ? {} : { key }), ...options }),
    );
    const unfollow = this.#level === 'debug' ? this.#follow(store) : null;
    try {
      if (report === 'logged') for (const line of store.info.openReport) this.log('warn', line);
      const { backend } = store.stats();
      this.log('info', `${path}: opened ${mode}, ${backend.path} (${backend.reason})`);
      return await body(store);
    } finally {
      unfollow?.();
      this.clearProgress();
      await store.close();
    }
  }

  /** Logs what the store tells its watchers; the result stops. */
  #follow(store: Store): () => void {
    const stop = new AbortController();
    const run = async (): Promise<void> => {
      for await (const { type, at, detail } of store.watch({ signal: stop.signal })) {
        this.log('debug', `${at.toISOString()} ${type} ${toJson(detail, 0)}`);
      }
    };
    // It ends by the abort, or with the store.
    run().catch(() => {});
    return () => stop.abort();
  }
}
