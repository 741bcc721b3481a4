"""The figures of a download, with a clock of the test's own."""

from __future__ import annotations

import pytest

from bianque.manager.download.integrity import RemoteFile
from bianque.manager.download.progress import Progress, ProgressTracker, describe, format_bytes, format_seconds

SMALL = RemoteFile("config.json", 100, "a" * 40)
LARGE = RemoteFile("model.safetensors", 9_900, "b" * 64)


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def tracker(clock):
    return ProgressTracker([SMALL, LARGE], clock=clock)


def receive(tracker, clock, *, seconds, num_bytes, start=0):
    """Receive `num_bytes` of the large file in each of `seconds` seconds."""
    for second in range(1, seconds + 1):
        clock.seconds += 1
        tracker.place(LARGE, start + second * num_bytes, received=num_bytes)
        tracker.now()


def test_rate_and_time_left(tracker, clock):
    tracker.finish(SMALL)
    receive(tracker, clock, seconds=4, num_bytes=500)
    progress = tracker.now()
    assert (progress.done_bytes, progress.total_bytes) == (2_100, 10_000)
    assert (progress.files_done, progress.files_total) == (1, 2)
    assert (progress.file, progress.file_done_bytes, progress.file_total_bytes) == (LARGE.path, 2_000, 9_900)
    assert progress.bytes_per_second == 500
    assert progress.seconds_left == pytest.approx(7_900 / 500)
    assert progress.share == 0.21


def test_what_was_on_disk_does_not_count_for_the_rate(tracker, clock):
    clock.seconds = 2
    tracker.place(LARGE, 5_000)
    assert tracker.now().bytes_per_second == 0
    assert tracker.now().seconds_left is None
    receive(tracker, clock, seconds=2, num_bytes=100, start=5_000)
    assert tracker.now().bytes_per_second == 50


def test_a_stall_shows(tracker, clock):
    receive(tracker, clock, seconds=3, num_bytes=1_000)
    for _ in range(30):
        clock.seconds += 1
        tracker.now()
    assert tracker.now().bytes_per_second == 0
    assert tracker.now().seconds_left is None


def test_a_second_attempt_does_not_go_back(tracker, clock):
    tracker.place(LARGE, 8_000)
    assert tracker.now().done_bytes == 8_000
    tracker.place(LARGE, 0)
    assert tracker.now().done_bytes == 8_000
    assert tracker.now().file_done_bytes == 0
    tracker.finish(LARGE)
    assert tracker.now().done_bytes == 9_900


def test_reports_are_rare_but_a_finished_file_is_told_at_once(clock):
    seen = []
    tracker = ProgressTracker([SMALL, LARGE], seen.append, clock=clock)
    for done_bytes in range(0, 1_000, 10):
        tracker.place(LARGE, done_bytes, received=10)
    assert len(seen) == 1
    tracker.finish(SMALL)
    assert [each.files_done for each in seen] == [0, 1]
    clock.seconds = 1
    tracker.tick()
    assert len(seen) == 3


def test_one_line_says_it_all():
    progress = Progress("model.safetensors", 5_100_000_000, 13_700_000_000, 3, 12, 42e6, 204.8, 700, 1000)
    line = " 37 %, 5.1 GB of 13.7 GB, 42.0 MB/s, 3:25 left, 3/12 files, model.safetensors 70 %"
    assert describe(progress) == line


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (2_000_000, "2.0 MB"), (13.7e9, "13.7 GB")]
)
def test_sizes(num_bytes, text):
    assert format_bytes(num_bytes) == text


@pytest.mark.parametrize(("seconds", "text"), [(None, "?"), (0, "0:00"), (61.2, "1:01"), (3_723, "1:02:03")])
def test_durations(seconds, text):
    assert format_seconds(seconds) == text
