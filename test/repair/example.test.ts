// Guards the runnable example: training outlives the loss of one member and, after its replacement, of the other.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const ROOT = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));

test('examples/mirrored-checkpoint loses both members in turn and resumes from latest', async () => {
  const run = promisify(execFile);
  const { stdout } = await run(process.execPath, [join(ROOT, 'examples/mirrored-checkpoint/train.mjs')], {
    timeout: 120_000,
  });
  assert.match(stdout, /resumed at step 10: every byte/);
  assert.match(stdout, /resumed at step 20: every byte/);
  assert.match(stdout, /step 25 saved/);
});
