from __future__ import annotations

import pytest

from bianque.manager.plan import plan_models
from bianque.manager.registry import BIANQUE_1, BIANQUE_2, MINI_ADVISER, MINI_ASKER, SOULCHAT, Job
from bianque.settings import ModelSource, Settings


def specs(settings: Settings, *, has_cuda: bool) -> dict[Job, str]:
    return {job: planned.spec.name for job, planned in plan_models(settings, has_cuda=has_cuda).models.items()}


def test_without_a_gpu_the_demonstration_models_serve_every_mode():
    plan = plan_models(Settings(), has_cuda=False)
    assert {job: planned.spec.name for job, planned in plan.models.items()} == {
        Job.ASKER: "mini-asker",
        Job.ADVISER: "mini-adviser",
        Job.LISTENER: "mini-adviser",
    }
    assert plan.reason == "plan_no_gpu"
    assert plan.is_demonstration


def test_with_a_gpu_the_published_models_are_taken_and_may_be_replaced():
    plan = plan_models(Settings(), has_cuda=True)
    assert specs(Settings(), has_cuda=True) == {Job.ASKER: "BianQue-1.0", Job.ADVISER: "BianQue-2.0"}
    assert plan.reason == "plan_gpu"
    assert plan.may_fall_back
    assert not plan.is_demonstration


@pytest.mark.parametrize(
    ("models", "has_cuda", "name"), [("demo", True, "mini-asker"), ("real", False, "BianQue-1.0")]
)
def test_the_owner_may_choose_either(models, has_cuda, name):
    settings = Settings(models=models)
    assert specs(settings, has_cuda=has_cuda)[Job.ASKER] == name
    assert not plan_models(settings, has_cuda=has_cuda).may_fall_back


def test_a_named_model_replaces_that_job_only_and_never_falls_back():
    settings = Settings(adviser=ModelSource("/data/my-tuned", None))
    plan = plan_models(settings, has_cuda=True)
    assert plan.models[Job.ADVISER].spec.name == "my-tuned"
    assert plan.models[Job.ADVISER].spec.family == "chatglm"
    assert plan.models[Job.ASKER].spec == BIANQUE_1
    assert plan.reason == "plan_named"
    assert not plan.may_fall_back


def test_a_published_repo_keeps_its_card_and_the_revision_asked_for():
    plan = plan_models(Settings(listener=ModelSource(SOULCHAT.location, "v1")), has_cuda=True)
    assert plan.models[Job.LISTENER].spec == SOULCHAT
    assert plan.models[Job.LISTENER].source.revision == "v1"


def test_parameter_counts_of_the_registry_follow_the_published_configurations():
    hidden, inner, vocabulary, layers = 4096, 16384, 130528, 28
    attention = 3 * hidden * hidden + 3 * hidden + hidden * hidden + hidden
    mlp = 2 * hidden * inner + inner + hidden
    assert BIANQUE_2.num_parameters == layers * (attention + mlp + 4 * hidden) + 2 * hidden + vocabulary * hidden
    assert not BIANQUE_2.is_demonstration
    assert MINI_ADVISER.is_demonstration and MINI_ASKER.is_demonstration
