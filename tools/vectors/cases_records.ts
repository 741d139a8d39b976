// Test vectors of the catalog records (FlatBuffers): valid ones, and ones whose structure lies.
//
// Invariants as in cases_fixed.ts.

import {
  JOB_RESILVER,
  JOB_SCRUB,
  dtypeCode,
  encodeExtent,
  decodeJob,
  encodeJob,
  encodeManifest,
  encodeMember,
  encodeRun,
  encodeSumLeaf,
  encodeTag,
  encodeVersion,
} from '../../format/index.js';
import { PLANE_CODEC, TRANSFORM } from '../../format/index.js';
import type { Extent, Manifest } from '../../format/index.js';
import type { VectorCase, VectorFile } from './cases_fixed.js';
import { STORE_UUID, patched } from './cases_fixed.js';

const extent: Extent = {
  copies: [
    { member: 0, sector: 4_096, placementBirth: 9 },
    { member: 1, sector: 2 ** 33, placementBirth: 9 },
  ],
  wantedCopies: 2,
  storedBytes: 135_168,
  rawBytes: 135_000,
  contentBirth: 9,
  segmentShift: 16,
  rawSum: 0x8000_0000_0000_0001n,
  segmentSums: BigUint64Array.of(1n, 2n, 0xffff_ffff_ffff_fff0n),
  sumLeafId: 0,
  sumLeafSlot: 0,
  referenceCount: 1,
  dtype: dtypeCode('BF16'),
};

const EMPTY = new Uint8Array(0);
const manifest: Manifest = {
  tensors: [
    {
      name: 'model.embed.weight',
      dtype: dtypeCode('BF16'),
      shape: [250, 270],
      rawBytes: 135_000,
      rawSum: 0x8000_0000_0000_0001n,
      inlineBytes: EMPTY,
      pieces: [{ extentId: 5, rawOffset: 0, rawBytes: 135_000 }],
      fileIndex: 0,
      fileOffset: 100,
    },
    {
      name: 'step',
      dtype: dtypeCode('I64'),
      shape: [],
      rawBytes: 8,
      rawSum: 3n,
      inlineBytes: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8),
      pieces: [],
      fileIndex: -1,
      fileOffset: 0,
    },
    {
      name: 'empty',
      dtype: dtypeCode('F32'),
      shape: [0, 7],
      rawBytes: 0,
      rawSum: 0n,
      inlineBytes: EMPTY,
      pieces: [],
      fileIndex: -1,
      fileOffset: 0,
    },
  ],
  blobs: [
    {
      name: 'config.json',
      contentType: 'application/json',
      rawBytes: 2,
      rawSum: 4n,
      inlineBytes: Uint8Array.of(123, 125),
      pieces: [],
      fileIndex: 1,
    },
  ],
  files: [
    {
      name: 'model.safetensors',
      sizeBytes: 135_100,
      sum: 0x1234n,
      format: 1,
      prefix: Uint8Array.of(92, 0, 0, 0, 0, 0, 0, 0),
      mode: 0o644,
    },
    { name: 'config.json', sizeBytes: 2, sum: 4n, format: 0, prefix: EMPTY, mode: 0o644 },
  ],
};

/** Structural lies that every record has to survive. `good` has its root table offset in its first 4 bytes. */
function hostile(good: Uint8Array): VectorCase[] {
  const root = good[0]! | (good[1]! << 8);
  const bad = (name: string, bytes: Uint8Array): VectorCase => ({ name, bytes, error: 'E_FORMAT' });
  return [
    bad('empty', EMPTY),
    bad('identifier', patched(good, [4, 0x58])),
    bad('cut in half', good.slice(0, good.length >> 1)),
    bad('root offset outside', patched(good, [3, 0x7f])),
    bad('root offset unaligned', patched(good, [0, root + 1])),
    bad('vtable outside', patched(good, [root + 3, 0x7f])),
  ];
}

/** The position of a string's or vector's length by its content. */
function find(bytes: Uint8Array, text: string): number {
  const at = Buffer.from(bytes).indexOf(text);
  if (at < 4) throw new Error(`no ${text} in the record`);
  return at;
}

