// Folders of the test runner: one for each run, one in it for each test file, and nothing of them left behind.
//
// A test that is killed cannot clean up. So each test file has its own TMPDIR inside the run's folder; what it leaves
// there, mounts and loop devices too, goes when the file ends. What a killed run leaves goes when the next one starts.
//
// Invariants
//   1. A run's folder names the process that made it and when that began: it is stale when no such process is there.
//   2. Only folders of that name are touched, and mounts and loop devices whose path lies in one of them.
//   3. Nothing is removed below a mount that would not go: what is mounted may be somebody's.
//
// It knows nothing of tests.
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const NAME = /^ingot-tests-(\d+)-(\d+)-/;
/** Where runs and their tests make folders. */
const PARENTS = () => [tmpdir(), '/dev/shm'];

/** When a process began, in clock ticks since boot; null when there is none (or no /proc). */
function startedAt(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null;
  } catch {
    return null;
  }
}

/** Begins the name of every folder of this run. */
export const prefix = () => `ingot-tests-${process.pid}-${startedAt(process.pid) ?? 0}-`;

/** The folder of this run. */
export function makeScratch() {
  const path = mkdtempSync(join(tmpdir(), prefix()));
  // Others may pass through, not look: a test runs the setup as another user, with programs that lie below.
  chmodSync(path, 0o711);
  return path;
}

/** The TMPDIR of one test file. */
export function makeTemporary(scratch, number) {
  const path = join(scratch, `t${number}`);
  mkdirSync(path);
  return path;
}

/** Removes a folder with all that is mounted in it; true when it is gone. */
export function removeTree(folder) {
  for (const device of loopsIn(folder)) attempt('losetup', ['-d', device]);
  // A mount on a mount goes first.
  for (const path of mountsIn(folder).reverse()) attempt('umount', [path]) || attempt('umount', ['-l', path]);
  if (mountsIn(folder).length > 0) {
    console.error(`${folder} is left: something is mounted there that does not go`);
    return false;
  }
  for (const device of loopsIn(folder)) attempt('losetup', ['-d', device]);
  rmSync(folder, { recursive: true, force: true });
  return true;
}

/** Removes what killed runs left; resolves to the folders. */
export function sweepStale(parents = PARENTS()) {
  const swept = [];
  for (const parent of parents) {
    if (!existsSync(parent)) continue;
    for (const name of readdirSync(parent)) {
      const match = NAME.exec(name);
      if (match === null || startedAt(match[1]) === match[2]) continue;
      if (removeTree(join(parent, name))) swept.push(join(parent, name));
    }
  }
  return swept;
}

/** What this run's tests left elsewhere under its name (a RAM disk). */
export function removeOwn() {
  for (const parent of PARENTS()) {
    if (!existsSync(parent)) continue;
    for (const name of readdirSync(parent)) if (name.startsWith(prefix())) removeTree(join(parent, name));
  }
}

function attempt(program, args) {
  try {
    execFileSync(program, args, { stdio: 'ignore', timeout: 20_000 });
    return true;
  } catch {
    return false;
  }
}

const isIn = (path, folder) => path === folder || path.startsWith(`${folder}/`);

/** Mount points in the folder, outer ones first. */
function mountsIn(folder) {
  if (!existsSync('/proc/self/mountinfo')) return [];
  const plain = (text) =>
    text.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(parseInt(octal, 8)));
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => plain(line.split(' ')[4] ?? ''))
    .filter((path) => path !== '' && isIn(path, folder));
}

/** Loop devices over files in the folder, whether these are still there or not. */
function loopsIn(folder) {
  const devices = existsSync('/sys/block')
    ? readdirSync('/sys/block').filter((name) => name.startsWith('loop'))
    : [];
  return devices.flatMap((name) => {
    try {
      const file = readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').trim();
      return isIn(file, folder) ? [`/dev/${name}`] : [];
    } catch {
      return [];
    }
  });
}
