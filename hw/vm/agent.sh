# SPDX-License-Identifier: MIT
# Process 1 after the switch: starts udevd, plugs in USB, then runs jobs the host asks for.
#
# The host writes a job's script into the jobs share and sends "run N" on a virtio-serial port;
# standard output and error go to files of that share, live, and "done N STATUS" comes back.
# A shell and not Python: Python's start over 9p would add a second to every boot.
D=/run/udriver-vm
B=$D/busybox
. $D/jobs/settings

for udevd in /usr/lib/systemd/systemd-udevd /lib/systemd/systemd-udevd; do
	[ -x $udevd ] && $udevd --daemon && break
done
# The ports' links are udev's to make, from a coldplug we do not do.
$B mkdir -p /dev/virtio-ports
for port in /sys/class/virtio-ports/*; do
	read -r name < "$port/name" && $B ln -s "../${port##*/}" "/dev/virtio-ports/$name"
done
exec 3<> /dev/virtio-ports/udriver.agent || echo "rig: no agent port"

# USB comes last, so udevd sees true "add" events and no `udevadm trigger` is needed.
while read -r module; do $B insmod "$D/usb-modules/$module"; done < $D/usb-modules/order

settled() {  # as many adapters as promised, each in udev's database, and udevd's queue empty
	set -- /run/udev/data/c188:*
	[ "$ADAPTERS" = 0 ] || { [ -e "$1" ] && [ $# -ge "$ADAPTERS" ]; } || return 1
	[ ! -e /run/udev/queue ]
}
until settled; do $B usleep 20000; done  # for ever: the host has the time-out
read -r uptime rest < /proc/uptime
echo "ready $uptime" >&3

job() {
	dir=$D/jobs/$1
	# a session of its own, so that "kill" takes all of it
	$B setsid $B sh -c 'echo $$ > '"$D/pid.$1"'; exec '"$B"' sh '"$dir/script" \
		< /dev/null > "$dir/stdout" 2> "$dir/stderr" 3>&-
	echo "done $1 $?" >&3
}
while read -r verb number <&3; do
	case $verb in
	run) job "$number" & ;;
	kill) $B kill -KILL "-$($B cat "$D/pid.$number")" ;;
	esac
done
# The host closed its end: the rig is gone, killed perhaps, and nobody will ask again.
$B poweroff -f
