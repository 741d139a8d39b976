// Keys of the trees (spec/format.md section 5), the names inside them (F10) and the refs of users.
//
// Invariants
//   1. Keys made here sort as the format says: integers big-endian, run names ended by 0x00.
//   2. decodeX(xKey(...)) gives back what went in; every other byte string is E_FORMAT.
//   3. A name that validates has one key, and no name contains a byte that ends it.
//
// It knows nothing of values.

import type { FormatContext } from './binary.js';
import { decodeUtf8, encodeUtf8, refuse } from './binary.js';
import { StoreError, assert } from './errors.js';
import { MEMBERS_MAX, OBJECT_NAME_BYTES_MAX, RUN_NAME_BYTES_MAX, TAG_NAME_BYTES_MAX } from './limits.js';

export const TREE_RUNS = 0;
export const TREE_VERSIONS = 1;
export const TREE_EXTENTS = 2;
export const TREE_FREE = 3;
export const TREE_MEMBERS = 4;
export const TREE_KEYS = 5;

export const RUN_KIND_RUN = 1;
export const RUN_KIND_TAG = 2;
export const RUN_KIND_STEP = 3;
export const RUN_KIND_VERSION = 4;
export const VERSION_PART_SUMMARY = 0;
export const VERSION_PART_MANIFEST = 1;
export const FREE_KIND_REGION = 1;
export const FREE_KIND_DEFERRED = 2;
/** The tag that every commit moves. */
export const LATEST_TAG = 'latest';

const TWO_32 = 0x1_0000_0000;

export type RunsKey =
  | { readonly kind: 'run'; readonly run: string }
  | { readonly kind: 'tag'; readonly run: string; readonly tag: string }
  | { readonly kind: 'step'; readonly run: string; readonly step: number; readonly versionId: number }
  | { readonly kind: 'version'; readonly run: string; readonly versionId: number };
export type FreeKey =
  | { readonly kind: 'region'; readonly member: number; readonly region: number }
  | { readonly kind: 'deferred'; readonly sequence: number };
export type Ref =
  | { readonly kind: 'tag'; readonly run: string; readonly tag: string }
  | { readonly kind: 'step'; readonly run: string; readonly step: number }
  | { readonly kind: 'version'; readonly versionId: number };

function putBE8(bytes: Uint8Array, at: number, value: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, 'a key integer is a safe integer');
  putBE4(bytes, at, Math.floor(value / TWO_32));
  putBE4(bytes, at + 4, value % TWO_32);
}
function putBE4(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}
const getBE4 = (bytes: Uint8Array, at: number): number =>
  ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;

function getBE8(bytes: Uint8Array, at: number, field: string, where?: FormatContext): number {
  const value = getBE4(bytes, at) * TWO_32 + getBE4(bytes, at + 4);
  if (!Number.isSafeInteger(value)) refuse(where, 'Key', field, 'is 2^53 or more', 'E_RANGE');
  return value;
}

/** UTF-8 of a validated name; names are short and mostly ASCII, where a loop beats the encoder by far. */
function nameBytes(name: string): Uint8Array {
  const bytes = new Uint8Array(name.length);
  for (let index = 0; index < bytes.length; index += 1) {
    const unit = name.charCodeAt(index);
    if (unit > 0x7f) return encodeUtf8(name);
    bytes[index] = unit;
  }
  return bytes;
}

function runsKey(run: string, kind: number, restBytes: number): { key: Uint8Array; rest: number } {
  validateRunName(run);
  const key = new Uint8Array(run.length + 2 + restBytes);
  for (let index = 0; index < run.length; index += 1) {
    const unit = run.charCodeAt(index);
    if (unit > 0x7f) return longRunsKey(run, kind, restBytes);
    key[index] = unit;
  }
  key[run.length + 1] = kind;
  return { key, rest: run.length + 2 };
}

/** Of a name that is not all ASCII. */
function longRunsKey(run: string, kind: number, restBytes: number): { key: Uint8Array; rest: number } {
  const name = encodeUtf8(run);
  const key = new Uint8Array(name.length + 2 + restBytes);
  key.set(name);
  key[name.length + 1] = kind;
  return { key, rest: name.length + 2 };
}

