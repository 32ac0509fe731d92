"""Running a release's `bin/buildout`, whatever it is a script of."""

from collections.abc import Mapping
from pathlib import Path

from slapos.node.beneath import UnsafePath, read_beneath
from slapos.node.supervise.orphans import end_marked
from slapos.node.users import Account
from slapos.protocol.errors import NotFound
from slapos.system.clock import Clock
from slapos.system.settings import clean_environment

#: In the environment of a buildout and all that it starts: the folder that it works in.
MARK = "SLAPOS_BUILDOUT"


def end_leftovers(folder: Path, clock: Clock) -> None:
    """End what a buildout left running in a folder when the node was killed under it.

    Two of them in one folder would spoil each other's work.
    """
    end_marked(MARK, str(folder), clock, starter="the pass that started it")


def buildout_command(script: Path) -> list[str]:
    """Return how a script is started: the words of its `#!` line, then itself.

    The kernel would not take a `#!` line of more than 127 bytes. Raises NotFound, UnsafePath.
    """
    content = read_beneath(script.parent.parent, f"{script.parent.name}/{script.name}", 4096)
    if content is None:
        raise NotFound(
            f"{script} is not there: build the release again with 'slapos node software --force'"
        )
    first = content.partition(b"\n")[0].decode("utf-8", "replace")
    words = first.removeprefix("#!").split() if first.startswith("#!") else []
    return [*words, str(script)]


def python_of(script: Path) -> str | None:
    """Return the Python that a buildout script is started with, None if it is another program."""
    try:
        words = buildout_command(script)
    except (NotFound, UnsafePath):
        return None
    return words[0] if len(words) > 1 and "python" in Path(words[0]).name else None


def buildout_environment(
    given: Mapping[str, str], home: Path, account: Account, *, installs: bool = False, **more: str
) -> dict[str, str]:
    """Return what a buildout may see of the environment; `installs` is for that of a release."""
    names = {MARK: str(home), "HOME": str(home), "USER": account.name, "LOGNAME": account.name}
    return clean_environment(given, installs=installs) | names | more
