// What a command prints: tables and lines for people, one JSON object for programs, on stdout.
//
// Invariants
//   1. With --json, stdout carries exactly one JSON object, and its first key is `schema`, a name
//      and a version (`ingot.info/1`). Fields are only ever added within a version.
//   2. Without --json, text from the store (names, labels) passes through `printable`: it cannot move
//      the cursor.
//   3. In JSON, sizes are numbers of bytes, 64-bit sums are hexadecimal strings, times are ISO 8601.
//
// It never writes to stderr and never decides an exit code.

import { printable } from './progress.js';

export type JsonFields = Readonly<Record<string, unknown>>;
/** A cell; numbers are aligned to the right. */
export type Cell = string | number;

export interface OutputStream {
  write(text: string | Uint8Array): unknown;
}

const COLUMN_GAP = '  ';

export class Output {
  readonly json: boolean;
  readonly #stream: OutputStream;
  #written = false;

  constructor(stream: OutputStream, json: boolean) {
    this.#stream = stream;
    this.json = json;
  }

  /** A line for people; nothing with --json. */
  line(text = ''): void {
    if (!this.json) this.#stream.write(`${printable(text)}\n`);
  }

  /** Rows under headings; nothing with --json. Numbers and headings over them stand to the right. */
  table(headings: readonly string[], rows: readonly (readonly Cell[])[]): void {
    if (this.json) return;
    const right = headings.map(
      (_, column) => rows.length > 0 && rows.every((row) => typeof row[column] === 'number'),
    );
    const text = [headings, ...rows].map((row) => row.map((cell) => printable(String(cell))));
    const widths = headings.map((_, column) => Math.max(...text.map((row) => (row[column] ?? '').length)));
    for (const row of text) {
      const cells = row.map((cell, column) => {
        const width = widths[column] ?? 0;
        return right[column] === true ? cell.padStart(width) : cell.padEnd(width);
      });
      this.#stream.write(`${cells.join(COLUMN_GAP).trimEnd()}\n`);
    }
  }

  /** Labelled values, one a line; nothing with --json. */
  fields(rows: readonly (readonly [string, Cell])[]): void {
    if (this.json) return;
    const width = Math.max(0, ...rows.map(([label]) => label.length));
    for (const [label, value] of rows) this.line(`${label.padEnd(width)}${COLUMN_GAP}${value}`);
  }

  /** The one object of --json; nothing without. `schema` is such as `ingot.info/1`. */
  object(schema: string, fields: JsonFields): void {
    if (!this.json || this.#written) return;
    this.#written = true;
    this.#stream.write(`${toJson({ schema, ...fields })}\n`);
  }

  /** One of many objects, one a line, for commands that go on (status --every). */
  record(schema: string, fields: JsonFields): void {
    if (this.json) this.#stream.write(`${toJson({ schema, ...fields }, 0)}\n`);
  }
}

/** JSON by invariant 3, indented for people who look. */
export function toJson(value: unknown, indent = 2): string {
  const plain = (_key: string, held: unknown): unknown => {
    if (typeof held === 'bigint') return hexSum(held);
    if (held instanceof Uint8Array) return Buffer.from(held).toString('hex');
    return held;
  };
  return JSON.stringify(value, plain, indent);
}

/** 16 hexadecimal digits. */
export function hexSum(sum: bigint): string {
  return sum.toString(16).padStart(16, '0');
}

/** `[4096, 14336]`, as people write shapes. */
export function formatShape(shape: readonly number[]): string {
  return `[${shape.join(', ')}]`;
}
