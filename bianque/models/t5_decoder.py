"""T5's decoder one token at a time, and its encoder one layer at a time, over transformers' loaded modules.

transformers' own decoder gives all rows of a batch one position. Sequences that joined a batch at different times have
different ones; here the caller brings attention, and with it the positions and the KV cache. The modules are only
called, so that quantized linear layers do as well.

Deviation: where a half-precision block overflows, transformers lowers the clamp for the whole batch; here each value
is clamped alone, so that a row does not depend on its neighbours.

Dimension letters: n rows, T tokens of the prompt, S tokens of the reply, H heads, D head size, C hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration
    from transformers.models.t5.modeling_t5 import T5Attention, T5Block


class SelfAttention(Protocol):
    """Attention to the reply so far."""

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Store key and value, (n, H, 1, D) each, and return (n, 1, H · D); scores are not scaled but biased."""
        ...


class PromptAttention(Protocol):
    """Attention to the prompt."""

    def attend_stored(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        """Return (n, 1, H · D) for (n, H, 1, D); scores are neither scaled nor biased."""
        ...


def encode(model: T5ForConditionalGeneration, input_ids: torch.Tensor) -> Generator[None, None, torch.Tensor]:
    """Run the encoder, yielding after every layer; return its hidden states, (1, T) -> (1, T, C)."""
    encoder: Any = model.encoder
    hidden_states = encoder.embed_tokens(input_ids)
    position_bias = None
    for block in encoder.block:
        hidden_states, position_bias, _ = block(hidden_states, position_bias=position_bias)
        yield
    return encoder.final_layer_norm(hidden_states)


def prompt_keys_values(
    model: T5ForConditionalGeneration, layer: int, encoded: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a layer of the decoder attends to in the prompt, (1, T, C) -> twice (H, T, D)."""
    attention = cast(Any, model.decoder.block[layer]).layer[1].EncDecAttention
    key, value = (_split(linear(encoded), attention)[0] for linear in (attention.k, attention.v))
    return key, value


def decode(
    model: T5ForConditionalGeneration,
    token_ids: torch.Tensor,
    self_attention: SelfAttention,
    prompt_attention: PromptAttention,
) -> torch.Tensor:
    """Run one token of each row through the decoder and the head; (n,) -> logits (n, V)."""
    decoder: Any = model.decoder
    hidden_states = decoder.embed_tokens(token_ids[:, None])
    for layer, block in enumerate(decoder.block):
        hidden_states = _run_block(layer, block, hidden_states, self_attention, prompt_attention)
    hidden_states = decoder.final_layer_norm(hidden_states[:, 0])
    if model.config.scale_decoder_outputs:
        hidden_states = hidden_states * model.config.d_model**-0.5
    return model.lm_head(hidden_states)


def bias_by_distance(model: T5ForConditionalGeneration, num_distances: int) -> torch.Tensor:
    """Return what the decoder's relative positions add to scores: (H, num_distances), from distance 0 backwards."""
    attention = cast(Any, model.decoder.block[0]).layer[0].SelfAttention
    bias = attention.compute_bias(num_distances, num_distances)  # (1, H, query, key)
    return bias[0, :, -1].flip(-1)  # the last token looks back at all distances, the farthest first


def _run_block(
    layer: int,
    block: T5Block,
    hidden_states: torch.Tensor,
    self_attention: SelfAttention,
    prompt_attention: PromptAttention,
) -> torch.Tensor:
    """Run what `T5Block.forward` runs for one token, with attention from outside; (n, 1, C) -> (n, 1, C)."""
    own, cross, feed_forward = (cast(Any, part) for part in block.layer)
    normed = own.layer_norm(hidden_states)
    attention = own.SelfAttention
    query, key, value = (_split(linear(normed), attention) for linear in (attention.q, attention.k, attention.v))
    hidden_states = _finite(hidden_states + attention.o(self_attention.attend(layer, query, key, value)))
    attention = cross.EncDecAttention
    query = _split(attention.q(cross.layer_norm(hidden_states)), attention)
    hidden_states = _finite(hidden_states + attention.o(prompt_attention.attend_stored(layer, query)))
    return _finite(feed_forward(hidden_states))


def _split(mixed: torch.Tensor, attention: T5Attention) -> torch.Tensor:
    """Return heads apart, (n, T, H · D) -> (n, H, T, D)."""
    return mixed.unflatten(-1, (attention.n_heads, attention.key_value_proj_dim)).transpose(1, 2)


def _finite(hidden_states: torch.Tensor) -> torch.Tensor:
    """Keep fp16 from overflowing, as T5's blocks do; other dtypes have room enough."""
    if hidden_states.dtype != torch.float16:
        return hidden_states
    return hidden_states.clamp(-_LARGEST_FP16, _LARGEST_FP16)


# 1000 below the largest finite value, as in transformers.
_LARGEST_FP16 = torch.finfo(torch.float16).max - 1000
