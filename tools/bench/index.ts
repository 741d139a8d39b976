// The benchmarks: one subject a run, one table at the end.
//
// Invariants
//   1. The table has every row that was asked for; what could not be measured says why.
//   2. Results are on stdout (a table, or with --json one object), what is going on is on stderr. Rows of `io` and
//      `codec` are told there as they are measured, too; a run that is ended by a signal prints the table of what it
//      had.
//   3. Exit codes: 0 measured, whatever the figures; 1 failed; 2 usage. A benchmark gates nothing: figures of a
//      machine that does other work at the same time prove little.
//
// Usage: npm run bench -- io|catalog|peers|redundancy|codec|crypto|crc|format [options]   (options.ts)

import { cpus, totalmem } from 'node:os';
import { isStoreError } from '../../format/errors.js';
import { describeError, errorJson } from '../cli/report.js';
import { type BenchOptions, type Subject, parseOptions, USAGE } from './options.js';
import { type Row, rowText, say, table, verdict } from './report.js';

async function measure(options: BenchOptions, onRow: (row: Row) => void): Promise<void> {
  if (options.subject === 'io') return (await import('./io.js')).benchIo(options, onRow);
  if (options.subject === 'codec') return (await import('./codec.js')).benchCodec(options, onRow);
  for (const row of await allRows(options, options.subject)) onRow(row);
}

async function allRows(options: BenchOptions, subject: Exclude<Subject, 'io' | 'codec'>): Promise<Row[]> {
  switch (subject) {
    case 'catalog':
      return (await import('./catalog.js')).benchCatalog(options);
    case 'peers':
      return (await import('./peers.js')).benchPeers(options);
    case 'redundancy':
      return (await import('./redundancy.js')).benchRedundancy(options);
    case 'crypto':
      return (await import('./crypto.js')).benchCrypto(options);
    case 'crc':
      return (await import('./crc.js')).benchCrc();
    case 'format':
      return (await import('./format.js')).benchFormat();
  }
}

async function main(argv: readonly string[]): Promise<number> {
  if (argv.includes('--help') || argv.includes('-h')) {
    console.log(USAGE);
    return 0;
  }
  const options = parseOptions(argv);
  const startMs = performance.now();
  const rows: Row[] = [];
  const onSignal = (): void => {
    say('ended by a signal: the rows below are what was measured');
    print(options, rows, startMs);
    process.exit(1);
  };
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
  await measure(options, (row) => {
    rows.push(row);
    if (options.subject === 'io' || options.subject === 'codec') say(rowText(row));
  });
  print(options, rows, startMs);
  return 0;
}

function print(options: BenchOptions, rows: readonly Row[], startMs: number): void {
  const machine = {
    processors: cpus().length,
    memoryBytes: totalmem(),
    node: process.version,
    seconds: Math.round((performance.now() - startMs) / 1e3),
  };
  if (options.json) {
    const judged = rows.map((row) => ({ ...row, reached: verdict(row) }));
    console.log(JSON.stringify({ schema: 'ingot.bench/1', subject: options.subject, machine, rows: judged }));
    return;
  }
  console.log(table(rows));
  const { processors, memoryBytes, node, seconds } = machine;
  console.log(
    `\n${processors} processors, ${(memoryBytes / 1e9).toFixed(1)} GB memory, Node ${node}, ${seconds} s`,
  );
}

main(process.argv.slice(2)).then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    const isJson = process.argv.includes('--json');
    console.error(isJson ? errorJson(error, false) : describeError(error, false).join('\n'));
    process.exitCode = isStoreError(error) && error.code === 'E_USAGE' ? 2 : 1;
  },
);
