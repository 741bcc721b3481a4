"""How many replies one visitor may ask for in a minute. Knows visitors by address, and nothing of what they write.

Behind the platform's proxy every request has the proxy's address, and the header says whose it is; elsewhere anybody
could write that header, so it is trusted on a Space only.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import gradio as gr

from bianque.errors import InputError

WINDOW_SECONDS = 60.0
_MOST_VISITORS = 10_000


class RateLimiter:
    """Counts replies of the last minute for each visitor. Safe from any thread."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with no replies counted.

        Args:
            per_minute: most replies of one visitor in a minute; 0 for no limit.
            clock: in seconds.
        """
        self._per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._times: dict[str, deque[float]] = {}

    def admit(self, visitor: str) -> None:
        """Count a reply.

        Raises:
            InputError: if the visitor has had as many as allowed, with the seconds until the next.
        """
        if not self._per_minute:
            return
        now = self._clock()
        with self._lock:
            times = self._times.setdefault(visitor, deque())
            while times and now - times[0] >= WINDOW_SECONDS:
                times.popleft()
            if len(times) >= self._per_minute:
                raise InputError("rate_limited", seconds=math.ceil(times[0] + WINDOW_SECONDS - now))
            times.append(now)
            if len(self._times) > _MOST_VISITORS:
                self._forget(now)

    def _forget(self, now: float) -> None:
        """Drop visitors who have asked for nothing in the last minute."""
        self._times = {visitor: times for visitor, times in self._times.items() if now - times[-1] < WINDOW_SECONDS}


def address_of(request: gr.Request | Any, *, is_behind_proxy: bool) -> str:
    """Return the visitor's address; the header of a proxy counts only where there is one."""
    if is_behind_proxy:
        forwarded = (request.headers or {}).get("x-forwarded-for", "")
        if forwarded.strip():
            return forwarded.split(",")[0].strip()
    client = getattr(request, "client", None)
    return client.host if client else ""
