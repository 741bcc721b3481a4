"""Scheduling, streaming, cancelling and failing, over a scripted runner."""

from __future__ import annotations

import gc
import logging
import math
import threading

import pytest
import torch

from bianque.engine.engine import Engine
from bianque.engine.sampling import SamplingParams
from bianque.engine.sequence import Sequence, SequenceStatus
from bianque.errors import GenerationError, InputError, QueueFullError
from tests.engine.conftest import EOS, TIMEOUT_SECONDS, Reader, ScriptedRunner

GREEDY = SamplingParams(temperature=0)
FOREVER = [3]  # a script that never stops of itself


def greedy(max_new_tokens):
    return SamplingParams(temperature=0, max_new_tokens=max_new_tokens)


def wait_idle(engine):
    assert engine.wait_idle(TIMEOUT_SECONDS), "a slot was not freed"


def load_of(engine):
    status = engine.status()
    return status.num_running, status.num_waiting, status.num_slots


def read(engine, sequence):
    return Reader(engine.stream(sequence)).result()


def test_stream_ends_at_the_end_token_which_is_not_part_of_it(start_engine):
    engine = start_engine(ScriptedRunner({1: [5, 6, 7, EOS, 8]}))
    sequence = engine.submit([1], GREEDY)
    assert read(engine, sequence) == [5, 6, 7] == sequence.output_ids
    assert sequence.finish_reason == "stop"
    assert sequence.status is SequenceStatus.FINISHED


def test_end_token_may_come_first(start_engine):
    engine = start_engine(ScriptedRunner({1: [EOS]}))
    sequence = engine.submit([1], GREEDY)
    assert read(engine, sequence) == []
    assert sequence.finish_reason == "stop"
    assert sequence.time_to_first_token_seconds is None


def test_end_tokens_given_replace_the_runners(start_engine):
    engine = start_engine(ScriptedRunner({1: [5, EOS, 9, 5]}), eos_token_ids={9})
    assert read(engine, engine.submit([1], GREEDY)) == [5, EOS]


def test_reply_ends_at_max_new_tokens_without_a_further_step(start_engine):
    runner = ScriptedRunner({1: FOREVER})
    engine = start_engine(runner)
    sequence = engine.submit([1], greedy(4))
    assert read(engine, sequence) == [3, 3, 3, 3]
    assert sequence.finish_reason == "length"
    wait_idle(engine)
    assert runner.calls == [(1, "prefill"), (1, 3), (1, 3), (1, 3)]


def test_each_decode_step_gets_the_last_token(start_engine):
    runner = ScriptedRunner({1: [5, 6, 7, EOS]})
    engine = start_engine(runner)
    read(engine, engine.submit([1], GREEDY))
    assert runner.calls == [(1, "prefill"), (1, 5), (1, 6), (1, 7)]


def test_each_decode_step_is_told_how_many_logits_its_rows_need(start_engine):
    class Recording(ScriptedRunner):
        asked = ()

        def decode(self, slots, token_ids, num_exact=None):
            self.asked += tuple(num_exact)
            return super().decode(slots, token_ids, num_exact)

    runner = Recording({1: [5, 6, 7, EOS]})
    engine = start_engine(runner)
    params = [GREEDY, SamplingParams(top_k=9, seed=1), SamplingParams(temperature=0, repetition_penalty=1.1)]
    for each in params:
        assert read(engine, engine.submit([1], each)) == [5, 6, 7]
    assert runner.asked == (1, 1, 1, 9, 9, 9, 3, 4, 5)  # the prompt was seen, and one token more each time


def test_prompt_and_reply_share_the_length_of_a_decoder_only_model(start_engine):
    engine = start_engine(ScriptedRunner({1: FOREVER}), max_model_len=10)
    sequence = engine.submit([1] * 8, GREEDY)
    assert read(engine, sequence) == [3, 3]
    assert sequence.finish_reason == "length"
    with pytest.raises(InputError) as error:
        engine.submit([1] * 10, GREEDY)
    assert error.value.key == "prompt_too_long"
    assert error.value.params == {"limit": 9, "got": 10}


def test_prompt_of_an_encoder_decoder_leaves_the_reply_its_length(start_engine):
    engine = start_engine(ScriptedRunner({1: FOREVER}, is_encoder_decoder=True), max_model_len=10)
    assert len(read(engine, engine.submit([1] * 10, greedy(15)))) == 15
    with pytest.raises(InputError, match="10 tokens"):
        engine.submit([1] * 11, GREEDY)


