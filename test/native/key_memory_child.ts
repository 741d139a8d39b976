// A process that opens an encrypted store, writes, reads and then stands still; run by key_memory.test.ts.
//
// Lines on stdin say what to do next, a line on stdout that it is done: work, leak (keeps the bytes of a file in the
// heap, so that the search is seen to find something), busy (works until it is told something else), close, crash.

import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { open } from '../../engine/index.js';
import { withKey } from '../../tools/cli/keys.js';

const [, , location = '', passphraseFile = '', leakFile = ''] = process.argv;
const TENSORS = 3;
const TENSOR_BYTES = 300_000;

const store = await withKey({ passphraseFile }, async (key) => {
  if (key === undefined) throw new Error('no key');
  return open(location, { mode: 'rw', key });
});
const kept: Uint8Array[] = [];
let isBusy = false;

async function work(): Promise<void> {
  const tx = await store.begin('run');
  for (let k = 0; k < TENSORS; k += 1)
    await tx.put(`t${k}`, new Uint8Array(TENSOR_BYTES).fill(k), { dtype: 'U8', shape: [TENSOR_BYTES] });
  await tx.commit();
  await store.prune('run', { last: 1 });
  const version = await store.get('run');
  for await (const _ of version.load((info) => new Uint8Array(info.byteLength)));
  const first = await store.get('first');
  for await (const _ of first.load((info) => new Uint8Array(info.byteLength)));
}

console.log('open');
for await (const line of createInterface({ input: process.stdin })) {
  isBusy = false;
  if (line === 'work') await work();
  if (line === 'leak') kept.push(new Uint8Array(readFileSync(leakFile)));
  if (line === 'close') await store.close();
  if (line === 'crash') process.abort();
  if (line === 'busy') {
    isBusy = true;
    void (async () => {
      while (isBusy) await work();
    })();
  }
  console.log(line);
}
if (kept.length > 9) console.log('never');
