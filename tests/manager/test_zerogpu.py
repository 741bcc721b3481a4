"""ZeroGPU with a stand-in for its package: not run on real hardware."""

from __future__ import annotations

import pickle
import sys
import threading
from types import SimpleNamespace

import pytest

from bianque.consultation.messages import Message, Mode, ReplyOptions, Role
from bianque.consultation.service import ConsultationService
from bianque.engine.sampling import SamplingParams
from bianque.errors import BianQueError, GenerationError, SettingsError
from bianque.manager import zerogpu
from bianque.manager.loader import LoadedModel
from bianque.manager.registry import MINI_ADVISER, Job
from bianque.manager.zerogpu import ZeroGpuEngine, duration_seconds, make_manager
from bianque.settings import ModelSource, Settings
from tests.scripted import ScriptedRunner, decode, encode, scripted_model

ADVICE = "建议多喝温水，到呼吸内科就诊。"


class FakeSpaces:
    """Decorates as `spaces.GPU` does: what goes in and comes out has to pass between processes."""

    def __init__(self):
        self.durations: list[int] = []
        self.num_open = 0

    def GPU(self, duration):
        def decorate(function):
            def call(*arguments):
                self.durations.append(duration(*arguments))
                self.num_open += 1
                try:
                    for value in function(*pickle.loads(pickle.dumps(arguments))):
                        yield pickle.loads(pickle.dumps(value))
                finally:
                    self.num_open -= 1

            return call

        return decorate


@pytest.fixture
def spaces(monkeypatch):
    fake = FakeSpaces()
    monkeypatch.setitem(sys.modules, "spaces", fake)
    return fake


@pytest.fixture
def borrow(monkeypatch, spaces):
    """Return a function that makes an engine on a borrowed GPU over a scripted model."""

    def make_engine(model, spec, settings):
        return scripted_model(spec.job, model, num_slots=settings.num_slots, max_waiting=settings.max_waiting).engine

    monkeypatch.setattr(zerogpu, "make_engine", make_engine)
    return lambda runner: ZeroGpuEngine(spaces, runner, MINI_ADVISER, Settings())


def test_a_reply_comes_from_a_borrowed_gpu_and_gives_it_back(borrow, spaces):
    engine = borrow(ScriptedRunner(lambda prompt: ADVICE))
    sequence = engine.submit(encode("咳嗽"), SamplingParams(temperature=0, max_new_tokens=100))
    assert list(engine.positions(sequence)) == []
    stream = engine.stream(sequence)
    first = next(stream)
    assert (spaces.num_open, engine.status().num_running) == (1, 1)
    assert decode([first, *stream]) == ADVICE
    assert sequence.finish_reason == "stop"
    assert (spaces.num_open, engine.status().num_running) == (0, 0) and engine.wait_idle()
    assert spaces.durations == [duration_seconds(100)]


def test_a_cancelled_reply_gives_the_gpu_back_with_its_next_token(borrow, spaces):
    engine = borrow(ScriptedRunner(lambda prompt: ADVICE * 50))
    sequence = engine.submit(encode("咳嗽"), SamplingParams(temperature=0, max_new_tokens=500))
    stream = engine.stream(sequence)
    next(stream)
    engine.cancel(sequence)
    assert list(stream) == []
    assert (sequence.finish_reason, spaces.num_open) == ("cancelled", 0)


def test_an_error_passes_between_the_processes(borrow):
    engine = borrow(ScriptedRunner(lambda prompt: ADVICE))
    sequence = engine.submit(encode("咳" * 3000), SamplingParams())
    with pytest.raises(BianQueError) as caught:
        list(engine.stream(sequence))
    assert caught.value.key == "prompt_too_long" and caught.value.params["got"] == 3000


def test_a_quota_that_is_used_up_is_one_sentence(monkeypatch, spaces):
    class Error(Exception):
        """What the platform raises, `gradio.Error`, keeps its sentence under this name."""

        message = '<a href="x">You have exceeded</a> your free ZeroGPU quota.'

    def refuse(duration):
        def call(*_):
            raise Error
            yield

        return lambda function: call

    monkeypatch.setattr(spaces, "GPU", refuse, raising=False)
    engine = ZeroGpuEngine(spaces, None, MINI_ADVISER, Settings())
    with pytest.raises(GenerationError, match="You have exceeded your free ZeroGPU quota") as caught:
        list(engine.stream(engine.submit(encode("咳嗽"), SamplingParams())))
    assert caught.value.key == "gpu_refused" and engine.status().num_running == 0


def test_the_duration_follows_the_token_limit():
    assert duration_seconds(16) < duration_seconds(512) < duration_seconds(1024) < 120


def test_the_service_runs_over_it(borrow):
    model = LoadedModel(MINI_ADVISER, encode, decode, borrow(ScriptedRunner(lambda prompt: ADVICE)), "cuda", "fp16", 1)

    class Manager(SimpleNamespace):
        def wait_for(self, job):
            yield from ()
            return model

    service = ConsultationService(Manager(spec=lambda job: MINI_ADVISER))
    options = ReplyOptions(Mode.ADVISER, temperature=0)
    *_, last = service.reply([Message(Role.USER, "咳嗽")], options, visitor="v")
    assert (last.text, last.finish_reason) == (ADVICE, "stop")


def test_the_manager_places_fixed_fp16_models(spaces, tmp_path, monkeypatch):
    loads, threads = [], set()

    def load_model(folder, spec, settings, *, has_cuda, report, engine_of):
        loads.append((spec.name, settings.device, settings.precision, settings.num_slots, has_cuda))
        threads.add(threading.current_thread())
        return LoadedModel(spec, list, str, engine_of(None, spec, settings), settings.device, "fp16", 1)

    monkeypatch.setattr(zerogpu, "load_model", load_model)
    manager = make_manager(Settings(is_zero_gpu=True))
    monkeypatch.setattr(manager._startup, "_resolve", lambda source, **_: tmp_path)
    manager.start()
    assert manager.is_settled
    assert threads == {threading.current_thread()}, "no other thread has the platform's stand-in for CUDA"
    assert loads == [("BianQue-1.0", "cuda", "fp16", 1, True), ("BianQue-2.0", "cuda", "fp16", 1, True)]
    assert isinstance(manager.get(Job.ADVISER).engine, ZeroGpuEngine)
    with pytest.raises(SettingsError) as caught:
        manager.switch(Job.ADVISER, ModelSource("SoulChat"))
    assert caught.value.key == "models_are_fixed"
    manager.shutdown()


def test_another_precision_is_refused(spaces):
    with pytest.raises(SettingsError) as caught:
        make_manager(Settings(is_zero_gpu=True, precision="int8"))
    assert "ZeroGPU" in str(caught.value) and "fp16" in str(caught.value)


def test_the_package_is_not_needed_elsewhere():
    assert "spaces" not in sys.modules
