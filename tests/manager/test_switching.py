"""Choosing a model and a precision while the application runs: what is offered, refused, and what becomes of it."""

from __future__ import annotations

import pytest

from bianque.errors import BianQueError, ModelUnavailableError, SettingsError, SnapshotError
from bianque.manager.memory import Machine
from bianque.manager.registry import REAL_MODELS, Job
from bianque.manager.switching import ModelSwitcher
from bianque.settings import ModelSource, Settings
from tests.manager.test_manager import CPU, GB, L4, PATIENCE_SECONDS, T4, loader, start, states

__all__ = ["loader", "start"]  # fixtures

OPEN = Settings(models="demo", num_slots=2, may_switch_models=True)


def offer(manager, job, name):
    return next(each for each in ModelSwitcher(manager).offers(job) if each.name == name)


def precisions(found):
    return {choice.precision: choice for choice in found.precisions}


def serving(manager):
    return {job: (manager.get(job).spec.name, manager.get(job).dtype) for job in states(manager)}


def refused(call) -> BianQueError:
    with pytest.raises((SettingsError, ModelUnavailableError)) as caught:
        call()
    return caught.value


# ---------------------------------------------------------------------- what is offered


def test_the_planned_model_comes_first_then_the_owners_the_published_and_the_small_one(start, loader):
    settings = Settings(models="real", adviser=ModelSource("me/mine"), may_switch_models=True)
    manager = start(loader, settings, machine=L4)
    names = {job: [each.name for each in ModelSwitcher(manager).offers(job)] for job in Job}
    assert names == {
        Job.ASKER: ["BianQue-1.0", "mini-asker"],
        Job.ADVISER: ["mine", "BianQue-2.0", "mini-adviser"],
        Job.LISTENER: ["SoulChat", "mini-adviser"],
    }
    manager.switch(Job.ADVISER, ModelSource("BianQue-2.0"))
    offers = ModelSwitcher(manager).offers(Job.ADVISER)
    assert [(each.name, each.is_planned) for each in offers] == [
        ("BianQue-2.0", True),
        ("mine", False),
        ("mini-adviser", False),
    ]


def test_an_offer_says_what_it_takes_and_how_far_it_is(start, loader):
    manager = start(loader, OPEN)
    small, large = offer(manager, Job.ADVISER, "mini-adviser"), offer(manager, Job.ADVISER, "BianQue-2.0")
    assert (small.is_planned, small.status.state, small.on_disk, small.is_demonstration) == (
        True,
        "ready",
        "complete",
        True,
    )
    assert (large.is_planned, large.status, large.fits) == (False, None, True)
    choices = precisions(large)
    assert list(choices) == ["fp32", "int8", "int4"]
    assert choices["int8"].fits and choices["int8"].visitors == 2
    assert choices["int4"].needed_gb < choices["int8"].needed_gb < choices["fp32"].needed_gb


def test_what_does_not_fit_says_why(start, loader):
    manager = start(loader, OPEN)
    choice = precisions(offer(manager, Job.ADVISER, "BianQue-2.0"))["fp32"]
    assert (choice.fits, choice.visitors, choice.obstacle.key) == (False, 0, "model_too_large")
    assert f"{choice.needed_gb:.1f} GB" in choice.obstacle.text("zh") and "fp32" in str(choice.obstacle)
    tiny = start(loader, OPEN, machine=Machine("cuda", "old", 3 * GB, 15 * GB))
    large = offer(tiny, Job.ADVISER, "BianQue-2.0")
    assert not large.fits
    assert {each.obstacle.key for each in large.precisions} == {"memory_too_small"}


