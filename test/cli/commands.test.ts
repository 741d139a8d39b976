// Every command of the command line, end to end on one small store: what it does, what --json says, how it exits.

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { generateModel } from '../../tools/model_generator.js';
import { ingot, parseObject, scratchDirectory, StoreUnderTest } from './harness.js';

const base = scratchDirectory('commands');
const model = join(base, 'model');
const MODEL_BYTES = 6_000_000;
let store: StoreUnderTest;

before(async () => {
  await generateModel(model, { sizeBytes: MODEL_BYTES });
  store = await StoreUnderTest.create(join(base, 'store'), ['--members', '2', '--size', '64MiB']);
});

test('create says what the store is, and member files have their full size in the directory', async () => {
  const made = await ingot([
    'create',
    join(base, 'other'),
    '--members',
    '3',
    '--size',
    '16MiB',
    '--redundancy',
    '1',
    '--json',
  ]);
  const json = parseObject('ingot.create/1', made.stdout);
  assert.equal(json.redundancy, 1);
  assert.equal(json.state, 'online');
  assert.deepEqual(
    json.members.map((member: { name: string }) => member.name),
    ['0.member', '1.member', '2.member'],
  );
  for (const { path } of json.members) assert.equal(statSync(path).size, 16 * 1024 * 1024);
});

test('create with one copy says in plain words what a lost member loses', async () => {
  const made = await ingot([
    'create',
    join(base, 'plain'),
    '--members',
    '2',
    '--size',
    '16MiB',
    '--redundancy',
    '1',
  ]);
  assert.equal(made.code, 0, made.stderr);
  assert.match(made.stdout, /one member only; if one member is lost, so is about 1\/2 of every version/);
});

test('create by --member paths makes a store that any one member opens', async () => {
  const paths = ['x.img', 'y.img'].map((name) => join(base, name));
  const args = paths.flatMap((path) => ['--member', path]);
  const made = await ingot(['create', ...args, '--size', '16MiB']);
  assert.equal(made.code, 0, made.stderr);
  const status = await ingot(['status', '--store', paths[1]!, '--json']);
  assert.equal(parseObject('ingot.status/1', status.stdout).members.length, 2);
});

test('import, ls, tree, info and export agree with one another and with the model', async () => {
  const imported = await store.json(
    'ingot.import/1',
    'import',
    '--codec',
    'auto',
    model,
    '--as',
    'llama',
    '--step',
    '7',
    '--tag',
    'base',
    '--redundancy',
    '1',
    '--verify-source',
  );
  assert.equal(imported.step, 7);
  assert.deepEqual([...imported.tags].sort(), ['base', 'latest']);
  assert.equal(imported.format, 'hf');
  assert.equal(imported.verifiedSource, true);
  assert.ok(['io_uring', 'threads', 'buffered'].includes(imported.path));
  assert.ok(imported.bytesPerSec > 0);

  const runs = await store.json('ingot.ls/1', 'ls');
  assert.deepEqual(
    runs.runs.map((run: { run: string; versions: number }) => [run.run, run.versions]),
    [['llama', 1]],
  );
  const versions = await store.json('ingot.ls.versions/1', 'ls', 'llama');
  assert.equal(versions.versions[0].id, imported.id);

  const info = await store.json('ingot.info/1', 'info', 'llama@7');
  assert.equal(info.rawBytes, imported.rawBytes);
  assert.ok(
    info.storedBytes >= info.rawBytes * 0.6 &&
      info.storedBytes <= info.rawBytes * 0.7 + 4096 * info.tensorCount,
    `${info.storedBytes} of ${info.rawBytes} are stored`,
  );
  assert.equal(info.dtypes.BF16.tensors, info.tensorCount);
  const tree = await store.json('ingot.tree/1', 'tree', 'llama@base');
  assert.equal(tree.tensors.length, info.tensorCount);
  assert.equal(
    tree.tensors.reduce((sum: number, tensor: { rawBytes: number }) => sum + tensor.rawBytes, 0),
    info.dtypes.BF16.rawBytes,
  );
  assert.match((await store.ok('tree', 'llama', '--depth', '2')).stdout, /layers\.0 {2}\d+ tensors/);

  const out = join(base, 'out');
  const exported = await store.json('ingot.export/1', 'export', 'llama', out);
  assert.equal(exported.totalBytes, imported.sourceBytes);
  for (const { name } of exported.files) {
    assert.ok(readFileSync(join(model, name)).equals(readFileSync(join(out, name))), `${name} is byte-exact`);
  }
});

