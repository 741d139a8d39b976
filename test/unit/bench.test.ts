// The benchmarks' arithmetic and command lines: what would make a figure wrong without anybody noticing.
//
// Nothing is measured here.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BF16, E4M3, FP16, roundTo } from '../../tools/bench/codec_data.js';
import { fioArguments, parseFio, SETTINGS, startOfLog } from '../../tools/bench/fio.js';
import { parseOptions } from '../../tools/bench/options.js';
import { table, verdict } from '../../tools/bench/report.js';
import {
  gigabytesPerSecond,
  median,
  pairRatios,
  seededRandom,
  shuffled,
  spread,
} from '../../tools/bench/statistics.js';

const STRETCHES = [
  { path: 'a.member', offsetBytes: 1_048_576, lengthBytes: 4_194_304 },
  { path: 'b.member', offsetBytes: 1_048_576, lengthBytes: 4_194_304 },
];
const job = (bytes: number, runtime: number, error = 0): object => ({
  read: { io_bytes: bytes, runtime },
  write: { io_bytes: 0, runtime: 0 },
  job_runtime: runtime,
  usr_cpu: 10,
  sys_cpu: 40,
  error,
});

test('the median of an even count lies between the middle two, and the order does not matter', () => {
  assert.equal(median([9, 1, 5]), 5);
  assert.equal(median([8, 2, 4, 6]), 5);
  assert.ok(Number.isNaN(median([])));
});

test('a ratio is taken within a pair: two swings of the disk that cancel leave no trace', () => {
  // Ours and theirs are equal in each pair, although the disk was three times as fast in the second.
  assert.deepEqual(pairRatios([1, 3, 2], [1, 3, 2]), [1, 1, 1]);
  assert.deepEqual(spread(pairRatios([1, 3], [2, 4])), { median: 0.625, least: 0.5, most: 0.75, count: 2 });
  assert.throws(() => pairRatios([1], [1, 2]), RangeError);
});

test('an order is drawn from its seed: the same again, and every item once', () => {
  const items = Array.from({ length: 50 }, (_, index) => index);
  const first = shuffled(items, seededRandom(5));
  assert.deepEqual(shuffled(items, seededRandom(5)), first);
  assert.notDeepEqual(shuffled(items, seededRandom(6)), first);
  assert.deepEqual(
    [...first].sort((a, b) => a - b),
    items,
  );
});

test('a GB is 10^9 bytes', () => {
  assert.equal(gigabytesPerSecond(2e9, 1_000), 2);
});

test('fio runs with io_uring past the page cache, never makes a file, and syncs what it writes', () => {
  assert.equal(SETTINGS.length, 9);
  const setting = { blockBytes: 4_194_304, depth: 32 };
  const write = fioArguments('write', STRETCHES, setting);
  const always = [
    '--ioengine=io_uring',
    '--direct=1',
    '--allow_file_create=0',
    '--bs=4194304',
    '--iodepth=32',
  ];
  for (const argument of [...always, '--end_fsync=1']) assert.ok(write.includes(argument), argument);
  const read = fioArguments('read', STRETCHES, setting);
  for (const argument of [...always, '--readonly', '--offset=1048576'])
    assert.ok(read.includes(argument), argument);
  assert.equal(read.filter((argument) => argument.startsWith('--filename=')).length, 1);
  const apart = fioArguments('read', STRETCHES, { ...setting, isApart: true });
  assert.equal(apart.filter((argument) => argument.startsWith('--filename=')).length, 2);
});

test('jobs that began one after the other are counted over all of their time', () => {
  const starts = [
    '1000600, 100000000, 1, 1, 0\n1000500, 400000000, 1, 1, 0\n',
    '1000700, 50000000, 1, 1, 0\n',
  ];
  const text = JSON.stringify({ jobs: [job(1e9, 500), job(1e9, 450)] });
  const run = parseFio(text, 'read', starts.map(startOfLog));
  // The first runs from 1000100 to 1000600, the second from 1000650 to 1001100.
  assert.equal(run.gigabytesPerSecond, 2);
  assert.throws(() => startOfLog('2147483647, 5, 1, 1, 0\n'), /without transfers/);
});

