// `bench crypto`, opening: an encrypted store by a key file, by a token and by the TPM, and the token's own time.
//
// The token is SoftHSM2's, the TPM that which TPM2TOOLS_TCTI or the machine has; what is not there is a row that says
// so.
//
// Invariants
//   1. One small store with a slot for each; openings take turns. The token's own time is that of the same request to
//      the port by itself: what is over it is ours.

import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type StoreKey, nativeCrypt, open } from '../../engine/index.js';
import type { Row } from './report.js';
import { median } from './statistics.js';

const ROUNDS = 5;
const MEBIBYTE = 1024 * 1024;
const MODULES = ['/usr/lib/softhsm/libsofthsm2.so', '/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so'];
const PIN = new TextEncoder().encode('1234');

interface Way {
  readonly name: string;
  readonly key: StoreKey;
  /** The token's own part of opening. */
  readonly own: () => Promise<void>;
}

function softToken(directory: string): Way | string {
  const module = MODULES.find((path) => existsSync(path));
  if (module === undefined) return 'softhsm2 is not installed';
  const settings = join(directory, 'softhsm2.conf');
  const tokens = join(directory, 'tokens');
  mkdirSync(tokens);
  writeFileSync(settings, `directories.tokendir = ${tokens}\n`);
  process.env['SOFTHSM2_CONF'] = settings;
  const aes = join(directory, 'aes');
  // softhsm2-util passes over white space in a key file.
  writeFileSync(aes, randomBytes(16).toString('hex'));
  const login = ['--token', 'bench', '--pin', '1234'];
  for (const args of [
    ['--init-token', '--free', '--label', 'bench', '--pin', '1234', '--so-pin', '5678'],
    ['--import', aes, '--aes', '--label', 'key', '--id', '01', ...login],
  ])
    if (spawnSync('softhsm2-util', args).status !== 0) return 'softhsm2-util failed';
  const uri = `pkcs11:token=bench;object=key?module-path=${module}`;
  return {
    name: 'PKCS#11 token (SoftHSM2)',
    key: { kind: 'pkcs11', uri, secret: PIN },
    own: async () => {
      const secret = nativeCrypt.takeSecret(32);
      await nativeCrypt.tokens?.wrapByToken({ module, token: 'bench', object: 'key' }, PIN, secret);
      nativeCrypt.releaseSecret(secret);
    },
  };
}

async function tpm(): Promise<Way | string> {
  const sight = nativeCrypt.tokens?.lookForTpm();
  if (sight?.isThere !== true || nativeCrypt.tokens === null) return sight?.finding ?? 'no TPM';
  const { tokens } = nativeCrypt;
  const secret = nativeCrypt.takeSecret(32);
  try {
    const blob = await tokens.sealByTpm('sha256:7', secret);
    return {
      name: 'TPM 2.0',
      key: { kind: 'tpm2', uri: 'tpm2:', secret: new Uint8Array(0) },
      own: async () => nativeCrypt.releaseSecret(await tokens.unsealByTpm('sha256:7', blob)),
    };
  } catch (error) {
    return (error as Error).message;
  } finally {
    nativeCrypt.releaseSecret(secret);
  }
}

export async function benchOpening(directory: string): Promise<Row[]> {
  const folder = join(directory, `ingot-bench-keys-${process.pid}`);
  mkdirSync(folder, { recursive: true });
  try {
    const key: StoreKey = { kind: 'key-file', secret: new Uint8Array(32).fill(3) };
    const file: Way = { name: 'key file', key, own: () => Promise.resolve() };
    const ways: Way[] = [file];
    const rows: Row[] = [];
    for (const [what, way] of [
      ['a token', softToken(folder)],
      ['the TPM', await tpm()],
    ] as const)
      if (typeof way === 'string') rows.push({ what: `open by ${what}`, unit: 'ms', note: way });
      else ways.push(way);
    const member = join(folder, 'store.member');
    const members = [{ path: member, sizeBytes: 64 * MEBIBYTE }];
    const create = { members, encrypt: { key, onRecoveryKey: () => undefined } };
    const store = await open({ members: [member] }, { mode: 'rw', create, key });
    for (const way of ways.slice(1)) await store.addKey(key, way.key);
    await store.close();
    return [...(await measure(member, ways)), ...rows];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function measure(member: string, ways: readonly Way[]): Promise<Row[]> {
  const times = new Map(ways.map((way) => [way, { all: [] as number[], own: [] as number[] }]));
  for (let round = -1; round < ROUNDS; round += 1) {
    for (const way of ways) {
      const start = performance.now();
      await (await open({ members: [member] }, { mode: 'r', key: way.key })).close();
      const between = performance.now();
      await way.own();
      if (round < 0) continue;
      times.get(way)?.all.push(between - start);
      times.get(way)?.own.push(performance.now() - between);
    }
  }
  return ways.map((way) => {
    const { all, own } = times.get(way) ?? { all: [], own: [] };
    const isToken = way.key.kind !== 'key-file';
    return {
      what: isToken ? `open and close by ${way.name}, over its own time` : `open and close by ${way.name}`,
      value: isToken ? median(all) - median(own) : median(all),
      unit: 'ms',
      ...(isToken ? { note: `its own time: ${median(own).toFixed(1)} ms`, wanted: '<= 1000' } : {}),
    };
  });
}
