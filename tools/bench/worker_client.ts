// Starts a measured process and speaks with it.
//
// Invariants
//   1. One job at a time; a process that ends while a job runs fails that job.
//   2. `close` ends the process and waits for it.

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Job, Measured } from './worker.js';

const WORKER = fileURLToPath(new URL('./worker.js', import.meta.url));

interface Answer {
  readonly id: number;
  readonly result?: Measured | null;
  readonly error?: string;
}

export class Worker {
  readonly #child: ChildProcess;
  #nextId = 1;

  constructor() {
    this.#child = fork(WORKER, [], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  }

  async #ask(job: Job): Promise<Measured | null> {
    const id = this.#nextId;
    this.#nextId += 1;
    return new Promise((resolve, reject) => {
      const onExit = (code: number | null): void => reject(new Error(`the measured process ended (${code})`));
      this.#child.once('exit', onExit);
      this.#child.once('message', (message: Answer) => {
        this.#child.off('exit', onExit);
        if (message.id !== id) reject(new Error('an answer to another question'));
        else if (message.error !== undefined) reject(new Error(message.error));
        else resolve(message.result ?? null);
      });
      this.#child.send({ id, job });
    });
  }

  async create(members: readonly string[], memberBytes: number): Promise<void> {
    await this.#ask({ kind: 'create', members, memberBytes });
  }

  /** Writes what is free in the members once; `run` is the version whose tensors are written. */
  async fill(members: readonly string[], run: string, redundancy: 1 | 2, count: number): Promise<void> {
    await this.#ask({ kind: 'fill', members, run, redundancy, count });
  }

  async measure(job: Exclude<Job, { readonly kind: 'create' | 'fill' }>): Promise<Measured> {
    const measured = await this.#ask(job);
    if (measured === null) throw new Error('a measurement gave no figures');
    return measured;
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.disconnect();
    await ended;
  }
}

/** One job in a process of its own: what a fresh process needs at its peak. */
export async function measureAlone(
  job: Exclude<Job, { readonly kind: 'create' | 'fill' }>,
): Promise<Measured> {
  const worker = new Worker();
  try {
    return await worker.measure(job);
  } finally {
    await worker.close();
  }
}
