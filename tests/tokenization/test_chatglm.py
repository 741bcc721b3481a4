"""The ChatGLM tokenizer against the reference, and on the fixture that travels with the project."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bianque.tokenization.chatglm import ChatGLMTokenizer
from tests.golden import GOLDEN, requires_golden

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "chatglm"


@pytest.fixture(scope="module")
def golden():
    return json.loads((GOLDEN / "golden_chatglm.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer():
    return ChatGLMTokenizer.from_pretrained(GOLDEN / "chatglm")


@pytest.fixture(scope="module")
def own():
    return ChatGLMTokenizer.from_pretrained(FIXTURE)


@requires_golden
def test_ids_and_texts_equal_the_reference(golden, tokenizer):
    assert len(golden["tokenizer_cases"]) > 30
    for case in golden["tokenizer_cases"]:
        assert tokenizer(case["text"])["input_ids"] == case["ids"], case["text"]
        assert tokenizer.tokenize(case["text"]) == case["tokens"], case["text"]
        assert tokenizer.decode(case["ids"]) == case["decoded_BianQue2"], case["text"]


@requires_golden
def test_decoding_equals_the_reference(golden, tokenizer):
    for case in golden["decode_cases"]:
        assert tokenizer.decode(case["ids"]) == case["BianQue2"], case["name"]


def test_a_prompt_ends_in_gmask_and_sop(own):
    token_ids = own("病人：头晕\n医生：")["input_ids"]
    assert token_ids[-2:] == own.convert_tokens_to_ids(["[gMASK]", "<sop>"])


@pytest.mark.parametrize("text", ["病人：头晕\n医生：", "a\tb", "  两个  空格", "罕见字龘🙂", "", "38.5 度"])
def test_texts_come_back(own, text):
    # sentencepiece normalises full-width marks; all else comes back as it was.
    token_ids = own(text, add_special_tokens=False)["input_ids"]
    assert own.decode(token_ids) == text.replace("：", ":")


def test_padding_stands_on_the_left_with_masks_and_positions(own):
    encoded = own(["头晕", "病人：孩子咳嗽三天了\n医生："], padding=True, return_tensors="pt")
    batch, width = encoded["input_ids"].shape
    assert encoded["attention_mask"].shape == (batch, 1, width, width)
    assert encoded["attention_mask"].dtype == torch.bool
    assert encoded["position_ids"].shape == (batch, 2, width)
    num_pad = int((encoded["input_ids"][0] == own.pad_token_id).sum())
    assert num_pad > 0
    assert encoded["input_ids"][0, num_pad:].tolist() == own("头晕")["input_ids"]
    assert encoded["attention_mask"][0, 0, :, :num_pad].all()


def test_saved_and_read_again(own, tmp_path):
    own.save_pretrained(tmp_path)
    again = ChatGLMTokenizer.from_pretrained(tmp_path)
    text = "病人：孩子咳嗽三天了\n医生："
    assert again(text)["input_ids"] == own(text)["input_ids"]
