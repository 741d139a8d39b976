// Fault guarded: a commit refused because the LZ4 block of a free record crosses a sector by the places of the very
// pages that hold it, back and forth, so that the free map never settles.
//
// Real records do so about once in half a million roots. Here the compressor is an adversary: each second block
// is "not worth it". It has to be in place before the engine is loaded.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import type { SpaceGrant } from '../../engine/contract.js';

const ROOTS = 40;
const RUNS = 600;

interface Compressor {
  compressSync: (raw: Buffer) => Buffer;
}

test('every root settles under a compressor that flips with each record', async () => {
  const lz4 = createRequire(import.meta.url)('lz4-napi') as Compressor;
  const { compressSync } = lz4;
  let calls = 0;
  lz4.compressSync = (raw) => {
    calls += 1;
    if (calls % 2 === 0) return compressSync(raw);
    const unworthy = Buffer.alloc(raw.byteLength + 4, 1);
    unworthy.writeUInt32LE(raw.byteLength, 0);
    return unworthy;
  };
  const { MIB, checkPartition, key, makeStore, open } = await import('./catalog_support.js');
  for (const members of [1, 2]) {
    const store = await makeStore(members, 64 * MIB, {}, 3);
    const catalog = await open(store);
    const held: SpaceGrant[] = [];
    for (let i = 0; i < 2 * RUNS * members; i += 1)
      held.push(await catalog.allocate({ member: i % members, sectorCount: 1, purpose: 'data' }));
    await catalog.commit(async (change) => {
      for (const grant of held) change.useSpace(grant);
    });
    const kept = held.filter((grant) => grant.sector % 2 === 0);
    await catalog.commit(async (change) => {
      for (const { member, sector, sectorCount } of held)
        if (sector % 2 !== 0) change.freeSpace(member, sector, sectorCount);
    });
    for (let root = 0; root < ROOTS; root += 1) {
      await catalog.commit((change) => change.put(0, key(`${root % 7}`), new Uint8Array(root * 30)));
    }
    await checkPartition(catalog, kept);
    await catalog.close();
    const again = await open(store);
    await checkPartition(again, kept);
    await again.close();
  }
  assert.ok(calls > ROOTS, `${calls} blocks were asked for`);
});