test('jobs at once count together over the longest run time, and an error of one is an error', () => {
  const text = `fio: a note\n${JSON.stringify({ jobs: [job(1e9, 400), job(1e9, 500)] })}`;
  const run = parseFio(text, 'read');
  assert.equal(run.gigabytesPerSecond, 4);
  assert.ok(Math.abs(run.coreSecondsPerGigabyte - 0.225) < 1e-9);
  assert.throws(() => parseFio(JSON.stringify({ jobs: [job(1, 1), job(1, 1, 5)] }), 'read'), /error 5/);
  assert.throws(() => parseFio(JSON.stringify({ jobs: [job(0, 0)] }), 'read'), /nothing/);
});

test('a figure that was not reached is said to be so', () => {
  assert.equal(verdict({ what: 'a', value: 3, ratio: 0.94, wanted: '>= 0.95' }), 'no');
  assert.equal(verdict({ what: 'a', value: 3, ratio: 0.95, wanted: '>= 0.95' }), 'yes');
  assert.equal(verdict({ what: 'a', value: 0.11, wanted: '<= 0.10' }), 'no');
  assert.equal(verdict({ what: 'a', wanted: '>= 1' }), 'not measured');
  assert.equal(verdict({ what: 'a', value: 1 }), '');
  const text = table([
    { what: 'x', value: 1_234_567, wanted: '>= 300000' },
    { what: 'y', note: 'skipped: why' },
  ]);
  assert.match(text, /1234567 .*yes/);
  assert.match(text, /skipped: why/);
});

test('an unknown subject, option or value is refused before anything is measured', () => {
  const usage = { code: 'E_USAGE' };
  assert.throws(() => parseOptions([]), usage);
  assert.throws(() => parseOptions(['disk']), usage);
  assert.throws(() => parseOptions(['io', '--fast']), usage);
  assert.throws(() => parseOptions(['io', '--size', 'huge']), usage);
  assert.throws(() => parseOptions(['io', '--pairs', '0']), usage);
  const options = parseOptions(['io', '--size', '512MiB', '--pairs', '5', '--ram', 'none', '--json']);
  assert.deepEqual(
    [options.sizeBytes, options.pairs, options.ramDirectory, options.json],
    [2 ** 29, 5, null, true],
  );
  assert.throws(() => parseOptions(['io', '--only', 'write,erase']), usage);
  assert.throws(() => parseOptions(['io', '--members', '3']), usage);
  const few = parseOptions([
    'io',
    '--only',
    'write,mirrored',
    '--places',
    'RAM',
    '--members',
    '2',
    '--sweep',
    '0',
  ]);
  assert.deepEqual(
    [few.only, few.places, few.memberCounts, few.sweepRounds],
    [['write', 'mirrored'], ['RAM'], [2], 0],
  );
  assert.deepEqual([options.only.length, options.places.length, options.memberCounts], [5, 2, [1, 2]]);
});

/** The value of an E4M3 code below 0x7f, from the format's definition. */
function e4m3Value(code: number): number {
  const exponent = code >> 3;
  const mantissa = code & 7;
  return exponent === 0 ? mantissa * 2 ** -9 : (8 + mantissa) * 2 ** (exponent - 10);
}

test('weights are rounded to the nearest value, ties to even, subnormals included', () => {
  for (let code = 0; code < 0x7e; code += 1) {
    const value = e4m3Value(code);
    const next = e4m3Value(code + 1);
    const even = code % 2 === 0 ? code : code + 1;
    assert.equal(roundTo(E4M3, value), code);
    assert.equal(roundTo(E4M3, -value), code | 0x80);
    assert.equal(roundTo(E4M3, value + (next - value) * 0.5), even);
    assert.equal(roundTo(E4M3, value + (next - value) * 0.49), code);
    assert.equal(roundTo(E4M3, value + (next - value) * 0.51), code + 1);
  }
  assert.equal(roundTo(E4M3, 448), 0x7e);
  assert.equal(roundTo(E4M3, 1e6), 0x7e);
  assert.deepEqual(
    [1, -2, 65504, 2 ** -24, 2 ** -25, 1 + 2 ** -11, 1 + 3 * 2 ** -11].map((value) => roundTo(FP16, value)),
    [0x3c00, 0xc000, 0x7bff, 1, 0, 0x3c00, 0x3c02],
  );
  assert.deepEqual(
    [1, -0.5, 1 + 2 ** -8, 1 + 3 * 2 ** -8, 2 ** -130].map((value) => roundTo(BF16, value)),
    [0x3f80, 0xbf00, 0x3f80, 0x3f82, 0x0008],
  );
});
