// Peers of `bench crypto`: the same bytes through `openssl enc` over plain files, and through gocryptfs.
//
// Neither does what a store does: `openssl enc` with CTR has no tags and no sums, gocryptfs has tags and no copies.
// They are a floor: what somebody who encrypts files reads and writes here.
//
// Invariants
//   1. Files are dropped from the page cache before they are read, and written ones are durable when the clock stops.
//   2. What is not installed or cannot be mounted is a row that says so, not an error.
//   3. What was mounted is unmounted, also after a failure.

import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { evict } from '../quickstart/page_cache.js';
import type { Row } from './report.js';
import { gigabytesPerSecond, median } from './statistics.js';

const MEBIBYTE = 1024 * 1024;
const PEER_ROUNDS = 3;
const PASSWORD = 'of the benchmark alone\n';

class PeerFailed extends Error {}

function run(program: string, args: readonly string[]): void {
  const ran = spawnSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'ignore', 'pipe'] });
  if (ran.error !== undefined) throw new PeerFailed(`${program} is not installed`);
  if (ran.status !== 0)
    throw new PeerFailed(`${program} failed: ${ran.stderr.trim().split('\n').at(-1) ?? ''}`);
}

async function makeDurable(path: string): Promise<void> {
  const file = await open(path, 'r+');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

const copy = (from: string, to: string): void =>
  run('dd', [
    `if=${from}`,
    `of=${to}`,
    'bs=4M',
    'status=none',
    ...(to === '/dev/null' ? [] : ['conv=fsync']),
  ]);

interface Peer {
  readonly name: string;
  readonly write: () => Promise<void>;
  /** Makes the next read a cold one; the clock stands. */
  readonly cool: () => Promise<void>;
  readonly read: () => Promise<void>;
}

/** Rows of one place: rates over the same number of bytes as the stores' versions. */
export async function benchCryptoPeers(place: string, directory: string, sizeBytes: number): Promise<Row[]> {
  const plain = join(directory, 'peer-plain');
  run('dd', [
    'if=/dev/urandom',
    `of=${plain}`,
    'bs=1M',
    `count=${Math.ceil(sizeBytes / MEBIBYTE)}`,
    'status=none',
  ]);
  const rows: Row[] = [];
  for (const make of [opensslPeer, gocryptfsPeer]) {
    let close = (): void => undefined;
    let name = make === opensslPeer ? 'openssl enc -aes-256-ctr' : 'gocryptfs';
    try {
      const peer = make(directory, plain);
      close = peer.close;
      name = peer.name;
      rows.push(...(await measure(place, peer, statSync(plain).size)));
    } catch (error) {
      if (!(error instanceof PeerFailed)) throw error;
      rows.push({ what: `${place}: peer ${name}`, unit: 'GB/s', note: error.message });
    } finally {
      close();
    }
  }
  rmSync(plain, { force: true });
  return rows;
}

async function measure(place: string, peer: Peer, bytes: number): Promise<Row[]> {
  const rates: Record<'read' | 'write', number[]> = { read: [], write: [] };
  for (let round = -1; round < PEER_ROUNDS; round += 1) {
    for (const what of ['write', 'read'] as const) {
      if (what === 'read') await peer.cool();
      const start = performance.now();
      await peer[what]();
      if (round >= 0) rates[what].push(gigabytesPerSecond(bytes, performance.now() - start));
    }
  }
  return (['read', 'write'] as const).map((what) => ({
    what: `${place}: peer ${peer.name}, ${what}`,
    value: median(rates[what]),
    unit: 'GB/s of tensors',
    note: what === 'read' ? 'dropped from the page cache first' : 'made durable',
  }));
}

function opensslPeer(directory: string, plain: string): Peer & { readonly close: () => void } {
  const [cipher, password] = [join(directory, 'peer-cipher'), join(directory, 'peer-password')];
  writeFileSync(password, PASSWORD);
  const enc = ['enc', '-aes-256-ctr', '-pbkdf2', '-pass', `file:${password}`];
  return {
    name: 'openssl enc -aes-256-ctr',
    async write() {
      run('openssl', [...enc, '-in', plain, '-out', cipher]);
      await makeDurable(cipher);
    },
    async cool() {
      await evict([cipher]);
    },
    async read() {
      run('openssl', [...enc, '-d', '-in', cipher, '-out', '/dev/null']);
    },
    close: () => {
      for (const path of [cipher, password]) rmSync(path, { force: true });
    },
  };
}

function gocryptfsPeer(directory: string, plain: string): Peer & { readonly close: () => void } {
  const [cipher, mounted, password] = ['peer-gocryptfs', 'peer-mounted', 'peer-password'].map((name) =>
    join(directory, name),
  ) as [string, string, string];
  for (const path of [cipher, mounted]) mkdirSync(path);
  writeFileSync(password, PASSWORD);
  const unmount = (): void => {
    spawnSync('umount', [mounted], { stdio: 'ignore' });
  };
  const close = (): void => {
    unmount();
    for (const path of [cipher, mounted, password]) rmSync(path, { recursive: true, force: true });
  };
  const mount = (): void => {
    const args = ['-q', '-nosyslog', '-passfile', password, cipher, mounted];
    // What stays behind would hold a pipe open.
    const ran = spawnSync('gocryptfs', args, { stdio: 'ignore' });
    if (ran.status !== 0) throw new PeerFailed('gocryptfs could not be mounted (FUSE)');
  };
  const file = join(mounted, 'file');
  try {
    run('gocryptfs', ['-init', '-q', '-plaintextnames', '-passfile', password, cipher]);
    mount();
  } catch (error) {
    close();
    throw error;
  }
  return {
    name: 'gocryptfs',
    async write() {
      copy(plain, file);
    },
    async cool() {
      // Mounted anew: what the kernel kept of the file in the clear is gone.
      unmount();
      await evict([join(cipher, 'file')]);
      mount();
    },
    async read() {
      copy(file, '/dev/null');
    },
    close,
  };
}
