#!/bin/sh
# Runs when every package is installed; $1 is the root of the new file system.
# Leaves nothing in it of the machine that made it: mirrors, proxies, logins, names, caches, logs.
set -eu
root="$1"

rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
rm -f "$root"/etc/apt/sources.list.d/* "$root"/etc/apt/auth.conf "$root"/etc/apt/auth.conf.d/*
# Which mirror a workspace may reach is its environment's to say.
: > "$root/etc/apt/sources.list"

echo sandbox > "$root/etc/hostname"
printf '127.0.0.1 localhost sandbox\n::1 localhost\n' > "$root/etc/hosts"
: > "$root/etc/resolv.conf"
: > "$root/etc/machine-id"

rm -rf "$root"/var/cache/debconf/*-old "$root"/var/cache/ldconfig/* "$root"/var/lib/dpkg/*-old
find "$root/var/log" -type f -delete

# $root/tmp stays as it is. mmdebstrap keeps the configuration of its own apt there and empties the folder itself; without
# that file its clean-up would work on the package lists of the machine.
