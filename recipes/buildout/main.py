"""`buildout`: what `<software>/bin/buildout` starts. Upstream's command line, with our engine."""

import socket
import sys

import zc.buildout.buildout as upstream

from slapos.recipes.buildout.engine import take_place

EXIT_INTERRUPTED = 130
#: Seconds between two bytes of a download, unless `-t` or `socket-timeout` says otherwise.
TIMEOUT = 60.0


def main(argv: list[str] | None = None) -> int:
    """Run buildout and return its exit status.

    What a user can put right is told in one message on stderr, without a traceback.
    """
    take_place()
    if socket.getdefaulttimeout() is None:
        socket.setdefaulttimeout(TIMEOUT)
    try:
        upstream.main(list(sys.argv[1:] if argv is None else argv))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0
