"""The shell command `command` ends with status 0."""

from pathlib import Path
from typing import Any

from slapos.node.promise.plugin.counted import CountedPromise
from slapos.system.runner import CommandFailed, CommandTimedOut, SystemRunner
from slapos.system.settings import environment

#: What a message repeats of the output: its end, in characters.
REPEATED_OUTPUT = 2000


class RunPromise(CountedPromise):
    """Runs a command in the partition's directory."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Read the options."""
        super().__init__(config)
        self._command = self.text("command")
        # Sooner than the launcher would end this promise, so that it can say why.
        self._timeout = max(0.5, self.number("promise-timeout", 20.0) - 1.0)

    def sense(self) -> None:
        """Run the command."""
        try:
            SystemRunner(patience=0.2).run(
                ["/bin/sh", "-c", self._command],
                cwd=Path(self.getPartitionFolder()),
                environment=environment(),
                timeout=self._timeout,
            )
        except CommandFailed as error:
            how = f"ended with status {error.status}"
            if isinstance(error, CommandTimedOut):
                how = f"did not end within {self._timeout:g} s"
            said = error.output.strip()[-REPEATED_OUTPUT:] or "nothing"
            self.logger.error("%s %s; it printed: %s", self._command, how, said)
        else:
            self.logger.info("%s succeeded", self._command)
