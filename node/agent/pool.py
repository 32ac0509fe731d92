"""Threads that work: a bounded number for each kind of work, each with doors of its own."""

import logging
import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from slapos.node.agent.ending import Interrupted

logger = logging.getLogger(__name__)

Task = TypeVar("Task")


class Pool(Generic[Task]):
    """Up to `size` threads, each begun when there is work for it."""

    def __init__(self, name: str, size: int, make_worker: Callable[[], Callable[[Task], None]]):
        """`make_worker` is called in each thread, for what is to be called with its tasks."""
        self._name = name
        self._size = size
        self._make_worker = make_worker
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._threads = 0
        self._waiting = threading.Semaphore(0)

    def submit(self, task: Task) -> None:
        """Have a task done; it waits when all threads are busy."""
        self._tasks.put(task)
        if not self._waiting.acquire(blocking=False) and self._threads < self._size:
            self._threads += 1
            name = f"{self._name}-{self._threads}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        try:
            worker = self._make_worker()
            while True:
                worker(self._tasks.get())
                self._waiting.release()
        except Interrupted:
            logger.debug("%s is interrupted", threading.current_thread().name)
