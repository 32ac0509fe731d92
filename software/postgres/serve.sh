#!/bin/sh
# Run PostgreSQL in the foreground; make its database cluster before, when there is none.
# usage: serve.sh DATA CONFIGURATION SOCKETS PASSWORD_FILE
set -eu
data=$1 configuration=$2 sockets=$3 password_file=$4

# Made beside and then renamed: a cluster that was killed while it was made is never taken for whole.
if [ ! -d "$data" ]; then
    rm -rf "$data.unfinished"
    initdb --pgdata="$data.unfinished" --username=postgres --pwfile="$password_file" \
        --auth=scram-sha-256 --encoding=UTF8 --locale=C
    sync "$data.unfinished/global/pg_control"
    mv "$data.unfinished" "$data"
fi

# The path of a socket has at most 107 bytes. Without one, there still is TCP.
[ ${#sockets} -le 85 ] || sockets=

# supervisord ends a service with TERM, on which PostgreSQL would wait until its clients are gone:
# it is told INT, its fast shutdown, instead; by the kernel when this shell is killed.
server=
trap '[ -z "$server" ] || kill -INT "$server" 2>/dev/null || true' TERM INT
setpriv --pdeathsig INT postgres -D "$data" -c config_file="$configuration" \
    -c unix_socket_directories="$sockets" &
server=$!
status=0
while kill -0 "$server" 2>/dev/null; do
    status=0
    wait "$server" || status=$?
done
exit "$status"
