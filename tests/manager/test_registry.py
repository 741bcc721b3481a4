"""Sizes of the known models: counted from configurations, and the same as what is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from bianque.manager.registry import BIANQUE_1, BIANQUE_2, MINI_ADVISER, MINI_ASKER, SOULCHAT
from bianque.manager.sizes import measure_config

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"


def test_parameters_of_the_published_models():
    hidden, inner, vocabulary, layers = 4096, 16384, 130528, 28
    attention = 3 * hidden * hidden + 3 * hidden + hidden * hidden + hidden
    mlp = 2 * hidden * inner + inner + hidden
    assert BIANQUE_2.num_parameters == layers * (attention + mlp + 4 * hidden) + 2 * hidden + vocabulary * hidden
    assert BIANQUE_2.num_parameters == SOULCHAT.num_parameters == 6_173_286_400
    assert BIANQUE_1.num_parameters == 783_150_080
    assert not BIANQUE_2.is_demonstration
    assert MINI_ADVISER.is_demonstration and MINI_ASKER.is_demonstration


def test_published_sizes_at_each_precision():
    gigabytes = {name: round(BIANQUE_2.bytes_at(name) / 1e9, 1) for name in ("fp32", "bf16", "fp16", "int8", "int4")}
    assert gigabytes == {"fp32": 24.7, "bf16": 12.3, "fp16": 12.3, "int8": 6.7, "int4": 3.9}
    assert BIANQUE_2.size.cache_per_token * 2 == 458_752


@pytest.mark.parametrize("spec", [MINI_ASKER, MINI_ADVISER], ids=lambda spec: spec.name)
def test_parameters_of_the_minis_are_those_of_their_files(spec):
    counts = {}
    for shard in Path(spec.location).glob("*.safetensors"):
        with safe_open(shard, framework="pt") as tensors:
            for name in tensors.keys():
                shape = tensors.get_slice(name).get_shape()
                counts[name] = shape[0] * (shape[1] if len(shape) > 1 else 1)
    # What T5 stores several times, ChatGLM's tied head and its tables of frequencies count once or not at all.
    aliases = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    tied = ("lm_head.weight",) if spec.family == "chatglm" else ()
    total = sum(count for name, count in counts.items() if name not in aliases + tied and "inv_freq" not in name)
    assert spec.num_parameters == total


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_t5_takes_what_was_counted(precision):
    """At fp16 some of its weights stay fp32, a seventh of all bytes."""
    from bianque.manager.weights.load import load_weights

    model = load_weights(Path(MINI_ASKER.location), "t5", device="cpu", precision=precision)
    tensors = {tensor.data_ptr(): tensor.nbytes for tensor in (*model.parameters(), *model.buffers())}
    assert MINI_ASKER.bytes_at(precision) == sum(tensors.values())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_loaded_model_takes_what_was_counted(precision):
    from bianque.manager.weights.load import load_weights

    folder = Path(MINI_ADVISER.location)
    model = load_weights(folder, "chatglm", device="cpu", precision=precision)
    tensors = {
        tensor.data_ptr(): tensor.numel() * tensor.element_size()
        for tensor in (*model.parameters(), *model.buffers())
        if tensor.numel()
    }
    size = measure_config(json.loads((folder / "config.json").read_text("utf-8")), "chatglm")
    # Rotary tables and the padding of packed integers are not counted; in a model this small they show.
    assert size.bytes_at(precision, on_cpu=True) == pytest.approx(sum(tensors.values()), rel=0.1)
