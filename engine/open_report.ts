// What open found and wants people to know, as bounded lines.
//
// Invariants
//   1. Lines stand in the order in which they were found; none is dropped without being counted.
//
// It decides nothing.

import { MAX_OPEN_REPORT_LINES } from './limits.js';

export class OpenReport {
  readonly #lines: string[] = [];
  #more = 0;

  add(line: string): void {
    if (this.#lines.length < MAX_OPEN_REPORT_LINES) this.#lines.push(line);
    else this.#more += 1;
  }

  get lines(): readonly string[] {
    return this.#more === 0 ? this.#lines : [...this.#lines, `and ${this.#more} more findings`];
  }
}
