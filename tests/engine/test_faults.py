"""What goes wrong in a public Space, each with what must be left standing."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import torch

from bianque.engine.sampling import SamplingParams
from bianque.errors import GenerationError, InputError, QueueFullError
from tests.engine.conftest import EOS, TIMEOUT_SECONDS, Reader, ScriptedRunner

FOREVER = [3]
LONG = SamplingParams(temperature=0, max_new_tokens=10**6)
SHORT = SamplingParams(temperature=0, max_new_tokens=5)


def read(engine, sequence):
    return Reader(engine.stream(sequence)).result()


def works(engine):
    """Whether a new request gets its reply."""
    assert engine.wait_idle(TIMEOUT_SECONDS)
    return read(engine, engine.submit([2], SHORT)) == [5] * 5


def error_of(reader):
    with pytest.raises(GenerationError) as error:
        reader.result()
    return error.value.key


def test_two_hundred_requests_at_a_queue_of_32(start_engine):
    """Each is either refused at once or gets its whole reply; 36 find a place."""
    runner = ScriptedRunner({2: [5]}, is_gated=True)
    engine = start_engine(runner, num_slots=4, max_waiting=32)
    results = {}
    start = threading.Barrier(200)

    def visit(number):
        start.wait(TIMEOUT_SECONDS)
        try:
            results[number] = engine.submit([2], SHORT, visitor=str(number))
        except QueueFullError as error:
            results[number] = error

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_SECONDS)
    taken = [result for result in results.values() if not isinstance(result, QueueFullError)]
    refused = [result for result in results.values() if isinstance(result, QueueFullError)]
    assert (len(taken), len(refused)) == (36, 164)
    assert {(error.key, error.params["waiting"]) for error in refused} == {("queue_full", 32)}
    runner.open()
    assert all(read(engine, sequence) == [5] * 5 for sequence in taken)
    assert works(engine)


def test_visitor_gone_while_waiting(start_engine):
    runner = ScriptedRunner({1: FOREVER, 2: [5]}, is_gated=True)
    engine = start_engine(runner, num_slots=1)
    running = engine.submit([1], LONG)
    gone, next_one = engine.submit([1], LONG), engine.submit([2], SHORT)
    engine.stream(gone).close()
    assert engine.position(next_one) == 1
    engine.cancel(running)
    runner.open()
    assert read(engine, next_one) == [5] * 5
    assert len([call for call in runner.calls if call == (1, "prefill")]) <= 1, "the one who left was computed"


def test_visitor_gone_in_prefill_frees_the_slot_with_the_layer(start_engine):
    runner = ScriptedRunner({1: FOREVER, 2: [5]}, num_layers=100, is_gated=True)
    engine = start_engine(runner, num_slots=1)
    gone = engine.submit([1], LONG)
    runner.allow(2)
    for _ in range(3):
        runner.wait_entered()
    engine.cancel(gone)
    next_one = engine.submit([2], SHORT)
    runner.open()
    assert read(engine, next_one) == [5] * 5
    assert [name for name, _ in runner.calls].count(1) == 3


def test_a_prompt_given_up_holds_no_memory_while_nothing_runs(start_engine):
    given_up = threading.Event()

    class Noting(ScriptedRunner):
        def prefill(self, slot, prompt_ids):
            try:
                return (yield from super().prefill(slot, prompt_ids))
            finally:
                given_up.set()

    runner = Noting({1: FOREVER}, num_layers=100, is_gated=True)
    engine = start_engine(runner, num_slots=1)
    gone = engine.submit([1], LONG)
    runner.allow(1)
    for _ in range(2):
        runner.wait_entered()
    engine.cancel(gone)
    runner.open()
    assert given_up.wait(TIMEOUT_SECONDS), "the prompt's layers are still held"


def test_visitor_gone_in_decode(start_engine):
    runner = ScriptedRunner({1: FOREVER, 2: [5]}, is_gated=True)
    engine = start_engine(runner, num_slots=1)
    gone = engine.submit([1], LONG)
    runner.allow(4)
    for _ in range(5):
        runner.wait_entered()
    engine.cancel(gone)
    next_one = engine.submit([2], SHORT)
    runner.open()
    assert read(engine, next_one) == [5] * 5
    assert [name for name, _ in runner.calls].count(1) == 5


def test_worker_killed_by_an_exception_tells_everybody_and_begins_anew(start_engine):
    runner = ScriptedRunner({1: [4, SystemExit()], 2: [5]}, is_gated=True)
    engine = start_engine(runner, num_slots=1)
    sequences = [engine.submit([1], LONG), engine.submit([2], SHORT), engine.submit([2], SHORT)]
    readers = [Reader(engine.stream(sequence)) for sequence in sequences]
    runner.open()
    assert [error_of(reader) for reader in readers] == ["worker_failed"] * 3
    assert runner.num_resets == 1
    assert works(engine)


def test_a_worker_that_keeps_failing_is_given_up(start_engine):
    runner = ScriptedRunner({1: [SystemExit()]})
    engine = start_engine(runner)
    keys = [error_of(Reader(engine.stream(engine.submit([1], LONG)))) for _ in range(3)]
    assert keys == ["worker_failed", "worker_failed", "engine_stopped"]
    with pytest.raises(GenerationError, match="stopped"):
        engine.submit([1], LONG)


def test_failures_with_replies_in_between_do_not_add_up(start_engine):
    engine = start_engine(ScriptedRunner({1: [SystemExit()], 2: [5]}))
    for _ in range(5):
        assert error_of(Reader(engine.stream(engine.submit([1], LONG)))) == "worker_failed"
        assert works(engine)


@pytest.mark.parametrize("can_reset", [True, False])
def test_a_device_beyond_use_ends_all_and_is_given_up_unless_it_comes_back(start_engine, can_reset):
    broken = RuntimeError("CUDA error: device-side assert triggered")
    runner = ScriptedRunner({1: [4, broken], 2: [5]}, is_gated=True)
    runner.reset_error = None if can_reset else broken
    engine = start_engine(runner, num_slots=2)
    readers = [Reader(engine.stream(engine.submit([name], LONG))) for name in (1, 2)]
    runner.open()
    assert {error_of(reader) for reader in readers} == {"worker_failed" if can_reset else "engine_stopped"}
    if can_reset:
        assert works(engine)
    else:
        with pytest.raises(GenerationError, match="stopped"):
            engine.submit([1], LONG)


class ShortOfMemory(ScriptedRunner):
    """Has memory for so many rows of a decode step."""

    max_rows = 2

    def decode(self, slots, token_ids, num_exact=None):
        if len(slots) > self.max_rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return super().decode(slots, token_ids, num_exact)


def test_out_of_memory_in_a_decode_step_ends_the_youngest_and_the_others_go_on(start_engine):
    runner = ShortOfMemory({2: [5]}, is_gated=True)
    engine = start_engine(runner, num_slots=4)
    sequences = [engine.submit([2], SamplingParams(temperature=0, max_new_tokens=30)) for _ in range(4)]
    readers = [Reader(engine.stream(sequence)) for sequence in sequences]
    runner.open()
    assert [error_of(reader) for reader in readers[2:]] == ["out_of_memory"] * 2
    assert [reader.result() for reader in readers[:2]] == [[5] * 30] * 2
    assert runner.num_trimmed == 2
    assert works(engine)


def test_out_of_memory_in_a_prompt_ends_that_request_alone(start_engine):
    runner = ScriptedRunner({1: [MemoryError()], 2: [5]}, is_gated=True)
    engine = start_engine(runner, num_slots=2)
    healthy, failing = (Reader(engine.stream(engine.submit([name], SHORT))) for name in (2, 1))
    runner.open()
    assert error_of(failing) == "out_of_memory"
    assert healthy.result() == [5] * 5
    assert runner.num_trimmed == 1


def test_prompt_longer_than_the_cache_is_refused_at_once(start_engine):
    engine = start_engine(ScriptedRunner({2: [5]}, max_model_len=10), max_model_len=2048)
    with pytest.raises(InputError) as error:
        engine.submit([2] * 10, SHORT)
    assert error.value.params == {"limit": 9, "got": 10}
    assert len(read(engine, engine.submit([2] * 8, SHORT))) == 2


def test_a_reply_never_outgrows_the_cache_of_an_encoder_decoder(start_engine):
    runner = ScriptedRunner({2: [5]}, is_encoder_decoder=True, max_model_len=10, max_new_tokens=7)
    engine = start_engine(runner)
    sequence = engine.submit([2] * 10, LONG)
    assert read(engine, sequence) == [5] * 7
    assert sequence.finish_reason == "length"


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": float("nan")},
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"top_k": -1},
        {"max_new_tokens": 0},
        {"repetition_penalty": 0.0},
        {"no_repeat_ngram_size": 1.5},
        {"seed": 2**63},
    ],
    ids=str,
)
def test_impossible_parameters_never_reach_the_engine(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SamplingParams(**options)


def test_a_visitor_may_have_so_many_requests_and_more_when_one_ends(start_engine):
    runner = ScriptedRunner({1: FOREVER}, is_gated=True)
    engine = start_engine(runner, num_slots=1, max_per_visitor=2)
    first, _ = engine.submit([1], LONG, visitor="a"), engine.submit([1], LONG, visitor="a")
    with pytest.raises(QueueFullError) as error:
        engine.submit([1], LONG, visitor="a")
    assert (error.value.key, error.value.params) == ("visitor_busy", {"limit": 2})
    engine.submit([1], LONG, visitor="b")
    engine.submit([1], LONG)
    engine.cancel(first)
    engine.submit([1], LONG, visitor="a")


def test_a_request_ends_when_its_time_is_up(start_engine):
    """No time at all is up with the first step; what was written until then is kept."""
    engine = start_engine(ScriptedRunner({1: FOREVER}), max_seconds=0.0)
    sequence = engine.submit([1], LONG)
    assert set(read(engine, sequence)) <= {3}
    assert sequence.finish_reason == "deadline"
    patient = start_engine(ScriptedRunner({2: [5]}), max_seconds=1000.0)
    assert works(patient)


def test_shutdown_in_the_middle_of_replies_lets_the_process_exit(tmp_path):
    """The process stops while three replies are being written and one reader still waits."""
    script = """
