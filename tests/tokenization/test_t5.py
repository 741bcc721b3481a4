"""BianQueT5Tokenizer against the published tokenizer's recorded ids and texts, and against transformers' today."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from bianque.errors import SnapshotError
from bianque.tokenization.t5 import BianQueT5Tokenizer
from tests.golden import GOLDEN, requires_golden

FIXTURE = Path(__file__).parent.parent / "fixtures" / "t5"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer():
    return BianQueT5Tokenizer.from_pretrained(FIXTURE)


@pytest.fixture(scope="module")
def golden():
    return json.loads((GOLDEN / "golden_t5.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def golden_tokenizer():
    return BianQueT5Tokenizer.from_pretrained(GOLDEN / "t5")


@pytest.fixture(scope="module")
def golden_tokenizer_100():
    return BianQueT5Tokenizer.from_pretrained(GOLDEN / "t5_tokenizer_extra_ids_100")


@pytest.mark.parametrize("case", EXPECTED, ids=lambda case: repr(case["text"]))
def test_ordinary_text_encodes_and_decodes_as_in_transformers(tokenizer, case):
    assert tokenizer.encode(case["text"]) == case["input_ids"]
    assert tokenizer.decode(case["input_ids"]) == case["decoded"]
    assert tokenizer.decode(case["greedy_output_ids"]) == case["greedy_text"]


def test_text_ending_in_a_literal_eos_gets_no_second_one(tokenizer):
    head = tokenizer.encode("胃疼")
    assert tokenizer.encode("胃疼</s>") == head
    assert tokenizer.encode("胃疼</s>  ") == head
    assert tokenizer.encode("</s>") == [1]
    assert tokenizer.encode("</s></s>") == [1, 1]


def test_next_line_character_is_unknown_but_is_white_space_beside_a_special_token(tokenizer):
    assert tokenizer.encode("胃\x85疼") == [5, 62, 2, 20, 1]
    assert tokenizer.encode("胃\x85<pad>\x85疼") == [5, 62, 0, 5, 20, 1]


def test_zero_width_joiner_is_one_unknown_piece_of_its_own(tokenizer):
    assert tokenizer.encode("胃\u200d疼") == [5, 62, 2, 20, 1]
    assert tokenizer.encode(" \u200d疼") == [5, 2, 20, 1]


def test_text_beside_special_tokens_is_stripped_and_begins_a_word(tokenizer):
    assert tokenizer.encode("胃 <unk> 疼") == [5, 62, 2, 5, 20, 1]


def test_truncation_drops_the_end_and_keeps_eos(tokenizer):
    whole = tokenizer.encode("病人：头晕\\n医生：")
    assert tokenizer.encode("病人：头晕\\n医生：", max_length=len(whole)) == whole
    assert tokenizer.encode("病人：头晕\\n医生：", max_length=4) == [*whole[:3], 1]
    assert tokenizer.encode("病人：头晕\\n医生：", max_length=1) == [1]
    with pytest.raises(ValueError, match="at least 1"):
        tokenizer.encode("头晕", max_length=0)


def test_decode_options(tokenizer):
    ids = tokenizer.encode("ok . 胃<unk>疼")
    assert tokenizer.decode(ids) == "ok. 胃 疼"
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == "ok . 胃 疼"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "ok. 胃<unk> 疼</s>"


def test_decode_of_unknown_pieces_only_is_empty(tokenizer):
    assert tokenizer.decode([5, 2, 1]) == ""


def test_extra_ids_are_special_only_when_the_tokenizer_has_them():
    vocabulary = (FIXTURE / "spiece.model").read_bytes()
    with_extra = BianQueT5Tokenizer(vocabulary, extra_ids=2)
    assert with_extra.vocab_size == 138
    assert with_extra.encode("胃<extra_id_0>疼 <extra_id_1>") == [5, 62, 137, 5, 20, 136, 1]
    assert with_extra.encode("<extra_id_2>")[0] == 5
    assert with_extra.decode([62, 137, 20]) == "胃疼"


def test_config_without_extra_ids_has_the_original_default_of_100(tmp_path):
    shutil.copy(FIXTURE / "spiece.model", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    assert BianQueT5Tokenizer.from_pretrained(tmp_path).vocab_size == 136 + 100


@pytest.mark.parametrize("missing", ["spiece.model", "tokenizer_config.json"])
def test_missing_file_is_named(tmp_path, missing):
    for name in ("spiece.model", "tokenizer_config.json"):
        if name != missing:
            shutil.copy(FIXTURE / name, tmp_path)
    with pytest.raises(SnapshotError, match=missing) as error:
        BianQueT5Tokenizer.from_pretrained(tmp_path)
    assert error.value.key == "snapshot_file_missing"


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(SnapshotError) as error:
        BianQueT5Tokenizer.from_pretrained(tmp_path / "nowhere")
    assert error.value.key == "snapshot_folder_missing"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", b"{"),
        ("tokenizer_config.json", b"\xff"),
        ("tokenizer_config.json", b"[]"),
        ("tokenizer_config.json", b'{"extra_ids": "0"}'),
        ("tokenizer_config.json", b'{"extra_ids": true}'),
        ("spiece.model", b"not a vocabulary"),
        ("spiece.model", b""),
    ],
)
def test_damaged_file_is_named(tmp_path, name, content):
    shutil.copytree(FIXTURE, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SnapshotError, match=name) as error:
        BianQueT5Tokenizer.from_pretrained(tmp_path)
    assert error.value.key == "snapshot_config_invalid"


def test_vocabulary_without_a_special_token_is_refused():
    with pytest.raises(ValueError, match="<end>"):
        BianQueT5Tokenizer((FIXTURE / "spiece.model").read_bytes(), eos_token="<end>")


@requires_golden
def test_golden_edge_cases(golden, golden_tokenizer, golden_tokenizer_100):
    for case in golden["tokenizer_cases"]:
        text, ids = case["text"], case["ids"]
        assert golden_tokenizer.encode(text) == ids, text
        assert golden_tokenizer_100.encode(text) == case["ids_extra_ids_100"], text
        assert golden_tokenizer.decode(ids) == case["decoded_skip_special"], text
        assert golden_tokenizer.decode(ids, skip_special_tokens=False) == case["decoded"], text
        uncleaned = golden_tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        assert uncleaned == case["decoded_skip_special_no_cleanup"], text


@requires_golden
def test_golden_dialogues(golden, golden_tokenizer, golden_tokenizer_100):
    for case in golden["cases"]:
        text = case["preprocessed_text"]
        assert len(golden_tokenizer.encode(text)) == case["n_ids_before_truncation"]
        assert golden_tokenizer.encode(text, max_length=768) == case["input_ids"]
        assert golden_tokenizer_100.encode(text, max_length=768) == case["input_ids_extra_ids_100"]
        assert golden_tokenizer.decode(case["greedy_output_ids"]) == case["greedy_raw_text"]
        assert golden_tokenizer.decode(case["greedy_ngram3_output_ids"]) == case["greedy_ngram3_raw_text"]


@requires_golden
def test_golden_strings_where_transformers_5_differs(golden_tokenizer):
    comparison = json.loads((GOLDEN / "t5_v4_vs_v5.json").read_text(encoding="utf-8"))
    examples = [example for group in comparison["fuzz"]["classes"].values() for example in group["examples"]]
    examples += comparison["edge strings: id differences"]
    assert len(examples) == 10
    for example in examples:
        assert golden_tokenizer.encode(example["text"]) == example["v4_slow"] != example["v5"]
    for difference in comparison["decode differences (skip_special_tokens=True, defaults)"]:
        assert golden_tokenizer.decode(difference["ids"]) == difference["v4"]


@requires_golden
def test_random_text_equals_transformers_where_it_is_known_to_agree(golden_tokenizer):
    """Away from the three known differences, transformers' own tokenizer must give the same ids."""
    from transformers import T5Tokenizer

    reference = T5Tokenizer.from_pretrained(GOLDEN / "t5")
    characters = "头痛咳嗽三天了，。！？：；（）《》【】①½㎏℃％ABcxyz0123456789 .,!?'\"-/\\<>_\u3000鬱龘👋éü\t\n"
    words = ("\\n", "<pad>", "<unk>", "</s>", "<extra_id_0>", "▁", "n't", "医生：")
    alphabet = [*characters, *words]
    rng = random.Random(20240607)
    for _ in range(400):
        text = "".join(rng.choices(alphabet, k=rng.randint(0, 30))) + "。"  # never ends in a literal </s>
        ids = golden_tokenizer.encode(text)
        assert ids == reference(text)["input_ids"], text
