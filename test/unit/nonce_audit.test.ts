// No pair of key and nonce comes twice, over histories with crashes, repeats, writers side by side and restored images.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { auditNonces } from './nonce_audit.js';

test('a million segments of such histories use no nonce twice', async () => {
  const counts = await auditNonces(1_000_000, 1);
  assert.ok(counts.segments >= 1_000_000);
  for (const name of ['attempts', 'crashes', 'restores', 'repeats', 'messages'] as const)
    assert.ok(counts[name] > 0, `${name}: ${counts[name]}`);
});

test('the audit finds a data key that is drawn twice', async () => {
  // After a crash, or in a restored image, the id of an attempt comes again; the key must not.
  const stuck = { bytes: (count: number) => new Uint8Array(count).fill(1) };
  await assert.rejects(auditNonces(1_000_000, 2, stuck), /a nonce is used once with its key/);
});
