"""Rows of a batch to padded tensors: on the right for T5, on the left for ChatGLM, to the longest row and no further.

`rows` goes along so that a loss that is not finite can name its samples; the trainer takes it out again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bianque.models.chatglm_positions import SpecialIds, build_position_ids

IGNORED = -100
"""Label of what is not learnt."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class T5Collator:
    """Batches for T5, whose forward shifts the labels itself.

    Attributes:
        pad_token_id: of the encoder's input.
    """

    pad_token_id: int = 0

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Return input_ids and attention_mask (B, T), labels (B, U) and rows (B,), all int64."""
        prompts, targets = [row["prompt"] for row in rows], [row["target"] for row in rows]
        width, target_width = max(map(len, prompts)), max(map(len, targets))
        return {
            "input_ids": torch.tensor([ids + [self.pad_token_id] * (width - len(ids)) for ids in prompts]),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in prompts]),
            "labels": torch.tensor([ids + [IGNORED] * (target_width - len(ids)) for ids in targets]),
            "rows": torch.tensor([row["row"] for row in rows]),
        }


@dataclass(frozen=True)
class ChatGLMCollator:
    """Batches for ChatGLM, padded on the left with the model's own two-dimensional positions.

    Targets then end the rows, so that logits are needed for the last positions alone: labels are given for these.

    Attributes:
        ids: configuration of the model.
        pad_token_id: of the padding.
    """

    ids: SpecialIds
    pad_token_id: int

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Return a batch.

        Returns:
            input_ids, attention_mask (B, T); position_ids (B, 2, T); labels (B, U) of the last U positions, not
            shifted, where U is the longest target and the token before it; rows (B,). All int64.
        """
        lengths = [len(row["prompt"]) + len(row["target"]) for row in rows]
        width, kept = max(lengths), max(len(row["target"]) for row in rows) + 1
        padding = [width - length for length in lengths]
        input_ids = torch.tensor(
            [
                [self.pad_token_id] * left + row["prompt"] + row["target"]
                for left, row in zip(padding, rows, strict=True)
            ]
        )
        attention_mask = torch.tensor([[0] * left + [1] * (width - left) for left in padding])
        labels = torch.tensor([[IGNORED] * (kept - len(row["target"])) + row["target"] for row in rows])
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": build_position_ids(input_ids, self.ids, attention_mask),
            "labels": labels,
            "rows": torch.tensor([row["row"] for row in rows]),
        }
