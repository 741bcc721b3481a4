"""Runs ChatGLM-6B for many sequences at once.

Prompts are what the tokenizer delivers for one text: `… [gMASK] <sop>`. Positions follow the ids: the context that is
read in both directions ends at the FIRST `<sop>`, also at one that a user wrote, as in the published code.

The blocks' linear layers see all rows of a decode step together, attention sees each row with its own slot of the KV
cache; see `bianque.models.chatglm` for what a block computes. Linear layers are only called, so that quantized ones do
as well.

Dimension letters: T tokens, n rows, H heads, D head size, C hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence as Ids
from typing import TYPE_CHECKING, cast

import torch
from torch.nn.functional import scaled_dot_product_attention

from bianque.engine.attention import Attention, BatchAttention, RowAttention
from bianque.engine.cuda_graph import StepGraphs
from bianque.engine.kv_cache import SlotCache, cache_shapes
from bianque.engine.runner import Prefill, eos_token_ids
from bianque.models.chatglm import RESIDUAL_SCALE, ChatGLMBlock, apply_rotary, build_rotary_table
from bianque.models.chatglm_positions import build_position_ids, build_prefix_mask

if TYPE_CHECKING:
    from bianque.models.chatglm import ChatGLMForConditionalGeneration


class ChatGLMRunner:
    """See the module's docstring and `bianque.engine.runner.ModelRunner`."""

    is_encoder_decoder = False
    max_new_tokens: int | None = None

    def __init__(
        self,
        model: ChatGLMForConditionalGeneration,
        *,
        num_slots: int = 4,
        max_len: int | None = None,
        is_batched: bool | None = None,
    ) -> None:
        """Wrap a loaded model in evaluation mode and allocate its KV cache.

        Args:
            model: any precision.
            num_slots: sequences at once.
            max_len: longest prompt and reply together, in tokens; None takes the model's.
            is_batched: attend to all rows in one call of fixed shape; None does so everywhere but on a CPU.
        """
        # A norm has the dtype of activations whatever the precision of linear layers and embedding is.
        norm = model.transformer.final_layernorm.weight
        self._model = model
        self._blocks = cast(list[ChatGLMBlock], list(model.transformer.layers))
        self.device = norm.device
        self._is_batched = self.device.type != "cpu" if is_batched is None else is_batched
        self.vocab_size: int = model.config.vocab_size
        self.eos_token_ids = eos_token_ids(model)
        self.num_slots = num_slots
        limit: int = model.config.max_sequence_length
        limit = min(limit, max_len or limit)
        self.max_prompt_len: int | None = limit
        (shape,) = cache_shapes(
            model.config.to_dict(), num_slots=num_slots, max_prompt_len=limit, max_new_tokens=limit
        )
        self._cache = SlotCache(shape, dtype=norm.dtype, device=self.device, is_zeroed=self._is_batched)
        self.kv_cache_bytes = self._cache.num_bytes
        # Both rows of the position of the newest token; row 0 stays at the mask token, row 1 counts.
        self._positions = [(0, 0)] * num_slots
        table = build_rotary_table(limit + 2, shape.head_size)
        self._rotary_table = table.to(device=self.device, dtype=norm.dtype)
        self._graphs = StepGraphs(self._batched_step, num_slots, limit) if self.device.type == "cuda" else None

    @torch.inference_mode()
    def prefill(self, slot: int, prompt_ids: Ids[int]) -> Prefill:
        """See `ModelRunner.prefill`.

        Raises:
            ValueError: if the prompt has no `<sop>` or no mask token.
        """
        input_ids = torch.tensor([prompt_ids], device=self.device)
        position_ids = build_position_ids(input_ids, self._model.config)
        last_position = position_ids[0, :, -1].tolist()
        self._positions[slot] = (last_position[0], last_position[1])
        self._cache.lengths[slot] = len(prompt_ids)
        attention = _PromptAttention(self._cache, slot, ~build_prefix_mask(input_ids, self._model.config))
        hidden_states = self._model.transformer.word_embeddings(input_ids)
        rotary = self._rotary(position_ids)
        for index, block in enumerate(self._blocks):
            hidden_states = _run_block(index, block, hidden_states, rotary, attention)
            yield
        return self._logits(hidden_states[:, -1:])[0]

    @torch.inference_mode()
    def decode(self, slots: Ids[int], token_ids: Ids[int]) -> torch.Tensor:
        """See `ModelRunner.decode`."""
        if self._is_batched:
            logits = self._decode_batched(slots, token_ids)
        else:
            positions = [[self._positions[slot][0], self._positions[slot][1] + 1] for slot in slots]
            logits = self._step(
                torch.tensor(token_ids, device=self.device),
                torch.tensor(positions, device=self.device),
                RowAttention(self._cache, slots),
            )
        for slot in slots:
            self._cache.lengths[slot] += 1
            self._positions[slot] = (self._positions[slot][0], self._positions[slot][1] + 1)
        return logits

    def free(self, slot: int) -> None:
        """See `ModelRunner.free`."""
        self._cache.free(slot)

    def trim(self) -> None:
        """See `ModelRunner.trim`."""
        if self._graphs is not None:
            self._graphs.clear()

    def reset(self) -> None:
        """See `ModelRunner.reset`."""
        for slot in range(self.num_slots):
            self.free(slot)
        self.trim()
        torch.zeros(1, device=self.device).item()  # raises if the device is beyond use

    def context_ids(self, prompt_ids: Ids[int]) -> Ids[int]:
        """Return the prompt: to a decoder-only model it is text already written."""
        return prompt_ids

    def _decode_batched(self, slots: Ids[int], token_ids: Ids[int]) -> torch.Tensor:
        """Run the first slots up to the last one asked for; what the others compute is not looked at.

        A slot that is not asked for writes behind its last token, where its own next token will overwrite it.
        """
        tokens = dict(zip(slots, token_ids, strict=True))
        lengths = self._cache.lengths
        inputs = torch.tensor(
            [
                [tokens.get(slot, 0), min(lengths[slot], self._cache.shape.max_len - 1), position[0], position[1] + 1]
                for slot, position in enumerate(self._positions[: max(slots) + 1])
            ]
        )
        longest = max(lengths[slot] for slot in range(max(slots) + 1)) + 1
        if self._graphs is not None:
            return self._graphs.run(inputs, longest)[list(slots)]
        return self._batched_step(inputs.to(self.device), min(longest, self._cache.shape.max_len))[list(slots)]

    def _batched_step(self, inputs: torch.Tensor, max_len: int) -> torch.Tensor:
        """Run one step of the first n slots: (n, 4) of token, length and both positions -> logits (n, V)."""
        return self._step(inputs[:, 0], inputs[:, 2:], BatchAttention(self._cache, inputs[:, 1], max_len))

    def _step(self, token_ids: torch.Tensor, positions: torch.Tensor, attention: Attention) -> torch.Tensor:
        """Run one token a row: ids (n,), positions (n, 2) -> logits (n, V)."""
        hidden_states = self._model.transformer.word_embeddings(token_ids[:, None])
        rotary = self._rotary(positions[..., None])
        for index, block in enumerate(self._blocks):
            hidden_states = _run_block(index, block, hidden_states, rotary, attention)
        return self._logits(hidden_states)

    def _logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return the logits of one token a row, (n, 1, C) -> (n, V)."""
        return self._model.lm_head(self._model.transformer.final_layernorm(hidden_states[:, 0]))

    def _rotary(self, position_ids: torch.Tensor) -> torch.Tensor:
        """Return (n, T, 1, 1, 2, 3, D / 4) for positions (n, 2, T), as `apply_rotary` takes it."""
        return self._rotary_table[position_ids].transpose(1, 2)[:, :, None, None]


class _PromptAttention:
    """Attention of a whole prompt, which its slot keeps."""

    def __init__(self, cache: SlotCache, slot: int, visible: torch.Tensor) -> None:
        self._cache = cache
        self._slot = slot
        self._visible = visible  # (1, 1, T, T)

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Return (1, T, C) for (1, H, T, D) each."""
        self._cache.write_prompt(layer, self._slot, key[0], value[0])
        attended = scaled_dot_product_attention(query, key, value, attn_mask=self._visible)
        return attended.transpose(1, 2).flatten(2)

    def attend_stored(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        """ChatGLM has no attention to another sequence."""
        raise NotImplementedError


def _run_block(
    layer: int, block: ChatGLMBlock, hidden_states: torch.Tensor, rotary: torch.Tensor, attention: Attention
) -> torch.Tensor:
    """Run what `ChatGLMBlock.forward` runs, with attention from outside; (n, T, C) -> (n, T, C)."""
    normed = block.input_layernorm(hidden_states)
    mixed = block.attention.query_key_value(normed).unflatten(-1, (block.attention.num_heads, 3, -1))
    query_key = apply_rotary(mixed[..., :2, :], rotary)  # (n, T, H, 2, D)
    query, key = query_key[..., 0, :].transpose(1, 2), query_key[..., 1, :].transpose(1, 2)
    attended = attention.attend(layer, query, key, mixed[..., 2, :].transpose(1, 2))
    hidden_states = block.attention.dense(attended).add(normed, alpha=RESIDUAL_SCALE)
    normed = block.post_attention_layernorm(hidden_states)
    return block.mlp(normed).add(normed, alpha=RESIDUAL_SCALE)
