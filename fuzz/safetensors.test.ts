// Properties of the safetensors reader: what is written reads back, and whatever a mutation makes
// of a header is either read as a consistent file or refused with a typed error.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DTYPES, dtypeBits, elementCount, tensorByteLength } from '../format/dtype.js';
import { isStoreError } from '../format/errors.js';
import { parseHeader, type SafetensorsHeader } from '../tools/safetensors/header.js';
import { parseIndex } from '../tools/safetensors/index_file.js';
import { layoutFile, planShards, type TensorToWrite } from '../tools/safetensors/writer.js';

const numRuns = Number(process.env.INGOT_FUZZ_RUNS ?? 200);

const dimension = fc.oneof(fc.nat(9), fc.constantFrom(0, 1, 2 ** 20, 2 ** 40));
const text = fc.string({ unit: 'binary', maxLength: 12 });
const tensor: fc.Arbitrary<TensorToWrite> = fc
  .record({
    name: fc.oneof(text, fc.constantFrom('__proto__', 'a', '10', 'model.layers.0.weight')),
    dtype: fc.constantFrom(...DTYPES),
    shape: fc.array(dimension, { maxLength: 4 }),
  })
  .filter(({ name, dtype, shape }) => {
    if (name === '__metadata__') return false;
    const elements = shape.reduce((a, b) => a * b, 1);
    const partial = shape.reduce(
      (peak, _, at) =>
        Math.max(
          peak,
          shape.slice(0, at + 1).reduce((a, b) => a * b, 1),
        ),
      1,
    );
    return partial < 2 ** 45 && (elements * dtypeBits(dtype)) % 8 === 0;
  });
const tensors = fc.uniqueArray(tensor, { selector: ({ name }) => name, maxLength: 12 });
const metadata = fc.option(fc.dictionary(text, text, { maxKeys: 4 }), { nil: null });

/** Parses, or checks that the refusal is a typed one that says where. */
function parseOrTyped(prefix: Uint8Array, fileSizeBytes: number): SafetensorsHeader | null {
  try {
    return parseHeader(prefix, fileSizeBytes, 'f');
  } catch (error) {
    assert.ok(isStoreError(error, 'E_FORMAT'), String((error as Error).stack));
    assert.ok(Number.isSafeInteger(error.where.offsetBytes));
    return null;
  }
}

/** What a header that was accepted promises. */
function requireConsistent(header: SafetensorsHeader, fileSizeBytes: number): void {
  let end = header.dataOffset;
  for (const { fileOffset, byteLength, dtype, shape } of header.tensors) {
    assert.equal(fileOffset, end);
    assert.equal(byteLength, tensorByteLength(dtype, shape));
    assert.ok(elementCount(shape) >= 0);
    end += byteLength;
  }
  assert.equal(end, fileSizeBytes);
  assert.equal(new Set(header.tensors.map(({ name }) => name)).size, header.tensors.length);
}

test('round trip: a written header reads back as what was written', () => {
  fc.assert(
    fc.property(tensors, metadata, (list, pairs) => {
      const layout = layoutFile(list, pairs);
      const header = parseHeader(layout.prefixBytes, layout.fileSizeBytes, 'f');
      requireConsistent(header, layout.fileSizeBytes);
      const pick = ({ name, dtype, shape }: TensorToWrite) => ({ name, dtype, shape: [...shape] });
      assert.deepEqual(header.tensorsInHeaderOrder.map(pick), layout.tensors.map(pick));
      assert.deepEqual(
        header.metadata === null ? null : [...header.metadata],
        pairs && Object.entries(pairs),
      );
      // JSON.parse agrees wherever it can express the same.
      const json = JSON.parse(Buffer.from(layout.prefixBytes.subarray(8)).toString());
      for (const { name, dtype } of header.tensors) assert.equal(json[name].dtype, dtype);
    }),
    { numRuns },
  );
});

