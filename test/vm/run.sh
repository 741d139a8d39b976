#!/bin/bash
# Boots the prepared kernel with four emulated NVMe drives and runs one guest script to its end.
# Usage: run.sh GUEST_SCRIPT [qemu arguments]
# Environment: DISK (size of a drive), MEM (MiB), SMP, DISKS (folder), APPEND (kernel words), LIMIT (seconds).
# NBD: instead of files, a socket that serves drives drive0..drive3 and the log drive `log` (nbd_server.ts).
# No AVX2: the gathers of QEMU 7.2's emulated processor fault on a lane that lies between two lanes of one table that
# were read, so decoders that gather die there and on no real processor.
# The drives are sparse files below build/vm; the machine ends by itself (poweroff) or after LIMIT.
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
out=$top/build/vm
version=$(cat "$out/version")
disks=${DISKS:-$out/disks}
mkdir -p "$disks"
script=$1
shift
drives=()
for i in 0 1 2 3; do
  if [ -n "${NBD:-}" ]; then
    drives+=(-blockdev "driver=nbd,node-name=d$i,server.type=unix,server.path=$NBD,export=drive$i")
  else
    file=$disks/nvme$i.img
    [ -f "$file" ] || truncate -s "${DISK:-512M}" "$file"
    drives+=(-drive "file=$file,if=none,id=d$i,format=raw,cache=writeback,discard=unmap")
  fi
  drives+=(-device "nvme,serial=ingot-$i,drive=d$i${NBD:+,logical_block_size=4096,physical_block_size=4096}")
done
if [ -n "${NBD:-}" ]; then
  drives+=(-blockdev "driver=nbd,node-name=log,server.type=unix,server.path=$NBD,export=log")
  drives+=(-device "nvme,serial=ingot-log,drive=log,logical_block_size=4096,physical_block_size=4096")
fi
exec timeout -k 5 "${LIMIT:-240}" qemu-system-x86_64 -M q35 -accel "${ACCEL:-tcg,thread=multi,tb-size=512}" \
  -cpu max,avx2=off -smp "${SMP:-2}" -m "${MEM:-3072}" -nodefaults -display none -no-reboot -serial stdio \
  -kernel "$out/linux-image-$version/boot/vmlinuz-$version" -initrd "$out/initrd.gz" \
  -append "console=ttyS0 panic=-1 quiet mitigations=off nokaslr tsc=reliable vm.init=$script vm.top=$top ${APPEND:-}" \
  -fsdev local,id=host,path=/,security_model=none,readonly=on,multidevs=remap \
  -device virtio-9p-pci,fsdev=host,mount_tag=host "${drives[@]}" "$@"