test('status, verify and fsck of a sound store exit with 0 and say so', async () => {
  const status = await store.json('ingot.status/1', 'status');
  assert.equal(status.state, 'online');
  assert.equal(status.action, null);
  const verify = await store.json('ingot.verify/1', 'verify', 'llama');
  assert.equal(verify.result, 'ok');
  assert.deepEqual(verify.findings, []);
  assert.ok(verify.scannedBytes > 0);
  for (const args of [['fsck'], ['fsck', '--data']]) {
    const fsck = await store.json('ingot.fsck/1', ...args);
    assert.equal(fsck.result, 'ok', JSON.stringify(fsck.findings));
  }
});

test('stat shows a tensor, its places and its values', async () => {
  const stat = await store.json('ingot.stat/1', 'stat', 'llama', 'model.embed_tokens.weight', '--values');
  assert.equal(stat.dtype, 'BF16');
  assert.equal(
    stat.pieces.reduce(
      (sum: number, piece: { coding: { rawBytes: number } }) => sum + piece.coding.rawBytes,
      0,
    ),
    stat.rawBytes,
  );
  assert.equal(stat.coding.codec, 'BF16E/RANS32');
  assert.ok(stat.coding.ratio > 0.6 && stat.coding.ratio < 0.7);
  const all = await store.json('ingot.stat-version/1', 'stat', 'llama', '--entropy');
  const embed = all.tensors.find((one: { name: string }) => one.name === 'model.embed_tokens.weight');
  assert.equal(embed.ratio, stat.coding.ratio);
  assert.ok(embed.planeBits[0] > 2 && embed.planeBits[0] < 3.5 && embed.planeBits[1] > 7.5);
  assert.equal(stat.values.elements, stat.rawBytes / 2);
  assert.equal(stat.values.nan, 0);
  assert.ok(stat.values.minimum < -0.05 && stat.values.maximum > 0.05 && Math.abs(stat.values.mean) < 0.01);
  assert.match((await store.ok('stat', 'llama', 'model.embed_tokens.weight')).stdout, /MEMBER +COPY +OFFSET/);
});

test('get writes exactly the bytes of a blob or a tensor, to stdout or to a file', async () => {
  const config = await store.ok('get', 'llama', 'config.json');
  assert.ok(config.bytes.equals(readFileSync(join(model, 'config.json'))));
  const file = join(base, 'norm.bin');
  const got = await store.json('ingot.get/1', 'get', 'llama', 'model.norm.weight', '-o', file);
  assert.equal(statSync(file).size, got.rawBytes);
  await store.fails('E_EXISTS', 1, 'get', 'llama', 'model.norm.weight', '-o', file);
  await store.ok('get', 'llama', 'model.norm.weight', '-o', file, '--force');
  await store.fails('E_NOT_FOUND', 1, 'get', 'llama', 'no.such.tensor');
});

test('put makes a version with one object more, and diff names just that', async () => {
  writeFileSync(join(base, 'notes.txt'), 'a note\n');
  const put = await store.json('ingot.put/1', 'put', 'llama', join(base, 'notes.txt'), '--step', '8');
  assert.equal(put.name, 'notes.txt');
  assert.notEqual(put.base, null);
  assert.equal((await store.ok('get', 'llama', 'notes.txt')).stdout, 'a note\n');
  const diff = await store.json('ingot.diff/1', 'diff', 'llama@7', 'llama@8');
  assert.deepEqual([diff.onlyA, diff.onlyB, diff.changed], [[], [{ kind: 'blob', name: 'notes.txt' }], []]);
  const same = await store.json('ingot.diff/1', 'diff', 'llama@7', 'llama@7');
  assert.equal(same.identical, true);
});

test('put takes a tensor from stdin and refuses one whose bytes do not fit its shape', async () => {
  const input = 'abcdefgh';
  const args = ['--store', store.path, 'put', 'small', 'weight', '-', '--dtype', 'F32', '--shape', '2'];
  const put = await ingot(args, { input });
  assert.equal(put.code, 0, put.stderr);
  assert.equal((await store.ok('get', 'small', 'weight')).stdout, input);
  const wrong = await ingot([...args.slice(0, -1), '3'], { input });
  assert.match(wrong.stderr, /error E_RANGE/);
});

test('tag moves by compare-and-swap, untag removes, and neither touches another version', async () => {
  const versions = (await store.json('ingot.ls.versions/1', 'ls', 'llama')).versions;
  const [first, second] = versions.map((version: { id: string }) => version.id);
  await store.json('ingot.tag/1', 'tag', 'llama@7', 'best', '--expect', 'none');
  await store.fails('E_CONFLICT', 1, 'tag', 'llama@8', 'best', '--expect', second);
  await store.ok('tag', 'llama@8', 'best', '--expect', first);
  await store.fails('E_CONFLICT', 1, 'untag', 'llama@7', 'best');
  await store.json('ingot.untag/1', 'untag', 'llama', 'best');
  await store.fails('E_NOT_FOUND', 1, 'info', 'llama@best');
});