def test_what_fits_counts_the_model_that_is_needed_at_the_same_time(start, loader):
    machine = Machine("cuda", "x", 33 * GB // 2, 30 * GB)
    alone = start(loader, OPEN, machine=machine)
    beside = start(loader, Settings(models="real", may_switch_models=True), machine=machine)
    assert precisions(offer(alone, Job.ADVISER, "BianQue-2.0"))["fp16"].fits
    assert not precisions(offer(beside, Job.ADVISER, "BianQue-2.0"))["fp16"].fits


def test_nothing_is_offered_before_the_machine_is_known(loader):
    from bianque.manager.manager import ModelManager

    manager = ModelManager(OPEN, probe=lambda device: CPU, load=loader, resolve=loader.resolve)
    switcher = ModelSwitcher(manager)
    assert switcher.offers(Job.ADVISER) == ()
    assert refused(lambda: switcher.switch(Job.ADVISER, "BianQue-2.0")).key == "switch_running"


# ---------------------------------------------------------------------- what is refused


def test_the_owner_has_to_allow_it(start, loader):
    switcher = ModelSwitcher(start(loader, Settings(models="demo")))
    assert not switcher.is_allowed
    error = refused(lambda: switcher.switch(Job.ADVISER, "BianQue-2.0"))
    assert error.key == switcher.refusal.key == "switch_not_allowed"
    assert "BIANQUE_MODEL_SWITCH" in error.text("zh")


def test_zero_gpu_never_changes_its_models(start, loader):
    switcher = ModelSwitcher(start(loader, Settings(models="demo", may_switch_models=True, is_zero_gpu=True)))
    assert not switcher.is_allowed
    assert refused(lambda: switcher.switch(Job.ADVISER, "BianQue-2.0")).key == "models_are_fixed"


@pytest.mark.parametrize("name", ["SoulChat", "someone/else", "/etc", ""])
def test_nothing_but_what_is_offered_can_be_chosen(start, loader, name):
    manager = start(loader, OPEN)
    error = refused(lambda: ModelSwitcher(manager).switch(Job.ADVISER, name))
    assert error.key == "model_not_offered" and "BianQue-2.0" in str(error)
    assert len(manager.statuses()) == 3 and len(loader.loads) == 2


@pytest.mark.parametrize(("precision", "key"), [("bf16", "precision_not_offered"), ("fp32", "model_too_large")])
def test_a_precision_that_is_not_possible_is_refused_before_anything_is_loaded(start, loader, precision, key):
    manager = start(loader, OPEN)
    assert refused(lambda: ModelSwitcher(manager).switch(Job.ADVISER, "BianQue-2.0", precision)).key == key
    assert len(loader.loads) == 2


def test_a_model_that_fits_at_no_precision_is_refused_with_the_reason(start, loader):
    manager = start(loader, OPEN, machine=Machine("cuda", "old", 3 * GB, 15 * GB))
    assert refused(lambda: ModelSwitcher(manager).switch(Job.ADVISER, "BianQue-2.0")).key == "memory_too_small"


def test_one_change_at_a_time(start, loader):
    manager = start(loader, OPEN)
    switcher = ModelSwitcher(manager)
    loader.may_go_on.clear()
    switcher.switch(Job.ADVISER, "BianQue-2.0")
    assert switcher.refusal.key == "switch_running"
    assert refused(lambda: switcher.switch(Job.ASKER, "BianQue-1.0")).key == "switch_running"
    loader.may_go_on.set()
    assert manager.wait(PATIENCE_SECONDS)
    assert switcher.refusal is None


# ---------------------------------------------------------------------- what becomes of it


def test_a_change_goes_on_in_the_background_and_shows_how_far_it_is(start, loader):
    manager = start(loader, OPEN)
    loader.shares = [60]
    loader.may_go_on.clear()
    loader.is_waiting.clear()
    begun = ModelSwitcher(manager).switch(Job.ADVISER, "BianQue-2.0", "int4")
    assert (begun.name, begun.job) == ("BianQue-2.0", Job.ADVISER)
    assert loader.is_waiting.wait(PATIENCE_SECONDS)
    status = offer(manager, Job.ADVISER, "BianQue-2.0").status
    assert status in manager.statuses() and (status.state, status.percent) == ("loading", 60)
    assert manager.get(Job.ADVISER).spec.name == "mini-adviser"
    loader.may_go_on.set()
    assert manager.wait(PATIENCE_SECONDS)
    assert serving(manager)[Job.ADVISER] == ("BianQue-2.0", "int4")
    assert offer(manager, Job.ADVISER, "BianQue-2.0").status.state == "ready"
    assert serving(manager)[Job.LISTENER] == ("mini-adviser", "fp32")


def test_another_precision_of_the_same_model(start, loader):
    manager = start(loader, Settings(models="real", may_switch_models=True), machine=L4)
    ModelSwitcher(manager).switch(Job.ADVISER, "BianQue-2.0", "int8")
    assert manager.wait(PATIENCE_SECONDS)
    assert serving(manager)[Job.ADVISER] == ("BianQue-2.0", "int8")


@pytest.mark.parametrize("precision", ["auto", "int8"])
def test_what_serves_already_is_not_loaded_again(start, loader, precision):
    manager = start(loader, Settings(models="real", may_switch_models=True), machine=T4)
    loads = list(loader.loads)
    assert ModelSwitcher(manager).switch(Job.ADVISER, "BianQue-2.0", precision).state == "ready"
    assert manager.is_settled and loader.loads == loads


def test_a_change_that_fails_leaves_the_present_model_and_tells_why(start, loader):
    manager = start(loader, OPEN)
    loader.failing, loader.error = {"BianQue-2.0"}, SnapshotError("snapshot_file_missing", folder="f", file="x.bin")
    switcher = ModelSwitcher(manager)
    switcher.switch(Job.ADVISER, "BianQue-2.0")
    assert manager.wait(PATIENCE_SECONDS)
    assert serving(manager)[Job.ADVISER] == ("mini-adviser", "fp32")
    failed = offer(manager, Job.ADVISER, "BianQue-2.0").status
    assert failed.state == "failed" and "x.bin" in failed.describe("zh")
    loader.failing = set()
    switcher.switch(Job.ADVISER, "BianQue-2.0")
    assert manager.wait(PATIENCE_SECONDS)
    assert serving(manager)[Job.ADVISER][0] == "BianQue-2.0" and len(manager.statuses()) == 3


def test_the_least_recently_used_goes_when_the_budget_is_full(start, loader):
    manager = start(loader, Settings(models="real", may_switch_models=True), machine=T4)
    switcher = ModelSwitcher(manager)
    for precision in ("int4", "int8", "int4"):
        switcher.switch(Job.ADVISER, "BianQue-2.0", precision)
        assert manager.wait(PATIENCE_SECONDS)
        assert serving(manager)[Job.ADVISER] == ("BianQue-2.0", precision)
        assert manager.get(Job.ASKER).spec.name == "BianQue-1.0"
    assert not manager.get(Job.ADVISER).engine.is_stopped


@pytest.mark.parametrize("stage", ["download", "loading"])
def test_a_change_that_is_cancelled_leaves_the_present_model(start, loader, stage):
    reading = loader.resolve

    def resolve(source, *, cancelled=None, **options):
        if stage == "download" and source.location == REAL_MODELS[Job.ADVISER].location:
            loader.is_waiting.set()
            assert cancelled.wait(PATIENCE_SECONDS)
            raise SnapshotError("snapshot_cancelled", repo_id=source.location)
        return reading(source, **options)

    def shares():
        yield 10
        loader.is_waiting.set()
        assert loader.may_go_on.wait(PATIENCE_SECONDS)
        yield 60

    loader.resolve = resolve
    manager = start(loader, OPEN)
    switcher = ModelSwitcher(manager)
    assert refused(switcher.cancel).key == "switch_over"
    loader.is_waiting.clear()
    loader.may_go_on.clear()
    loader.shares = shares()
    switcher.switch(Job.ADVISER, "BianQue-2.0")
    assert loader.is_waiting.wait(PATIENCE_SECONDS)
    assert manager.get(Job.ADVISER).spec.name == "mini-adviser"
    switcher.cancel()
    loader.may_go_on.set()
    assert manager.wait(PATIENCE_SECONDS)
    assert serving(manager)[Job.ADVISER] == ("mini-adviser", "fp32")
    given_up = offer(manager, Job.ADVISER, "BianQue-2.0").status
    assert (given_up.state, given_up.error.key) == ("failed", "switch_cancelled")
    assert refused(switcher.cancel).key == "switch_over"
    # The next change is not cancelled with it.
    stage, loader.shares = "", []
    switcher.switch(Job.ADVISER, "BianQue-2.0")
    assert manager.wait(PATIENCE_SECONDS)
    assert serving(manager)[Job.ADVISER][0] == "BianQue-2.0" and len(manager.statuses()) == 3


def test_nothing_is_cancelled_where_models_may_not_be_changed(start, loader):
    assert refused(ModelSwitcher(start(loader, Settings(models="demo"))).cancel).key == "switch_not_allowed"
