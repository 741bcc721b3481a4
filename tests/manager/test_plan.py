from __future__ import annotations

import pytest

from bianque.errors import SettingsError
from bianque.manager.memory import Machine
from bianque.manager.plan import choose_models, explain_memory, plan_precisions
from bianque.manager.registry import BIANQUE_1, SOULCHAT, Job
from bianque.settings import ModelSource, Settings

GB = 10**9
CPU = Machine("cpu", "CPU", 16 * GB, 16 * GB)
T4 = Machine("cuda", "Tesla T4", 16 * GB, 15 * GB)
H100 = Machine("cuda", "H100", 80 * GB, 64 * GB)


def names(settings: Settings, machine: Machine) -> dict[Job, str]:
    return {job: planned.spec.name for job, planned in choose_models(settings, machine).models.items()}


def precisions(settings: Settings, machine: Machine) -> dict[Job, str]:
    plan = plan_precisions(choose_models(settings, machine), machine, visitors=4, requested=settings.precision)
    return {job: planned.precision for job, planned in plan.models.items()}


def test_without_a_gpu_the_demonstration_models_serve_every_mode():
    plan = choose_models(Settings(), CPU)
    assert names(Settings(), CPU) == {
        Job.ASKER: "mini-asker",
        Job.ADVISER: "mini-adviser",
        Job.LISTENER: "mini-adviser",
    }
    assert plan.reason == "plan_no_gpu"
    assert plan.is_demonstration


def test_with_a_gpu_the_published_models_are_taken_and_may_be_replaced():
    plan = choose_models(Settings(), T4)
    assert names(Settings(), T4) == {Job.ASKER: "BianQue-1.0", Job.ADVISER: "BianQue-2.0"}
    assert plan.reason == "plan_gpu"
    assert plan.may_fall_back
    assert not plan.is_demonstration


@pytest.mark.parametrize(("models", "machine", "name"), [("demo", T4, "mini-asker"), ("real", CPU, "BianQue-1.0")])
def test_the_owner_may_choose_either(models, machine, name):
    settings = Settings(models=models)
    assert names(settings, machine)[Job.ASKER] == name
    assert not choose_models(settings, machine).may_fall_back


def test_a_named_model_replaces_that_job_only_and_never_falls_back():
    settings = Settings(adviser=ModelSource("/data/my-tuned", None))
    plan = choose_models(settings, T4)
    assert plan.models[Job.ADVISER].spec.name == "my-tuned"
    assert plan.models[Job.ADVISER].spec.family == "chatglm"
    assert plan.models[Job.ASKER].spec == BIANQUE_1
    assert plan.reason == "plan_named"
    assert not plan.may_fall_back


def test_a_published_repo_keeps_its_card_and_the_revision_asked_for():
    plan = choose_models(Settings(listener=ModelSource(SOULCHAT.location, "v1")), T4)
    assert plan.models[Job.LISTENER].spec == SOULCHAT
    assert plan.models[Job.LISTENER].source.revision == "v1"


def test_every_model_gets_a_precision():
    assert precisions(Settings(), CPU) == dict.fromkeys(Job, "fp32")
    assert precisions(Settings(), T4) == {Job.ASKER: "fp16", Job.ADVISER: "int8"}
    assert precisions(Settings(precision="int4"), T4) == {Job.ASKER: "int4", Job.ADVISER: "int4"}


def test_jobs_that_share_weights_share_precision_and_slots():
    plan = plan_precisions(choose_models(Settings(), CPU), CPU, visitors=4)
    assert plan.models[Job.ADVISER].key == plan.models[Job.LISTENER].key != plan.models[Job.ASKER].key


def test_a_listener_of_its_own_does_not_lower_the_joint_mode():
    settings = Settings(listener=ModelSource("SoulChat"))
    assert precisions(settings, T4) == {Job.ASKER: "fp16", Job.ADVISER: "int8", Job.LISTENER: "int8"}


def test_a_model_of_unknown_size_is_taken_to_be_like_the_published_one():
    settings = Settings(models="real", adviser=ModelSource("me/tuned"))
    assert precisions(settings, T4) == precisions(Settings(), T4)


def test_too_little_memory_is_refused():
    with pytest.raises(SettingsError):
        precisions(Settings(models="real"), Machine("cpu", "CPU", 4 * GB, 4 * GB))


@pytest.mark.parametrize(
    ("settings", "machine", "words"),
    [
        (Settings(), H100, ("H100", "BianQue-2.0 fp16", "80.0 GB", "best precision")),
        (Settings(), T4, ("Tesla T4", "BianQue-2.0 int8", "18.5 GB", "14.5 GB")),
        (Settings(precision="int4"), T4, ("BianQue-2.0 int4", "asked for")),
        (Settings(precision="fp32"), T4, ("fp32 was asked for", "BianQue-2.0 int8")),
    ],
)
def test_one_sentence_says_what_was_chosen_and_why(settings, machine, words):
    plan = plan_precisions(choose_models(settings, machine), machine, visitors=4, requested=settings.precision)
    sentence = explain_memory(plan, machine, settings.precision, "en")
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence
    assert "位访客" in explain_memory(plan, machine, settings.precision, "zh")
