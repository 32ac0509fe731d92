#!/bin/sh
# Make the virtual environment of this checkout from the locked requirements, or leave it as it is
# when it is already right (then nothing is fetched). Usage: tools/environment.sh [DIRECTORY]
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
target=${1:-$here/.venv}
cd "$here"

fail() { printf '\nslapos: %s\n' "$*" >&2; exit 1; }
say() { printf '[environment] %s\n' "$*"; }

# As root, partitions run as users of their own, and these must be able to start this Python.
usable() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || return 1
    [ "$(id -u)" != 0 ] && return 0
    "$1" - <<'PYTHON'
import os, pathlib, sys
real = pathlib.Path(os.path.realpath(sys.executable))
sys.exit(not all(p.stat().st_mode & 0o001 for p in (real, *real.parents)))
PYTHON
}

find_python() {
    for name in ${PYTHON:-} python3 python3.13 python3.12 python3.11 \
        /usr/local/bin/python3 /usr/bin/python3 /usr/bin/python3.13 /usr/bin/python3.12 /usr/bin/python3.11; do
        found=$(command -v "$name" 2>/dev/null) || continue
        # Of a virtual environment (ours, when it is first in PATH) the one that it was made with.
        if usable "$found"; then
            "$found" -c 'import os, sys; print(os.path.realpath(sys._base_executable))'
            return 0
        fi
    done
    return 1
}

make_venv() {
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            say "installing python3-venv with apt-get"
            apt-get update -q >/dev/null && apt-get install -y -q python3-venv >/dev/null
        else
            fail "$python cannot make virtual environments: install the package python3-venv"
        fi
    fi
    "$python" -m venv --clear "$target"
}

python=$(find_python) || fail "Python 3.11 or newer is needed$([ "$(id -u)" = 0 ] && \
    echo ', in a place where other users than root may start it (such as /usr/bin/python3)'); \
name one with PYTHON=/path/to/python3"
wanted=$(cat requirements/bootstrap.txt requirements/development.txt setup.py | sha256sum | cut -d' ' -f1)
base="$here $python"
wanted="$wanted $base"
stamp=$target/.slapos-environment
made=$target/.slapos-python
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit 0; fi

# What is there and of the same Python is only brought up to date, which begins with fetching:
# without the network a changed lock costs nobody the environment that works.
if [ ! -x "$target/bin/uv" ] || [ "$(cat "$made" 2>/dev/null)" != "$base" ]; then
    say "making $target with $("$python" --version)"
    make_venv
    "$target/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
    printf '%s' "$base" > "$made"
fi
say "installing the locked packages"
"$target/bin/uv" pip sync -q --compile-bytecode --system-certs --require-hashes --python "$target/bin/python" requirements/development.txt
"$target/bin/uv" pip install -q --offline --no-deps --no-build-isolation --python "$target/bin/python" -e .
# Partitions' users may not write here, so what is not compiled now is compiled at every start.
"$target/bin/python" -m compileall -q -j 0 slapos master node recipes
printf '%s' "$wanted" > "$stamp"
say "ready"
