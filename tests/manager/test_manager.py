"""The manager with scripted loading: states, sharing of weights, failures, fallback."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from bianque.errors import ModelUnavailableError, SnapshotError
from bianque.manager.loader import LoadedModel
from bianque.manager.manager import ModelManager
from bianque.manager.registry import Job
from bianque.settings import ModelSource, Settings


class ScriptedLoader:
    """Stands in for `load_model`; fails for the names it is given."""

    def __init__(self, *failing: str, error: Exception | None = None):
        self.failing = failing
        self.error = error or SnapshotError("snapshot_file_missing", folder="f", file="config.json")
        self.names: list[str] = []
        self.stopped: list[str] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, folder, spec, settings, *, has_cuda):
        self.may_go_on.wait()
        self.names.append(spec.name)
        if spec.name in self.failing:
            raise self.error
        engine = SimpleNamespace(shutdown=lambda: self.stopped.append(spec.name))
        return LoadedModel(spec, list, str, engine, "cpu", "fp32", 1)


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Return a function that starts a manager over a scripted loader; folders always resolve."""
    monkeypatch.setattr("bianque.manager.manager.resolve_snapshot", lambda source: tmp_path)

    def start(loader, settings=Settings(), has_cuda=False, wait=True):  # noqa: B008
        manager = ModelManager(settings, probe_cuda=lambda: has_cuda, load=loader)
        manager.start()
        if wait:
            assert manager.wait(30)
        return manager

    return start


def states(manager):
    return {status.job: status.state for status in manager.statuses()}


def test_jobs_with_the_same_weights_share_one_engine(started):
    loader = ScriptedLoader()
    manager = started(loader)
    assert loader.names == ["mini-asker", "mini-adviser"]
    assert manager.get(Job.LISTENER).engine is manager.get(Job.ADVISER).engine
    assert manager.get(Job.LISTENER).spec.template == "soulchat"
    assert set(states(manager).values()) == {"ready"}
    manager.shutdown()
    assert loader.stopped == ["mini-asker", "mini-adviser"]


def test_a_model_that_is_still_loading_is_named(started):
    loader = ScriptedLoader()
    loader.may_go_on.clear()
    manager = started(loader, wait=False)
    try:
        with pytest.raises(ModelUnavailableError) as caught:
            manager.get(Job.ASKER)
        assert caught.value.key == "model_loading"
        assert not manager.is_settled
    finally:
        loader.may_go_on.set()
    assert manager.wait(30)
    assert manager.get(Job.ASKER).spec.name == "mini-asker"


def test_a_failed_model_gives_its_reason_and_leaves_the_others(started):
    loader = ScriptedLoader("mini-asker")
    manager = started(loader)
    with pytest.raises(ModelUnavailableError) as caught:
        manager.get(Job.ASKER)
    assert "config.json" in caught.value.text("zh")
    assert states(manager)[Job.ADVISER] == "ready"


def test_an_unforeseen_error_becomes_a_state(started, caplog):
    manager = started(ScriptedLoader("mini-asker", error=ZeroDivisionError("odd")))
    with pytest.raises(ModelUnavailableError) as caught:
        manager.get(Job.ASKER)
    assert "ZeroDivisionError" in str(caught.value)


def test_demonstration_models_stand_in_when_the_published_ones_fail(started):
    loader = ScriptedLoader("BianQue-2.0")
    manager = started(loader, has_cuda=True)
    assert loader.names == ["BianQue-1.0", "BianQue-2.0", "mini-asker", "mini-adviser"]
    assert loader.stopped == ["BianQue-1.0"], "an engine that is given up must be stopped"
    assert manager.get(Job.ADVISER).spec.name == "mini-adviser"
    assert manager.fallback_error is loader.error
    assert manager.plan.is_demonstration


def test_a_model_that_the_owner_named_is_never_replaced(started):
    loader = ScriptedLoader("mine")
    manager = started(loader, Settings(adviser=ModelSource("me/mine")))
    assert states(manager)[Job.ADVISER] == "failed"
    assert manager.fallback_error is None


def test_a_job_without_a_model_names_the_variable(started):
    manager = started(ScriptedLoader(), has_cuda=True)
    with pytest.raises(ModelUnavailableError) as caught:
        manager.get(Job.LISTENER)
    assert "BIANQUE_LISTENER" in str(caught.value)
