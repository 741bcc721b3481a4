from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from bianque.models.chatglm_positions import (
    build_position_ids,
    build_prefix_mask,
    context_length,
    extend_position_ids,
    left_padding_mask,
    mask_position,
)

PAD, MASK, GMASK, SOP = 3, 90, 91, 94
IDS = SimpleNamespace(bos_token_id=SOP, gmask_token_id=GMASK, mask_token_id=MASK)


def test_positions_of_a_prompt_and_its_reply():
    ids = torch.tensor([[10, 11, GMASK, SOP, 12, 13]])
    assert build_position_ids(ids, IDS).tolist() == [[[0, 1, 2, 2, 2, 2], [0, 0, 0, 1, 2, 3]]]


def test_padding_is_not_counted():
    ids = torch.tensor([[PAD, PAD, 10, GMASK, SOP], [10, 11, 12, GMASK, SOP]])
    mask = left_padding_mask(ids, PAD)
    assert mask.tolist() == [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert build_position_ids(ids, IDS, mask).tolist() == [
        [[0, 0, 0, 1, 1], [0, 0, 0, 0, 1]],
        [[0, 1, 2, 3, 3], [0, 0, 0, 0, 1]],
    ]


def test_a_pad_id_inside_a_row_is_a_token():
    assert left_padding_mask(torch.tensor([[PAD, 10, PAD, 11]]), PAD).tolist() == [[0, 1, 1, 1]]


def test_the_first_sop_ends_the_context():
    ids = torch.tensor([[10, SOP, 11, GMASK, SOP]])
    assert context_length(ids, IDS).item() == 1
    assert build_position_ids(ids, IDS).tolist() == [[[0, 3, 3, 3, 3], [0, 1, 2, 3, 4]]]


def test_gmask_is_preferred_to_mask_and_the_first_counts():
    assert mask_position(torch.tensor([[MASK, GMASK, GMASK, SOP], [10, MASK, MASK, SOP]]), IDS).tolist() == [1, 1]


def test_later_columns_outside_the_context_are_hidden():
    hidden = build_prefix_mask(torch.tensor([[10, GMASK, SOP, 12]]), IDS)
    assert hidden.int().tolist() == [[[[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]]]


def test_padding_is_hidden_and_sees_nothing():
    ids = torch.tensor([[PAD, 10, GMASK, SOP]])
    hidden = build_prefix_mask(ids, IDS, left_padding_mask(ids, PAD))
    assert hidden.int().tolist() == [[[[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 0, 0, 0]]]]


def test_positions_continue_with_the_reply():
    ids = torch.tensor([[10, GMASK, SOP, 12, 13]])
    prompt = build_position_ids(ids[:, :3], IDS)
    assert torch.equal(extend_position_ids(prompt, 5), build_position_ids(ids, IDS))
    assert torch.equal(extend_position_ids(prompt, 3), prompt)
    with pytest.raises(ValueError, match="shorter"):
        extend_position_ids(prompt, 2)


def test_rows_without_special_tokens_are_refused():
    with pytest.raises(ValueError, match="<sop>"):
        build_position_ids(torch.tensor([[10, GMASK, SOP], [10, 11, GMASK]]), IDS)
    with pytest.raises(ValueError, match=r"\[gMASK\]"):
        build_position_ids(torch.tensor([[10, 11, SOP]]), IDS)
