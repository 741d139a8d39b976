// Records of runs, tags, versions, members and jobs (spec/catalog.fbs) as plain objects.
//
// Invariants
//   1. decodeX verifies structure first (flatbuffer_verifier.ts) and returns numbers: every u64 of these
//      records but the sums is a safe integer, or E_RANGE.
//   2. decodeX(encodeX(record)) equals the record; equal records give equal bytes (maps are sorted).
//   3. Reserved fields are written as absent and refused when set.
//
// Manifests are in manifest_record.ts, extents in extent_record.ts.

import { Builder } from 'flatbuffers';
import type { FormatContext } from './binary.js';
import { compareBytes, encodeUtf8, refuse } from './binary.js';
import { Job as JobTable } from './catalog/job.js';
import { KeyValue } from './catalog/key-value.js';
import { Member as MemberTable } from './catalog/member.js';
import { Metric } from './catalog/metric.js';
import { Run as RunTable } from './catalog/run.js';
import {
  JOB_FIELD,
  KEY_VALUE_FIELD,
  MEMBER_FIELD,
  METRIC_FIELD,
  RUN_FIELD,
  TAG_FIELD,
  VERSION_FIELD,
} from './catalog/schema.gen.js';
import { Tag as TagTable } from './catalog/tag.js';
import { Version as VersionTable } from './catalog/version.js';
import { assert } from './errors.js';
import { TableCursor } from './flatbuffer_reader.js';
import { verifyRecord } from './flatbuffer_verifier.js';
import { JOB_RESILVER, JOB_SCRUB, runNameProblem, validateRunName } from './keys.js';
import { COPIES_MAX, UUID_BYTES } from './limits.js';

export const RUN_IDENTIFIER = 'IGRN';
export const TAG_IDENTIFIER = 'IGTG';
export const VERSION_IDENTIFIER = 'IGVR';
export const MEMBER_IDENTIFIER = 'IGMB';
export const JOB_IDENTIFIER = 'IGJB';

export interface RunRecord {
  readonly createdAtMs: number;
  readonly versionCount: number;
  readonly lastVersionId: number;
}
export interface TagRecord {
  readonly versionId: number;
  readonly movedAtMs: number;
  /** How often the tag was set; compare-and-swap compares it. */
  readonly generation: number;
  readonly protected: boolean;
}
export interface VersionRecord {
  readonly id: number;
  readonly run: string;
  readonly step: number | null;
  readonly createdAtMs: number;
  readonly tensorCount: number;
  readonly blobCount: number;
  readonly fileCount: number;
  /** Sum of tensor and blob bytes. */
  readonly rawBytes: number;
  /** Bytes on members: all copies, padding included. */
  readonly storedBytes: number;
  readonly redundancy: number;
  readonly chunkBytes: number;
  /** 0 tensors. */
  readonly kind: number;
  readonly flags: number;
  readonly metadata: Readonly<Record<string, string>>;
  readonly metrics: Readonly<Record<string, number>>;
  /** Reserved for encryption: 0. */
  readonly keyId: number;
  /** 0 none. */
  readonly baseVersionId: number;
}
export interface MemberRecord {
  readonly uuid: Uint8Array;
  /** As last opened. */
  readonly path: string;
  readonly failureDomain: string;
  readonly serial: string;
  readonly formattedBytes: number;
  readonly addedAtMs: number;
  /** Since it was added or last forgiven (members.md M15). Advice. */
  readonly readErrors: number;
  readonly writeErrors: number;
  readonly checksumErrors: number;
  /** 0 never. */
  readonly lastErrorAtMs: number;
}
/** How far a maintenance job is. Advice: a job that begins anew does the same work again. */
export interface JobRecord {
  readonly kind: typeof JOB_SCRUB | typeof JOB_RESILVER;
  readonly state: 'running' | 'paused' | 'finished' | 'cancelled';
  /** Extent ids below it are done in this round. */
  readonly position: number;
  readonly startedAtMs: number;
  readonly updatedAtMs: number;
  /** Finished rounds. */
  readonly rounds: number;
  /** When the last round finished; 0 never. */
  readonly finishedAtMs: number;
  /** Of this round: read by a scrub, written by a resilver. */
  readonly scannedBytes: number;
  readonly repaired: number;
  readonly unrepairable: number;
  /** To be read or written in this round, as it was measured; 0 unknown. */
  readonly totalBytes: number;
}
/** In the order of their numbers, from 1. */
const JOB_STATES = ['running', 'paused', 'finished', 'cancelled'] as const;

