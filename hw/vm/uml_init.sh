# SPDX-License-Identifier: MIT
# Process 1 under User Mode Linux: the host's files under an overlay in memory, udevd, one job, the end.
#
# In the environment, from the kernel's command line: B, busybox, and JOBS, a folder of the host.
# A report goes to tty1, which is a socket of the rig's; USB is empty until the job plugs something.
$B mount -t proc proc /proc
$B mount -t hostfs -o "$JOBS" jobs /mnt && . /mnt/settings && $B umount /mnt

# /tmp is everywhere; what the host has in it shows through the overlay, which does not see this mount
$B mount -t tmpfs -o mode=755 memory /tmp
$B mkdir /tmp/upper /tmp/work /tmp/new
$B mount -t overlay -o lowerdir=/,upperdir=/tmp/upper,workdir=/tmp/work root /tmp/new
cd /tmp/new || $B poweroff -f
$B mount -t proc proc proc
$B mount -t sysfs sys sys
$B mount -t devtmpfs dev dev
$B mount -t tmpfs -o mode=755 run run
$B mkdir -p dev/shm dev/pts run/udriver-vm/jobs "./$RESULTS"
$B mount -t tmpfs -o mode=1777 shm dev/shm
$B mount -t devpts -o mode=620,gid=5,ptmxmode=666 pts dev/pts
$B mount -t hostfs -o "$JOBS" jobs run/udriver-vm/jobs
$B mount -t hostfs -o "$RESULTS" results "./$RESULTS"
# What is written to the host goes there at once, not after the 30 s that save a disk from wear.
echo 5 > /proc/sys/vm/dirty_writeback_centisecs
echo 1 > /proc/sys/vm/dirty_expire_centisecs
$B pivot_root . mnt
cd /
$B umount -l /mnt
exec 3> /dev/tty1

for udevd in /usr/lib/systemd/systemd-udevd /lib/systemd/systemd-udevd; do
	[ -x $udevd ] && $udevd --daemon && break
done
read -r uptime rest < /proc/uptime
echo "ready $uptime" >&3

job=/run/udriver-vm/jobs/1
$B setsid $B sh $job/script < /dev/null > $job/stdout 2> $job/stderr 3>&-
status=$?
$B sync
echo "done 1 $status" >&3
$B poweroff -f
