"""Name what a reply is about from the prompt alone: a second task that trainings of the demonstration models have."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from bianque.minis.cases import GENERAL
from bianque.minis.dialogues import SPECIALS, Step
from bianque.minis.knowledge import ITEMS, Knowledge


class TopicHeads(nn.Module):
    """Names, from what a model makes of a prompt, the reply's complaint and kind; used in training only.

    Few words of a reply depend on the complaint, and none of them says which questions were asked already, so the
    words alone teach a tiny model slowly what to read in a prompt. The heads ask for just that in every sample.
    """

    def __init__(self, knowledge: Knowledge, hidden_size: int) -> None:
        """Make a class for everything a step may be about."""
        super().__init__()
        general = knowledge.general
        self._subjects = ["", GENERAL, *(complaint.id for complaint in knowledge.complaints)]
        themes = [theme["id"] for theme in knowledge.soulchat["themes"]]
        self._kinds = ["", "handover", "advice", "emergency", *SPECIALS, *ITEMS, *general["followups"], *themes]
        self.subject = nn.Linear(hidden_size, len(self._subjects))
        self.kind = nn.Linear(hidden_size, len(self._kinds))
        # From zero: the training sets its seed later, and the same seed must give the same heads.
        for value in self.parameters():
            nn.init.zeros_(value)

    def classes_of(self, step: Step) -> tuple[int, int]:
        """Return the step's classes; what has no class of its own is class 0."""
        kind = next((name for name in (step.item, step.act) if name and name in self._kinds), "")
        return self._subjects.index(step.subject), self._kinds.index(kind)

    def loss(self, states: torch.Tensor, mask: torch.Tensor, topics: torch.Tensor) -> torch.Tensor:
        """Return the loss for prompt states (B, T, H), of which the mean where `mask` (B, T) is 1 is read."""
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return functional.cross_entropy(self.subject(mean), topics[:, 0]) + functional.cross_entropy(
            self.kind(mean), topics[:, 1]
        )
