// Faults guarded: a length or an offset that was cut to 32 bits on the way of a tensor of more than 4 GiB: header,
// import, chunks, reads past 4 GiB, export. The source is sparse, with marks where 2^31, 2^32 and the ends are.

import assert from 'node:assert/strict';
import { closeSync, fsyncSync, mkdtempSync, openSync, readSync, rmSync, statSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { create, open } from '../../engine/index.js';
import { isStoreError } from '../../format/errors.js';
import { exportVersion } from '../../tools/export/exporter.js';
import { importModel } from '../../tools/import/importer.js';
import { layoutFile } from '../../tools/safetensors/writer.js';

const GIB = 2 ** 30;
/** Of bf16 numbers: 4.5 GiB and a little, no multiple of a chunk. */
const TENSOR_BYTES = 4.5 * GIB + 6;
const MARKS = [0, 2 ** 31 - 8, 2 ** 31, 2 ** 32 - 8, 2 ** 32, 2 ** 32 + 4096, TENSOR_BYTES - 8];
const COMPARE_BYTES = 16 * 2 ** 20;
const base = mkdtempSync(join(tmpdir(), 'ingot-large-'));
after(() => rmSync(base, { recursive: true, force: true }));

/** Eight bytes that say where they are. */
function markOf(offset: number): Buffer {
  const mark = Buffer.alloc(8);
  mark.writeBigUInt64LE(BigInt(offset) * 2_654_435_761n + 1n);
  return mark;
}

function makeSource(path: string): { dataOffset: number; sizeBytes: number } {
  const layout = layoutFile([
    { name: 'big', dtype: 'BF16', shape: [TENSOR_BYTES / 2] },
    { name: 'after', dtype: 'U8', shape: [5000] },
  ]);
  const place = layout.tensors.find(({ name }) => name === 'big');
  assert.ok(place !== undefined);
  const file = openSync(path, 'w');
  writeSync(file, layout.prefixBytes, 0, layout.prefixBytes.length, 0);
  for (const mark of MARKS) writeSync(file, markOf(mark), 0, 8, place.fileOffset + mark);
  writeSync(file, Buffer.of(1), 0, 1, layout.fileSizeBytes - 1);
  fsyncSync(file);
  closeSync(file);
  assert.equal(statSync(path).size, layout.fileSizeBytes);
  return { dataOffset: place.fileOffset, sizeBytes: layout.fileSizeBytes };
}

function assertSameFile(left: string, right: string, sizeBytes: number): void {
  assert.equal(statSync(right).size, sizeBytes);
  const [a, b] = [openSync(left, 'r'), openSync(right, 'r')];
  const [x, y] = [Buffer.alloc(COMPARE_BYTES), Buffer.alloc(COMPARE_BYTES)];
  for (let at = 0; at < sizeBytes; ) {
    const read = readSync(a, x, 0, COMPARE_BYTES, at);
    assert.equal(readSync(b, y, 0, COMPARE_BYTES, at), read);
    assert.ok(
      read > 0 && x.subarray(0, read).equals(y.subarray(0, read)),
      `the files differ near byte ${at}`,
    );
    at += read;
  }
  closeSync(a);
  closeSync(b);
}

for (const codec of ['raw', 'auto'] as const) {
  test(`a tensor of 4.5 GiB stored ${codec}: in, read past 4 GiB, and out byte for byte`, async () => {
    const source = join(base, 'big.safetensors');
    const { sizeBytes } = makeSource(source);
    const place = join(base, `store-${codec}`);
    await create(place, { members: [{ path: '0.member', sizeBytes: codec === 'raw' ? 5 * GIB : GIB }] });
    const store = await open(place, { mode: 'rw' });
    const { version } = await importModel(store, source, { run: 'big', codec, verifySource: true });
    const tensor = version.tensor('big');
    assert.equal(tensor.byteLength, TENSOR_BYTES);
    await assert.rejects(tensor.read(), (error) => isStoreError(error, 'E_RANGE'));
    for (const offset of MARKS) {
      const bytes = new Uint8Array(8);
      assert.equal(await tensor.readInto(bytes, { offset, length: 8 }), 8);
      assert.deepEqual(Buffer.from(bytes), markOf(offset), `read at ${offset}`);
      for await (const piece of tensor.stream({ offset, length: 8 }))
        assert.deepEqual(Buffer.from(piece), markOf(offset), `streamed at ${offset}`);
    }
    const out = join(base, `out-${codec}.safetensors`);
    await exportVersion(store, version, out, { format: 'original' });
    await store.close();
    rmSync(place, { recursive: true });
    assertSameFile(source, out, sizeBytes);
    rmSync(out);
  });
}
