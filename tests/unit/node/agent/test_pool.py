"""Threads for work, as many as are needed and no more."""

import threading
from collections.abc import Callable

from slapos.node.agent.pool import Pool

DEADLINE = 10.0


def begin(_name: str, work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()


def test_what_hangs_takes_one_thread_and_all_others_have_theirs() -> None:
    """Also right after work that has just ended: the thread of that may not be free yet."""
    for _ in range(200):
        release, done = threading.Event(), threading.Semaphore(0)

        def worker(
            task: str,
            release: threading.Event = release,
            done: threading.Semaphore = done,
        ) -> None:
            if task == "hangs":
                release.wait(DEADLINE)
            done.release()

        pool: Pool[str] = Pool("pool", 3, lambda worker=worker: worker, begin)  # type: ignore[misc]
        pool.submit("quick")
        assert done.acquire(timeout=DEADLINE)
        pool.submit("hangs")
        pool.submit("hangs")
        pool.submit("quick")
        assert done.acquire(timeout=DEADLINE / 2), "it waits for one that hangs"
        release.set()


def test_no_more_threads_than_allowed_and_none_before_there_is_work() -> None:
    names: list[str] = []
    done = threading.Semaphore(0)

    def start(name: str, work: Callable[[], None]) -> None:
        names.append(name)
        begin(name, work)

    pool: Pool[int] = Pool("pool", 2, lambda: lambda _: done.release(), start)
    assert names == []
    for number in range(50):
        pool.submit(number)
    assert all(done.acquire(timeout=DEADLINE) for _ in range(50))
    assert names in (["pool-1"], ["pool-1", "pool-2"])
