// The progress meter: rates that are right, lines that fit, output that stays bounded.
//
// Time is a number that the test moves, so that every line is exact.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  chooseProgressMode,
  formatBytes,
  formatDuration,
  formatRate,
  ProgressMeter,
  type ProgressMode,
  printable,
} from '../../tools/cli/progress.js';

function makeMeter(mode: ProgressMode, totalBytes: number | null, columns = 100, label = 'import llama') {
  const lines: string[] = [];
  const clock = { ms: 1000 };
  const stream = { columns, isTTY: true, write: (text: string) => lines.push(text) };
  const meter = new ProgressMeter({ stream, mode, label, totalBytes, nowMs: () => clock.ms, color: false });
  return { meter, lines, clock };
}

test('the rate of now covers the last second and the mean covers everything', () => {
  const { meter, lines, clock } = makeMeter('json', 10e9);
  for (let step = 1; step <= 20; step++) {
    clock.ms += 100;
    meter.update({ bytes: step <= 10 ? step * 0.1e9 : 1e9 + (step - 10) * 0.3e9, path: 'io_uring' });
  }
  meter.finish();
  const last = JSON.parse(lines.at(-1) ?? '');
  assert.equal(last.bytesPerSec, 3e9);
  assert.equal(last.meanBytesPerSec, 2e9);
  assert.equal(last.done, true);
  assert.equal(last.path, 'io_uring');
  assert.equal(last.elapsedMs, 2000);
});

test('no rate and no ETA are made up before there is a span to measure', () => {
  const { meter, lines, clock } = makeMeter('json', 1e9);
  clock.ms += 10;
  meter.update({ bytes: 5e8 });
  const first = JSON.parse(lines[0] ?? '');
  assert.equal(first.bytesPerSec, null);
  assert.equal(first.meanBytesPerSec, null);
  assert.equal(first.etaSec, null);
});

test('the ETA divides what is left by the mean rate', () => {
  const { meter, lines, clock } = makeMeter('json', 4e9);
  clock.ms += 1000;
  meter.update({ bytes: 1e9 });
  assert.equal(JSON.parse(lines.at(-1) ?? '').etaSec, 3);
});

test('plain output is at most one line a second, however often it is updated', () => {
  const { meter, lines, clock } = makeMeter('plain', 100);
  for (let step = 0; step < 3500; step++) {
    clock.ms += 1;
    meter.update({ bytes: step });
  }
  assert.equal(lines.length, 3);
  meter.finish();
  assert.equal(lines.length, 4);
  for (const line of lines) assert.match(line, /^import llama: [^\n\r]*\n$/);
});

test('a bar redraws at most ten times a second and ends its line', () => {
  const { meter, lines, clock } = makeMeter('bar', 1000);
  for (let step = 0; step < 1000; step++) {
    clock.ms += 1;
    meter.update({ bytes: step });
  }
  assert.ok(lines.length <= 11, `${lines.length} redraws`);
  meter.finish({ bytes: 1000 });
  assert.match(lines.at(-1) ?? '', /^\r.*100%.*\n$/);
});

