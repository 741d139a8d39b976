// Reads into GPU memory by cuFile: the CPU's bytes by every path, and right bytes or a typed error whatever it does.
//
// Over the stand-ins of mock_cuda.cc and mock_cufile.cc, which end the process at a call that breaks its rules; with
// INGOT_TEST_GPU=1 over the machine's own GPU and libcufile, where the tests that inject faults are skipped.

import { isRealGpu, noFaults, noGpu, withFaults } from './mock_driver.js';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Store, isStoreError } from '../../engine/index.js';
import {
  GUARD,
  GUARD_BYTES,
  TENSORS,
  checkAll,
  directory,
  hasKernels,
  layout,
  location,
  openStore,
} from './gpu_store.js';

const skip = noGpu !== false || hasKernels ? noGpu : 'this build has no CUDA kernels';
const skipFaults = noFaults !== false ? noFaults : skip;

/** A machine with nvidia-fs, as far as the core looks. */
const withModule = join(directory, 'nvidia-fs');
if (noGpu === false && !isRealGpu) {
  mkdirSync(withModule, { recursive: true });
  writeFileSync(join(withModule, 'version'), 'version: 2.20\n');
}

type Path = 'pinned' | 'cufile-compat' | 'cufile-direct';

async function onPath(
  context: TestContext,
  path: Path,
  body: (store: Store) => Promise<void>,
): Promise<void> {
  if (path === 'cufile-direct') {
    if (isRealGpu) return context.skip('direct mode of the real cuFile is not tested here');
    process.env['INGOT_NVIDIA_FS'] = withModule;
  }
  try {
    await using store = await openStore();
    await body(store);
  } catch (error) {
    const isMemory = isStoreError(error) && /lives in memory|has no O_DIRECT/.test(error.message);
    if (path !== 'cufile-direct' || !isMemory) throw error;
    context.skip('the temporary directory has no O_DIRECT: cuFile is never direct there');
  } finally {
    delete process.env['INGOT_NVIDIA_FS'];
  }
}

async function loadAll(store: Store, ref: string, path: Path, shift = 0): Promise<void> {
  const { places, bytes } = layout(shift);
  await using memory = await store.alloc(bytes, { type: 'cuda', id: 0 });
  await memory.copyFrom(new Uint8Array(bytes).fill(GUARD));
  const version = await store.get(ref);
  const into = ({ name, byteLength }: { name: string; byteLength: number }) =>
    memory.at(places.get(name) ?? 0, byteLength);
  for await (const _ of version.load(into, { path }));
  const back = new Uint8Array(bytes);
  await memory.copyTo(back);
  checkAll(back, places, `${ref} by ${path}`);
}

for (const path of ['cufile-compat', 'cufile-direct'] as const) {
  for (const ref of ['raw', 'auto', 'max']) {
    test(`load by ${path}, stored ${ref}: the CPU's bytes and nothing beside them`, { skip }, (context) =>
      onPath(context, path, async (store) => {
        for (const shift of [0, 2]) await loadAll(store, ref, path, shift);
        const { byPath, gpu } = store.stats();
        assert.ok((byPath[path]?.bytes ?? 0) > 1_000_000, 'the path is reported');
        assert.equal(gpu.suspects, 0);
        if (ref === 'auto') assert.ok(gpu.decodedOnGpuBytes > 1_500_000);
      }),
    );
  }
}

test('parts of tensors by cuFile: exactly the range, and nothing beside it', { skip }, async () => {
  await using store = await openStore();
  for (const ref of ['raw', 'auto']) {
    const version = await store.get(ref);
    for (const [offset, length] of [
      [1, 100],
      [65_530, 262_200],
      [0, 262_144],
      [1_399_000, 1_002],
    ] as const) {
      await using memory = await store.alloc(length + 2 * GUARD_BYTES, { type: 'cuda', id: 0 });
      await memory.copyFrom(new Uint8Array(memory.byteLength).fill(GUARD));
      const into = memory.at(GUARD_BYTES, length);
      await version.tensor('large').readInto(into, { offset, length, path: 'cufile-compat' });
      const back = new Uint8Array(memory.byteLength);
      await memory.copyTo(back);
      const expected = new Uint8Array(memory.byteLength).fill(GUARD);
      expected.set(TENSORS[0]!.bytes.subarray(offset, offset + length), GUARD_BYTES);
      assert.equal(Buffer.compare(back, expected), 0, `${ref} [${offset}, ${offset + length})`);
    }
  }
});

