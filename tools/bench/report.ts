// What a benchmark says: rows of one shape for people and for programs.
//
// Invariants
//   1. Every row has what was measured, the figure, what it is compared with, and which way it went.
//   2. A row that could not be measured is there too, with the reason in place of a figure.
//
// It computes nothing but the verdict.

import { rounded } from './statistics.js';

export interface Row {
  readonly what: string;
  /** Absent when it could not be measured. */
  readonly value?: number;
  readonly unit?: string;
  /** What `value` is compared with, in words. */
  readonly against?: string;
  readonly peerValue?: number;
  /** Median over the pairs of ours / theirs; above 1 ours is faster. */
  readonly ratio?: number;
  readonly ratioLeast?: number;
  readonly ratioMost?: number;
  readonly pairs?: number;
  /** The figure asked of the ratio or of the value, e.g. '>= 0.95'. */
  readonly wanted?: string;
  readonly note?: string;
}

const cell = (value: number | undefined): string | number => (value === undefined ? '' : rounded(value));

/** 'yes', 'no', or '' when nothing was asked. */
export function verdict(row: Row): string {
  const match = /^(>=|<=|>)\s*([\d.,]+)$/.exec(row.wanted ?? '');
  if (match === null) return '';
  const figure = row.ratio ?? row.value;
  const limit = Number(match[2]?.replaceAll(',', ''));
  if (figure === undefined) return 'not measured';
  const met = match[1] === '>=' ? figure >= limit : match[1] === '>' ? figure > limit : figure <= limit;
  return met ? 'yes' : 'no';
}

/** A table of rows as Markdown, which people read as well. */
export function table(rows: readonly Row[]): string {
  const head = [
    'what',
    'ingot',
    'unit',
    'against',
    'theirs',
    'ratio',
    'least..most',
    'pairs',
    'wanted',
    'reached',
    'note',
  ];
  const lines = rows.map((row) =>
    [
      row.what,
      cell(row.value),
      row.unit ?? '',
      row.against ?? '',
      cell(row.peerValue),
      cell(row.ratio),
      row.ratioLeast === undefined ? '' : `${cell(row.ratioLeast)}..${cell(row.ratioMost)}`,
      row.pairs ?? '',
      row.wanted ?? '',
      verdict(row),
      row.note ?? '',
    ].map(String),
  );
  // A column that nothing is said in is left out.
  const used = head.map((_, column) => column).filter((column) => lines.some((line) => line[column] !== ''));
  const widths = used.map((column) =>
    Math.max(...[head, ...lines].map((line) => (line[column] ?? '').length)),
  );
  const text = (line: readonly string[]): string =>
    `| ${used.map((column, place) => (line[column] ?? '').padEnd(widths[place] ?? 0)).join(' | ')} |`;
  const rule = `|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`;
  return [text(head), rule, ...lines.map(text)].join('\n');
}

/** A row as one line, for who waits for the table. */
export function rowText(row: Row): string {
  const figure = row.value === undefined ? '' : `: ${cell(row.value)} ${row.unit ?? ''}`;
  const pairs = `${cell(row.ratioLeast)}..${cell(row.ratioMost)}, ${row.pairs ?? 0} pairs`;
  const ratio = row.ratio === undefined ? '' : `, ${cell(row.ratio)} (${pairs}) of ${row.against ?? ''}`;
  const note = row.value === undefined ? `: ${row.note ?? ''}` : '';
  return `${row.what}${figure}${ratio}${note}`;
}

/** A line about what is going on, on stderr. */
export function say(text: string): void {
  process.stderr.write(`${text}\n`);
}
