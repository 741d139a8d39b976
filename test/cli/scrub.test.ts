// `ingot scrub` end to end: how it exits when a copy is bad, when it was healed, when all are good, and when none is.

import assert from 'node:assert/strict';
import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseObject, patternBytes, scratchDirectory, StoreUnderTest } from './harness.js';

const base = scratchDirectory('scrub');
const BLOB_BYTES = 2_000_000;
/** Inside the first extent of a new store: it begins at 1 MiB. */
const DAMAGED_AT = 1024 * 1024 + 200_000;

function spoil(member: string): void {
  const file = openSync(member, 'r+');
  writeSync(file, Buffer.alloc(512, 0xa5), 0, 512, DAMAGED_AT);
  closeSync(file);
}

test('a bad copy is 5 without healing, 3 with it, 0 afterwards; two bad copies are 4', async () => {
  const store = await StoreUnderTest.create(join(base, 'store'), ['--members', '2', '--size', '32MiB']);
  const source = join(base, 'blob');
  writeFileSync(source, patternBytes(BLOB_BYTES, 3));
  await store.ok('put', 'r', 'blob', source, '--step', '1');
  const member = (index: number): string => join(base, 'store', `${index}.member`);
  spoil(member(0));
  assert.equal((await store.run('scrub', '--read-only')).code, 5);
  const healed = await store.run('scrub', '--json');
  assert.equal(healed.code, 3);
  const report = parseObject('ingot.scrub/1', healed.stdout);
  assert.equal(report.result, 'repaired');
  assert.equal(report.findings[0].where.tensor, 'blob');
  assert.equal(report.findings[0].where.member, member(0));
  assert.equal((await store.run('scrub')).code, 0);
  assert.equal((await store.json('ingot.scrub-state/1', 'scrub', '--show')).state.rounds, 2);
  spoil(member(0));
  spoil(member(1));
  const lost = await store.run('scrub');
  assert.equal(lost.code, 4);
  assert.match(lost.stdout, /every other copy/);
  await store.fails('E_USAGE', 2, 'scrub', '--rate', 'fast');
});
