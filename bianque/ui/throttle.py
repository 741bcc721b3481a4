"""Fewer updates than tokens: every update costs the server and the browser the same, however short it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from bianque.consultation.messages import ReplyUpdate

UPDATES_PER_SECOND = 12


def throttle(
    updates: Iterable[ReplyUpdate],
    *,
    per_second: float = UPDATES_PER_SECOND,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[ReplyUpdate]:
    """Pass the first update at once, the last always, and at most `per_second` between.

    Nothing is lost by leaving updates out, because each carries the whole text.
    """
    shown_at = float("-inf")
    for update in updates:
        now = clock()
        if update.is_final or now - shown_at >= 1 / per_second:
            shown_at = now
            yield update
