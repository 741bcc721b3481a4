"""The manager with scripted loading: states, sharing of weights, waiting, failures, fallback, memory."""

from __future__ import annotations

import json
import sys
import threading
import time
import types

import pytest
import torch

from bianque.engine.engine import EngineStatus
from bianque.errors import ModelUnavailableError, QueueFullError, SettingsError, SnapshotError
from bianque.manager import plan, residents, startup
from bianque.manager.download.progress import Progress
from bianque.manager.loader import LoadedModel
from bianque.manager.manager import ModelManager
from bianque.manager.memory import Machine
from bianque.manager.registry import Job
from bianque.settings import ModelSource, Settings

GB = 10**9
CPU = Machine("cpu", "CPU", 16 * GB, 16 * GB)
T4 = Machine("cuda", "T4", 16 * GB, 15 * GB)
L4 = Machine("cuda", "L4", 24 * GB, 30 * GB)
JOINT = {"BianQue-1.0", "BianQue-2.0"}
PATIENCE_SECONDS = 120


class ScriptedEngine:
    """An engine that is as busy as the test says."""

    def __init__(self):
        self.num_running = 0
        self.is_stopped = False
        self.may_be_idle = threading.Event()
        self.may_be_idle.set()

    def status(self):
        return EngineStatus(0 if self.may_be_idle.is_set() else 1, 0, 4)

    def wait_idle(self, timeout_seconds=None):
        return self.may_be_idle.wait(timeout_seconds)

    def shutdown(self):
        self.is_stopped = True


class ScriptedLoader:
    """Stands in for `load_model` and `resolve_snapshot`; fails for the names it is given."""

    def __init__(self, folder, *failing: str, error: Exception | None = None):
        self.folder = folder
        self.failing = set(failing)
        self.error = error or SnapshotError("snapshot_file_missing", folder="f", file="config.json")
        self.fits: dict[str, str] = {}  # highest precision that memory has room for, by name
        self.loads: list[str] = []
        self.loaded: dict[str, LoadedModel] = {}
        self.download: list[Progress] = []
        self.shares: list[int] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.is_waiting = threading.Event()
        self.on_pause = lambda: None

    def resolve(self, source, *, report=None, cancelled=None, family=None):
        for progress in self.download:
            report(progress)
            self._pause()
        return self.folder

    def _pause(self):
        self.is_waiting.set()
        assert self.may_go_on.wait(PATIENCE_SECONDS)
        self.on_pause()
        self.is_waiting.clear()

    def __call__(self, folder, spec, settings, *, has_cuda, report=None):
        for share in self.shares:
            report(share, 100)
        self._pause()
        self.loads.append(f"{spec.name} {settings.precision}")
        if spec.name in self.failing:
            raise self.error
        order = ("fp32", "fp16", "int8", "int4")
        if order.index(settings.precision) < order.index(self.fits.get(spec.name, "fp32")):
            try:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
            except RuntimeError as error:
                raise SnapshotError("snapshot_file_missing", folder="f", file="x") from error
        loaded = LoadedModel(spec, list, str, ScriptedEngine(), settings.device, settings.precision, 1)
        self.loaded[spec.name] = loaded
        return loaded

    @property
    def stopped(self):
        return [name for name, loaded in self.loaded.items() if loaded.engine.is_stopped]


@pytest.fixture
def loader(tmp_path):
    return ScriptedLoader(tmp_path)


@pytest.fixture
def start(monkeypatch):
    """Return a function that starts a manager over a scripted loader."""
    monkeypatch.setattr(residents, "GRACE_SECONDS", 0.0)
    managers = []

    def start_manager(loader, settings=Settings(), machine=CPU, wait=True):  # noqa: B008
        manager = ModelManager(settings, probe=lambda device: machine, load=loader, resolve=loader.resolve)
        managers.append(manager)
        manager.start()
        if wait:
            assert manager.wait(PATIENCE_SECONDS)
        return manager

    yield start_manager
    for manager in managers:
        manager.shutdown()


def states(manager):
    return {status.job: status.state for status in manager.statuses()}


def status_of(manager, job):
    return next(status for status in manager.statuses() if status.job is job)


def named(**names) -> Settings:
    """Return settings that take the real models and name some."""
    return Settings(models="real", **{job: ModelSource(name) for job, name in names.items()})


