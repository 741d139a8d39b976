// No key and no passphrase in what a core dump of a process with an open encrypted store would have.
//
// The keys are learned by opening the same store here with a port that notes every secret it hands out; then the
// memory of the other process is searched for both halves of each. That the search finds what is there is seen each
// time: the other process is told to keep a copy of one key in its heap.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { open } from '../../engine/index.js';
import type { Crypt } from '../../engine/io/crypt_port.js';
import { NativeIo } from '../../engine/io/native_io.js';
import { openWith } from '../../engine/open_store.js';
import { searchMemory } from './process_memory.js';

const CHILD = fileURLToPath(new URL('./key_memory_child.js', import.meta.url));
const PASSPHRASE = 'no dump of memory is to hold this line, 8f2c61';
const CHEAP = { scrypt: { logN: 10, r: 8, p: 1 } };
const base = mkdtempSync(join(tmpdir(), 'ingot-key-memory-'));
after(() => rmSync(base, { recursive: true, force: true }));

/** Every secret that the port of an open store hands out, by the call it came of. */
async function learnKeys(location: string): Promise<Map<string, Uint8Array>> {
  const keys = new Map<string, Uint8Array>();
  const io = new NativeIo();
  const note = (what: string, secret: Uint8Array | null): void => {
    for (const [half, at] of [
      ['first', 0],
      ['last', 16],
    ] as const)
      if (secret !== null) keys.set(`${what} ${keys.size}, ${half} half`, secret.slice(at, at + 16));
  };
  const { crypt } = io;
  const spy: Crypt = {
    ...crypt,
    derive: (...args) => noted('derive', crypt.derive(...args)),
    unwrapKey: (...args) => noted('unwrapKey', crypt.unwrapKey(...args)),
    openKey: (...args) => noted('openKey', crypt.openKey(...args)),
    scrypt: async (...args) => noted('scrypt', await crypt.scrypt(...args)),
  };
  function noted<T extends Uint8Array | null>(what: string, secret: T): T {
    note(what, secret);
    return secret;
  }
  Object.defineProperty(io, 'crypt', { value: spy });
  const secret = new TextEncoder().encode(PASSPHRASE);
  const ports = { io, files: null, closeIo: true };
  const store = await openWith(ports, location, { mode: 'r', key: { kind: 'passphrase', secret } });
  try {
    for (const name of ['first', 'run']) {
      const version = await store.get(name);
      for await (const _ of version.load((info) => new Uint8Array(info.byteLength)));
    }
  } finally {
    await store.close();
  }
  return keys;
}

class Child {
  readonly process: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  constructor(args: readonly string[], cwd: string) {
    // The shell lifts the limit of core files and becomes the process.
    const line = 'ulimit -c unlimited; exec "$0" "$@"';
    const all = ['-c', line, process.execPath, CHILD, ...args];
    this.process = spawn('sh', all, { stdio: ['pipe', 'pipe', 'inherit'], cwd });
    assert.ok(this.process.stdout);
    this.#lines = createInterface({ input: this.process.stdout })[Symbol.asyncIterator]();
  }
  get pid(): number {
    return this.process.pid ?? 0;
  }
  async expect(line: string): Promise<void> {
    assert.equal((await this.#lines.next()).value, line);
  }
  async tell(line: string): Promise<void> {
    this.process.stdin?.write(`${line}\n`);
    await this.expect(line);
  }
}

async function makeStore(location: string): Promise<void> {
  const key = { kind: 'passphrase' as const, secret: new TextEncoder().encode(PASSPHRASE) };
  const members = [{ path: 'a.member', sizeBytes: 64 * 1024 * 1024 }];
  const encrypt = { key, onRecoveryKey: () => undefined, ...CHEAP };
  const store = await open(location, { mode: 'rw', create: { members, encrypt }, key });
  const tx = await store.begin('first');
  await tx.put('t', new Uint8Array(100_000), { dtype: 'U8', shape: [100_000] });
  await tx.commit();
  await store.close();
}

async function unable(): Promise<string | false> {
  try {
    await new NativeIo().close();
    readFileSync('/proc/self/smaps');
    return false;
  } catch (error) {
    return (error as Error).message;
  }
}
const skip = await unable();

test('the dumped memory of a process holds no key of its open store, and none after close', {
  skip,
}, async () => {
  const location = join(base, 'store');
  const [passphraseFile, leakFile] = [join(base, 'passphrase'), join(base, 'leak')];
  writeFileSync(passphraseFile, `${PASSPHRASE}\n`);
  await makeStore(location);
  const child = new Child([location, passphraseFile, leakFile], base);
  try {
    await child.expect('open');
    for (let round = 0; round < 3; round += 1) await child.tell('work');
    const needles = await learnKeys(join(location, 'a.member'));
    assert.ok(needles.size >= 16, `${needles.size} halves of keys are known`);
    needles.set('passphrase', new TextEncoder().encode(PASSPHRASE));
    needles.set('middle of the passphrase', new TextEncoder().encode(PASSPHRASE.slice(8, 30)));
    const standing = searchMemory(child.pid, needles);
    assert.ok(standing.bytes > 20e6, `${standing.bytes} bytes were searched`);
    assert.deepEqual(standing.found, []);

    const [name = '', half = new Uint8Array(0)] = [...needles][0] ?? [];
    writeFileSync(leakFile, half);
    await child.tell('leak');
    assert.ok(
      searchMemory(child.pid, needles).found.some((each) => each.name === name),
      'a key that lies in the heap is found',
    );
    needles.delete(name);
    await child.tell('close');
    assert.deepEqual(searchMemory(child.pid, needles).found, []);
  } finally {
    child.process.kill('SIGKILL');
  }
});

/** Where the kernel puts cores when it is the working directory of who crashed, or why not. */
function noCores(): string | false {
  const path = '/proc/sys/kernel/core_pattern';
  const pattern = existsSync(path) ? readFileSync(path, 'utf8').trim() : '';
  return /^[\w.%]+$/.test(pattern) ? false : `cores do not go to the working directory: ${pattern}`;
}

test('the core file of a process that crashes with an open store holds no key', {
  skip: skip || noCores(),
}, async (context) => {
  const directory = mkdtempSync(join(base, 'core-'));
  const location = join(directory, 'store');
  const [passphraseFile, leakFile] = [join(directory, 'passphrase'), join(directory, 'leak')];
  writeFileSync(passphraseFile, `${PASSPHRASE}\n`);
  await makeStore(location);
  const child = new Child([location, passphraseFile, leakFile], directory);
  let needles: Map<string, Uint8Array>;
  try {
    await child.expect('open');
    await child.tell('work');
    needles = await learnKeys(join(location, 'a.member'));
    const [, half = new Uint8Array(0)] = [...needles][0] ?? [];
    writeFileSync(leakFile, half);
    await child.tell('leak');
    child.process.stdin?.write('crash\n');
    await once(child.process, 'exit');
  } finally {
    child.process.kill('SIGKILL');
  }
  const file = readdirSync(directory).find((name) => name.startsWith('core'));
  if (file === undefined) {
    context.skip('the limit of core files cannot be lifted here');
    return;
  }
  const core = readFileSync(join(directory, file));
  needles.set('passphrase', new TextEncoder().encode(PASSPHRASE));
  const found = [...needles].filter(([, needle]) => core.includes(Buffer.from(needle))).map(([name]) => name);
  assert.deepEqual(found, [[...needles.keys()][0]], 'nothing but what was left there on purpose');
});
