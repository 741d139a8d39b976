// Faults guarded: an error of the k-th read, write or flush of the native core that loses an ack, leaves a store that
// does not open, or lets a poisoned handle go on; an open that failed and keeps its own process out of the store
// from then on. Every few k here; test/long/native_sweep.test.ts takes every k.

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { NativeIo } from '../../engine/io/native_io.js';
import { isStoreError } from '../../format/errors.js';
import { NativeSweep, nativeRules, sumOf } from './native_sweep.js';

const RAM = '/dev/shm';
/** k between two runs: few requests are flushes. The start moves with the rule, so that other k are met by each. */
const STRIDE = { read: 19, write: 17, flush: 5 } as const;
const RULES = nativeRules({ read: ['EIO'], write: ['EIO'], flush: ['EIO'] });

for (const backend of ['io_uring', 'threads'] as const) {
  test(`${backend}: whichever request of the core fails, nothing acknowledged is lost`, async (context) => {
    try {
      await new NativeIo({ backend }).close();
    } catch (error) {
      if (!isStoreError(error, 'E_UNSUPPORTED')) throw error;
      return context.skip(error.message);
    }
    const directory = mkdtempSync(join(existsSync(RAM) ? RAM : tmpdir(), 'ingot-native-sweep-'));
    try {
      const sweep = new NativeSweep(directory, backend);
      await sweep.prepare();
      const reports = [];
      for (const [index, rule] of RULES.entries())
        reports.push(await sweep.sweep(rule, 1 + index, STRIDE[rule.kind]));
      const { violations, ...counts } = sumOf(reports);
      context.diagnostic(JSON.stringify(counts));
      assert.deepEqual(violations, []);
      // Were nothing hit, nothing would have been judged.
      assert.ok(counts.fired >= 16, `${counts.fired} faults happened`);
      assert.ok(counts.runs >= counts.fired + RULES.length, 'every rule was followed until it was absorbed');
      // Short reads from one in the midst of the open on: the open fails after its heartbeat began.
      const midst = await sweep.sweep({ kind: 'read', effect: 'short', sticky: true }, 16, 1, 25);
      assert.deepEqual(midst, { runs: 10, fired: 10, absorbed: 0, poisoned: midst.poisoned, violations: [] });
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });
}
