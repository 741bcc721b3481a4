"""Calls in several threads, whose results come in the order of what was asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


def in_order(call: Callable[[Asked], Answered], items: Iterable[Asked], workers: int) -> Iterator[Answered]:
    """Yield `call` of every item in the items' order, up to `workers` of them in the making.

    Raises:
        Exception: what `call` raises, at the place of its item; later calls that have not begun are given up.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Answered]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(call, item))
                if len(waiting) >= workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
