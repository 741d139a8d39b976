// Goal: a block device is formatted only when nobody else's data or work is on it, and then serves
// like a file member, exclusively.
// Method: loop devices over temporary files. Needs root and losetup; skips visibly without.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { create, open } from '../../engine/index.js';
import { NativeIo } from '../../engine/io/native_io.js';
import { isStoreError } from '../../format/errors.js';
import { checkMember } from '../../tools/cli/doctor_checks.js';
import { pattern, readBatch, writeBatch } from '../conformance/batches.js';

const DEVICE_BYTES = 64 * 1024 * 1024;
const has = (tool: string) => spawnSync('sh', ['-c', `command -v ${tool}`]).status === 0;
const run = (...words: string[]) => spawnSync(words[0] ?? '', words.slice(1), { encoding: 'utf8' });

function reasonToSkip(): string | false {
  if (process.getuid?.() !== 0) return 'needs root';
  if (!has('losetup')) return 'needs losetup';
  if (!existsSync('/dev/loop-control')) return 'needs loop devices';
  return false;
}
const skip = reasonToSkip();

async function withLoop(
  body: (device: string, directory: string) => Promise<void>,
  prepare?: (image: string) => void,
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'ingot-loop-'));
  const image = join(directory, 'image');
  writeFileSync(image, '');
  truncateSync(image, DEVICE_BYTES);
  prepare?.(image);
  const made = run('losetup', '--find', '--show', '--partscan', image);
  assert.equal(made.status, 0, made.stderr);
  const device = made.stdout.trim();
  try {
    await body(device, directory);
  } finally {
    run('losetup', '--detach', device);
    rmSync(directory, { recursive: true, force: true });
  }
}

function poke(device: string, offset: number, bytes: Uint8Array): void {
  const file = openSync(device, 'r+');
  writeSync(file, bytes, 0, bytes.length, offset);
  closeSync(file);
}

const refused = (code: 'E_EXISTS' | 'E_LOCKED' | 'E_NO_SPACE', text: RegExp) => (error: unknown) =>
  isStoreError(error, code) && text.test(error.message);

for (const backend of ['io_uring', 'threads'] as const) {
  test(`${backend}: a block device serves as a member, exclusively for its writer`, { skip }, () =>
    withLoop(async (device) => {
      const io = new NativeIo({ backend });
      const member = await io.createMember(device, {});
      assert.equal(member.kind, 'block');
      assert.equal(member.sizeBytes, DEVICE_BYTES);
      assert.equal(member.ioPath, backend);
      assert.ok(member.failureDomain.length > 0);
      const source = pattern(1 << 20, 1);
      const spec = {
        copies: [{ slot: member.slot, offsetBytes: 1 << 20 }],
        rawBytes: 1 << 20,
        storedBytes: 1 << 20,
        segmentBytes: 65_536,
      };
      const written = writeBatch([{ ...spec, pieces: [{ offsetBytes: 0, source }] }]);
      assert.deepEqual([...(await io.write(written)).status], [0]);
      assert.deepEqual(await io.flush([member.slot]), [{ slot: member.slot, errno: 0 }]);
      const destination = io.allocate(1 << 20);
      assert.deepEqual(
        [...(await io.read(readBatch([{ ...spec, sums: [...written.segmentSums], destination }]))).status],
        [0],
      );
      assert.equal(Buffer.compare(destination, source), 0);
      const other = new NativeIo({ backend });
      await assert.rejects(
        other.openMember(device, { mode: 'rw', direct: 'require' }),
        refused('E_LOCKED', /busy/),
      );
      const reader = await other.openMember(device, { mode: 'r', direct: 'require' });
      assert.equal(Buffer.compare(await other.readRaw(reader.slot, 1 << 20, 1 << 20), source), 0);
      assert.equal(io.tryLockWriter(member.slot), true);
      other.pin(reader.slot, 4);
      assert.equal(io.pinnedBelow(member.slot, 5), true);
      await other.close();
      assert.equal(io.pinnedBelow(member.slot, 5), false);
      await io.close();
    }),
  );
}

test('doctor says of a device what it is, not what /dev is on', { skip }, () =>
  withLoop(async (device) => {
    const io = new NativeIo();
    await io.closeMember((await io.createMember(device, {})).slot);
    await io.close();
    const [line] = await checkMember(device);
    assert.match(line?.finding ?? '', /block device, 64\.0 MiB|block device, 67\.1 MB/);
    assert.doesNotMatch(line?.finding ?? '', /tmpfs| on /);
  }),
);

test('a device smaller than asked for is refused', { skip }, () =>
  withLoop(async (device) => {
    const io = new NativeIo();
    await assert.rejects(
      io.createMember(device, { sizeBytes: 2 * DEVICE_BYTES }),
      refused('E_NO_SPACE', /holds 67108864 bytes/),
    );
    await io.close();
  }),
);

