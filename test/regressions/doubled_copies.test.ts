// A store that had lost all members but one wrote its pages twice to that one. When another member of the same drive
// came, the two copies on one member counted as copies that merely share a domain, and were left there: the loss
// of that member took the catalog along. examples/mirrored-checkpoint met it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type CopyStanding, copyNeed, isActionable, standingsOf } from '../../engine/members/copies.js';

const standing = (index: number, failureDomain: string): CopyStanding => ({
  index,
  failureDomain,
  takesWrites: true,
  servedThrough: Number.POSITIVE_INFINITY,
  isGivenUp: false,
});
const copyOn = (member: number) => ({ member, placementBirth: 4 });

test('two copies on one member are wanting as soon as another member takes writes, whatever its domain', () => {
  for (const domain of ['', 'same', 'other']) {
    const members = [standing(0, 'same'), standing(2, domain)];
    const need = copyNeed([copyOn(0), copyOn(0)], 2, standingsOf(members), members);
    assert.ok(isActionable(need), `domain ${domain}`);
    assert.deepEqual(need.place, [2]);
    assert.equal(need.keep.length, 1);
    assert.equal(need.drop.length, 1);
  }
});

test('two copies on the only member stay, and two on two members of one drive are left alone', () => {
  const alone = [standing(0, 'same')];
  assert.ok(!isActionable(copyNeed([copyOn(0), copyOn(0)], 2, standingsOf(alone), alone)));
  const pair = [standing(0, 'same'), standing(1, 'same')];
  assert.ok(!isActionable(copyNeed([copyOn(0), copyOn(1)], 2, standingsOf(pair), pair)));
});
