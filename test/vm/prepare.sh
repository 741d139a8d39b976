#!/bin/bash
# Prepares what the NVMe virtual machine boots: a Debian kernel with its modules and a small initramfs.
# Everything else in the guest is the host's own root, mounted read-only over 9p under a tmpfs overlay.
# Writes only below build/vm. Needs: qemu-system-x86, busybox-static, cpio, kmod, apt-get download.
# Never boots anything and never touches the host's kernel or modules.
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
out=$top/build/vm
mkdir -p "$out"
depends=$(apt-cache depends linux-image-amd64)
version=$(awk '/Depends: linux-image-/{print $2; exit}' <<< "$depends" | sed 's/linux-image-//')
[ -n "$version" ] || { echo "no linux-image-amd64 package known; run apt-get update" >&2; exit 3; }
kernel=$out/linux-image-$version
if [ ! -f "$kernel/boot/vmlinuz-$version" ]; then
  (cd "$out" && apt-get download -qq "linux-image-$version")
  dpkg -x "$out"/linux-image-"$version"_*.deb "$kernel"
  rm -f "$out"/linux-image-"$version"_*.deb
  depmod -b "$kernel" "$version"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{bin,proc,sys,dev,lower,rw,root,lib/modules}
cp /bin/busybox "$work/bin/"
ln -s busybox "$work/bin/sh"
for module in virtio_pci 9pnet_virtio 9p overlay nvme; do
  modprobe -d "$kernel" -S "$version" --show-depends "$module" | awk '/^insmod/{print $2}'
done | awk '!seen[$0]++' > "$work/list"
while read -r file; do
  cp "$file" "$work/lib/modules/"
  echo "/lib/modules/$(basename "$file")"
done < "$work/list" > "$work/order"
cat > "$work/init" <<'EOI'
#!/bin/sh
B=/bin/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
for m in $($B cat /order); do $B insmod $m || echo "insmod $m failed"; done
fail() { echo "VM: no $1"; $B poweroff -f; }
$B mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /lower || fail "9p root"
$B mount -t tmpfs -o size=60% tmpfs /rw; $B mkdir -p /rw/u /rw/w
$B mount -t overlay -o lowerdir=/lower,upperdir=/rw/u,workdir=/rw/w overlay /root || fail overlay
for d in proc sys dev; do $B mkdir -p /root/$d; $B mount -o move /$d /root/$d; done
exec $B switch_root /root $($B grep -o 'vm.init=[^ ]*' /root/proc/cmdline | $B cut -d= -f2)
EOI
chmod +x "$work/init"
(cd "$work" && find . | cpio -o -H newc --quiet | gzip -1 > "$out/initrd.gz")
echo "$version" > "$out/version"
echo "kernel $version ready"