import sys, threading
from bianque.engine.engine import Engine
from bianque.engine.sampling import SamplingParams
from bianque.errors import GenerationError
from tests.engine.conftest import ScriptedRunner

engine = Engine(ScriptedRunner({1: [3]}, num_slots=3))
streams = [engine.stream(engine.submit([1], SamplingParams(max_new_tokens=10**9))) for _ in range(4)]
for stream in streams[:3]:
    next(stream)
ended = []
def wait(stream):
    try:
        list(stream)
    except GenerationError as error:
        ended.append(error.key)
readers = [threading.Thread(target=wait, args=(stream,)) for stream in streams]
for reader in readers:
    reader.start()
engine.shutdown()
for reader in readers:
    reader.join()
print(ended)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout.strip() == str(["engine_stopped"] * 4)


def test_shutdown_does_not_wait_for_a_step_without_end(start_engine, monkeypatch):
    monkeypatch.setattr("bianque.engine.engine._SHUTDOWN_SECONDS", 0.01)
    runner = ScriptedRunner({1: FOREVER}, is_gated=True)
    engine = start_engine(runner)
    reader = Reader(engine.stream(engine.submit([1], LONG)))
    runner.wait_entered()
    engine.shutdown()
    assert error_of(reader) == "engine_stopped"


def test_expected_wait_follows_measured_durations(start_engine):
    runner = ScriptedRunner({1: FOREVER, 2: [5, EOS]}, is_gated=True)
    engine = start_engine(runner, num_slots=1)
    measured, running = engine.submit([2], SHORT), engine.submit([1], LONG)
    assert engine.expected_wait_seconds(running) is None, "nothing was measured yet"
    runner.allow(2)
    read(engine, measured)
    second, third = engine.submit([2], SHORT), engine.submit([2], SHORT)
    waits = [engine.expected_wait_seconds(sequence) for sequence in (running, second, third)]
    assert waits[0] is None, "it runs"
    assert 0 <= waits[1] < waits[2]


def test_status_tells_rates_and_memory(start_engine):
    runner = ScriptedRunner({2: [5]})
    engine = start_engine(runner, num_slots=3)
    read(engine, engine.submit([2], SHORT))
    assert engine.status().tokens_per_second == pytest.approx(0.5)
    assert engine.status().kv_cache_bytes == runner.kv_cache_bytes
