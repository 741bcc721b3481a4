"""How far a download is: one figure for everybody who shows it, the page, the log and the command line.

The bytes only ever grow, also when a damaged file is fetched a second time. Files that were on disk before count as
done, but only what crosses the network counts for the rate.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bianque.manager.download.integrity import RemoteFile

WINDOW_SECONDS = 10.0
"""The rate is the mean over this time: long enough to be calm, short enough to show a stall."""
SETTLE_SECONDS = 1.0
"""Least time of measurement before the time left is worth showing."""
REPORT_SECONDS = 0.2
"""Least time between two reports, so that a fast download does not spend its time on them."""


@dataclass(frozen=True)
class Progress:
    """State of the download of one snapshot.

    Attributes:
        file: file that moved last; empty before the first.
        done_bytes: bytes on disk, 0 to `total_bytes`; never shrinks.
        total_bytes: of all files of the snapshot.
        files_done: files that are complete.
        files_total: files of the snapshot.
        bytes_per_second: received from the network, mean of the last seconds.
        seconds_left: at that rate; None in the first second and while nothing arrives.
        file_done_bytes: of `file`; shrinks when it has to be fetched again.
        file_total_bytes: of `file`.
    """

    file: str
    done_bytes: int
    total_bytes: int
    files_done: int
    files_total: int
    bytes_per_second: float
    seconds_left: float | None
    file_done_bytes: int = 0
    file_total_bytes: int = 0

    @property
    def share(self) -> float:
        """Part that is done, 0 to 1; 1 when there is nothing to fetch."""
        return self.done_bytes / self.total_bytes if self.total_bytes else 1.0


class ProgressTracker:
    """Adds up what the files of one snapshot report. All methods may be called from any thread."""

    def __init__(
        self,
        files: Sequence[RemoteFile],
        report: Callable[[Progress], None] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start at nothing.

        Args:
            files: of the snapshot.
            report: receives the progress, one call at a time and in order; it must return quickly.
            clock: seconds that only grow.
        """
        self._sizes = {file.path: file.size for file in files}
        self._done = dict.fromkeys(self._sizes, 0)
        self._finished: set[str] = set()
        self._report = report
        self._clock = clock
        self._lock = threading.Lock()
        self._received = 0
        self._samples: deque[tuple[float, int]] = deque([(clock(), 0)])
        self._file = ""
        self._highest = 0
        self._reported_at = float("-inf")

    def place(self, file: RemoteFile, done_bytes: int, *, received: int = 0) -> None:
        """Set how much of `file` is there, of which `received` bytes came from the network just now."""
        with self._lock:
            self._file = file.path
            self._done[file.path] = min(done_bytes, file.size)
            self._received += received
            self._tell(is_due=False)

    def finish(self, file: RemoteFile) -> None:
        """Count `file` as complete and report."""
        with self._lock:
            self._file = file.path
            self._done[file.path] = file.size
            self._finished.add(file.path)
            self._tell(is_due=True)

    def tick(self) -> None:
        """Report if it is time, also when nothing arrived: the rate of a stalled download has to fall."""
        with self._lock:
            self._tell(is_due=False)

    def now(self) -> Progress:
        """Return the state at this moment."""
        with self._lock:
            return self._measure()

    def _tell(self, *, is_due: bool) -> None:
        now = self._clock()
        if self._report is not None and (is_due or now - self._reported_at >= REPORT_SECONDS):
            self._reported_at = now
            self._report(self._measure())

    def _measure(self) -> Progress:
        now = self._clock()
        if now - self._samples[-1][0] >= REPORT_SECONDS:
            self._samples.append((now, self._received))
        while len(self._samples) > 1 and now - self._samples[1][0] >= WINDOW_SECONDS:
            self._samples.popleft()
        since, received_then = self._samples[0]
        rate = (self._received - received_then) / (now - since) if now > since else 0.0
        total = sum(self._sizes.values())
        self._highest = max(self._highest, sum(self._done.values()))
        left = total - self._highest
        is_known = rate > 0 and now - since >= SETTLE_SECONDS
        seconds_left = 0.0 if left == 0 else left / rate if is_known else None
        return Progress(
            file=self._file,
            done_bytes=self._highest,
            total_bytes=total,
            files_done=len(self._finished),
            files_total=len(self._sizes),
            bytes_per_second=rate,
            seconds_left=seconds_left,
            file_done_bytes=self._done.get(self._file, 0),
            file_total_bytes=self._sizes.get(self._file, 0),
        )


def describe(progress: Progress) -> str:
    """Return one line: share, bytes, rate, time left, files and the file that moves."""
    done = f"{format_bytes(progress.done_bytes)} of {format_bytes(progress.total_bytes)}"
    parts = [
        f"{100 * progress.share:3.0f} %",
        done,
        f"{format_bytes(progress.bytes_per_second)}/s",
        f"{format_seconds(progress.seconds_left)} left",
        f"{progress.files_done}/{progress.files_total} files",
    ]
    if progress.file and progress.file_done_bytes < progress.file_total_bytes:
        parts.append(f"{progress.file} {100 * progress.file_done_bytes / progress.file_total_bytes:.0f} %")
    return ", ".join(parts)


def format_bytes(num_bytes: float) -> str:
    """Return a size as people read it, in decimal units as on a disk's label: `13.7 GB`."""
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} GB"


def format_seconds(seconds: float | None) -> str:
    """Return a duration as `0:42` or `1:02:03`; `?` when it is not known."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