/** Tree 0: the `Run` record. */
export function runKey(run: string): Uint8Array {
  return runsKey(run, RUN_KIND_RUN, 0).key;
}
/** Tree 0: one `Tag`; without a tag the first key of all tags of the run. */
export function tagKey(run: string, tag?: string): Uint8Array {
  const name = tag === undefined ? new Uint8Array() : nameBytes(validateTagName(tag));
  const { key, rest } = runsKey(run, RUN_KIND_TAG, name.length);
  key.set(name, rest);
  return key;
}
/** Tree 0: a version by its step. */
export function stepKey(run: string, step: number, versionId: number): Uint8Array {
  const { key, rest } = runsKey(run, RUN_KIND_STEP, 16);
  putBE8(key, rest, step);
  putBE8(key, rest + 8, versionId);
  return key;
}
/** Tree 0: where the keys of one step lie: from <= key < below. Ids stay below 2^53 - 1. */
export function stepRange(
  run: string,
  step: number,
): { readonly from: Uint8Array; readonly below: Uint8Array } {
  const from = stepKey(run, step, 0);
  const below = from.slice();
  putBE8(below, below.length - 8, Number.MAX_SAFE_INTEGER);
  return { from, below };
}
/** The version id of a key that lies in the range of a step beginning with `from`. Errors: E_FORMAT, E_RANGE. */
export function versionIdOfStep(key: Uint8Array, from: Uint8Array, where?: FormatContext): number {
  const idAt = from.length - 8;
  let alike = key.length === from.length;
  for (let index = 0; alike && index < idAt; index += 1) alike = key[index] === from[index];
  if (!alike) refuse(where, 'RunsKey', 'step', `a key of ${key.length} bytes lies among those of a step`);
  return getBE8(key, idAt, 'versionId', where);
}
/** Tree 0: a version of the run by its id. */
export function runVersionKey(run: string, versionId: number): Uint8Array {
  const { key, rest } = runsKey(run, RUN_KIND_VERSION, 8);
  putBE8(key, rest, versionId);
  return key;
}
/** All keys of one kind of one run: from <= key < to. */
export function runKindRange(
  run: string,
  kind: number,
): { readonly from: Uint8Array; readonly to: Uint8Array } {
  return { from: runsKey(run, kind, 0).key, to: runsKey(run, kind + 1, 0).key };
}
/** All keys of one run, of every kind. */
export function runRange(run: string): { readonly from: Uint8Array; readonly to: Uint8Array } {
  const from = runsKey(run, 0, 0).key.slice(0, -1);
  const to = from.slice();
  to[to.length - 1] = 1;
  return { from, to };
}
/** All keys of runs whose name starts with `prefix` ('' for all): from <= key < to; `to` null: no upper end. */
export function runPrefixRange(prefix: string): {
  readonly from: Uint8Array;
  readonly to: Uint8Array | null;
} {
  const from = encodeUtf8(prefix);
  return { from, to: prefixEnd(from) };
}
/** The first byte string after all that start with `prefix`, or null when there is none. */
export function prefixEnd(prefix: Uint8Array): Uint8Array | null {
  let length = prefix.length;
  while (length > 0 && prefix[length - 1] === 0xff) length -= 1;
  if (length === 0) return null;
  const end = prefix.slice(0, length);
  end[length - 1]! += 1;
  return end;
}

/** Errors: E_FORMAT, E_RANGE. */
export function decodeRunsKey(key: Uint8Array, where?: FormatContext): RunsKey {
  const end = key.indexOf(0);
  if (end < 1 || end + 1 >= key.length) refuse(where, 'RunsKey', 'name', 'has no end and kind');
  const run = decodeUtf8(key.subarray(0, end));
  if (run === null || runNameProblem(run) !== null) refuse(where, 'RunsKey', 'name', 'is not a run name');
  const kind = key[end + 1]!;
  const rest = end + 2;
  const restBytes = key.length - rest;
  if (kind === RUN_KIND_RUN && restBytes === 0) return { kind: 'run', run };
  if (kind === RUN_KIND_TAG) {
    const tag = decodeUtf8(key.subarray(rest));
    if (tag === null || tagNameProblem(tag) !== null) refuse(where, 'RunsKey', 'tag', 'is not a tag');
    return { kind: 'tag', run, tag };
  }
  if (kind === RUN_KIND_STEP && restBytes === 16) {
    const step = getBE8(key, rest, 'step', where);
    return { kind: 'step', run, step, versionId: getBE8(key, rest + 8, 'versionId', where) };
  }
  if (kind === RUN_KIND_VERSION && restBytes === 8) {
    return { kind: 'version', run, versionId: getBE8(key, rest, 'versionId', where) };
  }
  return refuse(where, 'RunsKey', 'kind', `${kind} with ${restBytes} bytes after it`);
}

