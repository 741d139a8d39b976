// Guards against warnings and leaks when one AbortSignal serves many operations.

import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';
import { onAbort } from '../../engine/abort_listeners.js';

test('a thousand operations on one signal are one listener, and none when they are done', () => {
  const controller = new AbortController();
  const removers = Array.from({ length: 1000 }, () => onAbort(controller.signal, () => undefined));
  assert.equal(getEventListeners(controller.signal, 'abort').length, 1);
  for (const remove of removers) remove();
  assert.equal(getEventListeners(controller.signal, 'abort').length, 0);
});

test('every listener runs once, in order, and a removed one never', () => {
  const controller = new AbortController();
  const ran: number[] = [];
  const removers = [1, 2, 3].map((n) => onAbort(controller.signal, () => ran.push(n)));
  removers[1]?.();
  controller.abort();
  assert.deepEqual(ran, [1, 3]);
  for (const remove of removers) remove();
  assert.deepEqual(ran, [1, 3]);
});

test('a listener removed by an earlier one during the abort does not run', () => {
  const controller = new AbortController();
  const ran: string[] = [];
  let removeSecond = (): void => undefined;
  onAbort(controller.signal, () => removeSecond());
  removeSecond = onAbort(controller.signal, () => ran.push('second'));
  controller.abort();
  assert.deepEqual(ran, []);
});
