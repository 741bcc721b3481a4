"""ChatGLM-6B v1.1 (BianQue-2.0, SoulChat) as a transformers model that needs no remote code.

    word_embeddings                                        (B, T) ids -> (B, T, C)
    num_layers blocks, post-norm: the residual is the LayerNorm's OUTPUT, scaled by √56
        a = input_layernorm(x);          y   = a·√56 + attention(a)
        m = post_attention_layernorm(y); out = m·√56 + mlp(m)
    final_layernorm, lm_head (tied)                        (B, T, C) -> (B, T, V)

The prompt is a prefix: its tokens see each other in both directions (`bianque.models.chatglm_positions`). Parameters
carry the published names, so that published shards load unchanged.

Deviations from the published code, none of which changes fp32 results by more than rounding:

- Attention is `scaled_dot_product_attention`; the published division of the query by the layer number, undone after
  the product, guarded fp16 against overflow and is not needed there.
- The rotary table is computed in fp32 from the fp16-rounded frequencies. The published half-precision run computes the
  table itself in fp16, which is coarser for long contexts.
- Where the published code picks one mask token for a whole batch, each row here has its own.

Dimension letters: B batch, T new tokens, S cached and new tokens, H heads, D head size, C hidden, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional
from transformers import Cache, DynamicCache, GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from bianque.models.chatglm_config import ChatGLMConfig
from bianque.models.chatglm_positions import (
    build_position_ids,
    build_prefix_mask,
    extend_position_ids,
    left_padding_mask,
)

__all__ = ["ChatGLMConfig", "ChatGLMForConditionalGeneration", "ChatGLMModel"]

# √(2·28) for any number of layers: the published model never hands its layer count to the blocks.
RESIDUAL_SCALE = math.sqrt(2 * 28)


def build_rotary_table(num_positions: int, head_size: int) -> torch.Tensor:
    """Return cosines and signed sines for every position, (num_positions, 3, head_size // 4) in fp32.

    The three rows are cos, -sin, sin: a rotated half is `x·cos + swapped(x)·(-sin, sin)`, see `apply_rotary`. The
    frequencies are rounded to fp16, as they are stored in published checkpoints and used from there.
    """
    exponents = torch.arange(0, head_size // 2, 2, dtype=torch.float32) / (head_size // 2)
    frequencies = (1.0 / 10000**exponents).half().float()
    angles = torch.arange(num_positions, dtype=torch.float32)[:, None] * frequencies
    return torch.stack((angles.cos(), -angles.sin(), angles.sin()), dim=1)


def apply_rotary(hidden_states: torch.Tensor, rotary: torch.Tensor) -> torch.Tensor:
    """Rotate queries and keys: their first half by row 0 of the positions, their second half by row 1.

    Args:
        hidden_states: (B, T, H, n, D).
        rotary: (B, T, 1, 1, 2, 3, D / 4), rows of the rotary table; both halves of D have their own.

    Returns:
        (B, T, H, n, D).
    """
    quarters = hidden_states.unflatten(-1, (2, 2, rotary.shape[-1]))
    rotated = torch.addcmul(quarters * rotary[..., :1, :], quarters.flip(-2), rotary[..., 1:, :])
    return rotated.flatten(-3)


class ChatGLMAttention(nn.Module):
    """Multi-head attention; `query_key_value` holds q, k and v of head 0, then of head 1, and so on."""

    def __init__(self, config: ChatGLMConfig, layer_index: int) -> None:
        super().__init__()
        self.layer_index = layer_index
        self.num_heads = config.num_attention_heads
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, rotary: torch.Tensor, visible: torch.Tensor | None, cache: Cache | None
    ) -> torch.Tensor:
        """Attend from T new tokens to S; `visible` is (B, 1, T, S) bool or None for everything; (B, T, C)."""
        mixed = self.query_key_value(hidden_states)
        mixed = mixed.unflatten(-1, (self.num_heads, 3, -1))  # (B, T, H, 3, D)
        query_key = apply_rotary(mixed[..., :2, :], rotary)
        query = query_key[..., 0, :].transpose(1, 2)  # (B, H, T, D)
        key = query_key[..., 1, :].transpose(1, 2)
        value = mixed[..., 2, :].transpose(1, 2)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_index)  # (B, H, S, D)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        return self.dense(attended.transpose(1, 2).flatten(2))


class ChatGLMMLP(nn.Module):
    """Two linear layers with tanh-approximated GELU between them."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.inner_hidden_size)
        self.dense_4h_to_h = nn.Linear(config.inner_hidden_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return (B, T, C)."""
        return self.dense_4h_to_h(functional.gelu(self.dense_h_to_4h(hidden_states), approximate="tanh"))


class ChatGLMBlock(GradientCheckpointingLayer):
    """One layer, see the module's docstring."""

    def __init__(self, config: ChatGLMConfig, layer_index: int) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.attention = ChatGLMAttention(config, layer_index)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.mlp = ChatGLMMLP(config)

    def forward(
        self,
        hidden_states: torch.Tensor,
        rotary: torch.Tensor,
        visible: torch.Tensor | None,
        cache: Cache | None = None,
    ) -> torch.Tensor:
        """Return (B, T, C)."""
        normed = self.input_layernorm(hidden_states)
        hidden_states = self.attention(normed, rotary, visible, cache).add(normed, alpha=RESIDUAL_SCALE)
        normed = self.post_attention_layernorm(hidden_states)
        return self.mlp(normed).add(normed, alpha=RESIDUAL_SCALE)


class ChatGLMPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation shared by the two models below."""

    config_class = ChatGLMConfig
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["ChatGLMBlock"]  # noqa: RUF012 - transformers' names
    _skip_keys_device_placement = ["cache"]  # noqa: RUF012
    # Stored with every layer, and recomputed here to the same values.
    _keys_to_ignore_on_load_unexpected = [r"attention\.rotary_emb\.inv_freq$"]  # noqa: RUF012


class ChatGLMModel(ChatGLMPreTrainedModel):
    """Embedding, blocks and final LayerNorm."""

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        self.gradient_checkpointing = False
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(ChatGLMBlock(config, index) for index in range(config.num_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        # No buffer: a buffer would be lost or left empty by initialisation on the meta device.
        self._rotary_table: torch.Tensor | None = None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding."""
        return self.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embedding."""
        self.word_embeddings = cast(nn.Embedding, value)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutputWithPast:
        """Run T new tokens after those in `cache`.

        Args:
            input_ids: (B, T) int64.
            attention_mask: (B, 1, T, S) bool with True for hidden, as the published tokenizer delivers; or (B, S)
                with 1 for tokens and 0 for padding on the left. None hides what a prompt's prefix scheme hides.
            position_ids: (B, 2, T) int64; None derives them from `input_ids`, which must then hold the whole prompt.
            cache: what earlier tokens left, changed in place; None starts afresh.
            use_cache: whether to make a cache when there is none; None follows the configuration, and never while
                training.
            output_hidden_states: return the input of every block and the output of the final LayerNorm.

        Raises:
            ValueError: if a mask has another form, or positions cannot be derived.
        """
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and cache is None:
            cache = DynamicCache()
        cached_length = cache.get_seq_length() if cache is not None else 0
        visible = self._visible(attention_mask, input_ids, cached_length)
        hidden_states = self.word_embeddings(input_ids)
        if position_ids is None:
            if cached_length:
                raise ValueError("tokens after a cached prompt need position_ids; see extend_position_ids")
            padding_mask = attention_mask if attention_mask is not None and attention_mask.dim() == 2 else None
            position_ids = build_position_ids(input_ids, self.config, padding_mask)
        table = self._rotary(cached_length + input_ids.shape[1], hidden_states)
        rotary = table[position_ids].transpose(1, 2)[:, :, None, None]  # (B, T, 1, 1, 2, 3, D / 4)
        states = []
        for layer in self.layers:
            if output_hidden_states:
                states.append(hidden_states)
            hidden_states = layer(hidden_states, rotary, visible, cache=cache)
        hidden_states = self.final_layernorm(hidden_states)
        if output_hidden_states:
            states.append(hidden_states)
        return BaseModelOutputWithPast(
            last_hidden_state=hidden_states, cache=cache, hidden_states=tuple(states) if states else None
        )

    def _rotary(self, length: int, like: torch.Tensor) -> torch.Tensor:
        """Return the rotary table for at least positions 0 … `length`, on the device and in the dtype of `like`."""
        table = self._rotary_table
        if table is None or table.shape[0] <= length or table.device != like.device or table.dtype != like.dtype:
            num_positions = max(self.config.max_sequence_length + 1, 2 * length)
            table = build_rotary_table(num_positions, self.config.hidden_size // self.config.num_attention_heads)
            self._rotary_table = table = table.to(device=like.device, dtype=like.dtype)
        return table

    def _visible(
        self, attention_mask: torch.Tensor | None, input_ids: torch.Tensor, cached_length: int
    ) -> torch.Tensor | None:
        """Return (B, 1, T, S) bool for attention, True for visible, or None if nothing is hidden."""
        batch, num_new = input_ids.shape
        length = cached_length + num_new
        if attention_mask is not None and attention_mask.dim() == 4 and attention_mask.dtype == torch.bool:
            _check_shape(attention_mask, (batch, 1, num_new, length))
            return _without_empty_rows(~attention_mask)
        if attention_mask is not None:
            if attention_mask.dim() != 2:
                raise ValueError(
                    "attention_mask must be bool (B, 1, T, S) or 1/0 (B, S), "
                    f"but it is {attention_mask.dtype} of shape {tuple(attention_mask.shape)}"
                )
            _check_shape(attention_mask, (batch, length))
        if cached_length == 0:
            return _without_empty_rows(~build_prefix_mask(input_ids, self.config, attention_mask))
        padding_visible = None if attention_mask is None else (attention_mask != 0)[:, None, None]  # (B, 1, 1, S)
        if num_new == 1:
            return padding_visible
        causal = torch.ones(num_new, length, dtype=torch.bool, device=input_ids.device).tril(cached_length)
        return causal[None, None] if padding_visible is None else causal & padding_visible


class ChatGLMForConditionalGeneration(ChatGLMPreTrainedModel, GenerationMixin):
    """ChatGLM with its language-model head."""

    _tied_weights_keys = {"lm_head.weight": "transformer.word_embeddings.weight"}  # noqa: RUF012
    # The trainer may hand over the number of targets of all accumulated batches, so that the loss is their mean.
    accepts_loss_kwargs = True

    def __init__(self, config: ChatGLMConfig) -> None:
        super().__init__(config)
        self.transformer = ChatGLMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """Return the head."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the head."""
        self.lm_head = cast(nn.Linear, new_embeddings)

    def tie_weights(self, missing_keys: set[str] | None = None, recompute_mapping: bool = True) -> None:
        """Tie the head to the embedding, also where a checkpoint stores both with different values.

        The published code does so; transformers alone would keep two different tensors apart.
        """
        if missing_keys is not None and "transformer.word_embeddings.weight" not in missing_keys:
            missing_keys.add("lm_head.weight")
        super().tie_weights(missing_keys=missing_keys, recompute_mapping=recompute_mapping)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int = 0,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> CausalLMOutputWithPast:
        """Return logits (B, T, V), and the loss if there are labels.

        Args:
            input_ids: see `ChatGLMModel.forward`, as the next five.
            attention_mask: see there.
            position_ids: see there.
            cache: see there.
            labels: (B, T), the ids themselves, not shifted: the logits at t are compared with the label at t + 1.
                -100 is left out.
            use_cache: see there.
            output_hidden_states: see there.
            logits_to_keep: compute the logits of this many last tokens only; 0 for all.
            num_items_in_batch: divide the summed loss by this instead of by the number of labels.
        """
        outputs = self.transformer(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.lm_head(outputs.last_hidden_state[:, -logits_to_keep:])
        loss = None
        if labels is not None:
            loss = functional.cross_entropy(
                logits[:, :-1].float().flatten(0, 1),
                labels[:, 1:].flatten(),
                reduction="mean" if num_items_in_batch is None else "sum",
            )
            if num_items_in_batch is not None:
                loss = loss / num_items_in_batch
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, cache=outputs.cache, hidden_states=outputs.hidden_states
        )

    @torch.no_grad()
    def generate(
        self, inputs: torch.Tensor | None = None, generation_config: GenerationConfig | None = None, **kwargs: Any
    ) -> Any:
        """Generate with transformers' `generate`; takes what the tokenizer delivers, batches included.

        Positions and prefix mask follow the prompt's ids. Given `position_ids` (B, 2, T) are used for the prompt and
        continued. The tokenizer's (B, 1, T, T) mask is reduced to its padding, which is all it holds beyond the ids.
        """
        input_ids = kwargs.pop("input_ids", None) if inputs is None else inputs
        mask = kwargs.pop("attention_mask", None)
        if mask is None:
            mask = torch.ones_like(input_ids)
            if input_ids.shape[0] > 1:
                mask = left_padding_mask(input_ids, self.config.pad_token_id)
        elif mask.dim() == 4:
            mask = (~mask[:, 0, -1]).long()  # the last row is a token and sees all but padding
        positions = kwargs.pop("position_ids", None)
        if positions is None:
            positions = build_position_ids(input_ids, self.config, mask)
        return super().generate(
            input_ids, generation_config, attention_mask=mask, prompt_position_ids=positions, **kwargs
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        next_sequence_length: int | None = None,
        cache: Cache | None = None,
        attention_mask: torch.Tensor | None = None,
        prompt_position_ids: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 1,
        **_: Any,
    ) -> dict[str, Any]:
        """Return what one step of `generate` runs: the last `next_sequence_length` tokens with their positions.

        transformers' own one-dimensional `position_ids` are ignored.
        """
        length = input_ids.shape[1]
        if prompt_position_ids is None:
            prompt_position_ids = build_position_ids(input_ids, self.config, attention_mask)
        positions = extend_position_ids(prompt_position_ids, length)
        num_new = length if next_sequence_length is None else next_sequence_length
        return {
            "input_ids": input_ids[:, length - num_new :],
            "position_ids": positions[..., length - num_new :],
            "attention_mask": attention_mask,
            "cache": cache,
            "use_cache": use_cache,
            "logits_to_keep": logits_to_keep,
        }


def _check_shape(attention_mask: torch.Tensor, expected: tuple[int, ...]) -> None:
    if attention_mask.shape != expected:
        raise ValueError(f"attention_mask must be {expected}, but it is {tuple(attention_mask.shape)}")


def _without_empty_rows(visible: torch.Tensor) -> torch.Tensor:
    """Let rows that see nothing (padding) see everything: a softmax over nothing is NaN and would spread."""
    return visible | ~visible.any(dim=-1, keepdim=True)
