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
      const failures: string[] = [];
      for (const rule of RULES) {
        const { fired, violations } = await sweep.sweep(rule, 1, 1);
        const name = `${rule.kind} ${rule.effect}${rule.sticky ? ' for ever' : ''}`;
        context.diagnostic(`${name}: ${fired} faults, ${violations.length} violations`);
        if (fired === 0) failures.push(`${name}: the rule hit nothing`);
        failures.push(...violations);
      }
      // Judged after the last rule: what one of them finds does not hide what the others would.
      assert.deepEqual(failures, []);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });
}
