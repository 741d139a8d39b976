// The single checks of `ingot doctor`. Each says what was found and, where that is not the best, what to do.
//
// Invariants
//   1. 'bad' means that something will not work; 'note' that it works on a slower or missing path; 'ok' the rest.
//   2. Checks never throw for what they look at: a failure is a finding.
//   3. Nothing is written; devices are opened for reading.

import { existsSync, readFileSync, statfsSync } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { constants } from 'node:fs';
import { release } from 'node:os';
import { basename, join } from 'node:path';
import {
  NativeIo,
  keyProviders,
  nativeCrypt,
  releaseSecret,
  secretState,
  takeSecret,
} from '../../engine/index.js';
import { isStoreError } from '../../format/errors.js';
import { checkGpuPaths } from './doctor_gpu.js';
import { formatBytes } from './progress.js';

export interface DoctorLine {
  readonly what: string;
  readonly state: 'ok' | 'note' | 'bad';
  readonly finding: string;
  readonly remedy: string | null;
  readonly path?: string;
}

/** io_uring with registered files and buffers as the core uses it. */
const KERNEL_FOR_IO_URING = [5, 11] as const;
const KEY_PROBE_BYTES = 32;
/** File systems by their magic, as statfs gives it. */
const FILE_SYSTEMS: Readonly<Record<number, string>> = {
  0xef53: 'ext4',
  0x58465342: 'xfs',
  0x9123683e: 'btrfs',
  0x01021994: 'tmpfs',
  0x794c7630: 'overlayfs',
  0x6969: 'nfs',
  0x2fc12fc1: 'zfs',
  0xf2f52010: 'f2fs',
  0x61756673: 'aufs',
  0x858458f6: 'ramfs',
  0x65735546: 'fuse',
  0x01021997: '9p',
};

export const line = (
  what: string,
  state: DoctorLine['state'],
  finding: string,
  remedy: string | null = null,
  path?: string,
): DoctorLine => ({
  what,
  state,
  finding,
  remedy,
  ...(path === undefined ? {} : { path }),
});

export function checkKernel(): DoctorLine[] {
  const [major = 0, minor = 0] = release().split('.').map(Number);
  const [needMajor, needMinor] = KERNEL_FOR_IO_URING;
  const isNew = major > needMajor || (major === needMajor && minor >= needMinor);
  const kernel = isNew
    ? line('kernel', 'ok', `Linux ${release()}`)
    : line(
        'kernel',
        'note',
        `Linux ${release()}: io_uring needs ${needMajor}.${needMinor}`,
        'use a newer kernel',
      );
  return [kernel, checkUringSwitch(), line('node', 'ok', process.version)];
}

function checkUringSwitch(): DoctorLine {
  const path = '/proc/sys/kernel/io_uring_disabled';
  const value = existsSync(path) ? readFileSync(path, 'utf8').trim() : '0';
  if (value === '0') return line('io_uring switch', 'ok', 'kernel.io_uring_disabled is 0');
  const who = value === '1' ? 'for all but a group' : 'for everyone';
  return line(
    'io_uring switch',
    'note',
    `io_uring is switched off ${who}`,
    'sysctl -w kernel.io_uring_disabled=0',
  );
}

/** Loads the native core and opens its backend, as every command will. */
export async function checkNative(): Promise<DoctorLine[]> {
  try {
    const io = new NativeIo();
    const { path, reason } = io.backend;
    await io.close();
    const state = path === 'io_uring' ? 'ok' : 'note';
    const remedy =
      path === 'io_uring' ? null : 'allow io_uring (kernel switch, container seccomp profile, memlock limit)';
    return [line('native core', 'ok', 'loaded'), line('backend', state, `${path}: ${reason}`, remedy, path)];
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const next = isStoreError(error) ? (error.next ?? 'npm run setup') : 'npm run setup';
    return [line('native core', 'bad', message, next)];
  }
}

export function checkSystemLimits(): DoctorLine[] {
  const limits = existsSync('/proc/self/limits') ? readFileSync('/proc/self/limits', 'utf8') : '';
  const locked = /^Max locked memory\s+(\S+)/m.exec(limits)?.[1] ?? 'unknown';
  const enough = locked === 'unlimited' || Number(locked) >= 64 * 1024 * 1024;
  const text = /^\d+$/.test(locked) ? formatBytes(Number(locked)) : locked;
  const lines = [
    enough
      ? line('locked memory', 'ok', `limit ${text}`)
      : line(
          'locked memory',
          'note',
          `limit ${text}: buffers may not be registered with io_uring`,
          'ulimit -l unlimited',
        ),
  ];
  const files = /^Max open files\s+(\S+)/m.exec(limits)?.[1] ?? 'unknown';
  lines.push(line('open files', 'ok', `limit ${files}`));
  return lines;
}

