"""Which visitors have a reply running, known by an opaque name, and what takes its place on the page if anything does.

Nothing of a visitor stays here once the reply has ended.
"""

from __future__ import annotations

import threading

from bianque.ui.updates import PageUpdate


class RunningReplies:
    """One reply at a time for each visitor, and what the page shows instead by now. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._replacements: dict[str, PageUpdate | None] = {}

    def begin(self, visitor: str) -> bool:
        """Note that a reply begins; return False if another is running, which then goes on alone."""
        with self._lock:
            if visitor in self._replacements:
                return False
            self._replacements[visitor] = None
            return True

    def end(self, visitor: str) -> PageUpdate | None:
        """Note that the reply has ended; return what took its place meanwhile."""
        with self._lock:
            return self._replacements.pop(visitor)

    def replace(self, visitor: str, page: PageUpdate) -> None:
        """Note that the page shows another conversation from here on, if a reply is running."""
        with self._lock:
            if visitor in self._replacements:
                self._replacements[visitor] = page

    def is_running(self, visitor: str) -> bool:
        """Return whether a reply of the visitor is being written."""
        with self._lock:
            return visitor in self._replacements

    def is_replaced(self, visitor: str) -> bool:
        """Return whether the page shows another conversation than that of the running reply."""
        with self._lock:
            return self._replacements.get(visitor) is not None
