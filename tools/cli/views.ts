// How versions, members and findings are shown, in one place, so that every command shows them alike.
//
// Invariants
//   1. JSON fields have the names of the API (types.ts) plus `storedBytes` and `rawBytes`, which mean the same
//      everywhere: bytes on members with all copies and padding, and bytes of tensors and blobs.
//   2. Text of the store is made harmless by output.ts, not here.
//
// It reads nothing.

import type {
  MaintEvent,
  MemberInfo,
  ReadFault,
  StoreInfo,
  TensorInfo,
  VersionInfo,
  VersionSummary,
} from '../../engine/index.js';
import type { StoreError } from '../../format/errors.js';
import { type JsonFields } from './output.js';
import { formatBytes } from './progress.js';
import { describeWhere } from './report.js';

type Finding = Extract<MaintEvent, { type: 'finding' }>;

/** `llama@1200`, or `v:17` where the version has no step. */
export function refOf(version: VersionSummary): string {
  return version.step === null ? version.id : `${version.run}@${version.step}`;
}

export function formatTime(time: Date): string {
  return time
    .toISOString()
    .replace('T', ' ')
    .replace(/\.\d+Z$/, 'Z');
}

export function summaryJson(
  version: VersionSummary & { readonly tags?: readonly string[]; readonly catalogBytes?: number },
): JsonFields {
  return {
    id: version.id,
    run: version.run,
    step: version.step,
    tags: version.tags ?? [],
    createdAt: version.createdAt,
    tensorCount: version.tensorCount,
    blobCount: version.blobCount,
    fileCount: version.fileCount,
    rawBytes: version.byteLength,
    storedBytes: version.storedBytes,
    ...(version.catalogBytes === undefined ? {} : { catalogBytes: version.catalogBytes }),
    redundancy: version.redundancy,
    chunkBytes: version.chunkBytes,
    base: version.base,
    metadata: version.metadata,
    metrics: version.metrics,
  };
}

/** What a version takes on members and, when it has small objects, in the catalog. */
export function storedText(version: VersionSummary & { readonly catalogBytes: number }): string {
  const { storedBytes, catalogBytes } = version;
  const stored = `${formatBytes(storedBytes)} stored`;
  if (catalogBytes === 0) return stored;
  const held = `${formatBytes(catalogBytes)} in the catalog`;
  return storedBytes === 0 ? held : `${stored}, ${held}`;
}

export function versionRow(version: VersionInfo): (string | number)[] {
  return [
    version.id,
    version.step === null ? '-' : version.step,
    version.tags.join(',') || '-',
    formatTime(version.createdAt),
    version.tensorCount,
    formatBytes(version.byteLength),
    formatBytes(version.storedBytes),
    version.redundancy,
  ];
}
export const VERSION_HEADINGS = ['VERSION', 'STEP', 'TAGS', 'CREATED', 'TENSORS', 'SIZE', 'STORED', 'COPIES'];

export function tensorJson(tensor: TensorInfo): JsonFields {
  const { name, dtype, shape, byteLength, checksum } = tensor;
  return { name, dtype, shape, rawBytes: byteLength, checksum };
}

export function memberJson(member: MemberInfo): JsonFields {
  return { ...member };
}

export function storeJson(info: StoreInfo): JsonFields {
  return { ...info, members: info.members.map(memberJson) };
}

export function memberRow(member: MemberInfo): (string | number)[] {
  const { errors } = member;
  return [
    member.index,
    member.path === '' ? member.name : member.path,
    member.state,
    member.ioPath ?? '-',
    formatBytes(member.capacityBytes),
    formatBytes(member.allocatedBytes),
    errors.read,
    errors.write,
    errors.checksum,
  ];
}
export const MEMBER_HEADINGS = ['MEMBER', 'PATH', 'STATE', 'IO', 'SIZE', 'USED', 'READ', 'WRITE', 'CKSUM'];

export function faultText(fault: ReadFault): string {
  const what = fault.tensor === '' ? fault.object : fault.tensor;
  const why = fault.errno === 0 ? fault.kind : `${fault.kind}, errno ${fault.errno}`;
  return `passed over copy ${fault.copy} of ${what} on ${fault.member} at offset ${fault.offsetBytes} (${why})`;
}

export function findingJson(finding: Finding): JsonFields {
  return { severity: finding.severity, action: finding.action, ...errorFields(finding.error) };
}

function errorFields(error: StoreError): JsonFields {
  return { code: error.code, message: error.message, where: error.where, next: error.next ?? null };
}

export function findingText(finding: Finding): string {
  const where = describeWhere(finding.error.where);
  const action = finding.action === 'none' ? '' : ` [${finding.action}]`;
  const place = where === '' ? '' : ` (${where})`;
  return `${finding.severity} ${finding.error.code}: ${finding.error.message}${place}${action}`;
}
