from __future__ import annotations

import json

import pytest

from bianque.errors import SnapshotError
from bianque.models.chatglm import ChatGLMConfig
from tests.models.chatglm_data import OWN_FOLDER


def published(**changes: object) -> dict[str, object]:
    return {**json.loads((OWN_FOLDER / "config.json").read_text()), **changes}


def test_defaults_are_the_published_model():
    config = ChatGLMConfig()
    assert (config.hidden_size, config.num_layers, config.num_attention_heads) == (4096, 28, 32)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (130004, 130005, 3)
    assert (config.mask_token_id, config.gmask_token_id, config.vocab_size) == (130000, 130001, 130528)


def test_published_keys_are_read_under_their_names():
    config = ChatGLMConfig.from_dict(published())
    assert (config.inner_hidden_size, config.max_sequence_length, config.layernorm_epsilon) == (96, 2048, 1e-5)
    # The names that transformers' own tools ask for.
    assert (config.num_hidden_layers, config.max_position_embeddings) == (3, 2048)


@pytest.mark.parametrize(
    ("key", "value"),
    [("pre_seq_len", 128), ("quantization_bit", 4), ("position_encoding_2d", False), ("prefix_projection", True)],
)
def test_values_that_change_the_computation_are_refused(key, value):
    with pytest.raises(SnapshotError, match=key) as caught:
        ChatGLMConfig.from_dict(published(**{key: value}))
    assert key in caught.value.text("zh") and repr(value) in caught.value.text("zh")


@pytest.mark.parametrize("key", ["rope_ratio", "multi_query_attention", "quantization_config", "num_kv_heads"])
def test_unknown_keys_are_refused(key):
    with pytest.raises(SnapshotError, match=f"unknown key {key}"):
        ChatGLMConfig.from_dict(published(**{key: 1}))


@pytest.mark.parametrize(
    ("key", "value"),
    [("task_specific_params", None), ("temperature", 0.7), ("tokenizer_class", "ChatGLMTokenizer"), ("_any", 1)],
)
def test_keys_without_an_effect_on_the_computation_are_accepted(key, value):
    config = ChatGLMConfig.from_dict(published(**{key: value}))
    assert config.hidden_size == ChatGLMConfig.from_dict(published()).hidden_size


def test_heads_must_divide_into_rotary_pairs():
    with pytest.raises(SnapshotError, match="hidden_size"):
        ChatGLMConfig.from_dict(published(hidden_size=36))


def test_a_saved_configuration_is_read_again(tmp_path):
    config = ChatGLMConfig.from_dict(published())
    config.save_pretrained(tmp_path)
    assert ChatGLMConfig.from_pretrained(tmp_path).to_diff_dict() == config.to_diff_dict()
