#!/bin/bash
# Guest side of the power-cut test: one writer (test/crash/kill_writer.ts) on four NVMe drives, until the power goes.
# Kernel words: vm.seed, vm.first (number of the first version), vm.create (redundancy; absent: the store is there).
# It never ends by itself; when the writer does, that is printed and the machine stops.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/run NO_COLOR=1
word() { grep -o "vm.$1=[^ ]*" /proc/cmdline | cut -d= -f2; }
mount -t tmpfs tmpfs /run; mkdir -p /dev/shm; mount -t tmpfs tmpfs /dev/shm
# The kernel numbers drives as they answer; the serial says which is which.
drive() {
  for entry in /sys/block/nvme*; do
    if [ "$(tr -d ' ' < "$entry/device/serial")" = "ingot-$1" ]; then echo "/dev/${entry##*/}"; fi
  done
}
store=$(drive 0),$(drive 1),$(drive 2),$(drive 3)
echo "VM: writer starts on $store"
cd /run || exit 1
# shellcheck disable=SC2046
node "$(word top)/dist/test/crash/kill_writer.js" "$store" "$(drive log)" "$(word seed)" "$(word first)" $(word create)
echo "VM: the writer ended with code $?"
exec /bin/busybox poweroff -f
