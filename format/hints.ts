// The advisory areas (spec/format.md section 8): where siblings were last seen, and the writer's sign of life.
//
// Invariants
//   1. Nothing here decides: a damaged or absent area is null, never an error that stops an open.
//   2. Both carry their own sum, over everything after it to the end of the area.
//   3. Texts are UTF-8, cut to whole characters when they are too long to fit.

import {
  decodeUtf8,
  encodeUtf8,
  equalBytes,
  isZero,
  readSum,
  readU16,
  readU32,
  readU64OrInfinity,
  writeSum,
  writeU16,
  writeU32,
  writeU64,
} from './binary.js';
import { crc64 } from './checksum.js';
import { assert } from './errors.js';
import * as layout from './layout.gen.js';
import { HINTS_BYTES } from './layout_constants.js';
import {
  HINT_ENTRIES_MAX,
  HINT_PATH_BYTES_MAX,
  HOST_TEXT_BYTES_MAX,
  MEMBERS_MAX,
  UUID_BYTES,
} from './limits.js';

const HINTS_MAGIC = encodeUtf8('INGOTHN1');
const HEARTBEAT_MAGIC = encodeUtf8('INGOTHB1');
const SUM_FROM = 16;

export interface HintEntry {
  readonly uuid: Uint8Array;
  readonly index: number;
  /** As last opened. */
  readonly path: string;
  readonly lastSeenMs: number;
}
export interface Hints {
  readonly storeUuid: Uint8Array;
  /** Grows with every rewrite: the higher of two copies is the newer. */
  readonly generation: number;
  readonly writtenAtMs: number;
  readonly entries: readonly HintEntry[];
}
export interface Heartbeat {
  readonly storeUuid: Uint8Array;
  readonly memberUuid: Uint8Array;
  readonly hostId: string;
  readonly bootId: string;
  readonly processId: number;
  readonly processStart: string;
  /** Random, one for each open. */
  readonly session: bigint;
  readonly counter: number;
  readonly updatedAtMs: number;
  readonly closedCleanly: boolean;
}

/** The longest prefix of whole characters that fits. */
function cutUtf8(text: string, maxBytes: number): Uint8Array {
  const bytes = encodeUtf8(text);
  let end = Math.min(bytes.length, maxBytes);
  while (end > 0 && end < bytes.length && (bytes[end]! & 0xc0) === 0x80) end -= 1;
  return bytes.subarray(0, end);
}

/** The 64 KiB of one copy. */
export function encodeHints(hints: Hints): Uint8Array {
  assert(hints.entries.length <= HINT_ENTRIES_MAX, 'a store has at most 64 members');
  const bytes = new Uint8Array(HINTS_BYTES);
  bytes.set(HINTS_MAGIC, layout.HINTS_HEADER_MAGIC);
  bytes.set(hints.storeUuid, layout.HINTS_HEADER_STORE_UUID);
  writeU64(bytes, layout.HINTS_HEADER_GENERATION, hints.generation);
  writeU64(bytes, layout.HINTS_HEADER_WRITTEN_AT_MS, hints.writtenAtMs);
  writeU32(bytes, layout.HINTS_HEADER_ENTRY_COUNT, hints.entries.length);
  hints.entries.forEach((entry, index) => {
    const at = layout.HINTS_HEADER_BYTES + index * layout.HINT_ENTRY_BYTES;
    const path = cutUtf8(entry.path, HINT_PATH_BYTES_MAX);
    assert(entry.uuid.length === UUID_BYTES, 'a member uuid has 16 bytes');
    bytes.set(entry.uuid, at + layout.HINT_ENTRY_UUID);
    writeU16(bytes, at + layout.HINT_ENTRY_INDEX, entry.index);
    writeU16(bytes, at + layout.HINT_ENTRY_PATH_BYTES, path.length);
    writeU64(bytes, at + layout.HINT_ENTRY_LAST_SEEN_MS, entry.lastSeenMs);
    bytes.set(path, at + layout.HINT_ENTRY_PATH);
  });
  writeSum(bytes, layout.HINTS_HEADER_SUM, crc64(bytes, SUM_FROM));
  return bytes;
}

/** The hints of one copy, or null when it is empty or damaged. */
export function decodeHints(bytes: Uint8Array): Hints | null {
  if (bytes.length !== HINTS_BYTES || !equalBytes(bytes.subarray(0, HINTS_MAGIC.length), HINTS_MAGIC))
    return null;
  if (readSum(bytes, layout.HINTS_HEADER_SUM) !== crc64(bytes, SUM_FROM)) return null;
  for (const [from, to] of layout.HINTS_HEADER_ZERO) if (!isZero(bytes, from, to)) return null;
  const generation = readU64OrInfinity(bytes, layout.HINTS_HEADER_GENERATION);
  const writtenAtMs = readU64OrInfinity(bytes, layout.HINTS_HEADER_WRITTEN_AT_MS);
  const count = readU32(bytes, layout.HINTS_HEADER_ENTRY_COUNT);
  if (count > HINT_ENTRIES_MAX || generation === Infinity || writtenAtMs === Infinity) return null;
  const entries: HintEntry[] = [];
  for (let index = 0; index < count; index += 1) {
    const entry = decodeHintEntry(bytes, layout.HINTS_HEADER_BYTES + index * layout.HINT_ENTRY_BYTES);
    if (entry === null) return null;
    entries.push(entry);
  }
  if (!isZero(bytes, layout.HINTS_HEADER_BYTES + count * layout.HINT_ENTRY_BYTES, HINTS_BYTES)) return null;
  const storeUuid = bytes.slice(layout.HINTS_HEADER_STORE_UUID, layout.HINTS_HEADER_STORE_UUID + UUID_BYTES);
  return { storeUuid, generation, writtenAtMs, entries };
}

