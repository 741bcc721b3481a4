"""Which visitors have a reply running. Knows them by an opaque name and nothing of what they write."""

from __future__ import annotations

import threading


class RunningReplies:
    """One reply at a time for each visitor, and whether the page was cleared meanwhile. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cleared: dict[str, bool] = {}

    def begin(self, visitor: str) -> bool:
        """Note that a reply begins; return False if another is running, which then goes on alone."""
        with self._lock:
            if visitor in self._cleared:
                return False
            self._cleared[visitor] = False
            return True

    def end(self, visitor: str) -> bool:
        """Note that the reply has ended; return whether the page was cleared meanwhile."""
        with self._lock:
            return self._cleared.pop(visitor)

    def mark_cleared(self, visitor: str) -> None:
        """Note that the visitor cleared the page, if a reply is running."""
        with self._lock:
            if visitor in self._cleared:
                self._cleared[visitor] = True

    def is_cleared(self, visitor: str) -> bool:
        """Return whether the page was cleared since the running reply began."""
        with self._lock:
            return self._cleared.get(visitor, False)
