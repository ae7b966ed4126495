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

# sd-event lets its timers run out a little off, by the boot's id; and udevd hands an event to the
# worker that comes first in a table hashed with a random key. In virtual time both would show.
echo 75647269-7665-4275-af6d-6c0000000000 > /run/udriver-vm/boot_id
$B mount --bind /run/udriver-vm/boot_id /proc/sys/kernel/random/boot_id
for udevd in /usr/lib/systemd/systemd-udevd /lib/systemd/systemd-udevd; do
	[ -x $udevd ] && $udevd --daemon --children-max=1 && break
done
read -r uptime rest < /proc/uptime
echo "ready $uptime" >&3

# In virtual time the output goes to memory first: how long a write to the host's file takes, in steps of
# the clock, hangs on the file's real times, and no two runs would be alike.
job=/run/udriver-vm/jobs/1
out=$job
[ "$VIRTUAL" = 1 ] && out=/run/udriver-vm
$B setsid $B sh $job/script < /dev/null > $out/stdout 2> $out/stderr 3>&-
status=$?
[ $out = $job ] || $B cp $out/stdout $out/stderr $job
$B sync
echo "done 1 $status" >&3
$B poweroff -f
