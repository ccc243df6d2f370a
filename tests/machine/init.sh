#!/bin/sh
# The first process of the test machine. The root is read-only and shared by all runs; what is
# tested lies on a disk of its own.
mount -t proc proc /proc 2>/dev/null
mount -t sysfs sysfs /sys 2>/dev/null
mount -t devtmpfs devtmpfs /dev 2>/dev/null
for place in /run /tmp /mnt /var/lib/nfs; do mount -t tmpfs tmpfs $place; done
mount -t ext4 -o ro LABEL=asi-code /code
modprobe virtio_console
exec /usr/bin/python3 -S -u /code/tests/machine/agent.py
