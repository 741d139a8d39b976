// Several GPUs, differences on the GPU, writes from GPU memory, what is near a GPU, and openings that fail.
//
// Over a stand-in driver with two GPUs; with INGOT_TEST_GPU=1 over the machine's own, where what needs two is skipped
// with one, and what injects faults is skipped.

import './two_gpus.js';
import { isRealGpu, noFaults, noGpu, withFaults } from './mock_driver.js';
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { isStoreError, open } from '../../engine/index.js';
import { loadNative } from '../../native/index.js';
import {
  GUARD,
  TENSORS,
  checkAll,
  directory,
  elementBytes,
  hasKernels,
  layout,
  location,
  openStore,
} from './gpu_store.js';

const gpus = noGpu === false ? loadNative().gpu.list().gpus.length : 0;
const noPair = noGpu !== false ? noGpu : gpus < 2 ? `${gpus} GPU here; two are needed` : false;

test('one load to two GPUs: every tensor on its own, right, and nothing beside it', {
  skip: noPair,
}, async () => {
  await using store = await openStore();
  for (const ref of ['raw', 'auto']) {
    const { places, bytes } = layout(0);
    await using first = await store.alloc(bytes, { type: 'cuda', id: 0 });
    await using second = await store.alloc(bytes, { type: 'cuda', id: 1 });
    for (const memory of [first, second]) await memory.copyFrom(new Uint8Array(bytes).fill(GUARD));
    const version = await store.get(ref);
    const isFirst = new Map(TENSORS.map(({ name }, index) => [name, index % 2 === 0]));
    for await (const _ of version.load(({ name, byteLength }) =>
      (isFirst.get(name) === true ? first : second).at(places.get(name) ?? 0, byteLength),
    ));
    const joined = new Uint8Array(bytes).fill(GUARD);
    for (const memory of [first, second]) {
      const back = new Uint8Array(bytes);
      await memory.copyTo(back);
      for (const tensor of TENSORS) {
        if ((isFirst.get(tensor.name) === true) !== (memory === first)) continue;
        const at = places.get(tensor.name) ?? 0;
        joined.set(back.subarray(at, at + tensor.bytes.length), at);
        back.fill(GUARD, at, at + tensor.bytes.length);
      }
      assert.ok(
        back.every((byte) => byte === GUARD),
        'nothing else was written',
      );
    }
    checkAll(joined, places, `${ref}, two GPUs`);
  }
});

test('memory of one GPU named as another is refused', { skip: noPair }, async () => {
  await using store = await openStore();
  const tensor = (await store.get('raw')).tensor('large');
  await using memory = await store.alloc(tensor.byteLength, { type: 'cuda', id: 1 });
  const { ptr, byteLength } = memory;
  await assert.rejects(
    tensor.readInto({ ptr, byteLength, device: { type: 'cuda', id: 0 } }),
    (error) => isStoreError(error) && error.code === 'E_USAGE',
  );
});

/** Two changed numbers in a thousand: differences that are worth coding. */
function changed(bytes: Uint8Array): Uint8Array {
  const next = bytes.slice();
  for (let at = 0; at < next.length; at += 1000) next[at] = (next[at] ?? 0) ^ 1;
  return next;
}

for (const path of ['pinned', 'cufile-compat'] as const) {
  test(`differences are joined to their bases on the GPU, by ${path}`, {
    skip: noGpu !== false || hasKernels ? noGpu : 'this build has no CUDA kernels',
  }, async () => {
    await using store = await open(join(directory, `delta-${path}`), {
      mode: 'rw',
      create: { members: [{ path: 'a.member', sizeBytes: 64 << 20 }] },
    });
    const floats = TENSORS.filter(({ name }) => ['large', 'wide', 'chunk'].includes(name));
    let bytesOf = new Map(floats.map(({ name, bytes }) => [name, bytes]));
    let base: string | null = null;
    for (let depth = 0; depth < 3; depth++) {
      const options = base === null ? {} : { base, delta: true };
      const tx = await store.begin('chain', { codec: 'auto', chunkBytes: 262_144, ...options });
      for (const { name, dtype } of floats) {
        const bytes = bytesOf.get(name) ?? new Uint8Array(0);
        await tx.put(name, bytes, { dtype, shape: [bytes.length / (elementBytes[dtype] ?? 1)] });
      }
      base = (await tx.commit()).id;
      if (depth < 2) bytesOf = new Map([...bytesOf].map(([name, bytes]) => [name, changed(bytes)]));
    }
    const version = await store.get('chain');
    for (const rules of ['', 'flip:3=1']) {
      if (rules !== '' && isRealGpu) continue;
      for (const [name, bytes] of bytesOf) {
        await using memory = await store.alloc(bytes.length + 16, { type: 'cuda', id: 0 });
        await memory.copyFrom(new Uint8Array(memory.byteLength).fill(GUARD));
        const before = store.stats().gpu;
        await withFaults(rules, () => version.tensor(name).readInto(memory.at(0, bytes.length), { path }));
        const after = store.stats().gpu;
        const back = new Uint8Array(memory.byteLength);
        await memory.copyTo(back);
        const expected = new Uint8Array(memory.byteLength).fill(GUARD);
        expected.set(bytes);
        assert.equal(Buffer.compare(back, expected), 0, `${name} ${rules}`);
        if (rules === '')
          assert.ok(after.decodedOnGpuBytes > before.decodedOnGpuBytes, `${name}: on the GPU`);
      }
    }
  });
}

