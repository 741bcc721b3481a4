"""The number of threads over a machine whose speed the test decides."""

from __future__ import annotations

from bianque.engine.threads import ThreadChooser


class Machine:
    """Takes, with so many threads, so many seconds a step."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.now = 0.0
        self.num_threads = 4
        self.used = []
        self.chooser = ThreadChooser(4, self.set_threads, lambda: self.now)

    def set_threads(self, num_threads):
        self.num_threads = num_threads

    def run(self, num_steps, num_rows=2):
        for _ in range(num_steps):
            with self.chooser.step(num_rows):
                self.used.append(self.num_threads)
                self.now += self.seconds[self.num_threads]


def test_all_threads_stay_where_they_are_faster_and_trials_become_rare():
    machine = Machine({4: 1.0, 1: 3.0})
    machine.run(400)
    assert machine.chooser.num_threads == 4
    assert machine.used.count(1) == 3 * 4  # after 16, 32, 64 and 128 steps
    assert machine.num_threads == 4


def test_one_thread_stays_where_the_others_come_late_and_goes_when_they_do_not():
    machine = Machine({4: 30.0, 1: 3.0})
    machine.run(40)
    assert machine.chooser.num_threads == machine.num_threads == 1
    machine.seconds = {4: 1.0, 1: 3.0}
    machine.run(600)
    assert machine.chooser.num_threads == machine.num_threads == 4


def test_a_small_gain_changes_nothing():
    machine = Machine({4: 1.0, 1: 0.95})
    machine.run(100)
    assert machine.chooser.num_threads == 4


def test_steps_of_different_sizes_are_not_compared():
    machine = Machine({4: 1.0, 1: 0.1})
    for num_rows in range(1, 200):
        machine.run(2, num_rows)
    assert machine.chooser.num_threads == 4
    assert machine.num_threads == 4


def test_a_trial_is_of_decode_steps_alone():
    """A prompt between two steps has the usual number, and what another engine has set does not stay."""
    machine = Machine({4: 1.0, 1: 3.0})
    between = []
    for _ in range(100):
        machine.num_threads = 1  # set by another engine
        machine.run(1)
        between.append(machine.num_threads)
    assert machine.used.count(1) == 3 * 2
    assert set(between) == {4}