def test_runner_gives_the_length_unless_told_otherwise(start_engine):
    engine = start_engine(ScriptedRunner({1: FOREVER}, max_model_len=5))
    with pytest.raises(InputError):
        engine.submit([1] * 5, GREEDY)


@pytest.mark.parametrize("prompt_ids", [[], [-1], [1, 200]])
def test_prompts_the_model_cannot_take_are_refused(start_engine, prompt_ids):
    engine = start_engine(ScriptedRunner({1: FOREVER}))
    with pytest.raises(ValueError, match="prompt_ids"):
        engine.submit(prompt_ids, GREEDY)


def test_all_that_run_share_each_decode_step(start_engine):
    runner = ScriptedRunner({1: [4] * 20 + [EOS], 2: [5] * 20 + [EOS]}, is_gated=True)
    engine = start_engine(runner, num_slots=2)
    readers = [Reader(engine.stream(engine.submit([name], GREEDY))) for name in (1, 2)]
    runner.open()
    assert [reader.result() for reader in readers] == [[4] * 20, [5] * 20]
    # Twenty steps each; the first may be ahead by those it made before the second was there.
    assert runner.steps.count([1, 2]) >= 18


def test_requests_join_and_leave_the_batch_between_steps(start_engine):
    runner = ScriptedRunner({1: [4] * 9 + [EOS], 2: [5] * 3 + [EOS], 3: [6, EOS]}, is_gated=True)
    engine = start_engine(runner, num_slots=3)
    first = engine.submit([1], GREEDY)
    runner.allow(2)
    for _ in range(3):
        runner.wait_entered()
    second = engine.submit([2], GREEDY)
    third = engine.submit([3], GREEDY)
    runner.open()
    assert [read(engine, each) for each in (first, second, third)] == [[4] * 9, [5] * 3, [6]]
    wait_idle(engine)
    # Prompts of 2 and 3, never both between two steps of 1; then all together until each has its end.
    assert runner.steps == [[1], [1], [1], [2], [1, 2], [3], [1, 2, 3], [1, 2], [1], [1], [1], [1]]


def test_new_sequence_is_prefilled_before_the_next_decode_step_of_others(start_engine):
    runner = ScriptedRunner({1: FOREVER, 2: FOREVER}, is_gated=True)
    engine = start_engine(runner, num_slots=2)
    engine.submit([1], GREEDY)
    for _ in range(3):
        runner.wait_entered()
        runner.allow()
    runner.wait_entered()
    engine.submit([2], GREEDY)
    runner.allow()
    runner.wait_entered()
    assert runner.calls[-1] == (2, "prefill")


def test_a_long_prompt_lets_the_others_step_between_its_layers(start_engine):
    runner = ScriptedRunner({1: FOREVER, 2: [5, EOS]}, num_layers=3, is_gated=True)
    engine = start_engine(runner, num_slots=2, max_stall_seconds=0.0)
    engine.submit([1], greedy(50))
    runner.allow(4)
    for _ in range(5):
        runner.wait_entered()
    second = engine.submit([2], GREEDY)
    runner.open()
    assert read(engine, second) == [5]
    joining = runner.steps.index([2])
    assert runner.steps[joining : joining + 6] == [[2], [1], [2], [1], [2], [1, 2]]


def test_first_come_first_served(start_engine):
    runner = ScriptedRunner({name: [4, EOS] for name in range(1, 6)}, is_gated=True)
    engine = start_engine(runner, num_slots=1, max_waiting=4)
    sequences = [engine.submit([name], GREEDY) for name in range(1, 6)]
    assert [engine.position(sequence) for sequence in sequences] == [None, 1, 2, 3, 4]
    assert load_of(engine) == (1, 4, 1)
    runner.open()
    wait_idle(engine)
    assert [name for name, given in runner.calls if given == "prefill"] == [1, 2, 3, 4, 5]
    assert [engine.position(sequence) for sequence in sequences] == [None] * 5
    assert load_of(engine) == (0, 0, 1)


def test_full_queue_refuses_and_takes_again_when_a_place_is_free(start_engine):
    runner = ScriptedRunner({1: FOREVER}, is_gated=True)
    engine = start_engine(runner, num_slots=2, max_waiting=1)
    first, *_ = [engine.submit([1], GREEDY) for _ in range(3)]
    with pytest.raises(QueueFullError) as error:
        engine.submit([1], GREEDY)
    assert error.value.params == {"waiting": 1}
    runner.wait_entered()
    engine.cancel(first)
    runner.allow()
    runner.wait_entered()
    engine.submit([1], GREEDY)