export function recordFiles(): VectorFile[] {
  const run = encodeRun({ createdAtMs: 1_700_000_000_000, versionCount: 3, lastVersionId: 12 });
  const tag = encodeTag({ versionId: 12, movedAtMs: 1_700_000_000_000, generation: 4, protected: true });
  const version = encodeVersion({
    id: 12,
    run: 'exp/ckpt',
    step: 1_200,
    createdAtMs: 1_700_000_000_000,
    tensorCount: 3,
    blobCount: 1,
    fileCount: 2,
    rawBytes: 135_010,
    storedBytes: 270_336,
    redundancy: 2,
    chunkBytes: 4_194_304,
    kind: 0,
    flags: 0,
    metadata: { 'author': 'ä', 'note': '' },
    metrics: { 'loss': 0.125 },
    keyId: 0,
    baseVersionId: 0,
  });
  const bareVersion = encodeVersion({
    id: 1,
    run: 'a',
    step: null,
    createdAtMs: 0,
    tensorCount: 0,
    blobCount: 0,
    fileCount: 0,
    rawBytes: 0,
    storedBytes: 0,
    redundancy: 1,
    chunkBytes: 65_536,
    kind: 0,
    flags: 0,
    metadata: {},
    metrics: {},
    keyId: 0,
    baseVersionId: 0,
  });
  const nameAt = find(version, 'exp/ckpt');
  const manifestBytes = encodeManifest(manifest);
  const stepAt = find(manifestBytes, 'model.embed.weight');
  const leafed = encodeExtent({
    ...extent,
    storedBytes: 67_108_864,
    rawBytes: 67_108_864,
    segmentSums: new BigUint64Array(0),
    sumLeafId: 70,
    sumLeafSlot: 0,
  });
  const extentBytes = encodeExtent(extent);
  const sumLeaf = encodeSumLeaf({
    copies: [{ member: 3, sector: 999 }],
    sum: 7n,
    birth: 9,
    sumCount: 504,
    referenceCount: 2,
  });
  const member = encodeMember({
    uuid: STORE_UUID,
    path: '/dev/nvme0n1',
    failureDomain: 'nvme0',
    serial: 'S1',
    formattedBytes: 2 ** 40,
    addedAtMs: 5,
    readErrors: 3,
    writeErrors: 1,
    checksumErrors: 70_000,
    lastErrorAtMs: 9,
  });
  const job = encodeJob({
    kind: JOB_SCRUB,
    state: 'paused',
    position: 2 ** 33,
    startedAtMs: 5,
    updatedAtMs: 6,
    rounds: 2,
    finishedAtMs: 4,
    scannedBytes: 2 ** 40,
    repaired: 3,
    unrepairable: 1,
    totalBytes: 2 ** 41,
  });
  const resilver = encodeJob({ ...decodeJob(job), kind: JOB_RESILVER, state: 'running' });
  const coding = { transform: TRANSFORM.BF16E, codec: PLANE_CODEC.RANS32 };
  const coded = encodeExtent({ ...extent, rawBytes: 200_000, coding });
  const base = { extentId: 2 ** 40, offsetBytes: 4_096, depth: 8 };
  const delta = encodeExtent({ ...extent, rawBytes: 200_000, coding: { ...coding, base } });
  const bad = (name: string, bytes: Uint8Array): VectorCase => ({ name, bytes, error: 'E_FORMAT' });
  return [
    { structure: 'Run', note: 'IGRN', cases: [{ name: 'run', bytes: run }, ...hostile(run)] },
    { structure: 'Tag', note: 'IGTG', cases: [{ name: 'tag', bytes: tag }, ...hostile(tag)] },
    {
      structure: 'Version',
      note: 'IGVR',
      cases: [
        { name: 'full', bytes: version },
        { name: 'bare', bytes: bareVersion },
        ...hostile(version),
        bad('run name not UTF-8', patched(version, [nameAt, 0xff])),
        bad('run name longer than the record', patched(version, [nameAt - 1, 0x7f])),
        bad('run name without its final zero', patched(version, [nameAt + 8, 1])),
        bad('run name with @', patched(version, [nameAt, 0x40])),
      ],
    },
    {
      structure: 'Manifest',
      note: 'IGMF',
      cases: [
        { name: 'three tensors, a blob, two files', bytes: manifestBytes },
        { name: 'nothing', bytes: encodeManifest({ tensors: [], blobs: [], files: [] }) },
        ...hostile(manifestBytes),
        bad('tensor name with a zero byte', patched(manifestBytes, [stepAt, 0])),
      ],
    },
    {
      structure: 'Extent',
      note: 'IGEX',
      cases: [
        { name: 'three sums inside', bytes: extentBytes },
        { name: '1,024 sums in leaves', bytes: leafed },
        { name: 'coded by BF16E and RANS32', bytes: coded },
        { name: 'a delta of depth 8', bytes: delta },
        ...hostile(extentBytes),
      ],
    },
    {
      structure: 'SumLeaf',
      note: 'IGSL',
      cases: [{ name: 'full leaf', bytes: sumLeaf }, ...hostile(sumLeaf)],
    },
    { structure: 'Member', note: 'IGMB', cases: [{ name: 'member', bytes: member }, ...hostile(member)] },
    {
      structure: 'Job',
      note: 'IGJB',
      cases: [{ name: 'scrub', bytes: job }, { name: 'resilver', bytes: resilver }, ...hostile(job)],
    },
  ];
}
