"""Several web processes on one listening socket, and what keeps them there.

A web process that dies is started again. SIGTERM ends all, once they have answered what they are
at. SIGHUP replaces one after the other: the new one listens before the old one stops, so that no
request is lost; with it come new settings, certificates and code. Where a new one does not come up,
the old ones go on.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from slapos.system.service_manager import ServiceManager

logger = logging.getLogger(__name__)

#: Seconds that a process gets until it listens.
START_TIME = 120.0
#: Seconds that processes get to end when they are told; the server's own grace is within.
END_TIME = 15.0
#: Seconds that a replaced process gets: its connections linger, and requests are answered.
LEAVE_TIME = 60.0
#: Seconds before a process that has died is started again: the first time, and at most.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
#: A process that lived for so many seconds did not die of its start.
STEADY = 60.0
#: What a web process says on its control socket when it listens.
READY = b"r"


@dataclass(eq=False)
class WebProcess:
    """One web process.

    `control` is closed when we die, whatever we die of, and then it ends, too. `ready` tells
    whether it listens, or has died before; `ended` is over when it has died.
    """

    process: asyncio.subprocess.Process
    control: socket.socket
    ready: asyncio.Task[bool]
    ended: asyncio.Task[int]
    started_at: float

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def gone(self, patience: float) -> None:
        """Wait until it has ended, by force once patience is over."""
        await asyncio.wait([self.ended], timeout=patience)
        if not self.ended.done():
            logger.warning("web process %d does not end, and is killed", self.process.pid)
            self.tell(signal.SIGKILL)
        await self.ended
        await self.ready
        self.control.close()


@dataclass
class Fleet:
    """The web processes: `words` start one, followed by the numbers of two open files.

    Those are of the listening socket, and of the socket on which it says READY. `when_gone` is
    told the id of each that has ended.
    """

    words: Sequence[str]
    listener: socket.socket
    count: int
    manager: ServiceManager
    environment: Mapping[str, str] | None = None
    when_gone: Callable[[int], None] = lambda _process_id: None
    _serving: list[WebProcess] = field(default_factory=list)
    _pause: float = SHORTEST_PAUSE

    async def run(self, when_ready: Callable[[], None]) -> bool:
        """Serve until SIGTERM or SIGINT; return whether the processes came up at all."""
        loop = asyncio.get_running_loop()
        ending, reload = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ending.set)
        loop.add_signal_handler(signal.SIGHUP, reload.set)
        told = asyncio.create_task(_true(ending.wait()))
        try:
            for _ in range(self.count):
                self._serving.append(await self._start())
            if not await self._are_ready(self._serving, told):
                return told.done()
            when_ready()
            self.manager.ready()
            await self._keep(told, reload)
            return True
        finally:
            self.manager.stopping()
            for each in self._serving:
                each.tell(signal.SIGTERM)
            await asyncio.gather(*(each.gone(END_TIME) for each in self._serving))
            told.cancel()

    async def _keep(self, told: "asyncio.Task[bool]", reload: asyncio.Event) -> None:
        """Have as many processes as are wanted until the end is told."""
        loop = asyncio.get_running_loop()
        wanted = asyncio.create_task(_true(reload.wait()))
        due = 0.0
        while not told.done():
            timeout = self.manager.interval
            if len(self._serving) < self.count:
                timeout = min(max(due - loop.time(), 0.0), timeout or LONGEST_PAUSE)
            watched = [told, wanted, *(each.ended for each in self._serving)]
            await asyncio.wait(watched, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            self.manager.alive()
            for dead in [each for each in self._serving if each.ended.done()]:
                due = loop.time() + await self._bury(dead)
            if wanted.done():
                reload.clear()
                wanted = asyncio.create_task(_true(reload.wait()))
                await self._replace_all(told)
            elif len(self._serving) < self.count and loop.time() >= due and not told.done():
                self._serving.append(await self._start())
        wanted.cancel()

    async def _bury(self, dead: WebProcess) -> float:
        """Forget a process that has died; return after how many seconds to start another one."""
        loop = asyncio.get_running_loop()
        self._serving.remove(dead)
        await dead.gone(0)
        if loop.time() - dead.started_at > STEADY:
            self._pause = SHORTEST_PAUSE
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE)
        logger.error(
            "web process %d has died (%s); another one starts in %.1f s",
            dead.process.pid,
            _how(dead.ended.result()),
            pause,
        )
        return pause

    async def _replace_all(self, told: "asyncio.Task[bool]") -> None:
        """Put a new process in the place of each; stop at the first that does not come up."""
        loop = asyncio.get_running_loop()
        self.manager.reloading(loop.time())
        old = list(self._serving)
        for number in range(self.count):
            new = await self._start()
            if not await self._are_ready([new], told):
                new.tell(signal.SIGTERM)
                await new.gone(END_TIME)
                if not told.done():
                    logger.error("the new web process does not come up: the old ones go on")
                break
            self._serving.append(new)
            if number < len(old):
                await self._let_go(old[number])
        else:
            logger.info("all web processes are new")
        self.manager.ready()

    async def _let_go(self, old: WebProcess) -> None:
        """End a process that another one has taken the place of."""
        self._serving.remove(old)
        old.tell(signal.SIGHUP)
        await old.gone(LEAVE_TIME)

    async def _are_ready(self, processes: Sequence[WebProcess], told: "asyncio.Task[bool]") -> bool:
        """Wait until processes listen; return False when one does not, or the end is told."""
        waiting = {each.ready for each in processes}
        deadline = asyncio.get_running_loop().time() + START_TIME
        while waiting:
            left = deadline - asyncio.get_running_loop().time()
            await asyncio.wait(
                {told, *waiting}, timeout=max(left, 0.0), return_when=asyncio.FIRST_COMPLETED
            )
            over = {each for each in waiting if each.done()}
            if told.done() or left <= 0 or not all(each.result() for each in over):
                return False
            waiting -= over
        return True

    async def _start(self) -> WebProcess:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            files = (self.listener.fileno(), theirs.fileno())
            process = await asyncio.create_subprocess_exec(
                *self.words,
                *map(str, files),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=files,
                env=self.environment,
            )
        ended = asyncio.create_task(process.wait())
        ended.add_done_callback(lambda _: self.when_gone(process.pid))
        return WebProcess(
            process=process,
            control=ours,
            ready=asyncio.create_task(_says_ready(ours)),
            ended=ended,
            started_at=loop.time(),
        )


async def _says_ready(control: socket.socket) -> bool:
    try:
        return await asyncio.get_running_loop().sock_recv(control, 1) == READY
    except OSError:
        return False


async def _true(waiting: Awaitable[object]) -> bool:
    await waiting
    return True


def _how(status: int) -> str:
    """Return how a process ended, in words."""
    return f"status {status}" if status >= 0 else signal.Signals(-status).name