# ---------------------------------------------------------------------- states


def test_jobs_with_the_same_weights_share_one_engine(start, loader):
    manager = start(loader)
    assert loader.loads == ["mini-asker fp32", "mini-adviser fp32"]
    assert manager.get(Job.LISTENER).engine is manager.get(Job.ADVISER).engine
    assert manager.get(Job.LISTENER).spec.template == "soulchat"
    assert set(states(manager).values()) == {"ready"}
    manager.shutdown()
    assert loader.stopped == ["mini-asker", "mini-adviser"]


def test_a_model_that_is_still_loading_is_named(start, loader):
    loader.may_go_on.clear()
    manager = start(loader, wait=False)
    with pytest.raises(ModelUnavailableError) as caught:
        manager.get(Job.ASKER)
    assert caught.value.key == "model_loading"
    assert not manager.is_settled
    loader.may_go_on.set()
    assert manager.wait(PATIENCE_SECONDS)
    assert manager.get(Job.ASKER).spec.name == "mini-asker"


def test_a_download_and_a_loading_show_percent_rate_and_time_left(start, loader):
    loader.download = [Progress("model.bin", 37, 100, 0, 1, 5e6, 12.0)]
    loader.shares = [60]
    loader.may_go_on.clear()
    seen = []
    manager = start(loader, wait=False)
    loader.on_pause = lambda: seen.append(status_of(manager, Job.ASKER))
    loader.may_go_on.set()
    assert manager.wait(PATIENCE_SECONDS)
    downloading, loading = seen[:2]
    assert (downloading.state, downloading.percent) == ("downloading", 37)
    assert downloading.describe("en") == "downloading 37 %, 5.0 MB/s, 0:12 left"
    assert downloading.describe("zh").startswith("正在下载 37 %")
    assert (loading.state, loading.percent) == ("loading", 60)
    assert status_of(manager, Job.ASKER).describe("en") == "ready, cpu fp32"


def test_a_failed_model_gives_its_reason_and_leaves_the_others(start, loader):
    loader.failing = {"mini-asker"}
    manager = start(loader)
    with pytest.raises(ModelUnavailableError) as caught:
        manager.get(Job.ASKER)
    assert "config.json" in caught.value.text("zh")
    assert states(manager)[Job.ADVISER] == "ready"


def test_an_unforeseen_error_becomes_a_state(start, loader, caplog):
    loader.failing, loader.error = {"mini-asker"}, ZeroDivisionError("odd")
    manager = start(loader)
    with pytest.raises(ModelUnavailableError) as caught:
        manager.get(Job.ASKER)
    assert "ZeroDivisionError" in str(caught.value)


def test_a_machine_without_the_device_asked_for_is_a_state(loader):
    def probe(device):
        raise SettingsError("device_unavailable", got=device, available="cpu")

    manager = ModelManager(Settings(device="cuda:3"), probe=probe, load=loader, resolve=loader.resolve)
    manager.start()
    assert manager.wait(PATIENCE_SECONDS)
    assert set(states(manager).values()) == {"failed"}
    assert "cuda:3" in status_of(manager, Job.ADVISER).describe("zh")


def test_a_plan_that_cannot_be_made_is_a_state(start, loader, monkeypatch):
    def plan_precisions(*_, **__):
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(startup, "plan_precisions", plan_precisions)
    manager = start(loader)
    assert set(states(manager).values()) == {"failed"}
    assert "ZeroDivisionError" in status_of(manager, Job.ADVISER).describe("en")


def test_what_is_stopped_while_it_downloads_loads_nothing_more(loader):
    def resolve(source, **_):
        manager.shutdown()
        raise SnapshotError("snapshot_cancelled", repo_id=source.location)

    manager = ModelManager(Settings(), probe=lambda device: L4, load=loader, resolve=resolve)
    manager.start()
    assert manager.wait(PATIENCE_SECONDS)
    assert manager.fallback_error is None and not loader.loads
    assert states(manager) == {Job.ASKER: "failed", Job.ADVISER: "absent"}


