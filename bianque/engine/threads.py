"""How many threads a decode step uses on a CPU, found out while it runs.

All threads of a step wait for the last one at every layer. When another process keeps a core busy, the thread on that
core comes late a few hundred times a step, and the step takes ten times as long as it would on the cores that are
free. Nobody can know this beforehand, and it changes: so now and then a few steps are run with the other number of
threads, and the faster one stays. Trials become rarer as long as they change nothing.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

# Steps of each kind that are compared, and how much faster the other number must be: single steps scatter.
_NUM_COMPARED = 3
_NEEDED_GAIN = 0.85
_FIRST_INTERVAL, _LAST_INTERVAL = 16, 512


class ThreadChooser:
    """Chooses between all threads and one; used by one thread."""

    def __init__(
        self, num_threads: int, set_threads: Callable[[int], object], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Start with all threads.

        Args:
            num_threads: all, at least 2.
            set_threads: makes the computation of the calling thread use so many; called with every step.
            clock: tells seconds.
        """
        self._choices = (num_threads, 1)
        self._set_threads = set_threads
        self._clock = clock
        self._choice = 0
        self._is_trial = False
        self._interval = _FIRST_INTERVAL
        self._num_steps = 0
        self._num_rows = 0
        self._seconds: list[float] = []
        self._usual_seconds = 0.0

    @property
    def num_threads(self) -> int:
        """What is in use now, a trial apart."""
        return self._choices[self._choice]

    @contextmanager
    def step(self, num_rows: int) -> Iterator[None]:
        """Run and measure a decode step of so many rows; only steps of as many rows are compared."""
        if num_rows != self._num_rows:
            self._end_trial()
            self._num_rows = num_rows
        # Set for every step: a thread begins with the number that any other one set last.
        self._set_threads(self._choices[1 - self._choice] if self._is_trial else self.num_threads)
        started = self._clock()
        try:
            yield
            self._seconds.append(self._clock() - started)
        finally:
            self._set_threads(self.num_threads)  # prompts come between steps and are no part of a trial
        self._num_steps += 1
        if len(self._seconds) < _NUM_COMPARED:
            return
        if self._is_trial:
            self._judge(statistics.median(self._seconds))
        elif self._num_steps >= self._interval:
            self._usual_seconds = statistics.median(self._seconds[-_NUM_COMPARED:])
            self._is_trial = True
            self._seconds = []

    def _judge(self, trial_seconds: float) -> None:
        if trial_seconds < _NEEDED_GAIN * self._usual_seconds:
            self._choice = 1 - self._choice
            self._interval = _FIRST_INTERVAL
            logger.info(
                "decode steps use %d threads: %.3f s in place of %.3f s",
                self.num_threads,
                trial_seconds,
                self._usual_seconds,
            )
        else:
            self._interval = min(2 * self._interval, _LAST_INTERVAL)
        self._end_trial()
        self._num_steps = 0

    def _end_trial(self) -> None:
        self._is_trial = False
        self._seconds = []