test('the path that cuFile does not take from a member is an error with the reason', { skip }, async () => {
  await using store = await openStore();
  await using memory = await store.alloc(TENSORS[0]!.bytes.length, { type: 'cuda', id: 0 });
  const tensor = (await store.get('raw')).tensor('large');
  await assert.rejects(
    tensor.readInto(memory, { path: 'cufile-direct' }),
    (error) =>
      isStoreError(error) &&
      error.code === 'E_UNSUPPORTED' &&
      /cufile-direct was demanded; this member takes cufile-compat: the nvidia-fs module is not loaded/.test(
        error.message,
      ),
  );
});

for (const [rules, what] of [
  ['read:1=-1', 'a read fails'],
  ['read:1=-5030', 'a read fails with an error of cuFile'],
  ['read:1=0', 'a read brings nothing'],
  ['short:1=4096,read:2=-1', 'a read is short, and then fails'],
  ['spoil:1=1', 'a read brings a wrong byte'],
] as const) {
  test(`${what}: it is suspect, and read again through engine memory`, { skip: skipFaults }, async () => {
    await using store = await openStore();
    for (const ref of ['raw', 'auto']) {
      const before = store.stats().gpu.suspects;
      // Another text for each: the stand-in counts anew.
      const own = `${rules},none:${ref.length}=1`;
      await withFaults(own, () => loadAll(store, ref, 'cufile-compat'), 'INGOT_MOCK_CUFILE');
      assert.ok(store.stats().gpu.suspects > before, `${ref}: it was seen`);
    }
  });
}

test('a short read is gone on with where it stopped', { skip: skipFaults }, async () => {
  await using store = await openStore();
  await withFaults(
    'short:1=4096,short:3=65536',
    () => loadAll(store, 'auto', 'cufile-compat'),
    'INGOT_MOCK_CUFILE',
  );
  assert.equal(store.stats().gpu.suspects, 0);
});

test('what cuFile refuses at once is told with its number', { skip: skipFaults }, async () => {
  for (const [rules, code, pattern] of [
    [
      'register:1=5027',
      'E_UNSUPPORTED',
      /cuFile cannot be used: cuFileHandleRegister failed \(cuFile's error 5027/,
    ],
    ['buffer:1=5008', 'E_GPU', /cuFileBufRegister failed \(cuFile's error 5008/],
  ] as const) {
    await using store = await openStore();
    const failing = withFaults(rules, () => loadAll(store, 'raw', 'cufile-compat'), 'INGOT_MOCK_CUFILE');
    await assert.rejects(
      failing,
      (error) => isStoreError(error) && error.code === code && pattern.test(error.message),
    );
  }
});

test('aborts and closing while cuFile reads: nothing is touched after, and the store goes on', {
  skip: skipFaults,
}, async () => {
  const store = await openStore();
  const { places, bytes } = layout(0);
  const memory = await store.alloc(bytes, { type: 'cuda', id: 0 });
  const version = await store.get('raw');
  const into = ({ name, byteLength }: { name: string; byteLength: number }) =>
    memory.at(places.get(name) ?? 0, byteLength);
  await withFaults(
    'late=5',
    async () => {
      for (let delay = 0; delay < 8; delay++) {
        const stop = new AbortController();
        const reason = new Error('enough');
        setTimeout(() => stop.abort(reason), 2 * delay);
        try {
          for await (const _ of version.load(into, { signal: stop.signal, path: 'cufile-compat' }));
        } catch (error) {
          assert.equal(error, reason);
        }
      }
      await loadAll(store, 'auto', 'cufile-compat');
      // The stand-in ends the process when a handle or a buffer goes while it is read.
      const left = version
        .tensor('large')
        .readInto(into({ name: 'large', byteLength: TENSORS[0]!.bytes.length }), {
          path: 'cufile-compat',
        });
      await Promise.allSettled([left, memory.close(), store.close()]);
    },
    'INGOT_MOCK_CUFILE',
  );
});

test('a process that ends while cuFile reads ends at once and in order', { skip: skipFaults }, async () => {
  await (await openStore()).close();
  const engine = new URL('../../engine/index.js', import.meta.url).href;
  const source = `
    import { open } from ${JSON.stringify(engine)};
    const store = await open(${JSON.stringify(location)}, { mode: 'r' });
    const tensor = (await store.get('raw')).tensor('large');
    const memory = await store.alloc(tensor.byteLength, { type: 'cuda', id: 0 });
    process.env.INGOT_MOCK_CUFILE = 'late=50';
    for (let i = 0; i < 6; i++) tensor.readInto(memory, { path: 'cufile-compat' }).catch(() => undefined);
    setTimeout(() => process.exit(3), 20);
  `;
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', source], {
    encoding: 'utf8',
    timeout: 30_000,
  });
  assert.equal(child.status, 3, child.stderr);
  assert.equal(child.stderr, '');
});
