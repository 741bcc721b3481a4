"""Pieces of work that may change what is in memory, counted so that whoever looks knows whether states may change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Tasks:
    """Counts work in the caller's thread, and starts some in threads of their own. Safe from any thread."""

    def __init__(self, changed: threading.Condition) -> None:
        """Begin with none.

        Args:
            changed: guards the count, and is notified when a piece of work ends.
        """
        self._changed = changed
        self._count = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being done."""
        with self._changed:
            return not self._count

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count what is done inside."""
        self._begin()
        try:
            yield
        finally:
            self._end()

    def spawn(self, work: Callable[[], object]) -> None:
        """Do work in a thread of its own; it counts at once.

        Raises:
            RuntimeError: if the system has no more threads.
        """
        self._begin()

        def run() -> None:
            try:
                work()
            finally:
                self._end()

        try:
            threading.Thread(target=run, name="model-loader", daemon=True).start()
        except BaseException:
            self._end()
            raise

    def _begin(self) -> None:
        with self._changed:
            self._count += 1

    def _end(self) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()
