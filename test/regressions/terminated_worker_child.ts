// A process whose workers are terminated in the midst of loads and puts; run by terminated_worker.test.ts.

import { Worker, isMainThread, workerData } from 'node:worker_threads';
import { open } from '../../engine/index.js';

const MEBIBYTE = 1024 * 1024;
const U8 = (length: number) => ({ dtype: 'U8' as const, shape: [length] });

async function work(location: string): Promise<never> {
  const store = await open(location, { mode: 'rw' });
  const version = await store.get('base@latest');
  const loadForEver = async (): Promise<never> => {
    for (;;) {
      for await (const _ of version.load((info) => new Uint8Array(info.byteLength)));
      await version.tensor('small').read();
    }
  };
  const putForEver = async (): Promise<never> => {
    for (;;) {
      const tx = await store.begin('run');
      await tx.put('t', new Uint8Array(4 * MEBIBYTE), U8(4 * MEBIBYTE));
      await tx.abort();
    }
  };
  return Promise.race([loadForEver(), loadForEver(), loadForEver(), putForEver()]);
}

async function terminateAgainAndAgain(location: string, times: number): Promise<void> {
  const create = { members: [{ path: 'a.member', sizeBytes: 64 * MEBIBYTE }], redundancy: 1 as const };
  const store = await open(location, { mode: 'rw', create });
  const tx = await store.begin('base');
  await tx.put('large', new Uint8Array(16 * MEBIBYTE), U8(16 * MEBIBYTE));
  await tx.put('small', new Uint8Array(70_000), U8(70_000));
  await tx.commit();
  await store.close();
  for (let i = 0; i < times; i += 1) {
    const worker = new Worker(new URL(import.meta.url), { workerData: location });
    worker.on('error', (error) => {
      throw error;
    });
    await new Promise((resolve) => setTimeout(resolve, 130 + ((i * 37) % 110)));
    await worker.terminate();
  }
  // The lock and everything else went with the last worker.
  const again = await open(location, { mode: 'rw' });
  for await (const event of again.fsck({ data: true })) if (event.type === 'finding') throw event.error;
  await again.close();
}

if (isMainThread) await terminateAgainAndAgain(process.argv[2] ?? '', Number(process.argv[3]));
else await work(workerData as string);
