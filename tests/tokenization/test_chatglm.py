"""The ChatGLM tokenizer against an independent reference on the fixture, and against the original's results."""

from __future__ import annotations

import copy
import json
import pickle
import shutil

import pytest
import torch

from bianque.errors import SnapshotError
from bianque.tokenization.chatglm import ChatGLMTokenizer
from tests.models.chatglm_data import OWN_FOLDER, SOURCES, reference


@pytest.fixture(scope="module", params=SOURCES)
def data(request):
    return reference(request.param)


@pytest.fixture(scope="module")
def tokenizer(data):
    return ChatGLMTokenizer.from_pretrained(data.folder)


@pytest.fixture(scope="module")
def own():
    return ChatGLMTokenizer.from_pretrained(OWN_FOLDER)


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(OWN_FOLDER, tmp_path / "copy")
    return tmp_path / "copy"


def test_ids_and_pieces_equal_the_reference(data, tokenizer):
    for case in data.expected["tokenizer_cases"]:
        assert tokenizer.tokenize(case["text"]) == case["tokens"], case["text"]
        assert tokenizer(case["text"])["input_ids"] == case["ids"], case["text"]
        assert tokenizer.encode(case["text"]) == case["ids"], case["text"]
    for case in data.cases:
        assert tokenizer(case["prompt"])["input_ids"] == case["input_ids"], case["id"]


def test_texts_equal_the_reference(data, tokenizer):
    for case in data.expected["tokenizer_cases"]:
        assert tokenizer.decode(case["ids"]) == case["decoded_BianQue2"], case["text"]
    for case in data.expected["decode_cases"]:
        assert tokenizer.decode(case["ids"]) == case["BianQue2"], case["name"]
    for case in data.cases:
        assert tokenizer.decode(case["chat_new_ids"]) == case["raw_decoded_BianQue2"], case["id"]


def test_flags_of_decode_change_nothing(tokenizer):
    ids = [*tokenizer.encode("a . b ?"), 0]
    expected = tokenizer.decode(ids)
    assert expected.endswith("⁇ ") and " ." in expected
    assert tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True) == expected
    assert tokenizer.decode(torch.tensor(ids)) == expected
    assert tokenizer.batch_decode([ids, ids]) == [expected, expected]
    assert tokenizer.convert_tokens_to_string(tokenizer.tokenize("早上\n好")) == "早上\n好"


def test_padded_encodings_equal_the_reference(data, tokenizer):
    for batch in data.expected["batches"]:
        encoded = tokenizer([row["prompt"] for row in batch["rows"]], padding=True, return_tensors="pt")
        assert encoded["input_ids"].tolist() == batch["input_ids"]
        assert encoded["position_ids"].tolist() == batch["position_ids"]
        mask = encoded["attention_mask"]
        size, length = encoded["input_ids"].shape
        assert mask.dtype == torch.bool and mask.shape == (size, 1, length, length)
        for row_mask, row in zip(mask[:, 0], batch["rows"], strict=True):
            assert row_mask[: row["n_pad"]].all() and row_mask[:, : row["n_pad"]].all()
            assert not row_mask[row["n_pad"] :, row["n_pad"] : -1].any()  # all but <sop> see each other
            assert row_mask[:-1, -1].all() and not row_mask[-1, -1]


def test_without_padding_there_are_ids_alone(own):
    assert list(own("头痛")) == ["input_ids"]
    assert list(own(["头痛", "痛"])) == ["input_ids"]


def test_one_text_can_be_padded_to_a_length(own):
    encoded = own("头痛", padding="max_length", max_length=10, return_tensors="pt")
    num_padding = 10 - len(own.encode("头痛"))
    assert encoded["input_ids"][0, :num_padding].tolist() == [3] * num_padding
    assert encoded["attention_mask"].shape == (1, 1, 10, 10) and encoded["position_ids"].shape == (1, 2, 10)
    assert own(["头痛"], padding=True, pad_to_multiple_of=8, return_tensors="pt")["input_ids"].shape == (1, 8)


def test_padding_on_the_right_is_refused(own):
    with pytest.raises(ValueError, match="left"):
        own(["头痛", "痛"], padding=True, padding_side="right")


def test_a_pair_is_a_prompt_and_its_reply(own):
    prompt, reply = own.encode("头痛"), own.encode("您好", add_special_tokens=False)
    assert own("头痛", "您好")["input_ids"] == [*prompt, *reply, own.eos_token_id]
    mask = own("头痛", return_special_tokens_mask=True)["special_tokens_mask"]
    assert mask == [0] * (len(prompt) - 2) + [1, 1]


def test_truncation_keeps_the_special_tokens(own):
    assert own("头痛头痛头痛头痛", truncation=True, max_length=5)["input_ids"][-2:] == own.encode("")


def test_surplus_ids_of_the_embedding_have_no_text(own):
    assert own.decode([7, len(own), 10**6, 7]) == own.decode([7, 7])
    assert own.convert_ids_to_tokens(len(own)) == "<unk>"


def test_long_runs_of_spaces_take_no_quadratic_time(own):
    text = "痛" + " " * 200_000 + "<sop>痛"  # a backtracking split would take hours
    assert own.encode(text)[-4:-2] == own.encode("<sop>痛", add_special_tokens=False)[-2:]


def test_copies_encode_alike(own):
    text = "早上头痛\n[MASK]"
    for other in (copy.deepcopy(own), pickle.loads(pickle.dumps(own))):
        assert other.encode(text) == own.encode(text)


def test_a_saved_tokenizer_is_read_again(own, tmp_path):
    own.save_pretrained(tmp_path)
    assert (tmp_path / "ice_text.model").read_bytes() == (OWN_FOLDER / "ice_text.model").read_bytes()
    again = ChatGLMTokenizer.from_pretrained(tmp_path)
    for case in reference("own").expected["tokenizer_cases"]:
        assert again.encode(case["text"]) == case["ids"]
    assert (again.gmask_token_id, again.end_token) == (own.gmask_token_id, "</s>")
    assert again.special_tokens_map == own.special_tokens_map


def test_a_missing_vocabulary_is_named(folder):
    (folder / "ice_text.model").unlink()
    with pytest.raises(SnapshotError, match=r"lacks the file ice_text\.model"):
        ChatGLMTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_a_damaged_vocabulary_is_named(folder, content):
    path = folder / "ice_text.model"
    path.write_bytes(path.read_bytes()[:1000] if content is None else content)
    with pytest.raises(SnapshotError, match=r"ice_text\.model .*cannot be read"):
        ChatGLMTokenizer.from_pretrained(folder)


def test_another_vocabulary_is_refused(folder):
    shutil.copy(OWN_FOLDER.parent / "t5" / "spiece.model", folder / "ice_text.model")
    with pytest.raises(SnapshotError, match="no pieces"):
        ChatGLMTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("change", [{"num_image_tokens": 20000}, {"do_lower_case": True}, {"remove_space": True}])
def test_variants_that_no_checkpoint_uses_are_refused(folder, change):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(SnapshotError, match=next(iter(change))):
        ChatGLMTokenizer.from_pretrained(folder)
