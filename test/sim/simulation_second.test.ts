// The second half of the five hundred random histories that gate: a file of its own, with a time limit of its own.

import { test } from 'node:test';
import { expectHistoriesHold, HISTORIES } from './gate.js';

test('two hundred and fifty further random histories lose nothing acknowledged', (context) =>
  expectHistoriesHold(context, 1 + HISTORIES));