def test_models_that_cannot_be_chosen_are_a_state(start, loader, monkeypatch):
    """Or whoever waits for one would wait for ever."""

    def choose_models(*_):
        raise ZeroDivisionError("odd")

    monkeypatch.setattr(startup, "choose_models", choose_models)
    manager = start(loader)
    assert set(states(manager).values()) == {"failed"} and not loader.loads
    with pytest.raises(ModelUnavailableError, match="ZeroDivisionError"):
        list(manager.wait_for(Job.ADVISER))


def test_an_adapter_beside_itself_is_one_sentence(start, loader, tmp_path):
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(tmp_path)}), encoding="utf-8"
    )
    manager = start(loader, Settings(adviser=ModelSource(str(tmp_path))))
    status = status_of(manager, Job.ADVISER)
    assert status.state == "failed" and status.error.key == "adapter_unsupported"


# ---------------------------------------------------------------------- the end


def test_a_model_that_was_still_loading_at_the_end_does_not_stay(start, loader):
    loader.may_go_on.clear()
    manager = start(loader, wait=False)
    assert loader.is_waiting.wait(PATIENCE_SECONDS)
    manager.shutdown()
    loader.may_go_on.set()
    assert manager.wait(PATIENCE_SECONDS)
    assert loader.stopped == ["mini-asker"] == list(loader.loaded)  # loaded, ended, and nothing more
    with pytest.raises(ModelUnavailableError):
        manager.get(Job.ASKER)


def test_nothing_is_loaded_after_the_end(start, loader):
    manager = start(loader, named(listener="SoulChat"), machine=T4)
    num_loads = len(loader.loads)
    manager.shutdown()
    for job in Job:
        with pytest.raises(ModelUnavailableError):
            manager.load(job)
    assert len(loader.loads) == num_loads and "ready" not in states(manager).values()


def test_the_end_while_a_model_is_being_unloaded(start, loader):
    manager = start(loader)
    engine = manager.get(Job.ASKER).engine
    engine.may_be_idle.clear()
    errors = []

    def unload():
        try:
            manager.unload(Job.ASKER)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=unload)
    thread.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while states(manager)[Job.ASKER] != "absent" and time.monotonic() < deadline:
        time.sleep(0.01)
    manager.shutdown()
    engine.may_be_idle.set()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive() and engine.is_stopped and not errors


def test_the_end_while_torch_is_being_imported(monkeypatch):
    collected = []
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    monkeypatch.setattr(residents.gc, "collect", lambda: collected.append(True))
    residents.release_memory()  # the module has no `cuda` yet
    assert collected


def test_without_threads_nothing_counts_as_being_loaded(start, loader, monkeypatch):
    manager = start(loader, named(listener="SoulChat"), machine=T4)

    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("bianque.manager.tasks.threading.Thread.start", refuse)
    with pytest.raises(RuntimeError):
        list(manager.wait_for(Job.LISTENER))
    assert manager.is_settled


# ---------------------------------------------------------------------- waiting


def test_who_loads_a_model_before_there_is_a_plan_waits_for_it(loader, monkeypatch):
    def choose_models(settings, machine):
        time.sleep(0.3)  # the machine is known by now, the models are not
        return plan.choose_models(settings, machine)

    monkeypatch.setattr(startup, "choose_models", choose_models)
    manager = ModelManager(Settings(), probe=lambda device: CPU, load=loader, resolve=loader.resolve)
    manager.load(Job.ASKER)
    assert manager.get(Job.ASKER).spec.name == "mini-asker"
    manager.shutdown()