/** One builder for all small records: it keeps its memory between them. */
const builder = new Builder(1_024);

function finish(root: number, identifier: string): Uint8Array {
  builder.finish(root, identifier);
  return builder.asUint8Array().slice();
}

function integer(value: number): bigint {
  assert(Number.isSafeInteger(value) && value >= 0, 'a record integer is a safe integer');
  return BigInt(value);
}

export function encodeRun(run: RunRecord): Uint8Array {
  builder.clear();
  RunTable.startRun(builder);
  RunTable.addCreatedAtMs(builder, integer(run.createdAtMs));
  RunTable.addVersionCount(builder, integer(run.versionCount));
  RunTable.addLastVersionId(builder, integer(run.lastVersionId));
  return finish(RunTable.endRun(builder), RUN_IDENTIFIER);
}

/** Errors: E_FORMAT, E_RANGE. */
export function decodeRun(bytes: Uint8Array, where?: FormatContext): RunRecord {
  const cursor = new TableCursor(bytes, verifyRecord(bytes, 'Run', RUN_IDENTIFIER, where), 'Run', where);
  return {
    createdAtMs: cursor.u64(RUN_FIELD.CREATED_AT_MS, 'createdAtMs'),
    versionCount: cursor.u64(RUN_FIELD.VERSION_COUNT, 'versionCount'),
    lastVersionId: cursor.u64(RUN_FIELD.LAST_VERSION_ID, 'lastVersionId'),
  };
}

export function encodeTag(tag: TagRecord): Uint8Array {
  assert(tag.versionId >= 1, 'a tag names a version');
  builder.clear();
  TagTable.startTag(builder);
  TagTable.addVersionId(builder, integer(tag.versionId));
  TagTable.addMovedAtMs(builder, integer(tag.movedAtMs));
  TagTable.addGeneration(builder, integer(tag.generation));
  TagTable.addProtected(builder, tag.protected);
  return finish(TagTable.endTag(builder), TAG_IDENTIFIER);
}

/** Errors: E_FORMAT, E_RANGE. */
export function decodeTag(bytes: Uint8Array, where?: FormatContext): TagRecord {
  const cursor = new TableCursor(bytes, verifyRecord(bytes, 'Tag', TAG_IDENTIFIER, where), 'Tag', where);
  const versionId = cursor.u64(TAG_FIELD.VERSION_ID, 'versionId');
  if (versionId === 0) refuse(where, 'Tag', 'versionId', 'is 0');
  const isProtected = cursor.u8(TAG_FIELD.PROTECTED);
  if (isProtected > 1) refuse(where, 'Tag', 'protected', `is ${isProtected}`);
  return {
    versionId,
    movedAtMs: cursor.u64(TAG_FIELD.MOVED_AT_MS, 'movedAtMs'),
    generation: cursor.u64(TAG_FIELD.GENERATION, 'generation'),
    protected: isProtected === 1,
  };
}

/** By the bytes of the keys, as the format sorts. */
const byText = (a: readonly [string, unknown], b: readonly [string, unknown]): number =>
  compareBytes(encodeUtf8(a[0]), encodeUtf8(b[0]));

function encodeMetadata(metadata: Readonly<Record<string, string>>): number {
  const entries = Object.entries(metadata).sort(byText);
  if (entries.length === 0) return 0;
  const places = entries.map(([key, value]) => {
    const keyAt = builder.createString(key);
    return KeyValue.createKeyValue(builder, keyAt, builder.createString(value));
  });
  return VersionTable.createMetadataVector(builder, places);
}