test('prune decides alike with and without --dry-run, and gives a reason for each version', async () => {
  for (let step = 10; step <= 14; step++)
    await store.ok('put', 'log', 'n', join(base, 'notes.txt'), '--step', String(step));
  const rules = ['prune', 'log', '--keep-last', '1', '--keep-every', '5'];
  const dry = await store.json('ingot.prune/1', ...rules, '--dry-run');
  assert.equal(dry.removed, 3);
  assert.equal((await store.json('ingot.ls.versions/1', 'ls', 'log')).versions.length, 5);
  const real = await store.json('ingot.prune/1', ...rules);
  const actions = (json: typeof real): unknown =>
    json.decisions.map((d: { action: string; reasons: string[] }) => [d.action, d.reasons]);
  assert.deepEqual(actions(real), actions(dry));
  const left = (await store.json('ingot.ls.versions/1', 'ls', 'log')).versions;
  assert.deepEqual(
    left.map((version: { step: number }) => version.step),
    [10, 14],
  );
  await store.fails('E_USAGE', 2, 'prune', 'log');
});

test('rm wants a version, not a run, and protects tagged ones', async () => {
  await store.fails('E_USAGE', 2, 'rm', 'log');
  await store.ok('tag', 'log@10', 'keep');
  await store.fails('E_CONFLICT', 1, 'rm', 'log@10');
  const removed = await store.json('ingot.rm/1', 'rm', 'log@10', '--force');
  assert.equal(removed.removed.step, 10);
  await store.fails('E_NOT_FOUND', 1, 'info', 'log@10');
});

test('dump shows superblocks, trees and pages, from the store and from one member alone', async () => {
  const whole = await store.json('ingot.dump.superblocks/1', 'dump');
  assert.equal(whole.members.length, 2);
  assert.equal(whole.members[0].tip.sequence, whole.members[1].tip.sequence);
  const alone = await ingot(['dump', join(store.path, '1.member'), '--slots', '--json']);
  assert.equal(parseObject('ingot.dump.superblocks/1', alone.stdout).members[0].rings.length, 4);
  for (const tree of ['runs', 'versions', 'extents', 'free', 'members', 'keys']) {
    const dumped = await store.json('ingot.dump.tree/1', 'dump', '--tree', tree);
    assert.equal(
      dumped.items.some((item: { value: { problem?: string } }) => item.value.problem !== undefined),
      false,
      tree,
    );
    assert.equal(dumped.items.length > 0, tree !== 'keys', tree);
    await store.json('ingot.dump.pages/1', 'dump', '--tree', tree, '--pages');
  }
  const page = await store.json('ingot.dump.page/1', 'dump', '--page', '0:0');
  assert.equal(page.hex.length, 2 * 4096);
  await store.fails('E_USAGE', 2, 'dump', '--tree', 'nothing');
});

test('doctor names the backend, the members with their path, and the absent GPU with a remedy', async () => {
  const doctor = await store.json('ingot.doctor/1', 'doctor');
  const what = new Map(doctor.checks.map((check: { what: string }) => [check.what, check]));
  for (const name of [
    'kernel',
    'native core',
    'backend',
    'CUDA',
    'keys, passphrase',
    join(store.path, '0.member'),
  ]) {
    assert.ok(what.has(name), `${name} is checked`);
  }
  assert.equal(doctor.healthy, true);
});

test('progress is JSON lines on stderr when asked, and stdout stays the result alone', async () => {
  const out = join(base, 'progress-out');
  const ran = await ingot(['export', 'llama@7', out, '--store', store.path, '--progress', 'json', '--json']);
  assert.equal(ran.code, 0, ran.stderr);
  parseObject('ingot.export/1', ran.stdout);
  const lines = ran.stderr
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { type: string; done: boolean; totalBytes: number });
  assert.ok(lines.every((line) => line.type === 'progress'));
  assert.equal(lines.at(-1)?.done, true);
  assert.ok((lines.at(-1)?.totalBytes ?? 0) > 0);
});

test('a create that fails leaves no directory and no file behind', async () => {
  const place = join(base, 'too-small');
  const ran = await ingot(['create', place, '--members', '1', '--size', '1MiB']);
  assert.equal(ran.code, 2, ran.stderr);
  assert.equal(existsSync(place), false);
  const [first, second] = [join(base, 'first.member'), join(base, 'nowhere', 'second.member')];
  const half = await ingot(['create', '--member', first, '--member', second, '--size', '16MiB']);
  assert.equal(half.code, 1, half.stderr);
  assert.equal(existsSync(first), false);
});

