"""What the engine needs of a model: logits of the next token, for a prompt and then for one token after another.

A sequence's state belongs to that sequence alone and holds its KV cache; the weights are shared. Runners are used by
one thread at a time.

Dimension letters: T tokens, C hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence as Ids
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from bianque.models.chatglm_positions import build_position_ids

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

    from bianque.models.chatglm import ChatGLMForConditionalGeneration


class ModelRunner(Protocol):
    """A model as the engine sees it.

    Attributes:
        vocab_size: V; ids of prompts must be below it.
        eos_token_ids: ids that end a reply.
        is_encoder_decoder: whether the prompt has its own length limit; else prompt and reply share one.
        max_model_len: that limit in tokens, or None for no limit.
    """

    vocab_size: int
    eos_token_ids: frozenset[int]
    is_encoder_decoder: bool
    max_model_len: int | None

    def prefill(self, prompt_ids: Ids[int]) -> tuple[Any, torch.Tensor]:
        """Run a whole prompt; return a new sequence's state and the logits (V,) of its first token."""
        ...

    def decode(self, state: Any, token_id: int) -> torch.Tensor:
        """Run one token after those in `state`, which is changed in place; return the next token's logits (V,)."""
        ...

    def context_ids(self, prompt_ids: Ids[int]) -> Ids[int]:
        """Return the ids that penalties on repetition count as written before the first new token."""
        ...


@dataclass
class ChatGLMState:
    """State of one sequence: its KV cache and the position (1, 2, 1) of the token before the next one."""

    kv_cache: DynamicCache
    position_ids: torch.Tensor


class ChatGLMRunner:
    """Runs ChatGLM-6B.

    Prompts are what the tokenizer delivers for one text: `… [gMASK] <sop>`. Positions follow the ids: the context that
    is read in both directions ends at the FIRST `<sop>`, also at one that a user wrote, as in the published code.
    """

    is_encoder_decoder = False

    def __init__(self, model: ChatGLMForConditionalGeneration) -> None:
        """Wrap a loaded model in evaluation mode."""
        self._model = model
        self.vocab_size: int = model.config.vocab_size
        self.eos_token_ids = _eos_token_ids(model)
        self.max_model_len: int | None = model.config.max_sequence_length

    @torch.inference_mode()
    def prefill(self, prompt_ids: Ids[int]) -> tuple[ChatGLMState, torch.Tensor]:
        """See `ModelRunner.prefill`.

        Raises:
            ValueError: if the prompt has no `<sop>` or no mask token.
        """
        input_ids = torch.tensor([prompt_ids], device=self._model.device)
        position_ids = build_position_ids(input_ids, self._model.config)
        state = ChatGLMState(DynamicCache(), position_ids[..., -1:].clone())
        return state, self._forward(input_ids, position_ids, state)

    @torch.inference_mode()
    def decode(self, state: ChatGLMState, token_id: int) -> torch.Tensor:
        """See `ModelRunner.decode`."""
        state.position_ids[:, 1] += 1  # row 0 stays at the mask token, row 1 counts
        return self._forward(torch.tensor([[token_id]], device=self._model.device), state.position_ids, state)

    def context_ids(self, prompt_ids: Ids[int]) -> Ids[int]:
        """Return the prompt: to a decoder-only model it is text already written."""
        return prompt_ids

    def _forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor, state: ChatGLMState) -> torch.Tensor:
        outputs = self._model(
            input_ids, position_ids=position_ids, cache=state.kv_cache, use_cache=True, logits_to_keep=1
        )
        return outputs.logits[0, -1]


@dataclass
class T5State:
    """State of one sequence: what the encoder made of the prompt, and the KV cache of both attentions."""

    encoded: BaseModelOutput
    kv_cache: EncoderDecoderCache


class T5Runner:
    """Runs T5: the encoder once a prompt, then the decoder one token at a time.

    `generate` is left out, whose bookkeeping costs more than the decoder of a small model.
    """

    is_encoder_decoder = True

    def __init__(self, model: T5ForConditionalGeneration, *, max_model_len: int | None = None) -> None:
        """Wrap a loaded model in evaluation mode.

        Args:
            model: any T5 with a language-model head.
            max_model_len: longest prompt in tokens. T5's relative positions set no limit of their own.
        """
        self._model = model
        self.vocab_size: int = model.config.vocab_size
        self.eos_token_ids = _eos_token_ids(model)
        self.max_model_len = max_model_len
        # T5 starts with the padding token, 0; a configuration may leave it unsaid.
        self._start_token_id: int = getattr(model.config, "decoder_start_token_id", None) or 0

    @torch.inference_mode()
    def prefill(self, prompt_ids: Ids[int]) -> tuple[T5State, torch.Tensor]:
        """See `ModelRunner.prefill`."""
        input_ids = torch.tensor([prompt_ids], device=self._model.device)
        hidden_states = self._model.encoder(input_ids=input_ids).last_hidden_state  # (1, T, C)
        state = T5State(
            BaseModelOutput(last_hidden_state=hidden_states), EncoderDecoderCache(DynamicCache(), DynamicCache())
        )
        return state, self.decode(state, self._start_token_id)

    @torch.inference_mode()
    def decode(self, state: T5State, token_id: int) -> torch.Tensor:
        """See `ModelRunner.decode`."""
        outputs = self._model(
            encoder_outputs=state.encoded,
            decoder_input_ids=torch.tensor([[token_id]], device=self._model.device),
            cache=state.kv_cache,
            use_cache=True,
        )
        return outputs.logits[0, -1]

    def context_ids(self, prompt_ids: Ids[int]) -> Ids[int]:
        """Return the decoder's start token: the prompt is the encoder's and may be repeated freely."""
        return (self._start_token_id,)


def _eos_token_ids(model: PreTrainedModel) -> frozenset[int]:
    """Return the end tokens of a model's generation configuration, else of its configuration."""
    eos = model.generation_config.eos_token_id if model.generation_config is not None else None
    if eos is None:
        eos = model.config.eos_token_id
    return frozenset([eos] if isinstance(eos, int) else eos or ())
