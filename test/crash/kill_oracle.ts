// Kills a writing process again and again, and holds the store against what that process had been told.
//
//   spawn kill_writer -> wait a random while -> SIGKILL -> open -> compare -> expect what is there -> again
//
// Invariants
//   1. What was acknowledged is there. What was under way is there whole or not at all. Nothing else is.
//   2. Every byte of every version is compared after every kill, and fsck (with data) is clean.
//   3. The store opens for writing at once: the lock died with its holder.
//   4. A writer that ends by itself, or an operation refused for another reason than space, fails the run.
//
// Why a log in a file: what a killed process wrote by write(2) stays, so the log is what the caller knew.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { open } from '../../engine/index.js';
import { Prng } from '../sim/prng.js';
import { type JudgeReport, KillJudge, newJudgeReport } from './kill_judge.js';
import { ENCRYPTED_VARIABLE, KILL_KEY, type LogLine } from './kill_model.js';

const WRITER = fileURLToPath(new URL('./kill_writer.js', import.meta.url));
const MEBIBYTE = 1024 * 1024;
/** A writer that does not say 'ready' by then hangs. */
const READY_LIMIT_MS = 20_000;

/** Lines that a writer may say before it is killed. */
const LINES_MAX = 24;

export interface KillOptions {
  readonly kills: number;
  readonly seed: number;
  readonly members: number;
  readonly redundancy: 1 | 2 | 3;
  /** The store is encrypted, and each writer and judge has its key. */
  readonly encrypted?: boolean;
  /** Stop, and report, when so much time has passed. */
  readonly budgetMs: number;
}

export interface KillReport extends JudgeReport {
  kills: number;
  /** Kills before the writer had opened the store. */
  killsInOpen: number;
}

export async function killAgainAndAgain(options: KillOptions): Promise<KillReport> {
  const directory = await mkdtemp(join(tmpdir(), 'ingot-kill-'));
  try {
    return await new KillOracle(directory, options).run();
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

class KillOracle {
  readonly #location: string;
  readonly #logPath: string;
  readonly #options: KillOptions;
  readonly #prng: Prng;
  readonly #report: KillReport = { kills: 0, killsInOpen: 0, ...newJudgeReport() };
  readonly #judgeOfAll = new KillJudge(this.#report);
  #linesRead = 0;

  constructor(directory: string, options: KillOptions) {
    this.#location = join(directory, 'store.ingot');
    this.#logPath = join(directory, 'log');
    this.#options = options;
    this.#prng = new Prng(options.seed);
  }

  async run(): Promise<KillReport> {
    const { kills, members, redundancy, budgetMs } = this.#options;
    const create = {
      members: Array.from({ length: members }, (_, i) => ({ path: `${i}.member`, sizeBytes: 24 * MEBIBYTE })),
      redundancy,
    };
    const encrypt = { key: KILL_KEY, onRecoveryKey: () => undefined };
    const made = await open(this.#location, {
      mode: 'rw',
      create: this.#options.encrypted === true ? { ...create, encrypt } : create,
      ...this.#key(),
    });
    await made.close();
    const startMs = performance.now();
    for (let kill = 1; kill <= kills && performance.now() - startMs < budgetMs; kill += 1) {
      await this.#oneLife(kill);
      await this.#judge(kill);
      this.#report.kills = kill;
    }
    return this.#report;
  }

  #key(): { readonly key?: typeof KILL_KEY } {
    return this.#options.encrypted === true ? { key: KILL_KEY } : {};
  }

  /** Starts a writer and kills it, mostly in the midst of work, sometimes while it opens. */
  async #oneLife(life: number): Promise<void> {
    const errors = openSync(`${this.#logPath}.errors`, 'a');
    const child = spawn(
      process.execPath,
      [WRITER, this.#location, this.#logPath, `${this.#options.seed * 1_000 + life}`, `${life * 10_000}`],
      {
        stdio: ['ignore', 'ignore', errors],
        env: {
          ...process.env,
          INGOT_BACKEND: life % 2 === 0 ? 'threads' : '',
          [ENCRYPTED_VARIABLE]: this.#options.encrypted === true ? '1' : '',
        },
      },
    );
    closeSync(errors);
    const ended = once(child, 'exit');
    if (this.#prng.chance(0.15)) await sleep(this.#prng.between(30, 250));
    else {
      await this.#untilReady(() => child.exitCode !== null);
      // By what it said, so that a slow machine kills no earlier; then anywhere in what follows.
      const lines = this.#prng.between(0, LINES_MAX);
      const startMs = performance.now();
      while (child.exitCode === null && this.#newLines().length < lines) {
        if (performance.now() - startMs > READY_LIMIT_MS) break;
        await sleep(2);
      }
      await sleep(this.#prng.between(0, 60));
    }
    assert.equal(child.exitCode, null, `the writer of life ${life} ended by itself: ${this.#errors()}`);
    child.kill('SIGKILL');
    await ended;
  }

  async #untilReady(hasEnded: () => boolean): Promise<void> {
    const startMs = performance.now();
    while (!hasEnded() && !this.#newLines().some((line) => line.type === 'ready')) {
      assert.ok(performance.now() - startMs < READY_LIMIT_MS, `the writer hangs in open: ${this.#errors()}`);
      await sleep(5);
    }
  }

  /** Lines since the last kill; a last line that was cut is none. */
  #newLines(): LogLine[] {
    if (!existsSync(this.#logPath)) return [];
    const lines = readFileSync(this.#logPath, 'utf8').split('\n').slice(0, -1);
    return lines.slice(this.#linesRead).map((line) => JSON.parse(line) as LogLine);
  }

  #errors(): string {
    return existsSync(`${this.#logPath}.errors`) ? readFileSync(`${this.#logPath}.errors`, 'utf8') : '';
  }

  async #judge(life: number): Promise<void> {
    const lines = this.#newLines();
    this.#linesRead += lines.length;
    if (!lines.some((line) => line.type === 'ready')) this.#report.killsInOpen += 1;
    const underWay = this.#judgeOfAll.replay(lines);
    const mode = this.#prng.chance(0.5) ? 'rw' : 'r';
    const store = await open(this.#location, { mode, ...this.#key() });
    try {
      await this.#judgeOfAll.judge(store, mode, underWay, `life ${life}`);
    } finally {
      await store.close();
    }
  }
}
