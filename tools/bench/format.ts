// `bench format`: what encoding and decoding of each record costs, by tinybench. No I/O.
//
// Invariants
//   1. What is decoded was encoded here and is compared with its origin once before it is timed.
//   2. Names and sizes are those of a Llama checkpoint's records.
//
// The trees over these records are measured by test/bench/btree.bench.ts (node dist/test/bench/btree.bench.js).

import {
  decodeExtent,
  decodeManifest,
  decodeVersion,
  dtypeCode,
  encodeExtent,
  encodeLeaf,
  encodeManifest,
  encodeVersion,
  type Extent,
  type LeafItem,
  type Manifest,
  parseRef,
  runVersionKey,
  type Tensor,
  versionKey,
  type VersionRecord,
} from '../../format/index.js';
import type { Row } from './report.js';

const UUID = new Uint8Array(16).fill(7);
const PAGE_ITEMS = 40;
const EXTENT_BYTES = 4 * 1024 * 1024;
const BF16 = 'BF16';

interface Task {
  readonly name: string;
  readonly body: () => unknown;
}
interface TinyBench {
  add(name: string, body: () => unknown): TinyBench;
  run(): Promise<unknown>;
  readonly tasks: readonly { readonly name: string; readonly result: unknown }[];
}

const VERSION: VersionRecord = {
  id: 12_345,
  run: 'group/run-0042',
  step: 1_200,
  createdAtMs: 1_700_000_000_000,
  tensorCount: 291,
  blobCount: 4,
  fileCount: 5,
  rawBytes: 16e9,
  storedBytes: 16_000_000_000 - (16_000_000_000 % 4096),
  redundancy: 2,
  chunkBytes: EXTENT_BYTES,
  metadata: { commit: '0123456789abcdef' },
  metrics: { loss: 1.25 },
  kind: 0,
  flags: 0,
  keyId: 0,
  baseVersionId: 0,
};

function extentOf(): Extent {
  return {
    copies: [0, 1].map((member) => ({ member, sector: 4_096, placementBirth: 9 })),
    wantedCopies: 2,
    storedBytes: 2 * 1024 * 1024,
    rawBytes: 2 * 1024 * 1024,
    contentBirth: 9,
    segmentShift: 16,
    rawSum: 99n,
    segmentSums: BigUint64Array.from({ length: 32 }, (_, index) => BigInt(index) * 7_919n),
    sumLeafId: 0,
    sumLeafSlot: 0,
    referenceCount: 1,
    dtype: 255,
  };
}

function manifestOf(tensorCount: number, dtype: number): Manifest {
  const tensors = Array.from(
    { length: tensorCount },
    (_, index): Tensor => ({
      name: `model.layers.${index >> 3}.mlp.part_${index & 7}.weight`,
      dtype,
      shape: [4_096, 512],
      rawBytes: EXTENT_BYTES,
      rawSum: BigInt(index),
      inlineBytes: new Uint8Array(0),
      fileIndex: -1,
      fileOffset: 0,
      pieces: [{ extentId: index + 1, rawOffset: 0, rawBytes: EXTENT_BYTES }],
    }),
  );
  return { tensors, blobs: [], files: [] };
}

function leafTasks(): Task[] {
  const value = encodeVersion(VERSION);
  const items = Array.from(
    { length: PAGE_ITEMS },
    (_, index): LeafItem => ({
      key: versionKey(index + 1, 0),
      value,
      isLarge: false,
    }),
  );
  const fields = { treeId: 1, birth: 9, storeUuid: UUID };
  return [{ name: `page: encode a leaf of ${PAGE_ITEMS} versions`, body: () => encodeLeaf(items, fields) }];
}

function tasks(): Task[] {
  const version = encodeVersion(VERSION);
  const extent = encodeExtent(extentOf());
  const small = manifestOf(291, dtypeCode(BF16));
  const large = manifestOf(100_000, dtypeCode(BF16));
  const smallBytes = encodeManifest(small);
  const largeBytes = encodeManifest(large);
  if (decodeVersion(version).run !== VERSION.run) throw new Error('a version does not come back');
  if (decodeManifest(largeBytes).tensors.length !== large.tensors.length)
    throw new Error('a manifest does not come back');
  if (decodeExtent(extent).segmentSums[31] !== extentOf().segmentSums[31])
    throw new Error('an extent does not come back');
  return [
    { name: 'ref: parse run@step', body: () => parseRef('group/run-0042@1200') },
    { name: "key: of a run's version", body: () => runVersionKey('group/run-0042', 12_345) },
    { name: 'version record: encode', body: () => encodeVersion(VERSION) },
    { name: 'version record: decode', body: () => decodeVersion(version) },
    { name: 'extent record, 32 sums: encode', body: () => encodeExtent(extentOf()) },
    { name: 'extent record, 32 sums: decode', body: () => decodeExtent(extent) },
    ...leafTasks(),
    { name: 'manifest, 291 tensors: encode', body: () => encodeManifest(small) },
    { name: 'manifest, 291 tensors: decode', body: () => decodeManifest(smallBytes) },
    { name: 'manifest, 100,000 tensors: encode', body: () => encodeManifest(large) },
    { name: 'manifest, 100,000 tensors: decode', body: () => decodeManifest(largeBytes) },
  ];
}

export async function benchFormat(): Promise<Row[]> {
  let bench: TinyBench;
  try {
    const name: string = 'tinybench';
    const { Bench } = (await import(name)) as { readonly Bench: new (options: object) => TinyBench };
    bench = new Bench({ time: 500, warmupTime: 100 });
  } catch {
    return [{ what: 'format', note: 'skipped: tinybench is not installed (a development dependency)' }];
  }
  for (const { name, body } of tasks()) bench.add(name, body);
  await bench.run();
  return bench.tasks.map(({ name, result }) => {
    const { latency, error } = result as {
      latency?: { readonly p50: number; readonly rme: number };
      error?: unknown;
    };
    if (latency === undefined) throw error;
    return {
      what: name,
      value: latency.p50 * 1e3,
      unit: 'us',
      note: `median; +-${latency.rme.toFixed(1)}% of the mean`,
    };
  });
}