function encodeMetrics(metrics: Readonly<Record<string, number>>): number {
  const entries = Object.entries(metrics).sort(byText);
  if (entries.length === 0) return 0;
  const places = entries.map(([key, value]) => {
    const keyAt = builder.createString(key);
    // The builder takes -0 for the default 0 and would leave it out.
    builder.forceDefaults(Object.is(value, -0));
    const place = Metric.createMetric(builder, keyAt, value);
    builder.forceDefaults(false);
    return place;
  });
  return VersionTable.createMetricsVector(builder, places);
}

export function encodeVersion(version: VersionRecord): Uint8Array {
  assert(
    version.id >= 1 && version.redundancy >= 1 && version.redundancy <= COPIES_MAX,
    'a version has an id and copies',
  );
  builder.clear();
  const run = builder.createString(validateRunName(version.run));
  const metadata = encodeMetadata(version.metadata);
  const metrics = encodeMetrics(version.metrics);
  VersionTable.startVersion(builder);
  VersionTable.addId(builder, integer(version.id));
  if (version.step !== null) VersionTable.addStep(builder, integer(version.step));
  VersionTable.addCreatedAtMs(builder, integer(version.createdAtMs));
  VersionTable.addRawBytes(builder, integer(version.rawBytes));
  VersionTable.addStoredBytes(builder, integer(version.storedBytes));
  VersionTable.addKeyId(builder, integer(version.keyId));
  VersionTable.addBaseVersionId(builder, integer(version.baseVersionId));
  VersionTable.addRun(builder, run);
  VersionTable.addTensorCount(builder, version.tensorCount);
  VersionTable.addBlobCount(builder, version.blobCount);
  VersionTable.addFileCount(builder, version.fileCount);
  VersionTable.addChunkBytes(builder, version.chunkBytes);
  VersionTable.addFlags(builder, version.flags);
  if (metadata !== 0) VersionTable.addMetadata(builder, metadata);
  if (metrics !== 0) VersionTable.addMetrics(builder, metrics);
  VersionTable.addHasStep(builder, version.step !== null);
  VersionTable.addRedundancy(builder, version.redundancy);
  VersionTable.addKind(builder, version.kind);
  return finish(VersionTable.endVersion(builder), VERSION_IDENTIFIER);
}

/** Errors: E_FORMAT, E_RANGE. */
export function decodeVersion(bytes: Uint8Array, where?: FormatContext): VersionRecord {
  const cursor = new TableCursor(
    bytes,
    verifyRecord(bytes, 'Version', VERSION_IDENTIFIER, where),
    'Version',
    where,
  );
  const F = VERSION_FIELD;
  const hasStep = cursor.u8(F.HAS_STEP);
  const step = cursor.u64(F.STEP, 'step');
  if (hasStep > 1 || (hasStep === 0 && step !== 0))
    refuse(where, 'Version', 'step', 'is set without hasStep');
  const version: VersionRecord = {
    id: cursor.u64(F.ID, 'id'),
    run: cursor.text(F.RUN) ?? '',
    step: hasStep === 1 ? step : null,
    createdAtMs: cursor.u64(F.CREATED_AT_MS, 'createdAtMs'),
    tensorCount: cursor.u32(F.TENSOR_COUNT),
    blobCount: cursor.u32(F.BLOB_COUNT),
    fileCount: cursor.u32(F.FILE_COUNT),
    rawBytes: cursor.u64(F.RAW_BYTES, 'rawBytes'),
    storedBytes: cursor.u64(F.STORED_BYTES, 'storedBytes'),
    redundancy: cursor.u8(F.REDUNDANCY),
    chunkBytes: cursor.u32(F.CHUNK_BYTES),
    kind: cursor.u8(F.KIND),
    flags: cursor.u32(F.FLAGS),
    metadata: decodeMetadata(bytes, cursor, where),
    metrics: decodeMetrics(bytes, cursor, where),
    keyId: cursor.u64(F.KEY_ID, 'keyId'),
    baseVersionId: cursor.u64(F.BASE_VERSION_ID, 'baseVersionId'),
  };
  if (version.id === 0) refuse(where, 'Version', 'id', 'is 0');
  if (runNameProblem(version.run) !== null) refuse(where, 'Version', 'run', 'is not a run name');
  if (version.redundancy < 1 || version.redundancy > COPIES_MAX)
    refuse(where, 'Version', 'redundancy', `is ${version.redundancy}`);
  if (version.kind !== 0 || version.flags !== 0)
    refuse(where, 'Version', 'reserved', 'kind and flags are 0 in version 1.0');
  return version;
}