def test_no_queue_at_all_is_allowed(start_engine):
    runner = ScriptedRunner({1: FOREVER}, is_gated=True)
    engine = start_engine(runner, num_slots=1, max_waiting=0)
    engine.submit([1], GREEDY)
    with pytest.raises(QueueFullError):
        engine.submit([1], GREEDY)


@pytest.mark.parametrize("options", [{"num_slots": 0}, {"max_waiting": -1}])
def test_sizes_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="num_slots >= 1"):
        Engine(ScriptedRunner({}), **options)


def test_cancelled_waiting_sequence_leaves_the_queue_and_the_others_move_up(start_engine):
    runner = ScriptedRunner({1: FOREVER, 2: FOREVER, 3: FOREVER}, is_gated=True)
    engine = start_engine(runner, num_slots=1)
    _, second, third = [engine.submit([name], GREEDY) for name in (1, 2, 3)]
    reader = Reader(engine.stream(second))
    engine.cancel(second)
    assert reader.result() == []
    assert second.finish_reason == "cancelled"
    assert engine.position(third) == 1


def test_positions_follow_the_queue_until_the_sequence_runs(start_engine):
    runner = ScriptedRunner({1: [4, EOS], 2: [4, EOS], 3: [4, EOS]}, is_gated=True)
    engine = start_engine(runner, num_slots=1)
    _, _, third = [engine.submit([name], GREEDY) for name in (1, 2, 3)]
    positions = engine.positions(third)
    assert next(positions) == 2
    runner.allow(2)
    assert next(positions) == 1
    runner.open()
    assert list(positions) == []
    assert read(engine, third) == [4]


def test_positions_end_when_a_waiting_sequence_is_cancelled(start_engine):
    runner = ScriptedRunner({1: FOREVER, 2: FOREVER}, is_gated=True)
    engine = start_engine(runner, num_slots=1)
    engine.submit([1], GREEDY)
    second = engine.submit([2], GREEDY)
    reader = Reader(engine.positions(second))
    engine.cancel(second)
    assert reader.result() in ([], [1])


def test_cancel_during_a_step_ends_the_stream_at_once_and_the_slot_with_the_step(start_engine):
    runner = ScriptedRunner({1: FOREVER, 2: [4, EOS]}, is_gated=True)
    engine = start_engine(runner, num_slots=1)
    first = engine.submit([1], GREEDY)
    second = engine.submit([2], GREEDY)
    for _ in range(2):
        runner.wait_entered()
        runner.allow()
    runner.wait_entered()  # the worker is in the third step of the first sequence
    reader = Reader(engine.stream(first))
    engine.cancel(first)
    assert reader.result() in ([], [3], [3, 3])  # whatever it had read by then
    assert first.finish_reason == "cancelled"
    assert engine.position(second) == 1
    runner.open()
    assert read(engine, second) == [4]
    assert first.output_ids == [3, 3]
    assert [call for call in runner.calls if call[0] == 1] == [(1, "prefill"), (1, 3), (1, 3)]


def test_tokens_not_yet_read_are_dropped_by_a_cancel(start_engine):
    runner = ScriptedRunner({1: FOREVER}, is_gated=True)
    engine = start_engine(runner)
    sequence = engine.submit([1], GREEDY)
    stream = engine.stream(sequence)
    runner.allow(3)
    for _ in range(4):
        runner.wait_entered()
    assert next(stream) == 3
    engine.cancel(sequence)
    with pytest.raises(StopIteration):
        next(stream)


def test_cancel_between_steps_frees_the_slot_before_it_returns(start_engine):
    runner = ScriptedRunner({1: FOREVER, 2: FOREVER}, is_gated=True)
    engine = start_engine(runner, num_slots=2)
    first = engine.submit([1], GREEDY)
    engine.submit([2], GREEDY)
    while True:  # until the worker is in the prompt of the second
        runner.wait_entered()
        if runner.calls[-1][0] == 2:
            break
        runner.allow()
    engine.cancel(first)
    assert engine.status().num_running == 1
    assert runner.freed == [0]


def test_a_freed_slot_goes_to_the_next_in_the_queue(start_engine):
    runner = ScriptedRunner({name: [4, EOS] for name in range(1, 8)})
    engine = start_engine(runner, num_slots=2)
    for sequence in [engine.submit([name], GREEDY) for name in range(1, 8)]:
        assert read(engine, sequence) == [4]
    wait_idle(engine)
    assert sorted(runner.freed).count(0) + sorted(runner.freed).count(1) == len(runner.freed) == 7


def test_cancel_of_a_finished_sequence_changes_nothing(start_engine):
    engine = start_engine(ScriptedRunner({1: [4, EOS]}))
    sequence = engine.submit([1], GREEDY)
    read(engine, sequence)
    engine.cancel(sequence)
    assert sequence.finish_reason == "stop"


