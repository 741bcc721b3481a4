from __future__ import annotations

from itertools import pairwise

import pytest
from sentencepiece import SentencePieceProcessor

from bianque.minis.ice_text import build_ice_text_model
from tests.fixtures.make_chatglm import TEXT

# The lines in pairs, so that newlines, tabs and runs of spaces stand inside sentences.
LINES = TEXT.strip().split("\n")
SENTENCES = ["\n".join(pair) + "\t晚上  好" for pair in pairwise(LINES)]
NUM_PIECES = 297


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    path = tmp_path_factory.mktemp("ice") / "ice_text.model"
    return build_ice_text_model(SENTENCES, NUM_PIECES, path), path


def test_pieces_stand_where_the_published_file_has_them(built):
    ids, path = built
    pieces = SentencePieceProcessor(model_file=str(path))
    names = pieces.id_to_piece(list(range(len(pieces))))
    m = NUM_PIECES
    assert len(pieces) == ids.num_pieces == m + 344
    assert names[:6] == ["<unk>", "<s>", "</s>", "<pad>", "<n>", "▁"]
    assert names[m : m + 8] == ["[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>"]
    assert names[m + 8 : m + 10] == ["<|tab|>", "<|blank_2|>"] and names[m + 87] == "<|blank_80|>"
    assert names[m + 88] == "<0x00>" and names[m + 343] == "<0xFF>"
    assert (ids.mask_token_id, ids.gmask_token_id, ids.bos_token_id, ids.eos_token_id) == (m, m + 1, m + 4, m + 5)
    assert ids.pad_token_id == 3


def test_pieces_have_the_published_kinds(built):
    pieces = SentencePieceProcessor(model_file=str(built[1]))
    m = NUM_PIECES
    assert pieces.is_unknown(0)
    assert all(pieces.is_control(index) for index in [1, 2, 3, *range(m, m + 8)])
    assert all(pieces.is_byte(index) for index in range(m + 88, m + 344))
    # Whitespace pieces are found in text, control pieces are not; what is unknown is spelled in bytes.
    assert pieces.encode("<n><|blank_2|>", out_type=str) == ["▁", "<n>", "<|blank_2|>"]
    assert "<sop>" not in pieces.encode("<sop>", out_type=str)
    assert pieces.encode("龘", out_type=str) == ["▁", "<0xE9>", "<0xBE>", "<0x98>"]


def test_frequent_words_become_pieces_and_none_crosses_whitespace(built):
    pieces = SentencePieceProcessor(model_file=str(built[1]))
    names = pieces.id_to_piece(list(range(6, NUM_PIECES)))
    assert any(len(name.strip("▁")) > 1 for name in names)
    assert not any("<" in name or "|" in name for name in names)
    scores = [pieces.get_score(index) for index in range(6, NUM_PIECES)]
    assert scores == sorted(scores, reverse=True)


def test_the_same_text_gives_the_same_file(built, tmp_path):
    build_ice_text_model(iter(SENTENCES), NUM_PIECES, tmp_path / "again.model")
    assert (tmp_path / "again.model").read_bytes() == built[1].read_bytes()


@pytest.mark.parametrize("num_pieces", [10, 5000])
def test_impossible_sizes_are_refused(tmp_path, num_pieces):
    with pytest.raises(ValueError, match=str(num_pieces)):
        build_ice_text_model(SENTENCES, num_pieces, tmp_path / "ice_text.model")
    assert not (tmp_path / "ice_text.model").exists()
