// A member whose data area ends with a region (1 MiB more than whole GiB): asking for what comes after its
// last sector failed an assertion.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemberSpace } from '../../engine/free_space.js';
import { REGION_SECTORS } from '../../format/limits.js';

test('nothing is available after the last sector of a member', () => {
  const space = new MemberSpace(0, 1025 * 1024 * 1024, 100, () => null);
  assert.equal(space.regionCount, 1);
  assert.equal(space.isAvailable(REGION_SECTORS, 1), false);
  assert.equal(space.isAvailable(REGION_SECTORS - 1, 2), false);
  assert.equal(space.ensure(0), undefined);
  assert.equal(space.isAvailable(REGION_SECTORS - 1, 1), true);
});
