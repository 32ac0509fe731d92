"""Stand-ins for the doors outside, each with the interface of the real thing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from slapos.system.runner import CommandFailed, ProcessLimits, Result, User

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


class FakeClock:
    """A clock that moves only when it is told to, or when somebody sleeps."""

    def __init__(self, now: datetime = NOON) -> None:
        self._now = now
        self._passed = 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._passed

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self._passed += seconds
        self._now += timedelta(seconds=seconds)


@dataclass(frozen=True)
class Ran:
    """One call of FakeRunner.run."""

    argv: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str]
    timeout: float | None
    user: User | None
    limits: ProcessLimits | None = None


@dataclass
class FakeRunner:
    """Runs nothing: prints `output`, ends with `status`, or raises `error`; `ran` is what came."""

    output: str = ""
    status: int = 0
    error: CommandFailed | None = None
    ran: list[Ran] = field(default_factory=list)

    def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        timeout: float | None = None,
        user: User | None = None,
        on_line: Callable[[str], None] | None = None,
        check: bool = True,
        limits: ProcessLimits | None = None,
    ) -> Result:
        self.ran.append(Ran(tuple(argv), cwd, dict(environment), timeout, user, limits))
        for line in self.output.splitlines():
            if on_line is not None:
                on_line(line)
        if self.error is not None:
            raise self.error
        if check and self.status:
            raise CommandFailed(
                f"{argv[0]} ended with status {self.status}",
                status=self.status,
                output=self.output,
            )
        return Result(self.status, self.output)


class FakeIdentifiers:
    """Chance that is no chance: numbered tokens, and always one half."""

    def __init__(self) -> None:
        self._count = 0

    def token(self, length: int) -> str:
        self._count += 1
        return str(self._count).zfill(length)

    def fraction(self) -> float:
        return 0.5
