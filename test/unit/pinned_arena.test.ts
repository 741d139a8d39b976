// The arena of registered memory never lends a byte twice, starves nobody, and is whole again in the end.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ARENA_ALIGNMENT_BYTES, PinnedArena, type Stretch } from '../../engine/gpu/pinned_arena.js';
import { Prng } from '../sim/prng.js';

const SECTORS = 64;
const arenaOf = (sectors: number) => new PinnedArena(new Uint8Array(sectors * ARENA_ALIGNMENT_BYTES));

test('stretches of an arena never overlap, whatever is taken and given, and all of it comes back', async () => {
  const random = new Prng(11);
  const arena = arenaOf(SECTORS);
  const lent = new Map<Stretch, boolean[]>();
  const used = new Array<boolean>(SECTORS).fill(false);
  let waiting = 0;
  const take = async (bytes: number): Promise<void> => {
    waiting++;
    const stretch = await arena.take(bytes);
    waiting--;
    assert.equal(stretch.offsetBytes % ARENA_ALIGNMENT_BYTES, 0);
    assert.ok(stretch.byteLength >= bytes);
    const first = stretch.offsetBytes / ARENA_ALIGNMENT_BYTES;
    for (let i = first; i < first + stretch.byteLength / ARENA_ALIGNMENT_BYTES; i++) {
      assert.equal(used[i], false, `sector ${i} is lent once`);
      used[i] = true;
    }
    lent.set(stretch, []);
  };
  const give = (): void => {
    const [stretch] = lent.keys();
    if (stretch === undefined) return;
    lent.delete(stretch);
    const first = stretch.offsetBytes / ARENA_ALIGNMENT_BYTES;
    used.fill(false, first, first + stretch.byteLength / ARENA_ALIGNMENT_BYTES);
    arena.give(stretch);
  };
  const takes: Promise<void>[] = [];
  for (let round = 0; round < 2000; round++) {
    const [kind = 0, size = 0] = random.bytes(2);
    if (kind % 2 === 0) takes.push(take(1 + (size % 24) * ARENA_ALIGNMENT_BYTES));
    else give();
    if (round % 8 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  while (lent.size > 0 || waiting > 0) {
    give();
    await new Promise((resolve) => setImmediate(resolve));
  }
  await Promise.all(takes);
  const whole = await arena.take(SECTORS * ARENA_ALIGNMENT_BYTES);
  assert.deepEqual(whole, { offsetBytes: 0, byteLength: SECTORS * ARENA_ALIGNMENT_BYTES });
});

test('a large stretch that waits is not overtaken by small ones', async () => {
  const arena = arenaOf(4);
  const first = await arena.take(ARENA_ALIGNMENT_BYTES);
  const order: string[] = [];
  const large = arena.take(4 * ARENA_ALIGNMENT_BYTES).then((stretch) => {
    order.push('large');
    arena.give(stretch);
  });
  const small = arena.take(1).then((stretch) => {
    order.push('small');
    arena.give(stretch);
  });
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(order, []);
  arena.give(first);
  await Promise.all([large, small]);
  assert.deepEqual(order, ['large', 'small']);
});

test('what is given back twice is an assert, not a stretch lent twice', async () => {
  const arena = arenaOf(4);
  const stretch = await arena.take(1);
  arena.give(stretch);
  assert.throws(() => arena.give(stretch), /given back once/);
});
