#!/bin/busybox sh
# SPDX-License-Identifier: MIT
# The guest's first process: makes the host's root file system writable without touching it.
# One 9p share, read only, under one overlay on tmpfs. Everything in the guest has its host path.
B=/bin/busybox
D=/run/udriver-vm            # what stays in memory after the switch: busybox, modules, the agent
$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
$B mount -t devtmpfs dev /dev
while read -r module; do $B insmod "/root-modules/$module"; done < /root-modules/order

# cache=loose: nobody else changes what the guest reads; it is what makes Python start at all fast
P=trans=virtio,version=9p2000.L,msize=512000,access=any
$B mount -t 9p -o "ro,cache=loose,$P" root /host || echo "rig: no 9p root"
$B mount -t tmpfs -o mode=755 run /run
$B mkdir -p $D/upper $D/work $D/jobs
$B mount -t overlay -o "lowerdir=/host,upperdir=$D/upper,workdir=$D/work" root /new || echo "rig: no overlay"
# cache=none: what the guest writes here must be in the host's file when the guest says "done"
$B mount -t 9p -o "rw,cache=none,$P" jobs $D/jobs || echo "rig: no jobs share"
. $D/jobs/settings
$B mkdir -p "/new$RESULTS"
$B cp /bin/busybox /agent.sh $D/
$B cp -r /usb-modules $D/
for tree in proc sys dev run; do $B mount --move /$tree /new/$tree; done
# after the move of /run, which the results may be under
$B mkdir -p "/new$RESULTS"
$B mount -t 9p -o "rw,cache=none,$P" results "/new$RESULTS" || echo "rig: no results share"
$B mkdir -p /new/dev/shm /new/dev/pts
$B mount -t tmpfs -o mode=1777 shm /new/dev/shm
$B mount -t devpts -o mode=620,gid=5,ptmxmode=666 pts /new/dev/pts
$B ifconfig lo 127.0.0.1 up
exec $B switch_root /new $D/busybox sh $D/agent.sh
