// The public API compiles under strict settings as its users write it, and refuses what it must refuse.
//
// Nothing here runs but one line: the compiler is the judge, and `npm run check` runs it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StoreError, isStoreError, open } from '../../engine/index.js';
import type {
  BufferDesc,
  DType,
  MaintEvent,
  PruneDecision,
  ReadFault,
  Store,
  StoreEvent,
  StoreInfo,
  TensorInfo,
  Transaction,
  Version,
  VersionInfo,
  VersionSummary,
} from '../../engine/index.js';

export async function tenLines(path: string): Promise<Uint8Array> {
  const store: Store = await open(path, {
    mode: 'rw',
    create: {
      members: [
        { path: 'a.member', sizeBytes: 64 << 20 },
        { path: 'b.member', sizeBytes: 64 << 20 },
      ],
      redundancy: 2,
    },
  });
  const tx: Transaction = await store.begin('demo/run', { step: 1 });
  await tx.put('weight', new Uint8Array(new Float32Array([1, 2, 3, 4]).buffer), {
    dtype: 'F32',
    shape: [2, 2],
  });
  const version: Version = await tx.commit();
  const back: Uint8Array<ArrayBuffer> = await (await store.get(version.id)).tensor('weight').read();
  await store.close();
  return back;
}

export async function everything(store: Store, desc: BufferDesc, signal: AbortSignal): Promise<void> {
  const info: StoreInfo = store.info;
  const found: VersionSummary | Promise<VersionSummary> = store.lookup('run@latest');
  await using scope = await store.begin('run', {
    base: 'run@latest',
    metadata: { a: 'b' },
    metrics: { loss: 1 },
    redundancy: 2,
    signal,
  });
  const dtype: DType = 'BF16';
  await scope.put('a', { ...desc, dtype, shape: [2] });
  await scope.put('b', new Float32Array(4), { dtype: 'F32', shape: [4] }, { buffer: 'borrow' });
  await scope.link('c');
  await scope.putFile(
    'd',
    { path: '/x', offset: 8 },
    { dtype, shape: [2] },
    { file: scope.addFile({ name: 'x', prefix: new Uint8Array(8) }) },
  );
  await scope.commit({ tags: ['best'], signal });
  for await (const version of store.list({ prefix: 'r', tag: 'best', since: new Date() })) {
    const listed: VersionInfo = version;
    void listed.tags;
  }
  const version = await store.get('run');
  for await (const tensor of version.load(() => desc, {
    names: ['a'],
    maxInFlight: 1,
    signal,
    onFault: (fault: ReadFault) => void fault.member,
  })) {
    const landed: TensorInfo = tensor;
    void landed;
  }
  const bytes: number = await version.tensor('a').readInto(desc, { offset: 1, length: 2, path: 'io_uring' });
  for await (const event of version.verify({ signal })) {
    const seen: MaintEvent = event;
    if (seen.type === 'finding') void seen.error.where.member;
  }
  for await (const event of store.watch({ signal })) {
    const seen: StoreEvent = event;
    void seen.at;
  }
  const decisions: readonly PruneDecision[] = await store.prune(
    'run',
    { last: 3, best: { n: 1, metric: 'loss', mode: 'min' } },
    { dryRun: true },
  );
  await store.tag('run@1', 'best', { expect: null });
  void [info, found, bytes, decisions];
}

export async function refused(store: Store, version: Version, tx: Transaction): Promise<void> {
  // @ts-expect-error a dtype is one of the known names
  await tx.put('x', new Uint8Array(1), { dtype: 'float32', shape: [1] });
  // @ts-expect-error a version cannot be changed
  version.run = 'other';
  // @ts-expect-error redundancy is 1, 2 or 3
  await store.begin('run', { redundancy: 4 });
  // @ts-expect-error undefined is not "absent"
  await store.begin('run', { step: undefined });
}

test('the error type narrows by name and code', () => {
  const error: unknown = new StoreError('E_NOT_FOUND', 'x');
  assert.ok(isStoreError(error, 'E_NOT_FOUND'));
  assert.ok(!isStoreError(error, 'E_IO'));
});
