// The part of `bench catalog` about one version with very many tensors: import, get, load.
//
// Invariants
//   1. The source is one safetensors file written here; tensors are too large to live in the catalog.
//   2. What is loaded is compared with the source in full.

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { NativeIo, open } from '../../engine/index.js';
import { importModel } from '../import/importer.js';
import type { Row } from './report.js';

const TENSOR_BYTES = 4096;
const MEBIBYTE = 1024 * 1024;

/** A safetensors file of `count` tensors of 2,048 bf16 values. */
async function writeSource(path: string, count: number): Promise<Uint8Array> {
  const header: Record<string, object> = {};
  for (let index = 0; index < count; index += 1) {
    const name = `model.layers.${Math.floor(index / 1_000)}.experts.${index % 1_000}.weight`;
    header[name] = {
      dtype: 'BF16',
      shape: [TENSOR_BYTES / 2],
      data_offsets: [index * TENSOR_BYTES, (index + 1) * TENSOR_BYTES],
    };
  }
  const text = JSON.stringify(header);
  const json = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const file = Buffer.alloc(8 + json.byteLength + count * TENSOR_BYTES);
  file.writeBigUInt64LE(BigInt(json.byteLength));
  json.copy(file, 8);
  const data = new Uint32Array(count * (TENSOR_BYTES / 4));
  for (let index = 0; index < data.length; index += 1) data[index] = Math.imul(index + 1, 2_654_435_761);
  Buffer.from(data.buffer).copy(file, 8 + json.byteLength);
  await writeFile(path, file);
  return file.subarray(8 + json.byteLength);
}

export async function benchTensors(directory: string, count: number): Promise<Row[]> {
  const folder = join(directory, 'tensors');
  await mkdir(folder, { recursive: true });
  const source = join(folder, 'model.safetensors');
  const data = await writeSource(source, count);
  const sizeBytes = Math.ceil((data.byteLength * 4) / MEBIBYTE + 256) * MEBIBYTE;
  const create = { members: [{ path: 'a.member', sizeBytes }], redundancy: 1 as const };
  let store = await open(join(folder, 'store'), { mode: 'rw', create });
  const importMs = await timed(() => importModel(store, source, { run: 'many' }));
  const storedBytes = store.info.storedBytes;
  await store.close();
  store = await open(join(folder, 'store'), { mode: 'r' });
  const memory = new NativeIo();
  try {
    const firstMs = await timed(() => store.get('many'));
    const getMs = await timed(() => store.get('many'));
    const version = await store.get('many');
    const target = memory.allocate(count * TENSOR_BYTES);
    let at = 0;
    const loadMs = await timed(async () => {
      const into = (): Uint8Array => target.subarray(at, (at += TENSOR_BYTES));
      for await (const _ of version.load(into));
    });
    if (Buffer.compare(target, data) !== 0) throw new Error('the load differs from the source');
    const name = `${count} tensors of ${TENSOR_BYTES} bytes in one version`;
    return [
      { what: `${name}: import`, value: importMs / 1e3, unit: 's' },
      { what: `${name}: get, first`, value: firstMs, unit: 'ms' },
      { what: `${name}: get, again`, value: getMs, unit: 'ms' },
      {
        what: `${name}: load, verified and compared`,
        value: loadMs / 1e3,
        unit: 's',
        note: `${(data.byteLength / loadMs / 1e6).toFixed(2)} GB/s`,
      },
      { what: `${name}: space`, value: storedBytes / data.byteLength, unit: 'x of tensor bytes' },
    ];
  } finally {
    await store.close();
    await memory.close();
  }
}

async function timed(body: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await body();
  return performance.now() - startMs;
}