def test_closed_stream_cancels(start_engine):
    runner = ScriptedRunner({1: FOREVER})
    engine = start_engine(runner)
    sequence = engine.submit([1], greedy(10**9))
    with engine.stream(sequence) as stream:
        assert next(stream) == 3
    assert sequence.finish_reason == "cancelled"
    wait_idle(engine)
    assert list(stream) == []


def test_dropped_stream_cancels_running_and_waiting_sequences(start_engine):
    engine = start_engine(ScriptedRunner({1: FOREVER, 2: FOREVER}), num_slots=1)
    first, second = engine.submit([1], greedy(10**9)), engine.submit([2], greedy(10**9))
    for sequence in (second, first):
        stream = engine.stream(sequence)
        del stream
    gc.collect()
    wait_idle(engine)
    assert first.finish_reason == second.finish_reason == "cancelled"


def test_dropped_stream_of_a_waiting_sequence_frees_its_place_with_the_next_round(start_engine):
    runner = ScriptedRunner({1: FOREVER, 2: FOREVER}, is_gated=True)
    engine = start_engine(runner, num_slots=1)
    engine.submit([1], greedy(10**9))
    second, third = engine.submit([2], GREEDY), engine.submit([2], GREEDY)
    stream = engine.stream(second)
    del stream
    gc.collect()
    runner.allow()
    for _ in range(2):
        runner.wait_entered()
    assert second.finish_reason == "cancelled"
    assert engine.position(third) == 1


def test_many_cancelled_replies_leave_no_slot_or_thread_behind(start_engine):
    runner = ScriptedRunner({1: FOREVER})
    engine = start_engine(runner, num_slots=2, max_waiting=1)
    num_threads = threading.active_count()
    for _ in range(50):
        sequence = engine.submit([1], greedy(10**9))
        stream = engine.stream(sequence)
        assert next(stream) == 3
        stream.close()
        wait_idle(engine)
    assert load_of(engine) == (0, 0, 2)
    assert threading.active_count() == num_threads
    assert len(runner.freed) == 50


def test_reader_that_does_not_read_holds_nobody_up(start_engine):
    engine = start_engine(ScriptedRunner({1: [4] * 30 + [EOS], 2: [5] * 50 + [EOS]}), num_slots=2)
    slow, fast = engine.submit([1], GREEDY), engine.submit([2], GREEDY)
    stream = engine.stream(slow)
    assert next(stream) == 4
    assert read(engine, fast) == [5] * 50
    wait_idle(engine)
    assert slow.finish_reason == "stop"
    assert list(stream) == [4] * 29


def test_streamed_tokens_are_the_whole_output(start_engine):
    script = [*range(1, 120), EOS]
    engine = start_engine(ScriptedRunner({name: script for name in range(1, 7)}), num_slots=3)
    sequences = [engine.submit([name], GREEDY) for name in range(1, 7)]
    readers = [Reader(engine.stream(sequence)) for sequence in sequences]
    for reader, sequence in zip(readers, sequences, strict=True):
        assert reader.result() == script[:-1] == sequence.output_ids


def test_every_reader_of_a_sequence_gets_all_of_it(start_engine):
    runner = ScriptedRunner({1: [*range(1, 40), EOS]}, is_gated=True)
    engine = start_engine(runner)
    sequence = engine.submit([1], GREEDY)
    readers = [Reader(engine.stream(sequence)) for _ in range(3)]
    runner.open()
    assert [reader.result() for reader in readers] == [list(range(1, 40))] * 3
    assert read(engine, sequence) == list(range(1, 40)), "also who comes when it is finished"


@pytest.mark.parametrize(
    ("raised", "key", "params"),
    [
        (torch.full((200,), math.nan), "logits_not_finite", {}),
        (torch.full((200,), math.inf), "logits_not_finite", {}),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory", {}),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory", {}),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory", {}),
        (RuntimeError("CUDA error: out of memory"), "out_of_memory", {}),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), "out_of_memory", {}),
        (MemoryError(), "out_of_memory", {}),
        (RuntimeError("shapes"), "computation_failed", {"reason": "RuntimeError"}),
        (KeyError("x"), "computation_failed", {"reason": "KeyError"}),
    ],
    ids=lambda value: str(value)[:30],
)
@pytest.mark.parametrize("num_before", [0, 2])
def test_failing_sequence_ends_alone_after_the_tokens_it_has(start_engine, raised, key, params, num_before):
    runner = ScriptedRunner({1: [*[4] * num_before, raised], 2: [5] * 6 + [EOS]}, is_gated=True)
    engine = start_engine(runner, num_slots=2)
    # The healthy one is the older, which a lack of memory spares.
    healthy, failing = engine.submit([2], GREEDY), engine.submit([1], GREEDY)
    readers = [Reader(engine.stream(sequence)) for sequence in (failing, healthy)]
    runner.open()
    with pytest.raises(GenerationError) as error:
        readers[0].result()
    assert error.value.key == key
    assert runner.num_trimmed == (key == "out_of_memory")
    assert error.value.params == params
    assert readers[0].token_ids == [4] * num_before
    assert failing.finish_reason is None
    assert readers[1].result() == [5] * 6
    wait_idle(engine)
    assert read(engine, engine.submit([2], GREEDY)) == [5] * 6


