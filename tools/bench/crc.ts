// `bench crc`: how fast CRC-64/NVME is here, in the cache and from memory, natively and in plain TypeScript.
//
// Invariants
//   1. Rates are of one thread, in its processor time: other work on the machine is left out. A call crosses from
//      JavaScript into the native core; what that costs is measured with an empty call and shown, once left in and
//      once taken out.
//   2. The sum of every timed buffer is compared between both implementations first, with every kernel.
//   3. Each kernel of the native core is timed where the processor has it: what machines with less would get.

import { checksumKernel, NativeIo } from '../../engine/index.js';
import { crc64 } from '../../format/checksum.js';
import type { Row } from './report.js';
import { median } from './statistics.js';

const CACHED_BYTES = 64 * 1024;
const LARGER_CACHED_BYTES = 1024 * 1024;
const MEMORY_BYTES = 512 * 1024 * 1024;
const MEMORY_PIECE_BYTES = 4 * 1024 * 1024;
const ROUNDS = 9;
const ROUND_MS = 100;

const rate = (bytes: number, ns: number): number => bytes / ns;

/** The kernels of processors with less, as they run here: the best one is in use again afterwards. */
function otherKernels(measure: () => number): Row[] {
  const best = checksumKernel();
  try {
    return (['pclmul', 'table'] as const).map((name): Row => {
      const what = `native by ${name}, 64 KiB in cache, call taken out`;
      if (checksumKernel(name) !== name) return { what, note: 'not on this processor' };
      const wanted = name === 'pclmul' ? { wanted: '>= 15', note: 'asked of PCLMULQDQ alone' } : {};
      return { what, value: measure(), unit: 'GB/s', ...wanted };
    });
  } finally {
    if (best === 'vpclmul' || best === 'pclmul' || best === 'table') checksumKernel(best);
  }
}

/** Nanoseconds of one call, the median of some rounds. */
function callNs(body: () => unknown): number {
  const taken: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    let calls = 0;
    const cpu = process.cpuUsage();
    const endMs = performance.now() + ROUND_MS;
    while (performance.now() < endMs) {
      for (let repeat = 0; repeat < 16; repeat += 1) body();
      calls += 16;
    }
    const { user, system } = process.cpuUsage(cpu);
    taken.push(((user + system) * 1e3) / calls);
  }
  return median(taken);
}

export async function benchCrc(): Promise<Row[]> {
  const io = new NativeIo();
  try {
    const cached = io.allocate(CACHED_BYTES);
    const larger = io.allocate(LARGER_CACHED_BYTES);
    const memory = io.allocate(MEMORY_BYTES);
    for (let at = 0; at < memory.byteLength; at += 8) memory[at] = at & 0xff;
    cached.set(memory.subarray(0, CACHED_BYTES));
    larger.set(memory.subarray(0, LARGER_CACHED_BYTES));
    const best = checksumKernel();
    const native = (bytes: Uint8Array): bigint => io.checksum.crc64(bytes);
    if (native(cached) !== crc64(cached)) throw new Error('the two implementations disagree');
    const emptyNs = callNs(() => native(cached.subarray(0, 0)));
    const cachedNs = callNs(() => native(cached));
    const largerNs = callNs(() => native(larger));
    let at = 0;
    const memoryNs = callNs(() => {
      native(memory.subarray(at, at + MEMORY_PIECE_BYTES));
      at = (at + MEMORY_PIECE_BYTES) % MEMORY_BYTES;
    });
    const kernels = otherKernels(() => {
      if (native(cached) !== crc64(cached)) throw new Error('the two implementations disagree');
      return rate(CACHED_BYTES, callNs(() => native(cached)) - emptyNs);
    });
    const plainNs = callNs(() => crc64(cached));
    return [
      {
        what: `native (${best}), 64 KiB in cache, call included`,
        value: rate(CACHED_BYTES, cachedNs),
        unit: 'GB/s',
        note: `an empty call takes ${emptyNs.toFixed(0)} ns`,
      },
      {
        what: 'native, 64 KiB in cache, call taken out',
        value: rate(CACHED_BYTES, cachedNs - emptyNs),
        unit: 'GB/s',
        wanted: '>= 40',
        note: 'asked of processors with AVX-512',
      },
      ...kernels,
      {
        what: 'native, 1 MiB in cache, call included',
        value: rate(LARGER_CACHED_BYTES, largerNs),
        unit: 'GB/s',
      },
      { what: 'native, 512 MiB from memory', value: rate(MEMORY_PIECE_BYTES, memoryNs), unit: 'GB/s' },
      { what: 'TypeScript, 64 KiB', value: rate(CACHED_BYTES, plainNs), unit: 'GB/s' },
    ];
  } finally {
    await io.close();
  }
}
