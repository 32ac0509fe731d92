#!/bin/sh
# Serve Kinto, after having brought its database to what this version of Kinto needs.
# usage: serve.sh BIN INI PASSWORD_FILE DONE_FILE PREPARE ADDRESS WORKERS
set -eu
bin=$1 ini=$2 password_file=$3 done_file=$4 prepare=$5 address=$6 workers=$7
# Packages of Kinto warn, at each start, of what only their authors can change.
export PYTHONWARNINGS=ignore
"$bin/python" "$prepare" "$ini" "$password_file" "$done_file"
# Threads, so that a slow client does not hold up a whole worker.
exec "$bin/gunicorn" --paste "$ini" --bind "$address" --workers "$workers" --threads 4 \
    --no-control-socket --graceful-timeout 10