def test_requests_for_a_model_that_is_loading_wait_and_see_its_progress(start, loader):
    loader.shares = [60]
    loader.may_go_on.clear()
    manager = start(loader, wait=False)
    assert loader.is_waiting.wait(PATIENCE_SECONDS)
    seen: list[int | None] = []

    def request():
        for status in manager.wait_for(Job.ASKER):
            seen.append(status.percent)
            loader.may_go_on.set()
        assert manager.get(Job.ASKER).spec.name == "mini-asker"
        seen.append(100)

    threads = [threading.Thread(target=request) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert seen.count(100) == 4 and 60 in seen
    assert manager.wait(PATIENCE_SECONDS)
    assert loader.loads == ["mini-asker fp32", "mini-adviser fp32"]


def test_a_waiting_request_learns_of_a_failure(start, loader):
    loader.failing = {"mini-asker"}
    loader.may_go_on.clear()
    manager = start(loader, wait=False)
    waiting = manager.wait_for(Job.ASKER)
    next(waiting)
    loader.may_go_on.set()
    with pytest.raises(ModelUnavailableError, match=r"config\.json"):
        list(waiting)


def test_only_so_many_requests_may_wait(start, loader):
    loader.may_go_on.clear()
    manager = start(loader, Settings(max_waiting=1), wait=False)
    first, second = manager.wait_for(Job.ASKER), manager.wait_for(Job.ASKER)
    next(first)
    with pytest.raises(QueueFullError):
        next(second)
    first.close()
    assert next(manager.wait_for(Job.ASKER)).name
    loader.may_go_on.set()


# ---------------------------------------------------------------------- fallback


def test_demonstration_models_stand_in_when_the_published_ones_fail(start, loader):
    loader.failing = {"BianQue-2.0"}
    manager = start(loader, machine=L4)
    assert loader.loads == ["BianQue-1.0 fp16", "BianQue-2.0 fp16", "mini-asker fp16", "mini-adviser fp16"]
    assert loader.stopped == ["BianQue-1.0"], "an engine that is given up must be stopped"
    assert manager.get(Job.ADVISER).spec.name == "mini-adviser"
    assert manager.fallback_error is loader.error
    assert manager.plan.is_demonstration


def test_demonstration_models_stand_in_when_memory_is_too_small(start, loader):
    manager = start(loader, machine=Machine("cuda", "old", 4 * GB, 15 * GB))
    assert manager.get(Job.ADVISER).spec.name == "mini-adviser"
    assert manager.fallback_error.key == "memory_too_small"


def test_a_model_that_the_owner_named_is_never_replaced(start, loader, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    manager = start(loader, Settings(adviser=ModelSource("me/mine")))
    assert states(manager)[Job.ADVISER] == "failed"
    assert manager.fallback_error is None


def test_what_was_chosen_but_cannot_be_had_stays_an_error(start, loader):
    def resolve(source, **_):
        raise SnapshotError("snapshot_not_cached", repo_id=source.location, reason="no network")

    loader.resolve = resolve
    manager = start(loader, Settings(models="real"))
    assert states(manager) == {Job.ASKER: "failed", Job.ADVISER: "failed"}
    assert "no network" in status_of(manager, Job.ADVISER).describe("en")
    assert not loader.loads


def test_a_name_that_nobody_knows_gets_near_ones(start, loader):
    manager = start(loader, Settings(adviser=ModelSource("bianque-3")))
    error = status_of(manager, Job.ADVISER).error
    assert error.key == "model_unknown" and "BianQue-2.0" in str(error)


def test_a_job_without_a_model_names_the_variable(start, loader):
    manager = start(loader, machine=L4)
    with pytest.raises(ModelUnavailableError) as caught:
        manager.get(Job.LISTENER)
    assert "BIANQUE_LISTENER" in str(caught.value)


# ---------------------------------------------------------------------- memory


def test_the_joint_mode_holds_two_models(start, loader):
    manager = start(loader, machine=T4)
    assert loader.loads == ["BianQue-1.0 fp16", "BianQue-2.0 int8"]
    assert {manager.get(Job.ASKER).spec.name, manager.get(Job.ADVISER).spec.name} == JOINT


def test_out_of_memory_leads_to_the_next_lower_precision_and_is_said(start, loader, caplog):
    loader.fits = {"BianQue-2.0": "int4"}
    manager = start(loader, machine=L4)
    assert loader.loads == ["BianQue-1.0 fp16", "BianQue-2.0 fp16", "BianQue-2.0 int8", "BianQue-2.0 int4"]
    status = status_of(manager, Job.ADVISER)
    assert (status.state, status.precision, status.lowered_from) == ("ready", "int4", "fp16")
    assert "fp16" in status.describe("zh") and "int4" in status.describe("en")
    assert "memory ran out at fp16" in caplog.text


def test_memory_that_ends_at_the_lowest_precision_is_one_sentence(start, loader):
    loader.failing, loader.error = {"BianQue-2.0"}, MemoryError()
    manager = start(loader, Settings(models="real"), machine=L4)
    assert status_of(manager, Job.ADVISER).error.key == "memory_ran_out"
    assert states(manager)[Job.ASKER] == "ready"


def test_what_does_not_fit_beside_the_others_is_loaded_when_asked_for(start, loader):
    manager = start(loader, named(listener="SoulChat"), machine=T4)
    assert states(manager) == {Job.ASKER: "ready", Job.ADVISER: "ready", Job.LISTENER: "absent"}
    assert {status.name for status in manager.wait_for(Job.LISTENER)} == {"SoulChat"}
    assert manager.get(Job.LISTENER).spec.name == "SoulChat"
    assert "BianQue-2.0" in loader.stopped
    # and back: the asker is needed at the same time as the adviser, so the listener goes
    list(manager.wait_for(Job.ADVISER))
    assert manager.get(Job.ADVISER).spec.name == "BianQue-2.0"
    assert states(manager)[Job.LISTENER] == "absent"
    list(manager.wait_for(Job.ASKER))
    assert states(manager)[Job.ADVISER] == "ready"


def test_the_least_recently_used_goes_first(start, loader):
    manager = start(loader, named(listener="SoulChat"), machine=Machine("cuda", "x", 21 * GB, 30 * GB))
    manager.unload(Job.ADVISER)
    manager.unload(Job.ASKER)
    assert loader.stopped == ["BianQue-1.0", "BianQue-2.0"]
    manager.load(Job.ADVISER)
    manager.load(Job.ASKER)
    manager.get(Job.ADVISER)
    list(manager.wait_for(Job.LISTENER))
    present = {status.job for status in manager.statuses() if status.state == "ready"}
    assert Job.LISTENER in present and Job.ASKER not in present


def test_a_model_finishes_its_replies_before_it_goes(start, loader):
    manager = start(loader)
    engine = manager.get(Job.ASKER).engine
    engine.may_be_idle.clear()
    unloading = threading.Thread(target=manager.unload, args=(Job.ASKER,))
    unloading.start()
    with manager._changed:
        assert manager._changed.wait_for(lambda: states(manager)[Job.ASKER] == "absent", PATIENCE_SECONDS)
    assert not engine.is_stopped
    engine.may_be_idle.set()
    unloading.join(PATIENCE_SECONDS)
    assert engine.is_stopped


def test_a_model_that_stays_in_use_is_kept(start, loader, monkeypatch):
    monkeypatch.setattr("bianque.manager.serving.DRAIN_SECONDS", 0.01)
    manager = start(loader)
    engine = manager.get(Job.ASKER).engine
    engine.may_be_idle.clear()
    with pytest.raises(ModelUnavailableError) as caught:
        manager.unload(Job.ASKER)
    assert caught.value.key == "models_in_use"
    assert manager.get(Job.ASKER).engine is engine and not engine.is_stopped


# ---------------------------------------------------------------------- switch


def test_the_present_model_serves_until_the_next_one_is_ready(start, loader):
    manager = start(loader, machine=L4, settings=Settings(models="demo"))
    loader.may_go_on.clear()
    loader.is_waiting.clear()
    results = []
    switching = threading.Thread(
        target=lambda: results.append(manager.switch(Job.ADVISER, ModelSource("BianQue-2.0"), "int8"))
    )
    switching.start()
    assert loader.is_waiting.wait(PATIENCE_SECONDS)
    assert manager.get(Job.ADVISER).spec.name == "mini-adviser"
    assert not manager.is_settled
    assert [status.state for status in manager.statuses() if status.name == "BianQue-2.0"] == ["loading"]
    loader.may_go_on.set()
    switching.join(PATIENCE_SECONDS)
    assert (results[0].name, results[0].state, results[0].precision) == ("BianQue-2.0", "ready", "int8")
    assert manager.get(Job.ADVISER).spec.name == "BianQue-2.0"
    assert manager.get(Job.LISTENER).spec.name == "mini-adviser"
    assert len(manager.statuses()) == 3


def test_a_model_switched_to_again_is_still_in_memory(start, loader):
    manager = start(loader)
    manager.switch(Job.ASKER, ModelSource("BianQue-1.0"))
    manager.switch(Job.ASKER, ModelSource("mini-asker"))
    manager.switch(Job.ASKER, ModelSource("BianQue-1.0"))
    assert loader.loads.count("BianQue-1.0 int8") == 1


def test_the_threads_of_a_cpu_follow_the_models(start, loader):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    numbers = []
    loader.on_pause = lambda: numbers.append(torch.get_num_threads())  # where the engine is made
    try:
        manager = start(loader)
        manager.switch(Job.ASKER, ModelSource("BianQue-1.0"))
        loader.failing = {"BianQue-2.0"}
        manager.switch(Job.ASKER, ModelSource("mini-asker"))
        with pytest.raises(SnapshotError):
            manager.switch(Job.ADVISER, ModelSource("BianQue-2.0"))
        numbers.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
    assert numbers == [1, 1, 3, 3, 1]


def test_a_switch_that_fails_leaves_the_previous_model_serving(start, loader):
    loader.failing = {"SoulChat"}
    manager = start(loader, machine=L4)
    with pytest.raises(SnapshotError):
        manager.switch(Job.ADVISER, ModelSource("SoulChat"))
    assert manager.get(Job.ADVISER).spec.name == "BianQue-2.0"
    assert [status.state for status in manager.statuses()] == ["ready", "ready", "failed"]


def test_where_memory_has_no_room_for_both_the_previous_model_comes_back(start, loader):
    manager = start(loader, machine=T4)
    loader.failing = {"SoulChat"}
    with pytest.raises(SnapshotError):
        manager.switch(Job.ADVISER, ModelSource("SoulChat"))
    assert loader.loads[-2:] == ["SoulChat int8", "BianQue-2.0 int8"]
    assert manager.get(Job.ADVISER).spec.name == "BianQue-2.0"


def test_a_switch_that_fails_brings_nothing_that_was_not_there(start, loader):
    """Where two groups of models take turns, that would push out the ones that serve."""
    manager = start(loader, named(listener="SoulChat"), machine=T4)
    assert states(manager) == {Job.ASKER: "ready", Job.ADVISER: "ready", Job.LISTENER: "absent"}
    num_loads = len(loader.loads)
    with pytest.raises(SettingsError):
        manager.switch(Job.LISTENER, ModelSource("nobody knows this"))
    assert loader.loads[num_loads:] == []
    assert states(manager)[Job.ADVISER] == "ready"


def test_a_switch_to_what_the_device_cannot_do_is_refused(start, loader):
    manager = start(loader, Settings(models="demo"), machine=Machine("mps", "Apple GPU", 16 * GB, 16 * GB))
    with pytest.raises(SettingsError) as caught:
        manager.switch(Job.ADVISER, ModelSource("BianQue-2.0"), "int8")
    assert caught.value.key == "precision_impossible" and "fp16" in str(caught.value)
    assert manager.get(Job.ADVISER).spec.name == "mini-adviser"


def test_a_precision_that_the_device_cannot_do_is_one_sentence(start, loader):
    settings = Settings(models="demo", precision="int4")
    manager = start(loader, settings, machine=Machine("mps", "Apple GPU", 16 * GB, 16 * GB))
    assert {status.error.key for status in manager.statuses()} == {"precision_impossible"}


def test_models_on_zero_gpu_are_fixed(start, loader):
    manager = start(loader, Settings(is_zero_gpu=True))
    for change in (lambda: manager.switch(Job.ASKER, ModelSource("SoulChat")), lambda: manager.unload(Job.ASKER)):
        with pytest.raises(SettingsError, match="ZeroGPU"):
            change()


def test_a_folder_tells_its_own_family(start, loader, tmp_path):
    (tmp_path / "config.json").write_text(
        '{"model_type": "t5", "d_model": 8, "d_ff": 16, "d_kv": 4, "num_heads": 2, "num_layers": 1, "vocab_size": 32}'
    )
    manager = start(loader, Settings(adviser=ModelSource(str(tmp_path))))
    spec = manager.get(Job.ADVISER).spec
    assert (spec.family, spec.max_prompt_tokens, spec.name) == ("t5", 768, tmp_path.name)
    assert spec.num_parameters > 0


def test_the_scripted_engine_has_the_face_of_a_real_one():
    from bianque.engine.engine import Engine

    assert {name for name in vars(ScriptedEngine) if not name.startswith("_")} <= set(dir(Engine))
