#!/bin/bash
# Guest side: proves that the machine boots, sees four NVMe drives and can run Node. Prints VM: lines.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp NO_COLOR=1
mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /tmp; mkdir -p /dev/shm; mount -t tmpfs tmpfs /dev/shm
echo "VM: up $(cut -d' ' -f1 /proc/uptime)"
echo "VM: drives $(ls -d /sys/block/nvme* | wc -l) cache '$(cat /sys/block/nvme0n1/queue/write_cache)'"
echo "VM: node $(node -e 'console.log(process.version)')"
exec /bin/busybox poweroff -f
