"""Turns on one device, taken in the order in which they were asked for.

Two engines of one process (the joint mode's asker and adviser) compute on the same cores or the same GPU. Steps that
ran at once would fight over them: on a CPU the threads of each step would wait for cores that the other one holds. A
plain lock would not do either, because who has just let it go is the first to take it again.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque


class Turns:
    """A lock that is fair; a context manager."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._is_taken = False

    def __enter__(self) -> Turns:
        with self._lock:
            if not self._is_taken:
                self._is_taken = True
                return self
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()  # released by whoever hands the turn on
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_taken = False


_turns: weakref.WeakValueDictionary[str, Turns] = weakref.WeakValueDictionary()
_turns_lock = threading.Lock()


def turns_of(device: str) -> Turns:
    """Return the turns of a device, the same for every engine on it as long as one of them lives."""
    with _turns_lock:
        turns = _turns.get(device)
        if turns is None:
            turns = _turns[device] = Turns()
        return turns
