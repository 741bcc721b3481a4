"""Published folders through transformers' Auto classes: our classes, no remote code, no question on the terminal."""

from __future__ import annotations

import builtins
import json

import pytest
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from bianque.errors import SnapshotError
from bianque.models.auto import register
from bianque.models.chatglm import ChatGLMConfig, ChatGLMForConditionalGeneration
from bianque.tokenization.chatglm import ChatGLMTokenizer
from tests.models.chatglm_data import SOURCES, reference


@pytest.fixture(autouse=True)
def no_questions(monkeypatch):
    def refuse(*_):
        raise AssertionError("a question was asked on the terminal")

    monkeypatch.setattr(builtins, "input", refuse)
    register()
    register()  # any number of times


@pytest.mark.parametrize("source", SOURCES)
def test_a_published_folder_is_read_unchanged(source):
    folder = reference(source).folder
    assert "auto_map" in json.loads((folder / "config.json").read_text())
    assert type(AutoConfig.from_pretrained(folder)) is ChatGLMConfig
    assert type(AutoTokenizer.from_pretrained(folder)) is ChatGLMTokenizer
    for auto_class in (AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM):
        assert type(auto_class.from_pretrained(folder)) is ChatGLMForConditionalGeneration


def test_the_reason_of_a_refusal_reaches_the_caller(tmp_path):
    config = json.loads((reference("own").folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_bit": 8}))
    for auto_class in (AutoConfig, AutoModel, AutoTokenizer):
        with pytest.raises(SnapshotError, match="quantization_bit"):
            auto_class.from_pretrained(tmp_path)
