#!/bin/sh
# Partitions run as users of their own, and these must reach the checkout. When root works in a
# directory that only root may enter (as /root is), copy the checkout to where they can reach it
# and print that place; else print nothing.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd -P)
[ "$(id -u)" = 0 ] || exit 0

directory=$here
while [ "$directory" != / ]; do
    case $(stat -c %A "$directory") in *x | *t) ;; *) break ;; esac
    directory=$(dirname "$directory")
done
[ "$directory" != / ] || exit 0

copy=/opt/slapos-checkout-$(printf %s "$here" | cksum | cut -d' ' -f1)
printf '[elsewhere] only root may enter %s: working in the copy %s\n' "$directory" "$copy" >&2
mkdir -p "$copy"
chmod 755 "$copy"
# What was made there stays; the rest becomes what the checkout is now.
find "$copy" -mindepth 1 -maxdepth 1 ! -name .venv ! -name .cache ! -name demo -exec rm -rf {} +
tar -C "$here" -cf - --exclude=./.venv --exclude=./.cache --exclude=./demo . | tar -C "$copy" -xf -
chmod -R o+rX "$copy/software" "$copy/slapos" "$copy/master" "$copy/node" "$copy/recipes"
printf '%s' "$copy"
