"""Pieces join to the whole text, whatever the decoder does at the end of a text, and are never taken back."""

from __future__ import annotations

import itertools
import json
import random
import unicodedata
from pathlib import Path

import pytest

from bianque.tokenization import t5
from bianque.tokenization.chatglm import ChatGLMTokenizer
from bianque.tokenization.streaming import TextStream
from bianque.tokenization.t5 import BianQueT5Tokenizer
from tests.golden import GOLDEN, requires_golden

FIXTURE = Path(__file__).parent.parent / "fixtures" / "t5"


def pieces_of(decode, token_ids):
    """Return every increment; checks on the way that what is shown is the beginning of the whole text."""
    whole = decode(list(token_ids))
    stream = TextStream(decode)
    pieces, shown = [], ""
    for token_id in token_ids:
        pieces.append(stream.push(token_id))
        shown += pieces[-1]
        assert whole.startswith(shown), (whole, shown)
    pieces.append(stream.finish())
    assert "".join(pieces) == whole
    return pieces


class Words:
    """Decodes indices into a list of words, with an optional function over the joined text."""

    def __init__(self, *words, after=str):
        self.words = words
        self.after = after
        self.num_decoded = 0

    def __call__(self, token_ids):
        self.num_decoded += len(token_ids)
        return self.after("".join(self.words[token_id] for token_id in token_ids))


@pytest.fixture(scope="module")
def tokenizer():
    return BianQueT5Tokenizer.from_pretrained(FIXTURE)


def test_chinese_text_comes_token_by_token():
    decode = Words("头晕", "，", "多久", "了", "？")
    assert pieces_of(decode, range(5)) == ["头晕", "，", "多久", "了", "？", ""]


def test_bytes_of_a_character_are_held_back_until_it_is_whole():
    def decode(token_ids):
        return bytes(token_ids).decode("utf-8", "replace")

    token_ids = list("头🙂a".encode())
    assert pieces_of(decode, token_ids) == ["", "", "头", "", "", "", "🙂", "", "a"]


def test_bytes_that_never_become_a_character_are_shown_in_the_end():
    def decode(token_ids):
        return "".join(chr(i) if i < 128 else "\ufffd" for i in token_ids)

    assert pieces_of(decode, [65, 200, 200, 200, 200, 200, 66, 67]) == [
        "", "A", "", "", "\ufffd", "\ufffd", "\ufffd\ufffd\ufffd", "B", "C",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "a . b",
        "a ' b",
        "a ' .",
        "it 's",
        "they 've",
        "we 're",
        "I 'm",
        "do n't",
        "a n' b",
        "a '",
        "a n",
        "a  . ,",
        "a ? !",
    ],
)
def test_every_clean_up_joins(text):
    """Characters one by one, through the T5 decoder's strip and clean-up."""

    def decode(token_ids):
        cleaned = "".join(map(chr, token_ids)).strip()
        for found, replacement in t5._CLEAN_UP:
            cleaned = cleaned.replace(found, replacement)
        return cleaned

    ids = [ord(character) for character in text]
    assert "".join(pieces_of(decode, ids)) == decode(ids)


def test_space_waits_for_what_follows(tokenizer):
    ids = tokenizer.encode("It isn't dry , ok . 胃疼")[:-1]
    assert "".join(pieces_of(tokenizer.decode, ids)) == "It isn't dry, ok. 胃疼"


def test_composing_decoder():
    decode = Words(
        "cafe", "\u0301", " é", "か", "\u3099", "\u1112", "\u1161", after=lambda t: unicodedata.normalize("NFC", t)
    )
    assert pieces_of(decode, range(7))[0] == "caf"


def test_white_space_written_as_pieces():
    def restore(text):
        return text.replace("<n>", "\n").replace("<|tab|>", "\t").replace("<|blank_12|>", " " * 12)

    decode = Words(
        "头<", "n", ">", "<|", "tab|", ">", "<|blank", "_1", "2|", ">", "<3 ", "<|blanket|>", "疼", after=restore
    )
    pieces = pieces_of(decode, range(13))
    assert pieces[:5] == ["头", "", "", "\n", ""]