test('foreign signatures are refused by name, unless forced', { skip }, () =>
  withLoop(async (device) => {
    const io = new NativeIo();
    const text = (value: string) => new Uint8Array(Buffer.from(value, 'latin1'));
    const signatures: [RegExp, number, Uint8Array][] = [
      [/ext2\/3\/4/, 0x438, Uint8Array.of(0x53, 0xef)],
      [/XFS/, 0, text('XFSB')],
      [/Btrfs/, 0x10040, text('_BHRfS_M')],
      [/LUKS/, 0, text('LUKS\xba\xbe')],
      [/MBR/, 510, Uint8Array.of(0x55, 0xaa)],
      [/GPT/, 512, text('EFI PART')],
      [/LVM2/, 512, text('LABELONE')],
      [/md 1\.2/, 4096, Uint8Array.of(0xfc, 0x4e, 0x2b, 0xa9)],
      [/md 1\.0/, DEVICE_BYTES - 8192, Uint8Array.of(0xfc, 0x4e, 0x2b, 0xa9)],
      [/md 0\.90/, DEVICE_BYTES - 65_536, Uint8Array.of(0xfc, 0x4e, 0x2b, 0xa9)],
      [/ZFS/, 128 * 1024 + 3072, Uint8Array.of(0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0)],
      [/swap/, 4086, text('SWAPSPACE2')],
      [/GPT backup/, DEVICE_BYTES - 512, text('EFI PART')],
    ];
    for (const [name, offset, bytes] of signatures) {
      poke(device, offset, bytes);
      await assert.rejects(io.createMember(device, {}), refused('E_EXISTS', name), String(name));
      await assert.rejects(
        io.openMember(device, { mode: 'rw', direct: 'prefer' }),
        refused('E_EXISTS', name),
      );
      const forced = await io.createMember(device, { force: true });
      // What a create overwrites is the engine's decision; it zeroes the head and the tail, as here.
      const region = new Uint8Array(1 << 20);
      await io.writeRaw(forced.slot, 0, region);
      await io.writeRaw(forced.slot, DEVICE_BYTES - region.length, region);
      await io.closeMember(forced.slot);
      const clean = await io.createMember(device, {});
      await io.closeMember(clean.slot);
    }
    poke(device, 0, text('INGOTSB1'));
    const own = await io.openMember(device, { mode: 'rw', direct: 'prefer' });
    await io.closeMember(own.slot);
    await io.close();
  }),
);

test(
  'a mounted device is refused and left alone',
  { skip: skip || (!has('mkfs.ext4') && 'needs mkfs.ext4') },
  () =>
    withLoop(async (device, directory) => {
      assert.equal(run('mkfs.ext4', '-q', device).status, 0);
      const target = join(directory, 'mnt');
      mkdirSync(target);
      const mounted = run('mount', device, target);
      assert.equal(mounted.status, 0, mounted.stderr);
      const io = new NativeIo();
      try {
        await assert.rejects(io.createMember(device, {}), refused('E_EXISTS', /mounted on/));
        await assert.rejects(
          io.openMember(device, { mode: 'rw', direct: 'prefer' }),
          refused('E_EXISTS', /mounted on/),
        );
        writeFileSync(join(target, 'file'), 'still there');
      } finally {
        assert.equal(run('umount', target).status, 0);
        await io.close();
      }
      assert.equal(run('fsck.ext4', '-n', device).status, 0, 'nothing was written to it');
    }),
);

