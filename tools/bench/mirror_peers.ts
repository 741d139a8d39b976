// The other mirrors of `bench redundancy`, on the same loop devices over files in RAM as the store beside them:
//   mdadm RAID-1 + ext4   copies, and no sums
//   btrfs RAID-1          copies, and sums of every block (crc32c): what is nearest to the store
//
// Invariants
//   1. Both sides of a pair have two loop devices of the same size over files of the same RAM disk, and run next to
//      each other, in an order drawn for every pair.
//   2. A peer that cannot be had here gives a row that says why: tools, rights, or drivers of the kernel.
//   3. Mounts, arrays, loop devices and files are removed, also after a failure, in the order opposite to their making.
//
// It stores nothing of its own and changes no device but the loop devices that it made.

import { execFile } from 'node:child_process';
import { mkdir, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { fioVersion, runFioFile } from './fio.js';
import { RedundancyWorker, paired, pairRow } from './redundancy.js';
import { type Row, say } from './report.js';
import { gigabytesPerSecond } from './statistics.js';

const MEBIBYTE = 1024 * 1024;
const SIZE_BYTES_MAX = 256 * MEBIBYTE;
/** Loop devices are so much longer than what is stored on them: room to write anew before the old is gone. */
const ROOM_SHARE = 3;

export interface MirrorPeerOptions {
  readonly sizeBytes: number;
  readonly pairs: number;
  readonly seed: number;
}

/** What was made, undone from its end. */
type Undo = (() => Promise<unknown>)[];

interface Peer {
  readonly name: string;
  readonly tools: readonly string[];
  /** Makes the file system on the two devices and mounts it at `at`. */
  mount(devices: readonly string[], at: string, undo: Undo): Promise<void>;
}

const execute = promisify(execFile);
async function run(command: string, ...args: string[]): Promise<string> {
  try {
    return (await execute(command, args)).stdout.trim();
  } catch (error) {
    const { stderr = '', message } = error as Error & { stderr?: string };
    const why = stderr.trim().split('\n')[0];
    throw new Error(`${command}: ${why === undefined || why === '' ? message : why}`, { cause: error });
  }
}

const PEERS: readonly Peer[] = [
  {
    name: 'mdadm RAID-1 + ext4',
    tools: ['mdadm', 'mkfs.ext4'],
    async mount(devices, at, undo) {
      const array = `/dev/md/ingot-bench-${process.pid}`;
      const shape = ['--level=1', '--raid-devices=2', '--assume-clean', '--metadata=1.2', '--run'];
      await run('mdadm', '--create', array, ...shape, ...devices);
      undo.push(() => run('mdadm', '--stop', array));
      await run('mkfs.ext4', '-q', '-F', array);
      await run('mount', array, at);
      undo.push(() => run('umount', at));
    },
  },
  {
    name: 'btrfs RAID-1 (crc32c)',
    tools: ['mkfs.btrfs'],
    async mount(devices, at, undo) {
      await run('mkfs.btrfs', '-q', '-f', '-m', 'raid1', '-d', 'raid1', ...devices);
      const all = devices.map((device) => `device=${device}`).join();
      await run('mount', '-t', 'btrfs', '-o', all, devices[0] ?? '', at);
      undo.push(() => run('umount', at));
    },
  },
];

/** Rows for reads and writes beside each peer. `directory` is on a RAM disk and made here. */
export async function mirrorPeers(directory: string, options: MirrorPeerOptions): Promise<Row[]> {
  const rows: Row[] = [];
  for (const peer of PEERS) {
    const what = `peer: ${peer.name} over loop devices in RAM`;
    const undo: Undo = [];
    try {
      await refuseMissing(peer);
      await mkdir(directory, { recursive: true });
      undo.push(() => rm(directory, { recursive: true, force: true }));
      rows.push(...(await beside(peer, directory, options, undo)));
    } catch (error) {
      rows.push({ what, note: `not measured: ${error instanceof Error ? error.message : String(error)}` });
    } finally {
      for (const step of undo.reverse()) await step().catch((error: unknown) => say(String(error)));
    }
  }
  return rows;
}

async function refuseMissing({ tools }: Peer): Promise<void> {
  const missing: string[] = [];
  if (process.getuid?.() !== 0) missing.push('root is needed');
  if ((await fioVersion()) === null) missing.push('fio is not installed');
  for (const tool of ['losetup', ...tools])
    await run('sh', '-c', `command -v ${tool}`).catch(() => missing.push(`${tool} is not installed`));
  // Without the driver nothing that is installed helps.
  if (tools.includes('mdadm') && !(await hasMdDriver()))
    missing.push('the kernel has no md driver (no /proc/mdstat, and modprobe finds no raid1)');
  if (missing.length > 0) throw new Error(missing.join('; '));
}

async function hasMdDriver(): Promise<boolean> {
  await run('modprobe', 'raid1').catch(() => undefined);
  return run('cat', '/proc/mdstat').then(
    () => true,
    () => false,
  );
}

/** Two loop devices over new files. */
async function loopDevices(
  directory: string,
  name: string,
  byteLength: number,
  undo: Undo,
): Promise<string[]> {
  const devices: string[] = [];
  for (const index of [0, 1]) {
    const image = join(directory, `${name}-${index}.image`);
    await writeFile(image, '');
    await truncate(image, byteLength);
    const device = await run('losetup', '--find', '--show', image);
    undo.push(() => run('losetup', '--detach', device));
    devices.push(device);
  }
  return devices;
}

async function beside(peer: Peer, directory: string, options: MirrorPeerOptions, undo: Undo): Promise<Row[]> {
  const sizeBytes = Math.min(options.sizeBytes, SIZE_BYTES_MAX);
  const deviceBytes = sizeBytes * ROOM_SHARE;
  const members = await loopDevices(directory, 'store', deviceBytes, undo);
  const devices = await loopDevices(directory, 'peer', deviceBytes, undo);
  const at = join(directory, 'mounted');
  await mkdir(at);
  await peer.mount(devices, at, undo);
  const worker = new RedundancyWorker();
  undo.push(() => worker.close());
  await worker.ask({ kind: 'prepare', members, memberBytes: null, sizeBytes });
  const file = { path: join(at, 'file'), offsetBytes: 0, lengthBytes: sizeBytes };
  await runFioFile('write', file);
  await worker.ask({ kind: 'read' });
  const rows: Row[] = [];
  for (const kind of ['write', 'read'] as const) {
    say(`${kind}s beside ${peer.name}`);
    const ours = async (): Promise<number> => {
      const { bytes, durationMs } = await worker.ask({ kind });
      return gigabytesPerSecond(bytes, durationMs);
    };
    const taken = await paired(options, ours, () => runFioFile(kind, file));
    const what = kind === 'write' ? 'mirrored write and commit' : 'mirrored verified read';
    const how = kind === 'write' ? 'fio write and fsync' : 'fio read';
    const against = `${peer.name}, ${how} of one file, 1 MiB x 8`;
    rows.push(pairRow(taken, { what: `loop devices in RAM: ${what}`, unit: 'GB/s', against }));
  }
  return rows;
}