test('put from GPU memory stores its bytes, whole chunks and small ones, raw and coded', {
  skip: noGpu,
}, async () => {
  await using store = await openStore();
  const { places, bytes } = layout(2);
  await using memory = await store.alloc(bytes, { type: 'cuda', id: 0 });
  const image = new Uint8Array(bytes);
  for (const { name, bytes: tensor } of TENSORS) image.set(tensor, places.get(name));
  await memory.copyFrom(image);
  for (const codec of ['raw', 'auto'] as const) {
    const tx = await store.begin('from-gpu', { codec, chunkBytes: 262_144 });
    for (const { name, dtype, bytes: tensor } of TENSORS) {
      const shape = [tensor.length / (elementBytes[dtype] ?? 1)];
      const src = memory.at(places.get(name) ?? 0, tensor.length);
      await tx.put(name, { ...src, dtype, shape, stream: 0n });
    }
    const version = await tx.commit();
    for (const { name, bytes: tensor } of TENSORS) {
      const stored = await version.tensor(name).read();
      assert.equal(Buffer.compare(stored, tensor), 0, `${codec}: ${name}`);
    }
  }
  const tx = await store.begin('from-gpu');
  const stray = { ptr: 0x7000_0000_0000n, byteLength: 4096, device: { type: 'cuda', id: 0 } } as const;
  await assert.rejects(
    tx.put('stray', { ...stray, dtype: 'U8', shape: [4096] }),
    (error) => isStoreError(error) && error.code === 'E_USAGE',
  );
  await tx.abort();
});

const addressSpaceBytes = (): number =>
  1024 * Number(/^VmSize:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? 0);

test('a GPU that cannot be opened gives its host memory back', { skip: noFaults }, async () => {
  await using store = await openStore();
  let turns = 0;
  // Another number each time: the stand-in counts anew.
  const fail = () =>
    withFaults(`register:1=${801 + turns++}`, () =>
      assert.rejects(store.alloc(4096, { type: 'cuda', id: 0 })),
    );
  await fail();
  const before = addressSpaceBytes();
  for (let turn = 0; turn < 8; turn++) await fail();
  const grown = addressSpaceBytes() - before;
  assert.ok(grown < 256 << 20, `${grown} bytes more after eight failures of 128 MiB each`);
  await (await store.alloc(4096, { type: 'cuda', id: 0 })).close();
});

test('lanes run on the processors of the node that sysfs names for the GPU', { skip: noFaults }, async () => {
  const sysfs = join(directory, 'sysfs');
  const write = (path: string, text: string) => {
    mkdirSync(join(sysfs, path, '..'), { recursive: true });
    writeFileSync(join(sysfs, path), text);
  };
  write('bus/pci/devices/0000:01:00.0/numa_node', '1\n');
  write('devices/system/node/online', '0-1\n');
  write('devices/system/node/node1/cpulist', '0\n');
  process.env['INGOT_SYSFS'] = sysfs;
  try {
    assert.equal(loadNative().gpu.list().gpus[0]?.numaNode, 1);
    await using store = await open(location, { mode: 'r' });
    await (await store.alloc(4096, { type: 'cuda', id: 0 })).close();
    const lanes = readdirSync('/proc/self/task').flatMap((task) => {
      const status = readFileSync(`/proc/self/task/${task}/status`, 'utf8');
      return status.startsWith('Name:\tingot-gpu\n')
        ? [/^Cpus_allowed_list:\s+(.*)$/m.exec(status)?.[1]]
        : [];
    });
    assert.deepEqual([...new Set(lanes)], ['0']);
  } finally {
    delete process.env['INGOT_SYSFS'];
  }
});