test('bytes of small objects are said to be in the catalog, not nowhere', async () => {
  const put = await store.json('ingot.put/1', 'put', 'tiny', 'n', join(base, 'notes.txt'));
  assert.deepEqual([put.storedBytes, put.catalogBytes, put.rawBytes], [0, 7, 7]);
  const info = await store.ok('info', 'tiny');
  assert.match(info.stdout, /stored +7 B in the catalog/);
  assert.doesNotMatch(info.stdout, /0\.0000 of raw/);
  assert.equal((await store.json('ingot.info/1', 'info', 'tiny')).catalogBytes, 7);
});

test('usage errors exit with 2, name the argument, and with --json are one object on stderr', async () => {
  for (const args of [
    ['frobnicate'],
    ['ls', '--no-such-option'],
    ['import', model],
    ['create', join(base, 'bad'), '--members', '2', '--size', 'eight'],
    ['create', join(base, 'bad'), '--members', '1', '--size', '16MiB', '--redundancy', '2'],
    ['info', 'llama', '--progress', 'sparkles'],
    ['export', 'llama', join(base, 'x'), '--format', 'zip'],
    ['info', 'bad//run'],
  ]) {
    const ran = await ingot([...args, '--store', store.path]);
    assert.equal(ran.code, 2, `${args.join(' ')}: ${ran.stderr}`);
    assert.match(ran.stderr, /error E_USAGE: /);
    assert.equal(ran.stdout, '');
  }
  for (const args of [['bench'], ['bench', 'everything'], ['bench', 'crc', '--pairs', 'many']]) {
    const ran = await ingot(args);
    assert.equal(ran.code, 2, ran.stderr);
    assert.match(ran.stderr, /^error E_USAGE: .*\n {2}safe .*\n {2}next .*\n {2}more /);
    const shown = await ingot([...args, '--json']);
    assert.deepEqual([shown.code, shown.stdout], [2, '']);
    assert.equal(parseObject('ingot.error/1', shown.stderr).code, 'E_USAGE');
  }
  const json = await ingot(['info', 'nothing@here', '--store', store.path, '--json']);
  const error = parseObject('ingot.error/1', json.stderr);
  assert.deepEqual([json.code, error.code, error.more], [1, 'E_NOT_FOUND', 'docs/errors.md#e_not_found']);
  const none = await ingot(['ls']);
  assert.deepEqual([none.code, none.stdout], [2, '']);
  const level = await ingot(['ls', '--store', store.path], { env: { INGOT_LOG: 'loud' } });
  assert.equal(level.code, 2);
});

test('--verbose adds the causes, INGOT_STORE names the store, a codec of later is refused', async () => {
  mkdirSync(join(base, 'empty'));
  const quiet = await ingot(['ls', '--store', join(base, 'no-such-store')]);
  const loud = await ingot(['ls', '--store', join(base, 'no-such-store'), '--verbose']);
  assert.equal(quiet.code, 1);
  assert.ok(loud.stderr.length > quiet.stderr.length);
  const listed = await ingot(['ls', '--json'], { env: { INGOT_STORE: store.path } });
  parseObject('ingot.ls/1', listed.stdout);
  await store.fails('E_USAGE', 2, 'import', model, '--as', 'x', '--codec', 'zstd');
  await store.fails('E_FORMAT', 1, 'import', join(base, 'empty'), '--as', 'x');
});

test('help and version exit with 0; every command has help', async () => {
  const help = await ingot(['--help']);
  assert.equal(help.code, 0);
  for (const command of [
    'create',
    'import',
    'export',
    'ls',
    'tree',
    'info',
    'status',
    'diff',
    'stat',
    'get',
    'put',
    'rm',
    'tag',
    'untag',
    'prune',
    'verify',
    'dump',
    'fsck',
    'doctor',
    'bench',
  ]) {
    assert.match(help.stdout, new RegExp(`^ {2}${command}\\b`, 'm'));
  }
  const one = await ingot(['import', '--help']);
  assert.equal(one.code, 0);
  assert.match(one.stdout, /--verify-source/);
  assert.match((await ingot(['--version'])).stdout, /^\d+\.\d+\.\d+\n$/);
  const version = parseObject('ingot.version/1', (await ingot(['--version', '--json'])).stdout);
  assert.match(version.version, /^\d+\.\d+\.\d+$/);
});
