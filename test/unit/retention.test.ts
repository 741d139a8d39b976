// Retention: a version that any rule keeps survives, and nothing is removed by a slip.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decideRetention } from '../../engine/retention.js';
import type { Retention, VersionInfo } from '../../engine/types.js';

const HOUR_MS = 3_600_000;

function version(id: number, over: Partial<VersionInfo> = {}): VersionInfo {
  return {
    id: `v:${id}`,
    run: 'run',
    step: id * 10,
    tags: [],
    createdAt: new Date(id * HOUR_MS),
    tensorCount: 0,
    blobCount: 0,
    fileCount: 0,
    byteLength: 0,
    storedBytes: 0,
    redundancy: 1,
    base: null,
    chunkBytes: 0,
    metadata: {},
    metrics: {},
    ...over,
  };
}
function kept(versions: readonly VersionInfo[], policy: Retention, nowMs = 100 * HOUR_MS): string[] {
  return decideRetention(versions, policy, nowMs)
    .filter((each) => each.action === 'keep')
    .map((each) => each.version.id);
}
const ten = Array.from({ length: 10 }, (_, index) => version(index + 1));

test('an empty policy is refused rather than taken for "remove everything"', () => {
  assert.throws(() => decideRetention(ten, {}, 0), { code: 'E_USAGE' });
  for (const bad of [
    { last: -1 },
    { last: 1.5 },
    { everySteps: 0 },
    { everySec: 0 },
    { maxAgeSec: Number.NaN },
  ]) {
    assert.throws(() => decideRetention(ten, bad, 0), { code: 'E_USAGE' });
  }
});

test('the newest and tagged versions survive every policy; latest alone protects nothing', () => {
  const versions = [version(1, { tags: ['best'] }), version(2, { tags: ['latest'] }), version(3)];
  assert.deepEqual(kept(versions, { last: 0 }), ['v:3', 'v:1']);
});

test('rules are a union', () => {
  assert.deepEqual(kept(ten, { last: 2 }), ['v:10', 'v:9']);
  assert.deepEqual(kept(ten, { last: 1, everySteps: 50 }), ['v:10', 'v:5']);
  assert.deepEqual(kept(ten, { maxAgeSec: 2 * 3600 }, 10 * HOUR_MS), ['v:10', 'v:9', 'v:8']);
});

test('one version of an interval is kept, and the same one as time goes on', () => {
  const first = kept(ten, { everySec: 4 * 3600 });
  assert.deepEqual(first, ['v:10', 'v:8', 'v:4', 'v:1']);
  assert.deepEqual(kept([...ten, version(11)], { everySec: 4 * 3600 }), ['v:11', ...first.slice(1)]);
});

test('the best by a metric survive; versions without it do not count', () => {
  const versions = ten.map((_each, index) =>
    version(index + 1, { metrics: index % 2 === 0 ? { loss: Math.abs(index - 4) } : {} }),
  );
  assert.deepEqual(kept(versions, { best: { n: 2, metric: 'loss', mode: 'min' } }), ['v:10', 'v:7', 'v:5']);
  assert.deepEqual(kept(versions, { best: { n: 1, metric: 'absent', mode: 'max' } }), ['v:10']);
});

test('two versions of one step: only the newer is kept for the step', () => {
  const versions = [version(1, { step: 100 }), version(2, { step: 100 }), version(3, { step: 101 })];
  assert.deepEqual(kept(versions, { everySteps: 100 }), ['v:3', 'v:2']);
});
