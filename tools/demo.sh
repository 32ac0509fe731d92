#!/bin/sh
# Order a web application on PostgreSQL from a master of one's own, and watch it come up.
# Usage: tools/demo.sh [start|stop]
#
# Everything is in demo/ of the checkout (or SLAPOS_DEMO_DIRECTORY). It may be interrupted at any
# point and run again: what is done is not done twice, and the second time needs no network.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd -P)
directory=${SLAPOS_DEMO_DIRECTORY:-$here/demo}
slapos=$here/.venv/bin/slapos
python=$here/.venv/bin/python
service=kinto
export SLAPOS_CLIENT_CONFIGURATION="$directory/etc/slapos.cfg"

say() { printf '[demo] %s\n' "$*"; }
now() { date +%s.%N; }

if [ "${1:-start}" = stop ]; then
    [ -x "$slapos" ] || { say "nothing was ever started"; exit 0; }
    exec "$slapos" standalone stop --directory "$directory"
fi

trap 'say "interrupted: \"make demo\" goes on from here, \"make demo-stop\" ends what runs"; exit 130' INT TERM

begin=$(now)
"$here/tools/environment.sh"
ready=$(now)

say "a master, a node and their supervisor, in $directory"
"$slapos" standalone start --directory "$directory" >/dev/null
started=$(now)

say "ordering $service: an application, and the database that it asks for"
"$slapos" request "$service" "$here/software/$service" --wait --timeout 900 --json \
    >"$directory/var/request.json" || {
    status=$?
    say "it is not healthy; the logs: $directory/var/log, and what 'slapos service logs' shows:"
    say "  export SLAPOS_CLIENT_CONFIGURATION=$SLAPOS_CLIENT_CONFIGURATION"
    say "  $slapos service logs $service"
    exit "$status"
}

# Say how long each phase took, keep that for the benchmarks, and say where to look.
"$python" - "$directory" "$here" "$begin" "$ready" "$started" "$(now)" <<'PYTHON'
import json
import sys
from pathlib import Path

directory, here = sys.argv[1:3]
begin, ready, started, end = map(float, sys.argv[3:])
folder = Path(directory, "var")
request = json.loads((folder / "request.json").read_text())
phases = {"environment": ready - begin, "standalone": started - ready, **request["timings"]}
timings = {name: round(seconds, 1) for name, seconds in phases.items()}
timings["total"] = round(end - begin, 1)
(folder / "timings.json").write_text(json.dumps(timings, indent=2) + "\n")
for name, seconds in timings.items():
    print(f"[demo] {name:<14}{seconds:7.1f} s")
service, url = request["reference"], request["connection"]["url"]
print(f"""
{service} is healthy, at {url}

Look at it:
  curl {url}
  export PATH={here}/.venv/bin:$PATH SLAPOS_CLIENT_CONFIGURATION={directory}/etc/slapos.cfg
  slapos service info {service}
  slapos service logs {service} -f
Order another service:
  slapos request hello {here}/software/helloworld --parameters name=Ada --wait
Give one up, and end it all (the data stays):
  slapos service destroy {service} --wait
  make demo-stop""")
PYTHON