/** A use of a device: begun, it gives how it ends, or why this system has none. */
interface Use {
  readonly named: RegExp;
  readonly begin: (device: string, directory: string) => (() => void) | string;
}
const ended = (...words: string[]): void => {
  const ran = run(...words);
  assert.equal(ran.status, 0, `${words.join(' ')}: ${ran.stderr}`);
};
const USES: Readonly<Record<string, Use>> = {
  mounted: {
    named: /in use: mounted on/,
    begin: (device, directory) => {
      if (run('mkfs.ext4', '-q', device).status !== 0) return 'needs mkfs.ext4';
      const target = join(directory, 'mnt');
      mkdirSync(target);
      ended('mount', device, target);
      return () => ended('umount', target);
    },
  },
  'swapped on': {
    named: /in use: swapped on/,
    begin: (device) => {
      if (run('mkswap', device).status !== 0) return 'needs mkswap';
      return run('swapon', device).status === 0 ? () => ended('swapoff', device) : 'needs swapon';
    },
  },
  'held by the device mapper': {
    named: /in use: held by dm-/,
    begin: (device) => {
      const name = `ingot-test-${process.pid}`;
      const table = `0 ${DEVICE_BYTES / 512} linear ${device} 0`;
      if (run('dmsetup', 'create', name, '--table', table).status !== 0) return 'needs the device mapper';
      return () => ended('dmsetup', 'remove', '--retry', name);
    },
  },
  'behind a loop device': {
    named: /in use: behind loop device loop/,
    begin: (device) => {
      const made = run('losetup', '--find', '--show', device);
      if (made.status !== 0) return 'needs a second loop device';
      return () => ended('losetup', '--detach', made.stdout.trim());
    },
  },
  'opened exclusively': {
    named: /busy/,
    begin: (device) => {
      // O_EXCL without O_CREAT: what a file system of another mount namespace has on it.
      const file = openSync(device, constants.O_RDWR | constants.O_EXCL);
      return () => closeSync(file);
    },
  },
};
for (const [use, { named, begin }] of Object.entries(USES)) {
  test(`a device that is ${use} is not taken by force either`, { skip }, (context) =>
    withLoop(async (device, directory) => {
      const end = begin(device, directory);
      if (typeof end === 'string') return context.skip(end);
      const io = new NativeIo();
      const before = readFileSync(device).subarray(0, 1 << 20);
      try {
        const inUse = (error: unknown) => isStoreError(error) && named.test(error.message);
        await assert.rejects(io.createMember(device, { force: true }), inUse);
        await assert.rejects(io.openMember(device, { mode: 'rw', direct: 'prefer', force: true }), inUse);
        await assert.rejects(
          create({ members: [device] }, { members: [{ path: device }], force: true }),
          inUse,
        );
        assert.ok(
          readFileSync(device)
            .subarray(0, 1 << 20)
            .equals(before),
          'nothing was written',
        );
      } finally {
        end();
        await io.close();
      }
    }),
  );
}

test('a partitioned device is refused', { skip }, () => {
  // A hand-made MBR: one Linux partition from sector 2,048 on. Kernels that cannot read it see its signature.
  const mbr = new Uint8Array(512);
  mbr.set([0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0x80, 0, 0], 446);
  mbr.set([0x55, 0xaa], 510);
  return withLoop(
    async (device) => {
      const io = new NativeIo();
      await assert.rejects(io.createMember(device, {}), refused('E_EXISTS', /partitioned|MBR/));
      const forced = await io.createMember(device, { force: true });
      await io.closeMember(forced.slot);
      await io.close();
    },
    (image) => poke(image, 0, mbr),
  );
});

test('a file system without O_DIRECT gives buffered members, and says so', { skip }, async (context) => {
  const directory = mkdtempSync(join(tmpdir(), 'ingot-ramfs-'));
  if (run('mount', '-t', 'ramfs', 'ramfs', directory).status !== 0) {
    rmSync(directory, { recursive: true });
    context.skip('ramfs cannot be mounted');
    return;
  }
  const io = new NativeIo();
  try {
    const path = join(directory, 'member');
    writeFileSync(path, new Uint8Array(1 << 20));
    const member = await io
      .openMember(path, { mode: 'rw', direct: 'prefer' })
      .catch((error: unknown) => error as Error);
    if (member instanceof Error) throw member;
    if (member.ioPath !== 'buffered') {
      context.skip('this kernel has O_DIRECT on ramfs');
      return;
    }
    await io.writeRaw(member.slot, 4096, pattern(4096, 9));
    assert.equal(Buffer.compare(await io.readRaw(member.slot, 4096, 4096), pattern(4096, 9)), 0);
    assert.deepEqual(Object.keys(io.stats().byPath), ['buffered']);
    await assert.rejects(io.openMember(path, { mode: 'r', direct: 'require' }), (error) =>
      isStoreError(error, 'E_UNSUPPORTED'),
    );
  } finally {
    await io.close();
    assert.equal(run('umount', directory).status, 0);
    rmSync(directory, { recursive: true });
  }
});

test('a second writer of this process through a loop device of a member file is refused, and let in after close', {
  skip,
}, async () => {
  const directory = mkdtempSync(join(tmpdir(), 'ingot-loop-'));
  const member = join(directory, 'member-0.ingot');
  await create(directory, { members: [{ path: member, sizeBytes: DEVICE_BYTES }] });
  const made = run('losetup', '--find', '--show', '--direct-io=on', member);
  assert.equal(made.status, 0, made.stderr);
  const device = made.stdout.trim();
  try {
    const first = await open({ members: [member] }, { mode: 'rw' });
    await assert.rejects(open({ members: [device] }, { mode: 'rw' }), (error) => {
      assert.ok(isStoreError(error));
      assert.equal(error.code, 'E_LOCKED');
      return true;
    });
    await first.close();
    const second = await open({ members: [device] }, { mode: 'rw' });
    await second.close();
  } finally {
    run('losetup', '--detach', device);
    rmSync(directory, { recursive: true, force: true });
  }
});
