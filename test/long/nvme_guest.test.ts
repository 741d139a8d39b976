// A store on four raw NVMe drives, end to end, inside a virtual machine: the one place where whole block devices can
// be created, striped over, damaged and refused on any developer's machine.
//
// Goal: the raw-device path works as a user would drive it, through the `ingot` command.
// Method: boot a Debian kernel under QEMU with four emulated drives and run test/vm/guest_store.sh to its end; every
// step prints a line. It proves function, not speed (the processor is emulated).
// Opt-in: INGOT_VM=1. Without it, without QEMU or without a kernel package the test skips and says why.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const TOP = fileURLToPath(new URL('../../../', import.meta.url));
const BOOT_TIMEOUT_MS = 640_000;
const STEPS = 17;

function reasonToSkip(): string | null {
  if (process.env['INGOT_VM'] !== '1') return 'boots a virtual machine; set INGOT_VM=1';
  if (spawnSync('qemu-system-x86_64', ['--version']).status !== 0) return 'qemu-system-x86 is not installed';
  if (!existsSync('/bin/busybox')) return 'busybox-static is not installed';
  return null;
}

test('a store on four raw NVMe drives is made, filled, damaged and read back', (context) => {
  const reason = reasonToSkip();
  if (reason !== null) return context.skip(reason);
  const prepared = spawnSync('bash', [join(TOP, 'test/vm/prepare.sh')], { encoding: 'utf8' });
  if (prepared.status === 3) return context.skip(prepared.stderr.trim());
  assert.equal(prepared.status, 0, prepared.stderr);
  rmSync(join(TOP, 'build/vm/disks'), { recursive: true, force: true });
  const guest = join(TOP, 'test/vm/guest_store.sh');
  const run = spawnSync('bash', [join(TOP, 'test/vm/run.sh'), guest], {
    encoding: 'utf8',
    timeout: BOOT_TIMEOUT_MS,
    env: { ...process.env, LIMIT: '600' },
  });
  const passed = run.stdout.split('\n').filter((line) => line.includes('VM: PASS'));
  context.diagnostic(`${passed.length} steps passed in the guest`);
  assert.match(run.stdout, /VM: DONE/, run.stdout + run.stderr);
  assert.equal(passed.length, STEPS, run.stdout);
});
