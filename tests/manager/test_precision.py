"""The choice of precision: pure, so every machine can be tried here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bianque.engine.kv_cache import kv_cache_bytes
from bianque.errors import SettingsError
from bianque.manager.memory import Machine
from bianque.manager.precision import cache_bytes, ladder, plan_memory
from bianque.manager.registry import BIANQUE_1, BIANQUE_2, MINI_ADVISER, MINI_ASKER, SOULCHAT

GB = 10**9
JOINT = (BIANQUE_1, BIANQUE_2)
MINIS = (MINI_ASKER, MINI_ADVISER)


def gpu(gb: float, host_gb: float = 15) -> Machine:
    return Machine("cuda", "GPU", int(gb * GB), int(host_gb * GB))


def cpu(gb: float) -> Machine:
    return Machine("cpu", "CPU", int(gb * GB), int(gb * GB))


@pytest.mark.parametrize(
    ("specs", "machine", "visitors", "precisions", "served"),
    [
        (JOINT, gpu(80), 4, ("fp16", "fp16"), 4),
        (JOINT, gpu(24), 4, ("fp16", "fp16"), 4),
        (JOINT, gpu(24), 7, ("fp16", "fp16"), 7),
        (JOINT, gpu(24), 8, ("fp16", "int8"), 8),  # the largest model gives way first
        (JOINT, gpu(16), 4, ("fp16", "int8"), 4),
        (JOINT, gpu(12), 4, ("fp16", "int4"), 4),
        (JOINT, gpu(8), 4, ("int8", "int4"), 1),  # no precision serves four
        ((SOULCHAT,), gpu(16), 1, ("fp16",), 1),
        (JOINT, cpu(64), 4, ("int8", "int8"), 4),
        (JOINT, cpu(16), 4, ("int8", "int4"), 4),
        (MINIS, cpu(16), 4, ("fp32", "fp32"), 4),
        (MINIS, cpu(1), 4, ("fp32", "fp32"), 4),
        (MINIS, cpu(16), 0, ("fp32", "fp32"), 24),  # unless the owner says otherwise
        (JOINT, gpu(24), 0, ("fp16", "fp16"), 4),
        (MINIS, gpu(16), 4, ("fp16", "fp16"), 4),
        ((BIANQUE_2,), Machine("mps", "Apple GPU", 32 * GB, 32 * GB), 4, ("fp16",), 4),
    ],
)
def test_the_best_that_fits(specs, machine, visitors, precisions, served):
    plan = plan_memory(specs, machine, visitors=visitors)
    assert (plan.precisions, plan.visitors) == (precisions, served)
    assert plan.needed_bytes <= plan.budget_bytes
    assert plan.room_for >= plan.visitors


def test_what_better_would_have_taken_is_told_and_does_not_fit():
    plan = plan_memory(JOINT, gpu(16), visitors=4)
    assert plan.reason == "precision_reduced"
    assert plan.better_bytes > plan.budget_bytes >= plan.needed_bytes
    assert plan_memory(JOINT, gpu(24), visitors=4).reason == "precision_best"


def test_the_room_is_exactly_what_the_caches_leave():
    plan = plan_memory(JOINT, gpu(24), visitors=1)
    per_visitor = sum(cache_bytes(spec, "cuda") for spec in JOINT)
    left = plan.budget_bytes - plan.needed_bytes
    assert (plan.room_for - 1) * per_visitor <= left < plan.room_for * per_visitor


def test_an_owner_may_ask_for_another_precision():
    plan = plan_memory(JOINT, gpu(80), visitors=4, requested="int8")
    assert (plan.precisions, plan.reason) == (("int8", "int8"), "precision_asked")


def test_what_was_asked_for_serves_fewer_before_it_is_given_up():
    plan = plan_memory((BIANQUE_2,), gpu(16), visitors=4, requested="fp16")
    assert (plan.precisions, plan.visitors, plan.reason) == (("fp16",), 2, "precision_asked")
    plan = plan_memory((BIANQUE_2,), gpu(12), visitors=4, requested="fp16")
    assert (plan.precisions, plan.reason) == (("int8",), "precision_lowered")


def test_the_owners_limit_counts():
    assert plan_memory(JOINT, gpu(80), visitors=4, limit_bytes=13 * GB).precisions == ("fp16", "int8")


@pytest.mark.parametrize("machine", [gpu(5), cpu(7)])
def test_nothing_fits(machine):
    with pytest.raises(SettingsError) as caught:
        plan_memory(JOINT, machine, visitors=4)
    assert caught.value.key == "memory_too_small"


def test_a_host_too_small_to_load_from_is_named():
    with pytest.raises(SettingsError) as caught:
        plan_memory(JOINT, gpu(24, host_gb=2), visitors=4)
    assert caught.value.key == "host_memory_too_small"


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_precision_that_the_device_cannot_do(precision):
    with pytest.raises(SettingsError) as caught:
        ladder(BIANQUE_2, "mps", precision)
    assert caught.value.key == "precision_impossible"
    assert precision in str(caught.value) and "fp16" in caught.value.text("zh")


def test_ways_down():
    assert ladder(BIANQUE_2, "cuda") == ("fp16", "int8", "int4")
    assert ladder(BIANQUE_2, "cpu") == ("int8", "int4")
    assert ladder(MINI_ADVISER, "cpu")[0] == "fp32"
    assert ladder(BIANQUE_2, "cuda", "fp32") == ("fp32", "fp16", "int8", "int4")
    assert ladder(BIANQUE_2, "cuda", "bf16") == ("bf16", "int8", "int4")
    assert ladder(BIANQUE_2, "cpu", "int4") == ("int4",)


def test_the_published_cache_takes_what_the_architecture_says():
    assert cache_bytes(BIANQUE_2, "cuda") == 2048 * 458_752
    assert cache_bytes(BIANQUE_2, "cpu") == 2 * cache_bytes(BIANQUE_2, "cuda")


@pytest.mark.parametrize("spec", [BIANQUE_1, BIANQUE_2, MINI_ASKER, MINI_ADVISER], ids=lambda spec: spec.name)
def test_planned_caches_are_as_large_as_those_allocated(spec):
    published = {
        "BianQue-1.0": {"model_type": "t5", "num_layers": 24, "num_heads": 16, "d_kv": 64},
        "BianQue-2.0": {"model_type": "chatglm", "num_layers": 28, "num_attention_heads": 32, "hidden_size": 4096},
    }
    config = published.get(spec.name) or json.loads((Path(spec.location) / "config.json").read_text("utf-8"))
    allocated = kv_cache_bytes(
        config, num_slots=1, max_prompt_len=spec.max_prompt_tokens, max_new_tokens=512, bytes_per_value=2
    )
    assert cache_bytes(spec, "cuda") == allocated
