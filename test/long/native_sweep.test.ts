// Every k of every error of the native core, on both backends: the long form of test/crash/native_sweep.test.ts.

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { NativeSweep, nativeRules } from '../crash/native_sweep.js';

const RAM = '/dev/shm';
const RULES = nativeRules({
  read: ['EIO', 'short', 'zero'],
  write: ['EIO', 'ENOSPC', 'short', 'zero', 'late'],
  flush: ['EIO'],
});

for (const backend of ['io_uring', 'threads'] as const) {
  test(`${backend}: every request of the core fails in its turn`, async (context) => {
    const directory = mkdtempSync(join(existsSync(RAM) ? RAM : tmpdir(), 'ingot-native-sweep-'));
    try {
      const sweep = new NativeSweep(directory, backend);
      await sweep.prepare();
      for (const rule of RULES) {
        const before = sweep.report.fired;
        await sweep.sweep(rule, 1, 1);
        const { kind, effect, sticky } = rule;
        context.diagnostic(
          `${kind} ${effect}${sticky ? ' for ever' : ''}: ${sweep.report.fired - before} faults`,
        );
        assert.ok(sweep.report.fired > before, 'the rule hit something');
      }
      assert.deepEqual(sweep.report.violations, []);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });
}