def test_escapes_of_two_characters():
    decode = Words("头", "\\", "n", "\\\\", "t", after=lambda text: text.replace("\\n", "\n").replace("\\t", "\t"))
    assert pieces_of(decode, range(5)) == ["头", "", "", "\n\\", "", "\t"]


def test_long_run_of_white_space():
    decode = Words("头", " ", "疼", after=str.rstrip)
    assert "".join(pieces_of(decode, [0, *[1] * 200, 2, 1, 1])) == f"头{' ' * 200}疼"


def test_several_tokens_at_once():
    stream = TextStream(Words("头", "晕", " "))
    assert stream.push(0, 1, 2) == "头晕"
    assert stream.push() == ""
    assert stream.finish() == " "


def test_empty_stream():
    assert TextStream(Words()).finish() == ""


def test_cost_does_not_grow_with_the_length():
    """Ids decoded for each new one stay bounded; decoding everything each time would be 2,000 on average for 4,000."""
    decode = Words("头", "晕了", "，", " ", "有")
    rng = random.Random(3)
    pieces_of(decode, [rng.randrange(5) for _ in range(4000)])
    assert decode.num_decoded < 4000 * 50


def test_decoder_whose_window_can_never_move_is_still_right():
    """Each character depends on every id before it."""
    num_decoded = 0

    def decode(token_ids):
        nonlocal num_decoded
        num_decoded += len(token_ids)
        return "".join(chr(0x4E00 + total) for total in itertools.accumulate(token_ids))

    pieces_of(decode, [1] * 500)
    assert num_decoded < 500 * 501 / 2 + 5000  # one decoding of everything each time, and few attempts to move


def test_random_ids_of_the_fixture_vocabulary(tokenizer):
    rng = random.Random(5)
    for _ in range(30):
        ids = [rng.randrange(140) for _ in range(rng.randrange(300))]
        assert "".join(pieces_of(tokenizer.decode, ids)) == tokenizer.decode(ids)


@requires_golden
@pytest.mark.parametrize("clean_up", [True, False])
def test_golden_t5_replies_and_random_ids(clean_up):
    golden = json.loads((GOLDEN / "golden_t5.json").read_text(encoding="utf-8"))
    tokenizer = BianQueT5Tokenizer.from_pretrained(GOLDEN / "t5")

    def decode(token_ids):
        return tokenizer.decode(token_ids, clean_up_tokenization_spaces=clean_up)

    for case in golden["cases"]:
        pieces_of(decode, case["greedy_output_ids"])
    for case in golden["tokenizer_cases"]:
        pieces_of(decode, case["ids"])
    check_random_ids(decode, 1920)


@requires_golden
def test_golden_chatglm_replies_and_random_ids():
    golden = json.loads((GOLDEN / "golden_chatglm.json").read_text(encoding="utf-8"))
    tokenizer = ChatGLMTokenizer.from_pretrained(GOLDEN / "chatglm")
    for case in golden["cases"]:
        pieces = pieces_of(tokenizer.decode, case["chat_new_ids"])
        assert "".join(pieces) == case["raw_decoded_BianQue2"]
    for case in golden["decode_cases"] + golden["tokenizer_cases"]:
        pieces_of(tokenizer.decode, case["ids"])
    check_random_ids(tokenizer.decode, 2344)
    # Bytes, white space, angle brackets and plain characters in close company.
    special = [0, 3, 4, 5, *range(2005, 2012), *range(2088, 2344), 33, 7]
    check_random_ids(lambda token_ids: tokenizer.decode(token_ids), len(special), special)


def check_random_ids(decode, vocab_size, token_ids=None):
    rng = random.Random(7)
    for _ in range(25):
        picks = [rng.randrange(vocab_size) for _ in range(rng.randrange(400))]
        pieces_of(decode, [token_ids[pick] for pick in picks] if token_ids else picks)
