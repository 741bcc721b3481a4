"""What the engine needs of a model: logits of the next token, for a prompt and then for many sequences at once.

A runner owns a fixed number of slots. Each holds one sequence's KV cache; the weights are shared. Runners are used by
one thread at a time.

Dimension letters: T tokens, n rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Sequence as Ids
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Prefill = Generator[None, None, "torch.Tensor"]
"""A prompt being run: each step of the generator is one layer; it returns the logits (V,) of the first token."""


class ModelRunner(Protocol):
    """A model as the engine sees it.

    Attributes:
        vocab_size: V; ids of prompts must be below it.
        eos_token_ids: ids that end a reply.
        is_encoder_decoder: whether prompt and reply have a length limit each; else they share one.
        num_slots: sequences that it holds at once.
        max_prompt_len: longest prompt of an encoder-decoder in tokens; for a decoder-only model, of prompt and reply
            together. None for no limit.
        max_new_tokens: longest reply in tokens, or None for no limit of its own.
        kv_cache_bytes: memory of all slots.
    """

    vocab_size: int
    eos_token_ids: frozenset[int]
    is_encoder_decoder: bool
    num_slots: int
    max_prompt_len: int | None
    max_new_tokens: int | None
    kv_cache_bytes: int

    def prefill(self, slot: int, prompt_ids: Ids[int]) -> Prefill:
        """Run a whole prompt into a free slot.

        The prompt of both architectures is read in both directions, so that its tokens cannot be run in pieces: every
        layer needs all of them from the layer below. What can be cut is the stack of layers. The generator yields
        after each one, and `decode` of other slots may be called in between; closing it gives the prompt up.
        """
        ...

    def decode(self, slots: Ids[int], token_ids: Ids[int], num_exact: Ids[int] | None = None) -> torch.Tensor:
        """Run one more token in each of several slots; return the next tokens' logits (n, V).

        A runner may save work on logits that nobody will look at. The `num_exact` largest of a row, and all that tie
        with the last of them, are what they are without this argument, bit for bit. Any other is so too, or is an
        estimate; then it and the logit itself are below all of those.

        Either all slots advance, or an exception is raised and none does: the same step may then be tried again, with
        fewer slots.

        Args:
            slots: of the sequences, each once.
            token_ids: of each.
            num_exact: of each, 0 for all logits; None is 0 for every slot.
        """
        ...

    def free(self, slot: int) -> None:
        """Forget a sequence; may be called from another thread while other slots are computed."""
        ...

    def trim(self) -> None:
        """Give back memory that can be made again; called after an out-of-memory. Slots keep what they hold."""
        ...

    def reset(self) -> None:
        """Forget all sequences, and prove that the device still works; called after the worker failed."""
        ...

    def context_ids(self, prompt_ids: Ids[int]) -> Ids[int]:
        """Return the ids that penalties on repetition count as written before the first new token."""
        ...


def eos_token_ids(model: PreTrainedModel) -> frozenset[int]:
    """Return the end tokens of a model's generation configuration, else of its configuration."""
    eos = model.generation_config.eos_token_id if model.generation_config is not None else None
    if eos is None:
        eos = model.config.eos_token_id
    return frozenset([eos] if isinstance(eos, int) else eos or ())
