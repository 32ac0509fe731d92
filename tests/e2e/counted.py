"""A release whose service writes down each of its starts; `deep2`, `deep3`: a tree of that depth.

An instance publishes its value, one with a child what the child has published. `quiet` publishes
nothing, `bare` has no promise either.
"""

from dataclasses import dataclass
from pathlib import Path

import psutil

SOFTWARE = """\
[buildout]
parts = instance.cfg

[instance.cfg]
recipe = slapos:template
url = ${:_profile_base_location_}/instance.cfg.in
output = ${buildout:directory}/instance.cfg
"""
INSTANCE = """\
[buildout]
parts = type

[slap-configuration]
recipe = slapos:slapconfiguration

[type]
recipe = slapos:switch-softwaretype
default = @folder@/default.cfg
quiet = @folder@/quiet.cfg
bare = @folder@/bare.cfg
deep2 = @folder@/deep2.cfg
deep3 = @folder@/deep3.cfg
"""
DEFAULT = """\
[buildout]
parts = service promise publish

[directory]
recipe = slapos:mkdirectory
service = ${buildout:directory}/etc/service
plugin = ${buildout:directory}/etc/plugin

[value]
recipe = slapos:template
inline = ${slap-configuration:configuration.value}
output = ${buildout:directory}/value

[service]
recipe = slapos:wrapper
wrapper-path = ${directory:service}/counted
hash-files = ${value:output}
command-line = /bin/sh @folder@/counted.sh ${slap-configuration:configuration.value}

[promise]
recipe = slapos:promise.plugin
promise = check_file_state
output = ${directory:plugin}/started.py
config-filename = starts
config-state = not-empty

[publish]
recipe = slapos:publish
value = ${slap-configuration:configuration.value}
"""
QUIET = """\
[buildout]
extends = @folder@/default.cfg
parts = service promise
"""
BARE = """\
[buildout]
extends = @folder@/default.cfg
parts = service
"""
DEEP = """\
[buildout]
extends = @folder@/default.cfg

[child]
<= slap-connection
recipe = slapos:request
name = below ${slap-configuration:instance-title}
software-url = ${slap-connection:software-release-url}
software-type = @child@
config-value = ${slap-configuration:configuration.value}
return = value

[publish]
value = ${child:connection-value}
"""
#: One line for each start: when (seconds since 1970), as which process, with which value.
SERVICE = """\
echo "$(date +%s.%N) $$ $1" >> starts
exec sleep 864000
"""


@dataclass(frozen=True)
class Start:
    """One start of a service: `at` is in seconds since 1970."""

    at: float
    pid: int
    value: str


def write_release(folder: Path) -> str:
    """Write the release, and return its URL."""
    folder.mkdir(exist_ok=True)
    texts = {
        "software.cfg": SOFTWARE,
        "instance.cfg.in": INSTANCE,
        "default.cfg": DEFAULT,
        "quiet.cfg": QUIET,
        "bare.cfg": BARE,
        "deep2.cfg": DEEP.replace("@child@", "default"),
        "deep3.cfg": DEEP.replace("@child@", "deep2"),
        "counted.sh": SERVICE,
    }
    for name, text in texts.items():
        (folder / name).write_text(text.replace("@folder@", str(folder)))
        (folder / name).chmod(0o644)
    folder.chmod(0o755)
    return str(folder / "software.cfg")


def starts(partition: Path) -> list[Start]:
    """Return the starts of the service in a partition, the first one first."""
    path = partition / "starts"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [Start(float(at), int(pid), value) for at, pid, value in map(str.split, lines)]


def services(partition: Path) -> list[int]:
    """Return the processes of the service that run in a partition."""
    found = []
    for process in psutil.process_iter(["name", "cwd", "status"]):
        is_there = process.info["cwd"] == str(partition)
        if is_there and process.info["name"] == "sleep" and process.info["status"] != "zombie":
            found.append(process.pid)
    return found
