// Power cuts of a machine with four NVMe drives and volatile write caches: opt-in, because it boots virtual machines.
//
//   INGOT_VM=1 npm run test:long -- power_cut
//   INGOT_BOOTS, INGOT_CUTS (a boot), INGOT_SEED: 20 boots of 16 cuts with seed 1 unless set.
//
// Needs QEMU, busybox and a kernel package; skips and says so where one is missing. About 40 s a boot on two cores.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { cutPowerAgainAndAgain } from '../vm/power_cuts.js';

const TOP = fileURLToPath(new URL('../../../', import.meta.url));
const BOOTS = Number(process.env['INGOT_BOOTS'] ?? 20);
const CUTS = Number(process.env['INGOT_CUTS'] ?? 16);
const SEED = Number(process.env['INGOT_SEED'] ?? 1);

function reasonToSkip(): string | null {
  if (process.env['INGOT_VM'] !== '1') return 'boots virtual machines; set INGOT_VM=1';
  if (spawnSync('qemu-system-x86_64', ['--version']).status !== 0) return 'qemu-system-x86 is not installed';
  if (!existsSync('/bin/busybox')) return 'busybox-static is not installed';
  return null;
}

const scratch = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

/** Null when the machine can be booted, else why the test skips. */
function prepare(): string | null {
  const reason = reasonToSkip();
  if (reason !== null) return reason;
  const prepared = spawnSync('bash', [join(TOP, 'test/vm/prepare.sh')], { encoding: 'utf8' });
  if (prepared.status === 3) return prepared.stderr.trim();
  assert.equal(prepared.status, 0, prepared.stderr);
  return null;
}

test(`${BOOTS * CUTS} power cuts over ${BOOTS} boots lose nothing that was acknowledged`, async (context) => {
  const reason = prepare();
  if (reason !== null) return context.skip(reason);
  const report = await cutPowerAgainAndAgain({
    boots: BOOTS,
    cutsPerBoot: CUTS,
    redundancy: 2,
    seed: SEED,
    scratch,
    onBoot: (line) => console.log(line),
  });
  context.diagnostic(JSON.stringify(report));
  assert.equal(report.cuts, BOOTS * CUTS);
  assert.ok(report.unflushedWrites > report.cuts, 'the cuts fell into unflushed work');
});

test('drives that lie about flushes lose acknowledged data, and the oracle says so', async (context) => {
  const reason = prepare();
  if (reason !== null) return context.skip(reason);
  const lying = { boots: 1, cutsPerBoot: 3, redundancy: 2, seed: SEED, scratch, areLying: true } as const;
  await assert.rejects(cutPowerAgainAndAgain(lying), /damage/);
});
