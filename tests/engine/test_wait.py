"""The told wait: from made-up numbers, from what a pace has learnt, and against a queue on a simulated clock."""

from __future__ import annotations

import random
import statistics
import threading

import pytest

from bianque.engine.pace import Pace
from bianque.engine.sampling import SamplingParams
from bianque.engine.scheduler import Scheduler
from bianque.engine.sequence import Sequence
from bianque.engine.wait import Speeds, Work, expected_wait_seconds

STEP, PROMPT, OWN = 0.5, 0.01, 0.02
SPEEDS = Speeds(step_seconds=STEP, prompt_token_seconds=PROMPT, own_token_seconds=OWN)


def test_first_in_the_queue_waits_for_the_slot_that_is_free_first():
    running = [Work(0, 30), Work(0, 8), Work(0, 20)]
    assert expected_wait_seconds(running, [], 100, SPEEDS) == pytest.approx(8 * STEP + 100 * OWN)


def test_those_ahead_take_the_slots_that_are_free_before():
    running, ahead = [Work(0, 30), Work(0, 8)], [Work(50, 10), Work(50, 100)]
    # Slots are free after 8, 8 + 10 and 30 steps; the first two go to those ahead.
    assert expected_wait_seconds(running, ahead, 0, SPEEDS) == pytest.approx(30 * STEP + 2 * 50 * PROMPT)


def test_prompts_that_are_not_run_yet_come_before():
    assert expected_wait_seconds([Work(70, 5), Work(30, 5)], [], 0, SPEEDS) == pytest.approx(5 * STEP + 100 * PROMPT)


@pytest.fixture
def pace():
    learnt = Pace()
    learnt.note_reply(40)
    return learnt


@pytest.mark.parametrize(
    ("num_written", "max_new_tokens", "expected"),
    [(0, 100, 40), (30, 100, 10), (39, 100, 4), (90, 100, 4), (98, 100, 2), (0, 25, 25)],
    ids=["new", "underway", "nearly_there", "longer_than_usual", "near_its_limit", "limited"],
)
def test_what_remains_of_a_reply(pace, num_written, max_new_tokens, expected):
    assert pace.remaining_tokens(num_written, max_new_tokens) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ({16: 3.0}, 3.0),
        ({1: 1.0, 16: 3.0, 32: 8.0}, 3.0),
        ({8: 1.0, 24: 3.0}, 2.0),
        ({1: 1.0}, 4.0),
        ({1: 9.0, 4: 1.0}, 2.0),
        ({64: 8.0}, 4.0),
    ],
    ids=["measured", "measured_among_others", "between_two", "only_alone", "the_nearest_below", "only_above"],
)
def test_a_step_costs_what_it_cost_for_as_many_rows(pace, measured, expected):
    for num_rows, seconds in measured.items():
        pace.note_step(num_rows, seconds)
    assert pace.speeds(16).step_seconds == pytest.approx(expected)


def test_means_follow_the_newest_values_and_forget_the_oldest(pace):
    for _ in range(10):
        pace.note_step(4, 100.0)
    for _ in range(60):
        pace.note_step(4, 1.0)
    assert pace.speeds(4).step_seconds == pytest.approx(1.0, rel=0.3)


def test_prompts_count_by_their_tokens(pace):
    pace.note_step(1, 1.0)
    pace.note_prompt(100, 2.0, 5.0)
    pace.note_prompt(50, 1.0, 2.5)
    assert pace.speeds(1).prompt_token_seconds == pytest.approx(0.02)
    assert pace.speeds(1).own_token_seconds == pytest.approx(0.05)


def test_nothing_is_told_before_a_reply_has_ended_and_a_step_was_measured(pace):
    assert pace.speeds(1) is None
    fresh = Pace()
    fresh.note_step(1, 1.0)
    assert fresh.speeds(1) is None


class SimulatedDevice:
    """Runs what a scheduler says on a clock of its own: prompts one at a time, then a step for all that run."""

    def __init__(self, num_slots):
        self.scheduler = Scheduler(num_slots, max_waiting=1000)
        self.now = 0.0
        self.lengths = {}
        self.told = {}
        self.happened = {}
        self._arrived = {}

    def arrive(self, prompt_tokens, reply_tokens):
        sequence = Sequence([1] * prompt_tokens, SamplingParams(max_new_tokens=512), 512, threading.RLock())
        self.lengths[sequence] = reply_tokens
        self._arrived[sequence] = self.now
        self.scheduler.add(sequence)
        told = self.scheduler.expected_wait_seconds(sequence)
        if told is not None:
            self.told[sequence] = told

    def turn(self):
        joining = next((sequence for sequence in self.scheduler.running if not sequence.output_ids), None)
        if joining is not None:
            seconds = 0.004 * len(joining.prompt_ids)
            self.now += seconds
            self.scheduler.pace.note_prompt(len(joining.prompt_ids), seconds, seconds)
            self.happened[joining] = self.now - self._arrived[joining]
            self._write(joining)
        decoding = [sequence for sequence in self.scheduler.running if sequence.output_ids]
        if decoding:
            seconds = 0.05 + 0.01 * len(decoding)
            self.now += seconds
            self.scheduler.pace.note_step(len(decoding), seconds)
            for sequence in decoding:
                self._write(sequence)

    def _write(self, sequence):
        sequence.append(7)
        if len(sequence.output_ids) == self.lengths[sequence]:
            self.scheduler.remove(sequence)

    def run_until_idle(self):
        while self.scheduler.running:
            self.turn()


def warm_device(num_slots):
    """Return a device that has seen one reply alone and one full house."""
    device = SimulatedDevice(num_slots)
    for num_visitors in (1, num_slots):
        for _ in range(num_visitors):
            device.arrive(64, 64)
        device.run_until_idle()
    return device


@pytest.mark.parametrize("num_slots", [1, 4, 16, 24])
def test_what_visitors_are_told_is_what_happens_when_all_come_at_once(num_slots):
    device = warm_device(num_slots)
    for _ in range(2 * num_slots + 4):
        device.arrive(64, 64)
    device.run_until_idle()
    assert len(device.told) == num_slots + 4
    for sequence, told in device.told.items():
        assert told == pytest.approx(device.happened[sequence], rel=0.35)


@pytest.mark.parametrize("num_slots", [1, 4, 16, 24])
def test_what_visitors_are_told_is_right_on_average_when_replies_differ(num_slots):
    """Who comes while a queue stands; single replies cannot be foreseen, their mean can."""
    device, choose = warm_device(num_slots), random.Random(num_slots)
    device.told.clear()
    for number in range(400):
        if number >= 2 * num_slots:
            while len(device.scheduler.waiting) > num_slots:
                device.turn()
        device.arrive(choose.randrange(20, 120), choose.randrange(20, 110))
    device.run_until_idle()
    told = statistics.mean(device.told.values())
    happened = statistics.mean(device.happened[sequence] for sequence in device.told)
    assert len(device.told) > 300
    assert told == pytest.approx(happened, rel=0.35)
