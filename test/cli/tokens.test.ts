// Keys that a PKCS#11 token or a TPM holds, against SoftHSM2 and swtpm: made, opened, refused, and what helps then.
//
// Skips, and says so, where softhsm2 or swtpm and tpm2-tools are not installed.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type StoreErrorCode, type StoreKey, isStoreError, open } from '../../engine/index.js';
import { type Ran, ingot, scratchDirectory } from './harness.js';

const base = scratchDirectory('tokens');
const pin = join(base, 'pin');
const wrongPin = join(base, 'wrong-pin');
const blob = join(base, 'blob.bin');
writeFileSync(pin, '1234\n');
writeFileSync(wrongPin, '9999');
writeFileSync(blob, Buffer.alloc(100_000, 'kept by a key that stays where it is '));

const onPath = (program: string): boolean => spawnSync(program, ['--version']).error === undefined;
const ok = (program: string, args: readonly string[], env: Record<string, string> = {}): void => {
  const ran = spawnSync(program, args, { encoding: 'utf8', env: { ...process.env, ...env } });
  assert.equal(ran.status, 0, `${program}: ${ran.stderr}${ran.stdout}`);
};

/** create, put and get with the key of `uri`; then the recovery key, which every store has. */
async function throughAStore(
  name: string,
  uri: readonly string[],
  env: Record<string, string>,
): Promise<{ store: string; recovery: string }> {
  const [store, recovery] = [join(base, `${name}-store`), join(base, `${name}-recovery`)];
  const make = [
    'create',
    store,
    '--members',
    '1',
    '--size',
    '32MiB',
    '--encrypt',
    '--recovery-key-out',
    recovery,
  ];
  good(await ingot([...make, ...uri], { env }));
  good(await ingot(['put', 'run', blob, '--store', store, ...uri], { env }));
  const back = join(base, `${name}-back`);
  good(await ingot(['get', 'run', 'blob.bin', '-o', back, '--store', store, ...uri], { env }));
  assert.deepEqual(readFileSync(back), readFileSync(blob));
  return { store, recovery };
}

function good(ran: Ran): void {
  assert.equal(ran.code, 0, ran.stderr);
}
function refused(ran: Ran, code: string, words: RegExp): void {
  assert.notEqual(ran.code, 0);
  assert.match(ran.stderr, new RegExp(`error ${code}`));
  assert.match(ran.stderr, words);
}

async function opensWith(store: string, key: StoreKey): Promise<void> {
  await (await open(store, { mode: 'r', key })).close();
}
/** Another master key; the slot of `key` is made anew. */
async function rotates(store: string, key: StoreKey): Promise<void> {
  const writer = await open(store, { mode: 'rw', key });
  try {
    await writer.rotateMaster(key, { onRecoveryKey: () => undefined });
  } finally {
    await writer.close();
  }
}
async function refuses(opening: Promise<void>, code: StoreErrorCode, words: RegExp): Promise<void> {
  await assert.rejects(opening, (error: unknown) => isStoreError(error, code) && words.test(error.message));
}

const MODULES = ['/usr/lib/softhsm/libsofthsm2.so', '/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so'];
const module = MODULES.find((path) => existsSync(path));
const noSoftHsm = module === undefined || !onPath('softhsm2-util') ? 'softhsm2 is not installed' : false;

/** A token with an AES key (01) and an RSA key (02), both not extractable. */
function makeToken(): Record<string, string> {
  const tokens = join(base, 'tokens');
  mkdirSync(tokens);
  const settings = join(base, 'softhsm2.conf');
  writeFileSync(
    settings,
    `directories.tokendir = ${tokens}\nobjectstore.backend = file\nlog.level = ERROR\n`,
  );
  const env = { SOFTHSM2_CONF: settings };
  const token = ['--token', 'ops', '--pin', '1234'];
  ok('softhsm2-util', ['--init-token', '--free', '--label', 'ops', '--pin', '1234', '--so-pin', '5678'], env);
  const [aes, rsa] = [join(base, 'aes'), join(base, 'rsa.pem')];
  // softhsm2-util passes over white space in a key file.
  writeFileSync(aes, randomBytes(16).toString('hex'));
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  writeFileSync(rsa, privateKey.export({ type: 'pkcs8', format: 'pem' }));
  ok('softhsm2-util', ['--import', aes, '--aes', '--label', 'aes key', '--id', '01', ...token], env);
  ok('softhsm2-util', ['--import', rsa, '--label', 'rsa key', '--id', '02', ...token], env);
  return env;
}

