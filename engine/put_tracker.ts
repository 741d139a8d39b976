// Puts that run: what each has done so far, so that its failure is undone or fails the transaction.
//
// Invariants
//   1. A put that fails leaves no trace when it handed nothing to the writer yet; after that it fails the transaction.
//   2. A put settles only when no device may touch the caller's memory any more.
//   3. `settled` resolves when no put runs; the first that failed rejects it.
//
// This file never looks at bytes (object_puts.ts).

import type { ObjectDraft } from './object_draft.js';
import type { TransactionWriter } from './writer.js';

/** What one running put has done so far. */
export interface Ticket {
  draft: ObjectDraft | null;
  /** Bytes were handed to the writer: without this put the version could only be incomplete. */
  handedOver: boolean;
  running: Promise<void> | null;
  done: boolean;
}

/** The transaction whose puts run. */
export interface PutHost {
  /** Errors: E_CLOSED, E_POISONED, E_READ_ONLY, or why it was aborted. */
  checkMayPut(): void;
  /** Takes the name of a put back that left no bytes. */
  removeDraft(draft: ObjectDraft): void;
  /** Null before bytes were handed over. */
  readonly writer: TransactionWriter | null;
}

export class PutTracker {
  readonly #host: PutHost;
  #pending: Set<Promise<unknown>> | null = null;

  constructor(host: PutHost) {
    this.#host = host;
  }

  async settled(): Promise<void> {
    while (this.#pending !== null && this.#pending.size > 0) await Promise.all(this.#pending);
  }

  /** Runs one put. */
  track(start: (ticket: Ticket) => Promise<void>): Promise<void> {
    const ticket: Ticket = { draft: null, handedOver: false, running: null, done: false };
    const running = this.#runPut(start, ticket);
    if (!ticket.done) {
      ticket.running = running;
      this.#pending ??= new Set();
      this.#pending.add(running);
    }
    return running;
  }

  async #runPut(start: (ticket: Ticket) => Promise<void>, ticket: Ticket): Promise<void> {
    try {
      this.#host.checkMayPut();
      await start(ticket);
    } catch (error) {
      if (ticket.draft !== null) this.#host.removeDraft(ticket.draft);
      const { writer } = this.#host;
      if (ticket.handedOver && writer !== null) {
        writer.fail(error instanceof Error ? error : new Error(String(error)));
        await writer.quiesce();
      }
      throw error;
    } finally {
      ticket.done = true;
      if (ticket.running !== null) this.#pending?.delete(ticket.running);
    }
  }
}