/** Whether the system lets keys stay out of swap; a page is taken to see it. */
function checkSecretMemory(): DoctorLine {
  const what = 'memory of keys';
  try {
    releaseSecret(takeSecret(KEY_PROBE_BYTES));
    const { unlockedBytes, dumpedBytes, lockErrno } = secretState();
    if (unlockedBytes === 0 && dumpedBytes === 0)
      return line(what, 'ok', 'locked, and left out of core dumps');
    const finding =
      dumpedBytes > 0
        ? 'the kernel does not leave it out of core dumps'
        : `it cannot be locked (errno ${lockErrno}), so keys may reach the swap; they are left out of core dumps`;
    return line(what, 'note', finding, 'raise the limit of locked memory (ulimit -l), or encrypt the swap');
  } catch (error) {
    return line(what, 'bad', error instanceof Error ? error.message : String(error), 'npm run setup');
  }
}

/** What key slots of encrypted stores can be opened with here. */
export function checkKeys(): DoctorLine[] {
  const providers = keyProviders().map((provider) => {
    const what = `keys, ${provider.kind}`;
    const { isThere, finding } = provider.look(nativeCrypt);
    return isThere
      ? line(what, 'ok', finding)
      : line(what, 'note', finding, 'none: another kind of key does as well');
  });
  return [...providers, checkSecretMemory()];
}

/** A member as the core opens it: its path, its alignment, its failure domain. */
export async function checkMember(path: string): Promise<DoctorLine[]> {
  let io: NativeIo | null = null;
  try {
    io = new NativeIo();
    const member = await io.openMember(path, { mode: 'r', direct: 'prefer' });
    const domain = member.failureDomain === '' ? 'unknown' : member.failureDomain;
    // Of a device node the file system is that of /dev, which says nothing of the device.
    const kind = member.kind === 'block' ? 'block device' : `${member.kind} ${fileSystemOf(path)}`;
    const facts =
      `${kind}, ${formatBytes(member.sizeBytes)}; offsets aligned to ` +
      `${member.offsetAlignmentBytes}, memory to ${member.memoryAlignmentBytes}; failure domain ${domain}`;
    const onGpus = checkGpuPaths(io, member, path);
    await io.closeMember(member.slot);
    if (member.ioPath === 'buffered') {
      const remedy = 'put the member on a file system with O_DIRECT (ext4, xfs) or on a block device';
      return [
        line(path, 'note', `takes buffered: O_DIRECT is refused there; ${facts}`, remedy, 'buffered'),
        ...onGpus,
      ];
    }
    const why =
      member.ioPath === 'threads' ? 'direct I/O by threads (see backend above)' : 'direct I/O by io_uring';
    return [
      line(
        path,
        member.ioPath === 'threads' ? 'note' : 'ok',
        `takes ${member.ioPath}: ${why}; ${facts}`,
        null,
        member.ioPath,
      ),
      ...onGpus,
    ];
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return [line(path, 'bad', message, isStoreError(error) ? (error.next ?? 'ingot dump') : 'ingot dump')];
  } finally {
    await io?.close();
  }
}

function fileSystemOf(path: string): string {
  try {
    const { type } = statfsSync(path);
    return `on ${FILE_SYSTEMS[Number(type) >>> 0] ?? `file system 0x${(Number(type) >>> 0).toString(16)}`}`;
  } catch {
    return 'on an unknown file system';
  }
}

/** A directory or device that is no member: what a member there would take. */
export async function checkDevice(path: string): Promise<DoctorLine[]> {
  try {
    const found = await stat(path);
    if (found.isBlockDevice()) return [await checkBlockDevice(path)];
    const target = found.isDirectory() ? path : join(path, '..');
    const { bavail, bsize } = statfsSync(target);
    const free = formatBytes(Number(bavail) * Number(bsize));
    return [line(path, 'ok', `${fileSystemOf(target)}, ${free} free, no member there yet`)];
  } catch (error) {
    return [line(path, 'bad', error instanceof Error ? error.message : String(error), 'check the path')];
  }
}

async function checkBlockDevice(path: string): Promise<DoctorLine> {
  const queue = `/sys/class/block/${basename(path)}/queue/logical_block_size`;
  const sector = existsSync(queue) ? readFileSync(queue, 'utf8').trim() : 'unknown';
  try {
    const handle = await open(path, constants.O_RDONLY | constants.O_DIRECT);
    await handle.close();
    return line(
      path,
      'ok',
      `block device with O_DIRECT, logical sectors of ${sector} bytes, no member there yet`,
    );
  } catch (error) {
    return line(
      path,
      'bad',
      `block device: ${error instanceof Error ? error.message : String(error)}`,
      'allow this user to open it',
    );
  }
}