/** Tree 1: part 0 is `Version`, part 1 is `Manifest`. */
export function versionKey(versionId: number, part: 0 | 1): Uint8Array {
  const key = new Uint8Array(9);
  putBE8(key, 0, versionId);
  key[8] = part;
  return key;
}
export function decodeVersionKey(key: Uint8Array, where?: FormatContext): { versionId: number; part: 0 | 1 } {
  const part = key[8];
  if (key.length !== 9 || (part !== 0 && part !== 1))
    refuse(where, 'VersionKey', 'part', `in ${key.length} bytes`);
  return { versionId: getBE8(key, 0, 'versionId', where), part };
}
/** Tree 2: extents and sum leaves. */
export function extentKey(id: number): Uint8Array {
  const key = new Uint8Array(8);
  putBE8(key, 0, id);
  return key;
}
export function decodeExtentKey(key: Uint8Array, where?: FormatContext): number {
  if (key.length !== 8) refuse(where, 'ExtentKey', 'id', `${key.length} bytes, not 8`);
  return getBE8(key, 0, 'id', where);
}
/** Tree 3: the free ranges of one region of one member. */
export function regionKey(member: number, region: number): Uint8Array {
  assert(Number.isInteger(member) && member >= 0 && member < MEMBERS_MAX, 'a member is 0..63');
  assert(Number.isInteger(region) && region >= 0 && region < TWO_32, 'a region is a u32');
  const key = new Uint8Array(7);
  key[0] = FREE_KIND_REGION;
  key[2] = member;
  putBE4(key, 3, region);
  return key;
}
/** Tree 3: what root `sequence` stopped using. */
export function deferredKey(sequence: number): Uint8Array {
  const key = new Uint8Array(9);
  key[0] = FREE_KIND_DEFERRED;
  putBE8(key, 1, sequence);
  return key;
}
export function decodeFreeKey(key: Uint8Array, where?: FormatContext): FreeKey {
  if (key[0] === FREE_KIND_REGION && key.length === 7) {
    const member = key[1]! * 256 + key[2]!;
    if (member >= MEMBERS_MAX) refuse(where, 'FreeKey', 'member', `is ${member}`);
    return { kind: 'region', member, region: getBE4(key, 3) };
  }
  if (key[0] === FREE_KIND_DEFERRED && key.length === 9) {
    return { kind: 'deferred', sequence: getBE8(key, 1, 'sequence', where) };
  }
  return refuse(where, 'FreeKey', 'kind', `${key[0]} in ${key.length} bytes`);
}
/** Tree 4. */
export function memberKey(member: number): Uint8Array {
  assert(Number.isInteger(member) && member >= 0 && member < MEMBERS_MAX, 'a member is 0..63');
  return Uint8Array.of(0, member);
}
export function decodeMemberKey(key: Uint8Array, where?: FormatContext): number {
  const member = key[0]! * 256 + key[1]!;
  if (key.length !== 2 || member >= MEMBERS_MAX)
    refuse(where, 'MemberKey', 'member', `in ${key.length} bytes`);
  return member;
}

/** Kinds of jobs that keep a record of themselves. */
export const JOB_SCRUB = 1;
export const JOB_RESILVER = 2;
const JOB_KEY_MARK = 0xff;
/** Tree 4: the record of a maintenance job, after all members. */
export function jobKey(kind: number): Uint8Array {
  assert(kind === JOB_SCRUB || kind === JOB_RESILVER, 'a job kind is known');
  return Uint8Array.of(JOB_KEY_MARK, JOB_KEY_MARK, kind);
}
/** Whether a key of tree 4 is that of a job, and not of a member. */
export function isJobKey(key: Uint8Array): boolean {
  return key[0] === JOB_KEY_MARK && key[1] === JOB_KEY_MARK;
}
export function decodeJobKey(key: Uint8Array, where?: FormatContext): number {
  const kind = key[2];
  if (!isJobKey(key) || key.length !== 3 || (kind !== JOB_SCRUB && kind !== JOB_RESILVER))
    return refuse(where, 'JobKey', 'kind', `${kind ?? 'none'} in ${key.length} bytes`);
  return kind;
}

const LONE_SURROGATE = /\p{Surrogate}/u;
const encoder = new TextEncoder();

/** Whether the UTF-8 of a text has more than `max` bytes; a UTF-16 unit takes at most three. */
function isLonger(text: string, max: number): boolean {
  return text.length * 3 > max && encoder.encode(text).length > max;
}