test('a bar never passes the width of the terminal, whatever the width', () => {
  for (let columns = 1; columns <= 200; columns++) {
    const { meter, lines, clock } = makeMeter('bar', 16e9, columns);
    clock.ms += 2000;
    meter.update({ bytes: 7e9, path: 'io_uring', phase: 'verify' });
    const width = (lines[0] ?? '').replaceAll(/\r|\n|\x1b\[K/g, '').length;
    assert.ok(width <= Math.max(1, columns - 1), `${columns} columns, ${width} written`);
  }
});

test('a wide bar shows bytes, both rates, the ETA and the path', () => {
  const { meter, lines, clock } = makeMeter('bar', 16e9, 160);
  clock.ms += 2000;
  meter.update({ bytes: 8e9, path: 'io_uring' });
  const line = lines[0] ?? '';
  for (const part of [
    ' 50%',
    '8.00 GB of 16.0 GB',
    'GB/s now',
    '4.00 GB/s mean',
    'ETA 0:02',
    'io_uring',
    '[#',
  ]) {
    assert.ok(line.includes(part), `${part} in ${line}`);
  }
});

test('99.99 percent is not shown as 100', () => {
  const { meter, lines, clock } = makeMeter('bar', 10_000);
  clock.ms += 500;
  meter.update({ bytes: 9_999 });
  assert.ok((lines[0] ?? '').includes(' 99%'));
});

test('an unknown total has no bar, percent or ETA', () => {
  const { meter, lines, clock } = makeMeter('bar', null);
  clock.ms += 1000;
  meter.update({ bytes: 1e9 });
  assert.doesNotMatch(lines[0] ?? '', /%|ETA|\[#/);
  assert.match(lines[0] ?? '', /1\.00 GB/);
});

test('an empty operation finishes at 100 percent and divides by nothing', () => {
  const { meter, lines } = makeMeter('bar', 0);
  meter.finish();
  assert.match(lines.at(-1) ?? '', /100%/);
  assert.doesNotMatch(lines.join(''), /NaN|Infinity/);
});

test('NO_COLOR and color:false write no colour, color:true does', () => {
  const lines: string[] = [];
  const stream = { columns: 80, isTTY: true, write: (text: string) => lines.push(text) };
  new ProgressMeter({
    stream,
    mode: 'bar',
    label: 'x',
    totalBytes: 10,
    nowMs: () => 0,
    color: true,
  }).finish();
  assert.ok(lines.join('').includes('\x1b[36m'));
  lines.length = 0;
  const before = process.env['NO_COLOR'];
  process.env['NO_COLOR'] = '1';
  try {
    new ProgressMeter({ stream, mode: 'bar', label: 'x', totalBytes: 10, nowMs: () => 0 }).finish();
  } finally {
    if (before === undefined) delete process.env['NO_COLOR'];
    else process.env['NO_COLOR'] = before;
  }
  assert.ok(!lines.join('').includes('\x1b[36m'));
});

test('names cannot move the cursor or start a line', () => {
  const { meter, lines, clock } = makeMeter('plain', 10, 80, 'a\x1b[2Jb\nc\u202e');
  clock.ms += 2000;
  meter.update({ bytes: 5, phase: '\r\x07' });
  assert.doesNotMatch(lines.join('').trimEnd(), /[\x00-\x1f\u202e]/);
  assert.equal(printable('layers.0/q_proj é'), 'layers.0/q_proj é');
});

test('a stream that throws does not stop the operation', () => {
  const stream = {
    write(): never {
      throw new Error('EPIPE');
    },
  };
  const meter = new ProgressMeter({
    stream,
    mode: 'bar',
    label: 'x',
    totalBytes: 1,
    nowMs: () => 0,
    color: false,
  });
  meter.update({ bytes: 1 });
  meter.finish();
});

test('mode none writes nothing; finish and clear are final', () => {
  const { meter, lines } = makeMeter('none', 10);
  meter.update({ bytes: 5 });
  meter.finish();
  assert.equal(lines.length, 0);
  const bar = makeMeter('bar', 10);
  bar.meter.clear();
  bar.meter.update({ bytes: 10 });
  bar.meter.finish();
  assert.deepEqual(bar.lines, ['\r\x1b[K']);
});

test('the mode follows the stream unless a flag names one, and an unknown flag is refused', () => {
  const write = () => true;
  assert.equal(chooseProgressMode(undefined, { write, isTTY: true }), 'bar');
  assert.equal(chooseProgressMode('auto', { write }), 'plain');
  assert.equal(chooseProgressMode('json', { write, isTTY: true }), 'json');
  assert.equal(chooseProgressMode('xml', { write }), null);
});

test('sizes, rates and durations read as people write them', () => {
  assert.deepEqual([0, 999, 1000, 9_995_000, 999_999_999, 8.03e9, 64e12].map(formatBytes), [
    '0 B',
    '999 B',
    '1.00 kB',
    '10.0 MB',
    '1.00 GB',
    '8.03 GB',
    '64.0 TB',
  ]);
  assert.deepEqual([12e6, 3.456e9, 51.2e9].map(formatRate), ['0.012 GB/s', '3.46 GB/s', '51.20 GB/s']);
  assert.deepEqual([0, 7, 750, 11_100].map(formatDuration), ['0:00', '0:07', '12:30', '3:05:00']);
});
