"""A fixed number of threads that work off what an event loop gives them."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")


class Workers:
    """Threads that do not keep the process from ending, whatever they are at."""

    def __init__(self, name: str, count: int) -> None:
        self._orders: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        #: Orders that are waiting or being worked on; only the event loop changes it.
        self.busy = 0
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, work: Callable[[], Result]) -> Result:
        """Have something done, and return what it returns or raise what it raises."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result] = loop.create_future()

        def order() -> None:
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                _tell(loop, done, done.set_exception, error)
            else:
                _tell(loop, done, done.set_result, result)

        self.busy += 1
        try:
            self._orders.put(order)
            return await done
        finally:
            self.busy -= 1

    def stop(self) -> None:
        """Let the threads end once they have done what they were given."""
        for _ in self._threads:
            self._orders.put(None)

    async def end(self, patience: float) -> None:
        """Stop, and wait until the threads have ended, but not longer than some seconds."""
        self.stop()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while any(thread.is_alive() for thread in self._threads) and loop.time() < deadline:
            await asyncio.sleep(0.001)

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            order()


def _tell(
    loop: asyncio.AbstractEventLoop,
    done: "asyncio.Future[Any]",
    tell: Callable[[Any], None],
    value: object,
) -> None:
    def settle() -> None:
        if not done.done():
            tell(value)

    with suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits any more
        loop.call_soon_threadsafe(settle)
