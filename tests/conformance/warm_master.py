"""Starts our master many times: each is a fork of this process, which has its modules in memory.

Each line of standard input is a JSON object: `arguments` of `slapos`, `directory` to work in, and
`log`, a file for what is printed. The answer to it is a line with the number of the new process.
"""

import importlib
import json
import os
import signal
import sys
import traceback

from slapos.command.main import main

#: What a master imports when it starts.
MODULES = (
    "alembic.command",
    "slapos.command.proxy_start",
    "slapos.master.app",
    "slapos.master.web.server",
)


def serve() -> None:
    """Start masters until there is no line any more."""
    for module in MODULES:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # none of them is waited for
    for line in sys.stdin:
        asked = json.loads(line)
        process = os.fork()
        if not process:
            _become(**asked)
        print(process, flush=True)


def _become(arguments: list[str], directory: str, log: str) -> None:
    """Be a master, and end with it."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        printed = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        os.chdir(directory)
        status = main(arguments)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - this process must not go on as the one it is a fork of
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
