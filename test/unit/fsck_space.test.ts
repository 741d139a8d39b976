// Guards the partition proof of fsck: a sector owned twice, a leak, a free sector in use, bounds of windows.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { RegionNumbers, SpaceWindow, WINDOW_REGIONS } from '../../engine/fsck_space.js';

const GIB = 2 ** 30;
const SMALL = { member: 0, formattedBytes: 4 * 2 ** 20 };
/** Data area of a 4 MiB member: sectors 256 .. 767. */
const FIRST = 256;
const END = 768;

function small(): SpaceWindow {
  return new SpaceWindow(new RegionNumbers([SMALL]), 0, 1);
}

test('claims and free runs that fill the data area exactly agree', () => {
  const window = small();
  assert.equal(window.claim(0, FIRST, 40), 'ok');
  assert.equal(window.claim(0, 400, 1), 'ok');
  assert.equal(window.ownedSectors(0), 41);
  const mismatches = window.compareFree(0, (run) => {
    run(FIRST + 40, 400 - FIRST - 40);
    run(401, END - 401);
  });
  assert.deepEqual(mismatches, []);
});

test('a sector owned twice is named at the second claim', () => {
  const window = small();
  assert.equal(window.claim(0, 300, 64), 'ok');
  assert.deepEqual(window.claim(0, 290, 30), { sharedSector: 300 });
  assert.equal(window.claim(0, 250, 10), 'outside');
  assert.equal(window.claim(0, 760, 9), 'outside');
  assert.equal(window.claim(1, 300, 1), 'outside');
});

test('leaks and free sectors in use are found as ranges', () => {
  const window = small();
  window.claim(0, FIRST, 100);
  const mismatches = window.compareFree(0, (run) => run(FIRST + 90, END - FIRST - 90 - 70));
  assert.deepEqual(mismatches, [
    { member: 0, sector: FIRST + 90, sectorCount: 10, kind: 'in use' },
    { member: 0, sector: END - 70, sectorCount: 70, kind: 'leaked' },
  ]);
  assert.deepEqual(small().compareFree(0, null), []);
});

test('a store larger than one window is covered by several, each with its own regions', () => {
  const members = [0, 1].map((member) => ({ member, formattedBytes: 700 * GIB }));
  const numbers = new RegionNumbers(members);
  assert.equal(numbers.total, 1_400);
  const second = new SpaceWindow(numbers, WINDOW_REGIONS, numbers.total - WINDOW_REGIONS);
  const region = WINDOW_REGIONS - 700;
  const border = region * 2 ** 18;
  assert.equal(second.claim(0, 10_000, 5), 'ok');
  assert.equal(second.claim(1, border - 2, 4), 'ok');
  assert.equal(second.ownedSectors(WINDOW_REGIONS), 2);
  assert.deepEqual(second.claim(1, border, 1), { sharedSector: border });
});
