"""The KV cache: one slot for each sequence that runs, all of them allocated once.

Memory is bounded and known before anything is allocated (`kv_cache_bytes`); a conversation of many turns takes no more
than its slot. Nothing here imports torch until a cache is made, so that memory can be planned before torch is loaded.

Dimension letters: N slots, H heads, S places of a slot, D head size, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class CacheShape:
    """Sizes of one attention's keys and values.

    Attributes:
        num_layers: layers that attend.
        num_slots: sequences that run at once.
        num_heads: H.
        max_len: S, tokens that a slot holds.
        head_size: D.
    """

    num_layers: int
    num_slots: int
    num_heads: int
    max_len: int
    head_size: int

    def num_bytes(self, bytes_per_value: int) -> int:
        """Return what keys and values take together."""
        values = self.num_layers * self.num_slots * self.num_heads * self.max_len * self.head_size
        return 2 * values * bytes_per_value


def cache_shapes(
    config: Mapping[str, Any], *, num_slots: int, max_prompt_len: int, max_new_tokens: int
) -> tuple[CacheShape, ...]:
    """Return the caches that a model of `config` needs.

    Args:
        config: what its `config.json` says; `model_type` decides.
        num_slots: sequences that run at once.
        max_prompt_len: longest prompt in tokens of an encoder-decoder; for a decoder-only model, prompt and reply
            together.
        max_new_tokens: longest reply of an encoder-decoder; not looked at for a decoder-only model.

    Returns:
        One shape for ChatGLM; for T5 two, of the decoder's own attention and of the one to the prompt.

    Raises:
        ValueError: if the architecture is another one.
    """
    if config["model_type"] == "chatglm":
        num_heads = config["num_attention_heads"]
        head_size = config["hidden_size"] // num_heads
        return (CacheShape(config["num_layers"], num_slots, num_heads, max_prompt_len, head_size),)
    if config["model_type"] == "t5":
        num_layers = config.get("num_decoder_layers") or config["num_layers"]
        num_heads, head_size = config["num_heads"], config["d_kv"]
        # The start token takes the place of the last one, which is never run.
        return (
            CacheShape(num_layers, num_slots, num_heads, max_new_tokens, head_size),
            CacheShape(num_layers, num_slots, num_heads, max_prompt_len, head_size),
        )
    raise ValueError(f"model_type must be chatglm or t5, but it is {config['model_type']!r}")


def kv_cache_bytes(
    config: Mapping[str, Any], *, num_slots: int, max_prompt_len: int, max_new_tokens: int, bytes_per_value: int
) -> int:
    """Return the bytes of all slots, before any is allocated.

    Args:
        config: see `cache_shapes`, as the next three.
        num_slots: see there.
        max_prompt_len: see there.
        max_new_tokens: see there.
        bytes_per_value: 4 for fp32, 2 for fp16 and bf16.
    """
    shapes = cache_shapes(config, num_slots=num_slots, max_prompt_len=max_prompt_len, max_new_tokens=max_new_tokens)
    return sum(shape.num_bytes(bytes_per_value) for shape in shapes)


class SlotCache:
    """Keys and values of every layer and slot, and how many tokens each slot holds.

    Computed on by one thread; `free` may be called from another one while that thread works on other slots.

    Attributes:
        shape: its sizes.
        keys: for every layer (N, H, S, D).
        values: likewise.
        lengths: tokens in each slot. Who writes a slot sets it.
        num_bytes: memory of keys and values.
    """

    def __init__(
        self, shape: CacheShape, *, dtype: torch.dtype, device: torch.device, is_zeroed: bool = False
    ) -> None:
        """Allocate everything.

        Args:
            shape: sizes.
            dtype: of keys and values.
            device: where they are.
            is_zeroed: needed where the rows of a batch are read to a common length: what is masked must be finite. If
                false, a CPU takes the memory from the system only as slots fill for the first time.
        """
        import torch

        allocate = torch.zeros if is_zeroed else torch.empty
        sizes = (shape.num_slots, shape.num_heads, shape.max_len, shape.head_size)
        self.shape = shape
        self.keys = [allocate(sizes, dtype=dtype, device=device) for _ in range(shape.num_layers)]
        self.values = [allocate(sizes, dtype=dtype, device=device) for _ in range(shape.num_layers)]
        self.lengths = [0] * shape.num_slots
        self.num_bytes = shape.num_bytes(dtype.itemsize)

    def write_prompt(self, layer: int, slot: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Store the keys and values (H, T, D) of a whole prompt."""
        num_tokens = key.shape[1]
        self.keys[layer][slot, :, :num_tokens] = key
        self.values[layer][slot, :, :num_tokens] = value

    def clear(self, slot: int) -> None:
        """Write zeros over a slot: what a sequence left that ended with NaN would pass through every mask."""
        for stored in (*self.keys, *self.values):
            stored[slot].zero_()

    def free(self, slot: int) -> None:
        """Forget a slot's tokens."""
        self.lengths[slot] = 0