test('mutation: a changed header is consistent or refused', () => {
  const bytes = [
    0x22, 0x5c, 0x7b, 0x7d, 0x5b, 0x5d, 0x2c, 0x3a, 0x30, 0x39, 0x20, 0x2d, 0x2e, 0x65, 0x80, 0xff, 0,
  ];
  const edit = fc.record({
    at: fc.nat(),
    byte: fc.oneof(fc.constantFrom(...bytes), fc.nat(255)),
    kind: fc.constantFrom('set', 'insert', 'remove', 'duplicate'),
  });
  fc.assert(
    fc.property(
      tensors,
      metadata,
      fc.array(edit, { minLength: 1, maxLength: 4 }),
      fc.boolean(),
      (list, pairs, edits, fix) => {
        const layout = layoutFile(list, pairs);
        const data = layout.fileSizeBytes - layout.prefixBytes.byteLength;
        let body = [...layout.prefixBytes];
        for (const { at, byte, kind } of edits) {
          const place = fix ? 8 + (at % (body.length - 8)) : at % body.length;
          if (kind === 'set') body[place] = byte;
          else if (kind === 'insert') body.splice(place, 0, byte);
          else if (kind === 'remove' && body.length > 12) body.splice(place, 1);
          else
            body = [
              ...body.slice(0, place),
              ...body.slice(Math.max(8, place - 9), place),
              ...body.slice(place),
            ];
        }
        const raw = Uint8Array.from(body);
        if (fix) new DataView(raw.buffer).setBigUint64(0, BigInt(raw.byteLength - 8), true);
        const announced = new DataView(raw.buffer).getBigUint64(0, true);
        const size = raw.byteLength + data;
        const prefix = announced <= BigInt(raw.byteLength - 8) ? raw.subarray(0, 8 + Number(announced)) : raw;
        if (announced > BigInt(raw.byteLength - 8) && announced <= BigInt(size - 8)) return;
        const header = parseOrTyped(prefix, size);
        if (header !== null) requireConsistent(header, size);
      },
    ),
    { numRuns: numRuns * 5 },
  );
});

test('truncation: a file cut anywhere is refused', () => {
  fc.assert(
    fc.property(tensors, fc.nat(), (list, cut) => {
      const layout = layoutFile(list);
      const size = cut % layout.fileSizeBytes;
      const prefix = layout.prefixBytes.subarray(0, Math.min(size, layout.prefixBytes.byteLength));
      assert.equal(parseOrTyped(prefix, size), null);
    }),
    { numRuns },
  );
});

test('noise: arbitrary bytes and arbitrary JSON are consistent or refused', () => {
  const body = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.json().map((json) => new Uint8Array(Buffer.from(json))),
  );
  fc.assert(
    fc.property(body, fc.nat(64), (bytes, extra) => {
      const raw = new Uint8Array(8 + bytes.byteLength);
      new DataView(raw.buffer).setBigUint64(0, BigInt(bytes.byteLength), true);
      raw.set(bytes, 8);
      const header = parseOrTyped(raw, raw.byteLength + extra);
      if (header !== null) requireConsistent(header, raw.byteLength + extra);
    }),
    { numRuns: numRuns * 5 },
  );
});

test('shards and index: every tensor once, in the shard that the index names', () => {
  fc.assert(
    fc.property(tensors, fc.integer({ min: 1, max: 4096 }), (list, maxShardBytes) => {
      const plan = planShards(list, { maxShardBytes });
      const places = new Map<string, string>();
      for (const { fileName, layout } of plan.shards) {
        requireConsistent(
          parseHeader(layout.prefixBytes, layout.fileSizeBytes, fileName),
          layout.fileSizeBytes,
        );
        for (const { name } of layout.tensors) places.set(name, fileName);
        const bytes = layout.fileSizeBytes - layout.prefixBytes.byteLength;
        assert.ok(
          bytes <= maxShardBytes || layout.tensors.filter(({ byteLength }) => byteLength > 0).length === 1,
        );
      }
      assert.equal(places.size, list.length);
      if (plan.index === null) assert.equal(plan.shards.length, 1);
      else
        assert.deepEqual(new Map([...parseIndex(plan.index.bytes, 'i')].sort()), new Map([...places].sort()));
    }),
    { numRuns },
  );
});

test('index noise: arbitrary JSON and mutated indices are read or refused', () => {
  const index = fc.oneof(
    fc.json(),
    fc
      .record({ metadata: fc.jsonValue(), weight_map: fc.dictionary(text, text) })
      .map((value) => JSON.stringify(value)),
  );
  fc.assert(
    fc.property(index, fc.nat(), fc.nat(255), fc.boolean(), (json, at, byte, mutate) => {
      const bytes = Buffer.from(json);
      if (mutate && bytes.byteLength > 0) bytes[at % bytes.byteLength] = byte;
      try {
        const map = parseIndex(bytes, 'i');
        for (const name of map.values()) assert.ok(!/[/\\\0]/.test(name) && name !== '..');
      } catch (error) {
        assert.ok(isStoreError(error, 'E_FORMAT'), String((error as Error).stack));
      }
    }),
    { numRuns: numRuns * 3 },
  );
});