function decodeMetadata(
  bytes: Uint8Array,
  version: TableCursor,
  where?: FormatContext,
): Record<string, string> {
  const start = version.vector(VERSION_FIELD.METADATA);
  const count = version.count(VERSION_FIELD.METADATA);
  const entries: [string, string][] = [];
  if (count === 0) return {};
  const cursor = new TableCursor(bytes, version.tableAt(start, 0), 'KeyValue', where);
  for (let index = 0; index < count; index += 1) {
    cursor.open(version.tableAt(start, index));
    entries.push([cursor.text(KEY_VALUE_FIELD.KEY) ?? '', cursor.text(KEY_VALUE_FIELD.VALUE) ?? '']);
  }
  return asRecord(entries, 'metadata', where);
}

function decodeMetrics(
  bytes: Uint8Array,
  version: TableCursor,
  where?: FormatContext,
): Record<string, number> {
  const start = version.vector(VERSION_FIELD.METRICS);
  const count = version.count(VERSION_FIELD.METRICS);
  const entries: [string, number][] = [];
  if (count === 0) return {};
  const cursor = new TableCursor(bytes, version.tableAt(start, 0), 'Metric', where);
  for (let index = 0; index < count; index += 1) {
    cursor.open(version.tableAt(start, index));
    entries.push([cursor.text(METRIC_FIELD.KEY) ?? '', cursor.double(METRIC_FIELD.VALUE)]);
  }
  return asRecord(entries, 'metrics', where);
}

const isProto = (entry: readonly [string, unknown]): boolean => entry[0] === '__proto__';

function asRecord<T>(
  entries: readonly [string, T][],
  field: string,
  where?: FormatContext,
): Record<string, T> {
  for (let index = 1; index < entries.length; index += 1) {
    if (byText(entries[index - 1]!, entries[index]!) >= 0)
      refuse(where, 'Version', field, 'keys do not ascend');
  }
  // Object.fromEntries defines properties, so a key like __proto__ is only a key.
  if (entries.some(isProto)) return Object.fromEntries(entries);
  const record: Record<string, T> = {};
  for (let index = 0; index < entries.length; index += 1) record[entries[index]![0]] = entries[index]![1];
  return record;
}

export function encodeMember(member: MemberRecord): Uint8Array {
  assert(member.uuid.length === UUID_BYTES, 'a member uuid has 16 bytes');
  builder.clear();
  const uuid = MemberTable.createUuidVector(builder, member.uuid);
  const path = builder.createString(member.path);
  const failureDomain = builder.createString(member.failureDomain);
  const serial = builder.createString(member.serial);
  MemberTable.startMember(builder);
  MemberTable.addFormattedBytes(builder, integer(member.formattedBytes));
  MemberTable.addAddedAtMs(builder, integer(member.addedAtMs));
  MemberTable.addReadErrors(builder, integer(member.readErrors));
  MemberTable.addWriteErrors(builder, integer(member.writeErrors));
  MemberTable.addChecksumErrors(builder, integer(member.checksumErrors));
  MemberTable.addLastErrorAtMs(builder, integer(member.lastErrorAtMs));
  MemberTable.addUuid(builder, uuid);
  MemberTable.addPath(builder, path);
  MemberTable.addFailureDomain(builder, failureDomain);
  MemberTable.addSerial(builder, serial);
  return finish(MemberTable.endMember(builder), MEMBER_IDENTIFIER);
}

