// Members as they lie on their devices, read without the engine: for `dump`, which must also show what does not open.
//
// Invariants
//   1. Nothing is written, nothing locked; a live writer is not disturbed (what is shown may be a moment old).
//   2. A member alone is enough: what lies on members that were not given is named, not guessed.
//   3. Pages are believed only after their sum matched (format/page.ts).
//
// It prints nothing.

import { type FileHandle, open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import {
  chooseMemberTip,
  decodePage,
  decodeSealedPage,
  decodeSlot,
  formattedBytesFor,
  type BranchPage,
  checkPageSum,
  type LeafPage,
  type SealedPage,
  type MemberTip,
  MEMBER_BYTES_MIN,
  type PagePointer,
  type ParsedRing,
  RING_BYTES,
  RING_COPIES,
  RING_SLOTS,
  ringCopyOffset,
  SECTOR_BYTES,
  SLOT_BYTES,
  type SlotResult,
  StoreError,
  isStoreError,
} from '../../format/index.js';

const MEMBER_SUFFIX = '.member';
const MAX_MEMBERS = 64;

export interface RawMember {
  readonly path: string;
  readonly sizeBytes: number;
  readonly rings: readonly ParsedRing[];
  /** null when no root can be chosen; `problem` says why. */
  readonly tip: MemberTip | null;
  readonly problem: string | null;
  read(offsetBytes: number, lengthBytes: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** The paths that a store location stands for: a directory's member files, or the path itself. */
export async function memberPaths(location: string): Promise<readonly string[]> {
  try {
    if (!(await stat(location)).isDirectory()) return [location];
    const names = (await readdir(location)).filter((name) => name.endsWith(MEMBER_SUFFIX)).sort();
    if (names.length === 0) {
      throw new StoreError('E_NOT_FOUND', `${location} holds no *${MEMBER_SUFFIX} file.`, {
        where: { store: location },
      });
    }
    return names.slice(0, MAX_MEMBERS).map((name) => join(location, name));
  } catch (error) {
    throw unreadable(error, location);
  }
}

export async function openRawMember(path: string): Promise<RawMember> {
  let handle: FileHandle | null = null;
  try {
    handle = await open(path, 'r');
    const sizeBytes = await sizeOf(handle);
    const { rings, tip, problem } = await readSuperblocks(handle, sizeBytes);
    const opened = handle;
    return {
      path,
      sizeBytes,
      rings,
      tip,
      problem,
      read: (offsetBytes, lengthBytes) => readExactly(opened, path, offsetBytes, lengthBytes),
      close: () => opened.close(),
    };
  } catch (error) {
    await handle?.close();
    throw unreadable(error, path);
  }
}

/** Of a file its size; of a block device where its end is found by seeking reads. */
async function sizeOf(handle: FileHandle): Promise<number> {
  const found = await handle.stat();
  if (!found.isBlockDevice()) return found.size;
  const byte = Buffer.alloc(1);
  let low = 0;
  let high = 2 ** 52;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const { bytesRead } = await handle.read(byte, 0, 1, middle).catch(() => ({ bytesRead: 0 }));
    if (bytesRead === 1) low = middle + 1;
    else high = middle;
  }
  return low;
}

async function readSuperblocks(handle: FileHandle, sizeBytes: number) {
  const ring = async (copy: number, formattedBytes: number): Promise<ParsedRing> => {
    const bytes = Buffer.alloc(RING_BYTES);
    const { bytesRead } = await handle.read(bytes, 0, RING_BYTES, ringCopyOffset(copy, formattedBytes));
    return bytesRead < RING_BYTES ? null : parseRing(bytes, copy);
  };
  const anySize = Math.max(formattedBytesFor(sizeBytes), MEMBER_BYTES_MIN);
  const rings: ParsedRing[] = [await ring(0, anySize), await ring(1, anySize)];
  const formattedBytes = formattedSize(rings) ?? anySize;
  for (let copy = 2; copy < RING_COPIES; copy++) rings.push(await ring(copy, formattedBytes));
  try {
    return { rings, tip: chooseMemberTip(rings), problem: null };
  } catch (error) {
    if (!isStoreError(error)) throw error;
    return { rings, tip: null, problem: `${error.code}: ${error.message}` };
  }
}

function parseRing(bytes: Uint8Array, copy: number): SlotResult[] {
  return Array.from({ length: RING_SLOTS }, (_, slot) =>
    decodeSlot(bytes.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES), { copy, slot }),
  );
}

/** What the newest valid head slot says of its own member. */
function formattedSize(rings: readonly ParsedRing[]): number | null {
  let newest = 0;
  let size: number | null = null;
  for (const slot of rings.flatMap((ring) => ring ?? [])) {
    if (slot.kind !== 'valid' || slot.sequence <= newest) continue;
    newest = slot.sequence;
    size = slot.superblock.members[slot.memberIndex]?.formattedBytes ?? null;
  }
  return size;
}

async function readExactly(
  handle: FileHandle,
  path: string,
  offsetBytes: number,
  lengthBytes: number,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(lengthBytes);
  for (let filled = 0; filled < lengthBytes; ) {
    const { bytesRead } = await handle.read(bytes, filled, lengthBytes - filled, offsetBytes + filled);
    if (bytesRead === 0) {
      throw new StoreError('E_RANGE', `${path} ends before byte ${offsetBytes + lengthBytes}.`, {
        where: { member: path, offsetBytes, lengthBytes },
      });
    }
    filled += bytesRead;
  }
  return bytes;
}

function unreadable(error: unknown, path: string): unknown {
  const { code, errno } = error as NodeJS.ErrnoException;
  if (code === undefined || isStoreError(error)) return error;
  const where = { member: path, errno: Math.abs(errno ?? 0) };
  if (code === 'ENOENT')
    return new StoreError('E_NOT_FOUND', `${path} does not exist.`, { where, cause: error });
  return new StoreError('E_IO', `${path} could not be read (${code}).`, { where, cause: error });
}

/** Reads and checks one page of a tree from whichever given member holds a good copy; sealed ones stay sealed. */
export async function readPage(
  members: ReadonlyMap<number, RawMember>,
  pointer: PagePointer,
  context: {
    readonly storeUuid: Uint8Array;
    readonly treeId: number;
    readonly rootSequence: number;
    readonly isSealed: boolean;
  },
): Promise<LeafPage | BranchPage | SealedPage> {
  let last: unknown = null;
  for (const { member, sector } of pointer.copies) {
    const device = members.get(member);
    if (device === undefined) continue;
    try {
      const where = { member: device.path, memberIndex: member, offsetBytes: sector * SECTOR_BYTES };
      const bytes = await device.read(sector * SECTOR_BYTES, pointer.storedBytes);
      checkPageSum(bytes, pointer, where);
      const full = { ...context, where };
      return context.isSealed ? decodeSealedPage(bytes, pointer, full) : decodePage(bytes, pointer, full);
    } catch (error) {
      last = error;
    }
  }
  if (last !== null) throw last;
  const places = pointer.copies.map(({ member, sector }) => `member ${member} sector ${sector}`).join(', ');
  throw new StoreError('E_NOT_FOUND', `The page is on ${places}, and none of these members is given.`, {
    next: 'give the directory of the store, or the other member',
  });
}
