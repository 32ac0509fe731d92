"""`slapos:wrapper`: a script that becomes a program, with its arguments and environment.

Options:
`wrapper-path`: the script; in `etc/service` the node keeps it running, in `etc/run` it starts it.
`command-line`: the program and its arguments: text quoted as for a shell, or a list.
`environment`: lines `NAME = value`, or a dictionary.
`wait-for-files`: files that must exist before the program starts.
`pidfile`: where to put the process id; the script ends when that process is the program already.
`sig-ign`: a signal to ignore until the program minds it, such as `USR1`.
`hash-files`: files that other parts write; a hash of them ends the script's name, so that
    the node restarts the service when one of them changes. `hash-existing-files`: the same for
    files that nothing writes.

The script replaces itself by the program: signals arrive, and the process id stays.
"""

import hashlib
import re
import shlex
from pathlib import Path
from typing import Any

from slapos.protocol.errors import InvalidConfiguration
from slapos.recipes.section import arguments, assignments, words, write

#: What slapos.cookbook's wrapper does and this one does not.
NOT_KNOWN = (
    "private-tmpfs",
    "reserve-cpu",
    "redirect-signal",
    "redirect-stdout",
    "redirect-stderr",
)

WAIT = """\
for file in {files}; do
    until [ -e "$file" ]; do sleep 0.2; done
done
"""
ONLY_ONE = """\
pid=$(cat {pidfile} 2>/dev/null || :)
if [ -n "$pid" ] && running=$(tr '\\0' ' ' 2>/dev/null < "/proc/$pid/cmdline"); then
    case "$running" in
    *{command}' '*) echo "already running as process $pid" >&2; exit 1 ;;
    esac
fi
echo $$ > {pidfile}
"""


class Recipe:
    """One script."""

    def __init__(self, _buildout: Any, name: str, options: Any) -> None:
        for option in NOT_KNOWN:
            if options.get(option):
                raise InvalidConfiguration(f"the option {option} is not known here")
        self._name = name
        self._options = options
        self._path = options["wrapper-path"]
        self._files = words(options.get("hash-files"))
        existing = words(options.get("hash-existing-files"))
        if existing:
            options["__hash_files__"] = _hash(existing)
        self._files += existing
        self._script = self._content()

    def install(self) -> list[str]:
        """Write the script; a script with the hash that was right before goes away."""
        path = f"{self._path}-{_hash(self._files)}" if self._files else self._path
        for old in _hashed(Path(self._path)):
            if str(old) != path:
                old.unlink()
                self._options.removed.add(str(old))
        return [write(path, self._script, 0o700)]

    update = install

    def _content(self) -> str:
        options = self._options
        command = arguments(options["command-line"])
        if not command:
            raise InvalidConfiguration("the option command-line names no program")
        parts = [f"#!/bin/sh\n# Written by buildout for [{self._name}].\nset -e\n"]
        if options.get("sig-ign"):
            parts.append(f"trap '' {_signal(options['sig-ign'])}\n")
        for name, value in assignments(options.get("environment")).items():
            parts.append(f"export {_variable(name)}={shlex.quote(value)}\n")
        if files := words(options.get("wait-for-files")):
            parts.append(WAIT.format(files=shlex.join(files)))
        if options.get("pidfile"):
            pidfile = shlex.quote(options["pidfile"])
            parts.append(ONLY_ONE.format(pidfile=pidfile, command=shlex.quote(" ".join(command))))
        parts.append(f'exec {shlex.join(command)} "$@"\n')
        return "".join(parts)


def _hash(files: list[str]) -> str:
    total = hashlib.md5(usedforsecurity=False)
    for path in files:
        try:
            total.update(hashlib.sha256(Path(path).read_bytes()).digest())
        except FileNotFoundError as error:
            raise InvalidConfiguration(
                f"the name of the script needs the hash of {path}, which is not there: list files "
                "that exist, or that parts mentioned here write"
            ) from error
    return total.hexdigest()


def _hashed(path: Path) -> list[Path]:
    """Return the scripts that are there with whatever hash."""
    if not path.parent.is_dir():
        return []
    ending = re.compile(f"{re.escape(path.name)}-[0-9a-f]{{32}}")
    return [found for found in path.parent.iterdir() if ending.fullmatch(found.name)]


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise InvalidConfiguration(f"{name!r} cannot be the name of an environment variable")
    return name


def _signal(name: str) -> str:
    if not re.fullmatch(r"[A-Z]+[0-9]*", name):
        raise InvalidConfiguration(f"sig-ign = {name}: it is no signal such as USR1")
    return name