/** Errors: E_FORMAT, E_RANGE. */
export function decodeMember(bytes: Uint8Array, where?: FormatContext): MemberRecord {
  const cursor = new TableCursor(
    bytes,
    verifyRecord(bytes, 'Member', MEMBER_IDENTIFIER, where),
    'Member',
    where,
  );
  if (cursor.count(MEMBER_FIELD.UUID) !== UUID_BYTES)
    refuse(where, 'Member', 'uuid', 'does not have 16 bytes');
  return {
    uuid: cursor.byteVector(MEMBER_FIELD.UUID),
    path: cursor.text(MEMBER_FIELD.PATH) ?? '',
    failureDomain: cursor.text(MEMBER_FIELD.FAILURE_DOMAIN) ?? '',
    serial: cursor.text(MEMBER_FIELD.SERIAL) ?? '',
    formattedBytes: cursor.u64(MEMBER_FIELD.FORMATTED_BYTES, 'formattedBytes'),
    addedAtMs: cursor.u64(MEMBER_FIELD.ADDED_AT_MS, 'addedAtMs'),
    readErrors: cursor.u64(MEMBER_FIELD.READ_ERRORS, 'readErrors'),
    writeErrors: cursor.u64(MEMBER_FIELD.WRITE_ERRORS, 'writeErrors'),
    checksumErrors: cursor.u64(MEMBER_FIELD.CHECKSUM_ERRORS, 'checksumErrors'),
    lastErrorAtMs: cursor.u64(MEMBER_FIELD.LAST_ERROR_AT_MS, 'lastErrorAtMs'),
  };
}

export function encodeJob(job: JobRecord): Uint8Array {
  builder.clear();
  JobTable.startJob(builder);
  JobTable.addPosition(builder, integer(job.position));
  JobTable.addStartedAtMs(builder, integer(job.startedAtMs));
  JobTable.addUpdatedAtMs(builder, integer(job.updatedAtMs));
  JobTable.addRounds(builder, integer(job.rounds));
  JobTable.addFinishedAtMs(builder, integer(job.finishedAtMs));
  JobTable.addScannedBytes(builder, integer(job.scannedBytes));
  JobTable.addRepaired(builder, integer(job.repaired));
  JobTable.addUnrepairable(builder, integer(job.unrepairable));
  JobTable.addTotalBytes(builder, integer(job.totalBytes));
  JobTable.addKind(builder, job.kind);
  JobTable.addState(builder, JOB_STATES.indexOf(job.state) + 1);
  return finish(JobTable.endJob(builder), JOB_IDENTIFIER);
}

/** Errors: E_FORMAT, E_RANGE. */
export function decodeJob(bytes: Uint8Array, where?: FormatContext): JobRecord {
  const cursor = new TableCursor(bytes, verifyRecord(bytes, 'Job', JOB_IDENTIFIER, where), 'Job', where);
  const kind = cursor.u8(JOB_FIELD.KIND);
  if (kind !== JOB_SCRUB && kind !== JOB_RESILVER) return refuse(where, 'Job', 'kind', `is ${kind}`);
  const state = JOB_STATES[cursor.u8(JOB_FIELD.STATE) - 1];
  if (state === undefined) return refuse(where, 'Job', 'state', `is ${cursor.u8(JOB_FIELD.STATE)}`);
  return {
    kind,
    state,
    position: cursor.u64(JOB_FIELD.POSITION, 'position'),
    startedAtMs: cursor.u64(JOB_FIELD.STARTED_AT_MS, 'startedAtMs'),
    updatedAtMs: cursor.u64(JOB_FIELD.UPDATED_AT_MS, 'updatedAtMs'),
    rounds: cursor.u64(JOB_FIELD.ROUNDS, 'rounds'),
    finishedAtMs: cursor.u64(JOB_FIELD.FINISHED_AT_MS, 'finishedAtMs'),
    scannedBytes: cursor.u64(JOB_FIELD.SCANNED_BYTES, 'scannedBytes'),
    repaired: cursor.u64(JOB_FIELD.REPAIRED, 'repaired'),
    unrepairable: cursor.u64(JOB_FIELD.UNREPAIRABLE, 'unrepairable'),
    totalBytes: cursor.u64(JOB_FIELD.TOTAL_BYTES, 'totalBytes'),
  };
}