test('a key of a PKCS#11 token opens its store; PIN, key and token that are wrong are told', {
  skip: noSoftHsm,
}, async () => {
  const env = makeToken();
  const uri = (object: string): string => `pkcs11:token=ops;object=${object}?module-path=${module}`;
  const withPin = ['--pin-file', pin];
  const { store, recovery } = await throughAStore('aes', ['--key', uri('aes%20key'), ...withPin], env);
  process.env['SOFTHSM2_CONF'] = env.SOFTHSM2_CONF;
  const opens = (asked: string, digits = '1234'): Promise<void> =>
    opensWith(store, { kind: 'pkcs11', uri: asked, secret: new TextEncoder().encode(digits) });
  await opens(`pkcs11:?module-path=${module}`);
  await refuses(opens(uri('aes%20key'), ''), 'E_UNSUPPORTED', /asks for a PIN/);
  await refuses(opens(uri('rsa%20key')), 'E_AUTH', /no key slot opens/);
  await refuses(opens(`pkcs11:token=other?module-path=${module}`), 'E_AUTH', /no key slot opens/);
  await refuses(opens(`pkcs11:token=ops?module-path=${base}/no.so`), 'E_UNSUPPORTED', /could not be loaded/);
  await refuses(opens('pkcs11:token=ops?pin-value=1234'), 'E_USAGE', /PIN does not belong/);
  const empty = join(base, 'empty.conf');
  mkdirSync(join(base, 'none'));
  writeFileSync(empty, `directories.tokendir = ${join(base, 'none')}\n`);
  process.env['SOFTHSM2_CONF'] = empty;
  await refuses(opens(uri('aes%20key')), 'E_UNSUPPORTED', /the token is not there/);
  process.env['SOFTHSM2_CONF'] = env.SOFTHSM2_CONF;

  const on = ['verify', 'run', '--store', store];
  const wrong = await ingot([...on, '--key', uri('aes%20key'), '--pin-file', wrongPin], { env });
  refused(wrong, 'E_AUTH', /CKR_PIN_INCORRECT/);
  assert.doesNotMatch(wrong.stderr + wrong.stdout, /9999/);
  const rsa = uri('rsa%20key');
  const added = ['key', 'add', '--store', store, '--recovery-key-file', recovery, '--new-key', rsa];
  good(await ingot([...added, '--new-pin-file', pin, '--label', 'card'], { env }));
  await opens(rsa);
  good(await ingot(['key', 'rm', '1', '--store', store, '--key', `${rsa}&pin-source=file:${pin}`], { env }));
  await refuses(opens(uri('aes%20key')), 'E_AUTH', /no key slot opens/);

  // The token has two keys: a short URI opens by what the slot says, and the new slot is under the same.
  const short: StoreKey = {
    kind: 'pkcs11',
    uri: `pkcs11:?module-path=${module}`,
    secret: new TextEncoder().encode('1234'),
  };
  await rotates(store, short);
  await opens(rsa);
});

const noTpm = ['swtpm', 'tpm2_unseal', 'tpm2_pcrextend'].find((program) => !onPath(program));
const children: ChildProcess[] = [];
after(() => {
  for (const child of children) child.kill('SIGKILL');
});

/** Two ports in a row, free a moment ago: swtpm takes the first for commands and the second for control. */
async function freePorts(): Promise<number> {
  for (;;) {
    const port = 20_000 + 2 * Math.floor(Math.random() * 20_000);
    const isFree = await Promise.all([port, port + 1].map(canListen));
    if (isFree.every(Boolean)) return port;
  }
}
function canListen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

/** A TPM of its own, started up; the environment that reaches it. */
async function startTpm(name: string): Promise<Record<string, string>> {
  const state = join(base, name);
  mkdirSync(state);
  const port = await freePorts();
  const server = ['--server', `type=tcp,port=${port}`, '--ctrl', `type=tcp,port=${port + 1}`];
  const start = [
    'socket',
    '--tpm2',
    '--tpmstate',
    `dir=${state}`,
    ...server,
    '--flags',
    'not-need-init,startup-clear',
  ];
  children.push(spawn('swtpm', start, { stdio: 'ignore' }));
  const env = { TPM2TOOLS_TCTI: `swtpm:host=127.0.0.1,port=${port}` };
  for (let tries = 0; tries < 100; tries += 1) {
    const ran = spawnSync('tpm2_getcap', ['properties-fixed'], { env: { ...process.env, ...env } });
    if (ran.status === 0) return env;
    await sleep(50);
  }
  throw new Error('swtpm does not answer');
}

test('the TPM opens its store while the registers are as they were; else the recovery key does', {
  skip: noTpm === undefined ? false : `${noTpm} is not installed`,
}, async () => {
  const env = await startTpm('tpm');
  const { store, recovery } = await throughAStore('tpm', ['--key', 'tpm2:sha256:7,15'], env);
  const opens = async (uri: string, reach: Record<string, string>): Promise<void> => {
    process.env['TPM2TOOLS_TCTI'] = reach['TPM2TOOLS_TCTI'];
    await opensWith(store, { kind: 'tpm2', uri, secret: new Uint8Array(0) });
  };
  await opens('tpm2:', env);
  await refuses(opens('tpm2:sha256:0', env), 'E_AUTH', /no key slot opens/);
  await refuses(opens('tpm2:sha256:7;rm', env), 'E_USAGE', /names no registers/);
  await refuses(opens('tpm2:', await startTpm('other-tpm')), 'E_AUTH', /this TPM does not load the key/);
  const nowhere = { TPM2TOOLS_TCTI: 'swtpm:host=127.0.0.1,port=1' };
  await refuses(opens('tpm2:', nowhere), 'E_IO', /the TPM did not make its primary key/);

  ok('tpm2_pcrextend', [`15:sha256=${'11'.repeat(32)}`], env);
  const changed = await ingot(['verify', 'run', '--store', store, '--key', 'tpm2:'], { env });
  refused(changed, 'E_AUTH', /registers sha256:7,15 are not what they were/);
  assert.match(changed.stderr, /recovery key/);
  const byRecovery = ['--store', store, '--recovery-key-file', recovery];
  good(await ingot(['key', 'add', ...byRecovery, '--new-key', 'tpm2:sha256:7,15'], { env }));
  good(await ingot(['key', 'rm', '1', ...byRecovery]));
  await opens('tpm2:', env);
  await rotates(store, { kind: 'tpm2', uri: 'tpm2:', secret: new Uint8Array(0) });
  await opens('tpm2:sha256:7,15', env);
});
