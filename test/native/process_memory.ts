// The memory of a process as a core dump of it would have it, searched for bytes.
//
// Invariants
//   1. What a core leaves out is left out here: mappings with MADV_DONTDUMP (`dd`) or of devices (`io`), and those that
//      cannot be read. All else is searched, more than the default filter of cores takes.
//   2. Reads go through /proc/PID/mem: the process is not stopped and not changed.

import { closeSync, openSync, readFileSync, readSync } from 'node:fs';

const CHUNK_BYTES = 8 * 1024 * 1024;
const MAPPING = /^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+ *(.*)$/;

interface Mapping {
  readonly start: number;
  readonly end: number;
  readonly name: string;
}
export interface Found {
  readonly name: string;
  readonly mapping: string;
  readonly address: number;
}

/** What a core dump would hold. */
function dumpedMappings(pid: number): Mapping[] {
  const mappings: Mapping[] = [];
  let mapping: Mapping | null = null;
  let isReadable = false;
  let isResident = false;
  for (const line of readFileSync(`/proc/${pid}/smaps`, 'utf8').split('\n')) {
    const begins = MAPPING.exec(line);
    if (begins !== null) {
      const [, start = '0', end = '0', access = '', name = ''] = begins;
      mapping = { start: Number.parseInt(start, 16), end: Number.parseInt(end, 16), name };
      isReadable = access.startsWith('r');
    } else if (line.startsWith('Rss:')) isResident = !/ 0 kB$/.test(line);
    else if (line.startsWith('VmFlags:') && mapping !== null) {
      const flags = line.split(/\s+/);
      if (isReadable && isResident && !flags.includes('dd') && !flags.includes('io')) mappings.push(mapping);
    }
  }
  return mappings;
}

/** Where each of the needles lies. */
export function searchMemory(
  pid: number,
  needles: ReadonlyMap<string, Uint8Array>,
): { found: Found[]; bytes: number } {
  const longest = Math.max(...[...needles.values()].map((each) => each.length));
  const chunk = Buffer.alloc(CHUNK_BYTES + longest);
  const found: Found[] = [];
  let bytes = 0;
  const memory = openSync(`/proc/${pid}/mem`, 'r');
  try {
    for (const { start, end, name } of dumpedMappings(pid)) {
      for (let at = start; at < end; at += CHUNK_BYTES) {
        const got = readAt(memory, chunk, at, Math.min(chunk.length, end - at));
        bytes += Math.min(got, CHUNK_BYTES);
        for (const [what, needle] of needles) {
          const index = chunk.subarray(0, got).indexOf(needle);
          if (index >= 0) found.push({ name: what, mapping: name, address: at + index });
        }
      }
    }
  } finally {
    closeSync(memory);
    chunk.fill(0);
  }
  return { found, bytes };
}

function readAt(file: number, into: Buffer, address: number, bytes: number): number {
  let length = 0;
  try {
    while (length < bytes) {
      const got = readSync(file, into, length, bytes - length, address + length);
      if (got === 0) break;
      length += got;
    }
  } catch {
    // A mapping that went away, or a page that nobody may read.
  }
  return length;
}
