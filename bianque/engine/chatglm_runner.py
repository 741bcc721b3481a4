"""Runs ChatGLM-6B for many sequences at once.

Prompts are what the tokenizer delivers for one text: `… [gMASK] <sop>`. Positions follow the ids: the context that is
read in both directions ends at the FIRST `<sop>`, also at one that a user wrote, as in the published code.

The blocks' linear layers see all rows of a decode step together, attention sees each row with its own slot of the KV
cache; see `bianque.models.chatglm` for what a block computes. On a CPU the kernels run whole layers
(`bianque.engine.chatglm_program`); elsewhere linear layers are only called, so that quantized ones do as well.

Dimension letters: T tokens, n rows, H heads, D head size, C hidden, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence as Ids
from typing import TYPE_CHECKING, cast

import torch
from torch.nn.functional import scaled_dot_product_attention

from bianque.engine.attention import Attention, BatchAttention, RowAttention
from bianque.engine.chatglm_program import ChatGLMProgram
from bianque.engine.kv_cache import SlotCache, cache_shapes
from bianque.engine.runner import Prefill
from bianque.engine.slot_runner import SlotRunner
from bianque.models.chatglm import RESIDUAL_SCALE, ChatGLMBlock, apply_rotary, build_rotary_table
from bianque.models.chatglm_positions import build_position_ids, build_prefix_mask

if TYPE_CHECKING:
    from bianque.models.chatglm import ChatGLMForConditionalGeneration

logger = logging.getLogger(__name__)


class ChatGLMRunner(SlotRunner):
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
        limit: int = model.config.max_sequence_length
        limit = min(limit, max_len or limit)
        shapes = cache_shapes(model.config.to_dict(), num_slots=num_slots, max_prompt_len=limit, max_new_tokens=limit)
        super().__init__(model, model.transformer.final_layernorm.weight, shapes, is_batched=is_batched)
        self._model = model
        self._blocks = cast(list[ChatGLMBlock], list(model.transformer.layers))
        self.max_prompt_len: int | None = limit
        (self._cache,) = self._caches
        # Both rows of the position of the newest token; row 0 stays at the mask token, row 1 counts.
        self._positions = [(0, 0)] * num_slots
        table = build_rotary_table(limit + 2, shapes[0].head_size)
        self._rotary_table = table.to(device=self.device, dtype=self._dtype)
        self._program = None
        if not self._is_batched:
            self._program = ChatGLMProgram.record(model, self._cache, self._rotary_table)
        if self.device.type == "cuda" and _has_kernels(self.device, self._dtype, shapes[0].head_size):
            self._fuse()

    @torch.inference_mode()
    def prefill(self, slot: int, prompt_ids: Ids[int]) -> Prefill:
        """See `ModelRunner.prefill`.

        Raises:
            ValueError: if the prompt has no `<sop>` or no mask token.
        """
        input_ids = torch.tensor([prompt_ids], device=self.device)
        position_ids = build_position_ids(input_ids, self._model.config)
        last_position = position_ids[0, :, -1].tolist()
        self._begin(slot)
        self._positions[slot] = (last_position[0], last_position[1])
        self._cache.lengths[slot] = len(prompt_ids)
        visible = ~build_prefix_mask(input_ids, self._model.config)
        if self._program is not None:
            prompt = self._program.prompt(slot, input_ids, position_ids, visible)
            for index, block in enumerate(self._blocks):
                last = prompt.run_block(index, block)[-1:]
                yield
            return self._logits(last[None])[0]
        attention = _PromptAttention(self._cache, slot, visible)
        hidden_states = self._model.transformer.word_embeddings(input_ids)
        rotary = self._rotary(position_ids)
        for index, block in enumerate(self._blocks):
            hidden_states = _run_block(index, block, hidden_states, rotary, attention)
            yield
        return self._logits(hidden_states[:, -1:])[0]

    def context_ids(self, prompt_ids: Ids[int]) -> Ids[int]:
        """Return the prompt: to a decoder-only model it is text already written."""
        return prompt_ids

    def _step_of_rows(self, slots: Ids[int], token_ids: Ids[int], num_exact: Ids[int]) -> torch.Tensor:
        positions = [self._further_inputs(slot) for slot in slots]
        if self._program is not None:
            return self._program.decode(slots, token_ids, positions, num_exact)
        return self._step(
            torch.tensor(token_ids, device=self.device),
            torch.tensor(positions, device=self.device),
            RowAttention(self._cache, slots),
        )

    def _fuse(self) -> None:
        """Compute batched steps by `bianque.engine.chatglm_kernels` from now on."""
        self._has_common_length = False

    def _batched_step(self, inputs: torch.Tensor, max_len: int) -> torch.Tensor:
        if not self._has_common_length:
            return self._fused_step(inputs[:, 0], inputs[:, 1], inputs[:, 2:])
        return self._step(inputs[:, 0], inputs[:, 2:], BatchAttention(self._cache, inputs[:, 1], max_len))

    def _further_inputs(self, slot: int) -> tuple[int, ...]:
        """Return both rows of the next token's position."""
        return (self._positions[slot][0], self._positions[slot][1] + 1)

    def _advance(self, slot: int) -> None:
        super()._advance(slot)
        self._positions[slot] = (self._positions[slot][0], self._positions[slot][1] + 1)

    def _step(self, token_ids: torch.Tensor, positions: torch.Tensor, attention: Attention) -> torch.Tensor:
        """Run one token a row: ids (n,), positions (n, 2) -> logits (n, V)."""
        hidden_states = self._model.transformer.word_embeddings(token_ids[:, None])
        rotary = self._rotary(positions[..., None])
        for index, block in enumerate(self._blocks):
            hidden_states = _run_block(index, block, hidden_states, rotary, attention)
        return self._logits(hidden_states)

    def _fused_step(self, token_ids: torch.Tensor, lengths: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Run what `_step` runs, each row over its own length: ids and lengths (n,), positions (n, 2)."""
        from bianque.engine.chatglm_kernels import add_norm, attend, gelu

        transformer = self._model.transformer
        following = [block.input_layernorm for block in self._blocks[1:]] + [transformer.final_layernorm]
        normed = add_norm(transformer.word_embeddings(token_ids), None, self._blocks[0].input_layernorm)
        for index, block in enumerate(self._blocks):
            mixed = block.attention.query_key_value(normed)
            keys, values = self._cache.keys[index], self._cache.values[index]
            attended = attend(mixed, positions, self._rotary_table, keys, values, lengths)
            normed = add_norm(block.attention.dense(attended), normed, block.post_attention_layernorm)
            inner = gelu(block.mlp.dense_h_to_4h(normed))
            normed = add_norm(block.mlp.dense_4h_to_h(inner), normed, following[index])
        return self._model.lm_head(normed)

    def _logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return the logits of one token a row, (n, 1, C) -> (n, V)."""
        return self._model.lm_head(self._model.transformer.final_layernorm(hidden_states[:, 0]))

    def _rotary(self, position_ids: torch.Tensor) -> torch.Tensor:
        """Return (n, T, 1, 1, 2, 3, D / 4) for positions (n, 2, T), as `apply_rotary` takes it."""
        return self._rotary_table[position_ids].transpose(1, 2)[:, :, None, None]


def _has_kernels(device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    try:
        from bianque.engine import chatglm_kernels
    except ImportError as error:
        logger.info("decode steps are not fused: %s", error)
        return False
    return chatglm_kernels.works_on(device, dtype, head_size)


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
