"""Runs a model for one sequence: prefill the prompt, then one decode step a token. Knows ids and tensors, no text.

What follows from the architectures: ChatGLM's prompt attention is bidirectional and T5 has an encoder, so a prompt is
prefilled whole; it cannot be cut into chunks that are run one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel

from bianque.models.chatglm_positions import build_position_ids


class ModelRunner(Protocol):
    """What the engine needs of a model. One thread at a time."""

    eos_token_ids: frozenset[int]
    is_encoder_decoder: bool

    def prefill(self, prompt_ids: list[int]) -> tuple[Any, torch.Tensor]:
        """Run the whole prompt; return the state that `decode` continues, and the logits (V,) of the first token."""
        ...

    def decode(self, state: Any, token_id: int) -> torch.Tensor:
        """Append one token to the state, in place, and return the logits (V,) of the next."""
        ...

    def context_ids(self, prompt_ids: list[int]) -> list[int]:
        """Return what repetition penalty and n-gram ban look back on before the first token."""
        ...


@dataclass
class ChatGLMState:
    """KV cache of one sequence and the positions of its newest token, (1, 2, 1)."""

    kv_cache: DynamicCache
    position_ids: torch.Tensor


class ChatGLMRunner:
    """ChatGLM-6B: prefix attention over the prompt, then steps with two-dimensional positions."""

    is_encoder_decoder = False

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._config = model.config
        self.eos_token_ids = frozenset([model.config.eos_token_id])
        self._step = torch.tensor([[[0], [1]]], device=model.device)

    @torch.inference_mode()
    def prefill(self, prompt_ids: list[int]) -> tuple[ChatGLMState, torch.Tensor]:
        """See `ModelRunner.prefill`; the prompt ends in `[gMASK]` and `<sop>`, as the tokenizer leaves it."""
        input_ids = torch.tensor([prompt_ids], device=self._model.device)
        position_ids = build_position_ids(input_ids, self._config)
        kv_cache = DynamicCache()
        logits = self._model(input_ids, position_ids=position_ids, cache=kv_cache, logits_to_keep=1).logits
        return ChatGLMState(kv_cache, position_ids[:, :, -1:]), logits[0, -1]

    @torch.inference_mode()
    def decode(self, state: ChatGLMState, token_id: int) -> torch.Tensor:
        """See `ModelRunner.decode`; block position counts on, the mask position stays."""
        state.position_ids = state.position_ids + self._step
        input_ids = torch.tensor([[token_id]], device=self._model.device)
        logits = self._model(input_ids, position_ids=state.position_ids, cache=state.kv_cache, logits_to_keep=1).logits
        return logits[0, -1]

    def context_ids(self, prompt_ids: list[int]) -> list[int]:
        """Return the prompt: a decoder-only model continues it."""
        return prompt_ids


@dataclass
class T5State:
    """Encoder output (1, S, C) and the caches of the decoder's self- and cross-attention."""

    encoder_hidden_states: torch.Tensor
    kv_cache: EncoderDecoderCache


class T5Runner:
    """T5: the encoder runs once over the prompt, the decoder from its start token."""

    is_encoder_decoder = True

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self.eos_token_ids = frozenset([model.config.eos_token_id])
        self._start_id: int = model.config.decoder_start_token_id

    @torch.inference_mode()
    def prefill(self, prompt_ids: list[int]) -> tuple[T5State, torch.Tensor]:
        """See `ModelRunner.prefill`."""
        input_ids = torch.tensor([prompt_ids], device=self._model.device)
        hidden_states = self._model.get_encoder()(input_ids=input_ids).last_hidden_state
        state = T5State(hidden_states, EncoderDecoderCache(DynamicCache(), DynamicCache()))
        return state, self.decode(state, self._start_id)

    @torch.inference_mode()
    def decode(self, state: T5State, token_id: int) -> torch.Tensor:
        """See `ModelRunner.decode`."""
        model = self._model
        output = model.get_decoder()(
            input_ids=torch.tensor([[token_id]], device=model.device),
            encoder_hidden_states=state.encoder_hidden_states,
            cache=state.kv_cache,
            use_cache=True,
        ).last_hidden_state[0, -1]
        if model.config.scale_decoder_outputs:  # checkpoints whose configuration ties the head to the embedding
            output = output * model.config.d_model**-0.5
        return torch.nn.functional.linear(output, model.get_output_embeddings().weight)

    def context_ids(self, prompt_ids: list[int]) -> list[int]:
        """Return the start token: the decoder does not continue the prompt."""
        return [self._start_id]