function decodeHintEntry(bytes: Uint8Array, at: number): HintEntry | null {
  const index = readU16(bytes, at + layout.HINT_ENTRY_INDEX);
  const pathBytes = readU16(bytes, at + layout.HINT_ENTRY_PATH_BYTES);
  const lastSeenMs = readU64OrInfinity(bytes, at + layout.HINT_ENTRY_LAST_SEEN_MS);
  if (index >= MEMBERS_MAX || pathBytes > HINT_PATH_BYTES_MAX || lastSeenMs === Infinity) return null;
  for (const [from, to] of layout.HINT_ENTRY_ZERO) if (!isZero(bytes, at + from, at + to)) return null;
  const pathAt = at + layout.HINT_ENTRY_PATH;
  const path = decodeUtf8(bytes.subarray(pathAt, pathAt + pathBytes));
  if (path === null || !isZero(bytes, pathAt + pathBytes, pathAt + HINT_PATH_BYTES_MAX)) return null;
  return { uuid: bytes.slice(at, at + UUID_BYTES), index, path, lastSeenMs };
}

function putText(bytes: Uint8Array, at: number, text: string): void {
  bytes.set(cutUtf8(text, HOST_TEXT_BYTES_MAX), at);
}

function getText(bytes: Uint8Array, at: number): string | null {
  const field = bytes.subarray(at, at + HOST_TEXT_BYTES_MAX);
  const end = field.indexOf(0);
  if (end < 0) return decodeUtf8(field);
  return isZero(field, end, field.length) ? decodeUtf8(field.subarray(0, end)) : null;
}

/** The 4,096 bytes of the heartbeat block. Texts have no zero bytes. */
export function encodeHeartbeat(heartbeat: Heartbeat): Uint8Array {
  assert(
    heartbeat.storeUuid.length === UUID_BYTES && heartbeat.memberUuid.length === UUID_BYTES,
    'uuids have 16 bytes',
  );
  const bytes = new Uint8Array(layout.HEARTBEAT_BYTES);
  bytes.set(HEARTBEAT_MAGIC, layout.HEARTBEAT_MAGIC);
  bytes.set(heartbeat.storeUuid, layout.HEARTBEAT_STORE_UUID);
  bytes.set(heartbeat.memberUuid, layout.HEARTBEAT_MEMBER_UUID);
  putText(bytes, layout.HEARTBEAT_HOST_ID, heartbeat.hostId);
  putText(bytes, layout.HEARTBEAT_BOOT_ID, heartbeat.bootId);
  putText(bytes, layout.HEARTBEAT_PROCESS_START, heartbeat.processStart);
  writeU64(bytes, layout.HEARTBEAT_PROCESS_ID, heartbeat.processId);
  writeSum(bytes, layout.HEARTBEAT_SESSION, heartbeat.session);
  writeU64(bytes, layout.HEARTBEAT_COUNTER, heartbeat.counter);
  writeU64(bytes, layout.HEARTBEAT_UPDATED_AT_MS, heartbeat.updatedAtMs);
  bytes[layout.HEARTBEAT_CLOSED_CLEANLY] = heartbeat.closedCleanly ? 1 : 0;
  writeSum(bytes, layout.HEARTBEAT_SUM, crc64(bytes, SUM_FROM));
  return bytes;
}

/** The heartbeat, or null when the block is empty or damaged. */
export function decodeHeartbeat(bytes: Uint8Array): Heartbeat | null {
  if (bytes.length !== layout.HEARTBEAT_BYTES) return null;
  if (!equalBytes(bytes.subarray(0, HEARTBEAT_MAGIC.length), HEARTBEAT_MAGIC)) return null;
  if (readSum(bytes, layout.HEARTBEAT_SUM) !== crc64(bytes, SUM_FROM)) return null;
  for (const [from, to] of layout.HEARTBEAT_ZERO) if (!isZero(bytes, from, to)) return null;
  const hostId = getText(bytes, layout.HEARTBEAT_HOST_ID);
  const bootId = getText(bytes, layout.HEARTBEAT_BOOT_ID);
  const processStart = getText(bytes, layout.HEARTBEAT_PROCESS_START);
  const processId = readU64OrInfinity(bytes, layout.HEARTBEAT_PROCESS_ID);
  const counter = readU64OrInfinity(bytes, layout.HEARTBEAT_COUNTER);
  const updatedAtMs = readU64OrInfinity(bytes, layout.HEARTBEAT_UPDATED_AT_MS);
  const closedCleanly = bytes[layout.HEARTBEAT_CLOSED_CLEANLY]!;
  if (hostId === null || bootId === null || processStart === null || closedCleanly > 1) return null;
  if (processId === Infinity || counter === Infinity || updatedAtMs === Infinity) return null;
  return {
    storeUuid: bytes.slice(layout.HEARTBEAT_STORE_UUID, layout.HEARTBEAT_STORE_UUID + UUID_BYTES),
    memberUuid: bytes.slice(layout.HEARTBEAT_MEMBER_UUID, layout.HEARTBEAT_MEMBER_UUID + UUID_BYTES),
    hostId,
    bootId,
    processId,
    processStart,
    session: readSum(bytes, layout.HEARTBEAT_SESSION),
    counter,
    updatedAtMs,
    closedCleanly: closedCleanly === 1,
  };
}