// Most names are plain; these say so in one pass, and everything else takes the long way.
const PLAIN_RUN = /^[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:\/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*$/;
const PLAIN_TAG = /^[A-Za-z_-][A-Za-z0-9_.-]*$/;
const PLAIN_OBJECT = /^[\x20-\x7e]+$/;

/** The last plain name that was found good: one look-up comes by the same name several times. */
let lastGoodRun = 'a';

/** What is wrong with a run name, as a clause, or null. */
export function runNameProblem(name: string): string | null {
  if (name === lastGoodRun) return null;
  if (name.length <= RUN_NAME_BYTES_MAX && PLAIN_RUN.test(name)) {
    lastGoodRun = name;
    return null;
  }
  if (name === '' || LONE_SURROGATE.test(name)) return 'is empty or not valid Unicode';
  if (isLonger(name, RUN_NAME_BYTES_MAX)) return `has more than ${RUN_NAME_BYTES_MAX} bytes`;
  if (/[\u0000-\u001f@]/.test(name)) return 'contains a control character or @';
  const segments = name.split('/');
  if (segments.some((part) => part === '' || part === '.' || part === '..')) {
    return 'starts or ends with /, or has an empty, . or .. segment';
  }
  return null;
}
export function tagNameProblem(tag: string): string | null {
  if (tag.length <= TAG_NAME_BYTES_MAX && PLAIN_TAG.test(tag)) return null;
  if (tag === '' || LONE_SURROGATE.test(tag)) return 'is empty or not valid Unicode';
  if (isLonger(tag, TAG_NAME_BYTES_MAX)) return `has more than ${TAG_NAME_BYTES_MAX} bytes`;
  if (/[\u0000-\u001f@/]/.test(tag)) return 'contains a control character, @ or /';
  if (/^[0-9]+$/.test(tag)) return 'is all digits, which would be a step';
  return null;
}
/** Tensor and blob names. */
export function objectNameProblem(name: string): string | null {
  if (name.length <= OBJECT_NAME_BYTES_MAX && PLAIN_OBJECT.test(name)) return null;
  if (name === '' || LONE_SURROGATE.test(name)) return 'is empty or not valid Unicode';
  if (isLonger(name, OBJECT_NAME_BYTES_MAX)) return `has more than ${OBJECT_NAME_BYTES_MAX} bytes`;
  return name.includes('\0') ? 'contains a zero byte' : null;
}

function usage(what: string, name: string, problem: string): never {
  const shown = JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}...` : name);
  throw new StoreError('E_USAGE', `${what} ${shown} ${problem}`, { where: { object: name.slice(0, 512) } });
}
/** The name itself. Errors: E_USAGE. */
export function validateRunName(name: string): string {
  const problem = runNameProblem(name);
  return problem === null ? name : usage('run name', name, problem);
}
export function validateTagName(tag: string): string {
  const problem = tagNameProblem(tag);
  return problem === null ? tag : usage('tag', tag, problem);
}
export function validateObjectName(name: string): string {
  const problem = objectNameProblem(name);
  return problem === null ? name : usage('name', name, problem);
}

/** The number that the rest of a text is, when it is 1 to 15 digits; otherwise -1. */
function shortNumber(text: string, from: number): number {
  if (from >= text.length || text.length - from > 15) return -1;
  let value = 0;
  for (let index = from; index < text.length; index += 1) {
    const digit = text.charCodeAt(index) - 0x30;
    if (digit < 0 || digit > 9) return -1;
    value = value * 10 + digit;
  }
  return value;
}

/** 'run' (its latest), 'run@tag', 'run@1200' (a step), 'v:17' (a version id). Errors: E_USAGE. */
export function parseRef(ref: string): Ref {
  const id = ref.startsWith('v:') ? /^v:([0-9]{1,16})$/.exec(ref) : null;
  if (id !== null) {
    const versionId = Number(id[1]);
    if (!Number.isSafeInteger(versionId) || versionId < 1) usage('ref', ref, 'has no such version id');
    return { kind: 'version', versionId };
  }
  const at = ref.indexOf('@');
  if (at < 0) return { kind: 'tag', run: validateRunName(ref), tag: LATEST_TAG };
  const run = validateRunName(ref.slice(0, at));
  const digits = shortNumber(ref, at + 1);
  if (digits >= 0) return { kind: 'step', run, step: digits };
  const rest = ref.slice(at + 1);
  if (/^[0-9]+$/.test(rest)) {
    const step = Number(rest);
    if (!Number.isSafeInteger(step)) usage('ref', ref, 'has a step of 2^53 or more');
    return { kind: 'step', run, step };
  }
  return { kind: 'tag', run, tag: validateTagName(rest) };
}

/** The text of a ref that parseRef understands. */
export function formatRef(ref: Ref): string {
  if (ref.kind === 'version') return `v:${ref.versionId}`;
  return ref.kind === 'tag' ? `${ref.run}@${ref.tag}` : `${ref.run}@${ref.step}`;
}
