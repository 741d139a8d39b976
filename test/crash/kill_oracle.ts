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
import { type Store, open } from '../../engine/index.js';
import { Prng } from '../sim/prng.js';
import { type LogLine, type Operation, RUN, TAG, contentOf, sameOperation } from './kill_model.js';

const WRITER = fileURLToPath(new URL('./kill_writer.js', import.meta.url));
const MEBIBYTE = 1024 * 1024;
/** A writer that does not say 'ready' by then hangs. */
const READY_LIMIT_MS = 20_000;

export interface KillOptions {
  readonly kills: number;
  readonly seed: number;
  readonly members: number;
  readonly redundancy: 1 | 2 | 3;
  /** Stop, and report, when so much time has passed. */
  readonly budgetMs: number;
}

export interface KillReport {
  kills: number;
  /** Kills before the writer had opened the store. */
  killsInOpen: number;
  acknowledged: number;
  refused: number;
  /** Operations under way at a kill, and those of them that were found done. */
  underWay: number;
  foundDone: number;
  versionsCompared: number;
  bytesCompared: number;
  /** Copies that a killed commit had not come to, seen by read-only opens. */
  superblocksCutShort: number;
}

interface Expected {
  /** number -> linkTo */
  readonly versions: Map<number, number | null>;
  tagged: number | null;
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
  readonly #expected: Expected = { versions: new Map(), tagged: null };
  readonly #report: KillReport = {
    kills: 0,
    killsInOpen: 0,
    acknowledged: 0,
    refused: 0,
    underWay: 0,
    foundDone: 0,
    versionsCompared: 0,
    bytesCompared: 0,
    superblocksCutShort: 0,
  };
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
    const made = await open(this.#location, { mode: 'rw', create });
    await made.close();
    const startMs = performance.now();
    for (let kill = 1; kill <= kills && performance.now() - startMs < budgetMs; kill += 1) {
      await this.#oneLife(kill);
      await this.#judge(kill);
      this.#report.kills = kill;
    }
    return this.#report;
  }

  /** Starts a writer and kills it, mostly in the midst of work, sometimes while it opens. */
  async #oneLife(life: number): Promise<void> {
    const errors = openSync(`${this.#logPath}.errors`, 'a');
    const child = spawn(
      process.execPath,
      [WRITER, this.#location, this.#logPath, `${this.#options.seed * 1_000 + life}`, `${life * 10_000}`],
      {
        stdio: ['ignore', 'ignore', errors],
        env: { ...process.env, INGOT_BACKEND: life % 2 === 0 ? 'threads' : '' },
      },
    );
    closeSync(errors);
    const ended = once(child, 'exit');
    if (this.#prng.chance(0.15)) await sleep(this.#prng.between(30, 250));
    else {
      await this.#untilReady(() => child.exitCode !== null);
      await sleep(this.#prng.between(0, 300));
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

  /** Applies what was acknowledged; returns what was under way. */
  #replay(): Operation[] {
    let open: Operation[] = [];
    const lines = this.#newLines();
    if (!lines.some((line) => line.type === 'ready')) this.#report.killsInOpen += 1;
    for (const line of lines) {
      if (line.type === 'intend') {
        assert.deepEqual(open, [], 'one group of operations ends before the next begins');
        open = [...line.operations];
      }
      if (line.type !== 'acknowledged' && line.type !== 'refused') continue;
      open = open.filter((each) => !sameOperation(each, line.operation));
      if (line.type === 'refused') this.#report.refused += 1;
      else {
        this.#apply(line.operation);
        this.#report.acknowledged += 1;
      }
    }
    this.#linesRead += lines.length;
    return open;
  }

  #apply(operation: Operation): void {
    const { versions } = this.#expected;
    if (operation.kind === 'put') versions.set(operation.number, operation.linkTo);
    else if (operation.kind === 'tag') this.#expected.tagged = operation.number;
    else {
      versions.delete(operation.number);
      if (this.#expected.tagged === operation.number) this.#expected.tagged = null;
    }
  }

  async #judge(life: number): Promise<void> {
    const underWay = this.#replay();
    this.#report.underWay += underWay.length;
    const mode = this.#prng.chance(0.5) ? 'rw' : 'r';
    const store = await open(this.#location, { mode });
    try {
      const found = await this.#compareVersions(store, `life ${life}`);
      this.#compareStates(found, underWay, `life ${life}`);
      for await (const event of store.fsck({ data: true })) {
        if (event.type !== 'finding') continue;
        // A commit that was cut short after two of its four superblocks: only a writer's open completes them.
        if (mode === 'r' && event.severity === 'warn' && event.error.where.structure === 'Superblock')
          this.#report.superblocksCutShort += 1;
        else assert.fail(`life ${life}: fsck: ${event.error.code} ${event.error.message}`);
      }
    } finally {
      await store.close();
    }
  }

  /** Every byte that the store holds; returns what it holds by number. */
  async #compareVersions(store: Store, where: string): Promise<Expected> {
    const found: Expected = { versions: new Map(), tagged: null };
    for await (const info of store.list()) {
      assert.equal(info.run, RUN, where);
      const number = Number(info.metadata['number']);
      const link = info.metadata['linkTo'];
      const linkTo = link === undefined ? null : Number(link);
      found.versions.set(number, linkTo);
      if (info.tags.includes(TAG)) found.tagged = number;
      const version = await store.get(info.id);
      const content = contentOf(number, linkTo);
      assert.deepEqual([...version.names].sort(), content.map((each) => each.name).sort(), where);
      for (const { name, bytes } of content) {
        const read = await version.tensor(name).read();
        assert.ok(Buffer.from(read.buffer).equals(bytes), `${where}: ${info.id} ${name} has other bytes`);
        this.#report.bytesCompared += bytes.byteLength;
      }
      this.#report.versionsCompared += 1;
    }
    return found;
  }

  /** Acknowledged, with each operation under way done or not; what was found is expected from now on. */
  #compareStates(found: Expected, underWay: readonly Operation[], where: string): void {
    for (const operation of underWay) {
      const isThere = found.versions.has(operation.number);
      const isDone =
        operation.kind === 'put'
          ? isThere
          : operation.kind === 'remove'
            ? !isThere
            : found.tagged === operation.number;
      if (!isDone) continue;
      this.#apply(operation);
      this.#report.foundDone += 1;
    }
    const sorted = (state: Expected): [number, number | null][] =>
      [...state.versions].sort((a, b) => a[0] - b[0]);
    assert.deepEqual(sorted(found), sorted(this.#expected), `${where}: versions`);
    assert.equal(found.tagged, this.#expected.tagged, `${where}: tag`);
  }
}
