#!/bin/bash
# Guest side: a striped and a mirrored version on four raw NVMe drives, end to end through the ingot command.
# Prints "VM: PASS <step>" lines and, when every step passed, "VM: DONE". The first failure ends it.
# Refusals are checked too: a second create, a mounted drive, a partitioned drive.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/run NO_COLOR=1
top=$(grep -o 'vm.top=[^ ]*' /proc/cmdline | cut -d= -f2)
mount -t tmpfs tmpfs /run; mkdir -p /dev/shm; mount -t tmpfs tmpfs /dev/shm
off() { exec /bin/busybox poweroff -f; }
ingot() { node "$top/dist/tools/ingot.js" --progress none "$@"; }
step() {
  local name=$1
  shift
  if "$@" > /run/step.log 2>&1; then
    echo "VM: PASS $name"
  else
    echo "VM: FAIL $name"
    tail -15 /run/step.log
    off
  fi
}
refused() {
  if "$@" > /run/refused 2>&1; then
    echo "VM: accepted what must be refused"
    return 1
  fi
}
cd /run || off
drives="--member /dev/nvme0n1 --member /dev/nvme1n1 --member /dev/nvme2n1 --member /dev/nvme3n1"
export INGOT_STORE=/dev/nvme2n1
cat > generate.mjs << EOF
import { generateModel } from '$top/dist/tools/model_generator.js';
await generateModel('/run/model', { sizeBytes: 64e6, seed: 7 });
EOF
step generate node generate.mjs
step create ingot create $drives --redundancy 1
step refuse-second-create refused ingot create $drives
step import-striped ingot import model --as vm/striped
step import-mirrored ingot import model --as vm/mirrored --redundancy 2
step list ingot ls
step verify ingot verify vm/striped
step export ingot export vm/striped out
step compare diff -r model out
step damage dd if=/dev/urandom of=/dev/nvme1n1 bs=1M seek=4 count=56 conv=notrunc oflag=direct status=none
step export-from-the-other-copies ingot export vm/mirrored out2
step compare-after-damage diff -r model out2
step fsck ingot fsck
step refuse-damaged-striped refused ingot verify vm/striped
step sign bash -c "printf hsqs | dd of=/dev/nvme3n1 conv=notrunc status=none"
step refuse-signed refused ingot create --member /dev/nvme3n1
step status bash -c "node $top/dist/tools/ingot.js status | tee /run/status; grep -q io_uring /run/status"
grep -E 'nvme' /run/status
echo "VM: DONE"
off