def test_shutdown_ends_every_stream_and_the_thread(start_engine):
    others = set(threading.enumerate())
    runner = ScriptedRunner({1: FOREVER}, is_gated=True)
    engine = start_engine(runner, num_slots=1)
    sequences = [engine.submit([1], GREEDY) for _ in range(3)]
    readers = [Reader(engine.stream(sequence)) for sequence in sequences]
    runner.wait_entered()
    stopper = threading.Thread(target=engine.shutdown)
    stopper.start()
    for reader in readers:  # also that of the sequence whose step is still running
        with pytest.raises(GenerationError) as error:
            reader.result()
        assert error.value.key == "engine_stopped"
    runner.open()
    stopper.join(TIMEOUT_SECONDS)
    assert not stopper.is_alive()
    assert not any(thread.name == "engine" for thread in set(threading.enumerate()) - others)
    assert load_of(engine) == (0, 0, 1)
    with pytest.raises(GenerationError, match="stopped"):
        engine.submit([1], GREEDY)
    engine.shutdown()


def test_context_manager_shuts_down():
    with Engine(ScriptedRunner({1: [4, EOS]})) as engine:
        assert read(engine, engine.submit([1], GREEDY)) == [4]
    with pytest.raises(GenerationError):
        engine.submit([1], GREEDY)


def test_seeded_sequence_is_the_same_alone_and_among_others(start_engine):
    flat = torch.zeros(200)
    flat[EOS] = -math.log(2.0)
    runner = ScriptedRunner({name: [flat] for name in (1, 2, 3)})
    params = SamplingParams(top_k=0, top_p=1.0, temperature=1.0, seed=11, max_new_tokens=40)
    alone = start_engine(runner)
    expected = read(alone, alone.submit([1], params))
    assert len(set(expected)) > 10
    engine = start_engine(runner, num_slots=3)
    others = [engine.submit([name], SamplingParams(top_k=0, top_p=1.0, seed=name)) for name in (2, 3)]
    sequence = engine.submit([1], params)
    assert read(engine, sequence) == expected
    for other in others:
        engine.cancel(other)


def test_penalties_count_the_context_the_runner_names(start_engine):
    engine = start_engine(ScriptedRunner({1: [4]}, vocab_size=6))
    params = SamplingParams(temperature=0, no_repeat_ngram_size=1, max_new_tokens=3)
    assert read(engine, engine.submit([1, 4], params)) == []  # 1 and 4 are banned, and 0 is the first of the rest


def test_the_first_token_has_its_time_when_its_reader_wakes():
    sequence = Sequence([1], GREEDY, 5, threading.RLock())
    times = []
    sequence.wake_readers = lambda: times.append(sequence.time_to_first_token_seconds)
    sequence.append(3)
    assert times[0] is not None


def test_timings(start_engine):
    engine = start_engine(ScriptedRunner({1: FOREVER}))
    sequence = engine.submit([1], greedy(20))
    assert sequence.tokens_per_second is None
    read(engine, sequence)
    assert sequence.time_to_first_token_seconds > 0
    assert sequence.tokens_per_second > 0


def test_log_has_counts_but_no_ids(start_engine, caplog):
    caplog.set_level(logging.DEBUG)
    secret = 86_420
    engine = start_engine(
        ScriptedRunner({secret: [97_531, EOS], 1: [RuntimeError("broken")]}, vocab_size=100_000), num_slots=2
    )
    read(engine, engine.submit([secret] * 3, GREEDY))
    with pytest.raises(GenerationError):
        read(engine, engine.submit([1, secret], GREEDY))
    wait_idle(engine)
    assert "3 prompt tokens, 1 new tokens, stop" in caplog.text
    assert "computation_failed" in caplog.text
    assert str(secret) not in caplog.text
    assert "97531" not in caplog.text.replace("_", "")
