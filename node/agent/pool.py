"""Threads that work: a bounded number for each kind of work, each with doors of its own."""

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Task = TypeVar("Task")

#: Begins a thread, by name; what it raises is dealt with there.
Start = Callable[[str, Callable[[], None]], None]


class Pool(Generic[Task]):
    """Up to `size` threads, each begun when there is work for it."""

    def __init__(
        self, name: str, size: int, make_worker: Callable[[], Callable[[Task], None]], start: Start
    ) -> None:
        """`make_worker` is called in each thread, for what is to be called with its tasks."""
        self._name = name
        self._size = size
        self._make_worker = make_worker
        self._start = start
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._unfinished = 0

    def submit(self, task: Task) -> None:
        """Have a task done; it waits when all threads are busy."""
        with self._lock:
            self._unfinished += 1
            is_one_more = self._threads < min(self._unfinished, self._size)
            self._threads += is_one_more
        if is_one_more:
            self._start(f"{self._name}-{self._threads}", self._work)
        self._tasks.put(task)

    def _work(self) -> None:
        worker = self._make_worker()
        while True:
            worker(self._tasks.get())
            with self._lock:
                self._unfinished -= 1
