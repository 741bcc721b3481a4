"""Runs T5 for many sequences at once: the encoder once a prompt, then the decoder one token of each row at a time.

A prompt's keys and values for the decoder's attention to it are computed once, at prefill, and kept in the slot; the
encoder's states are not kept. `generate` is left out: its bookkeeping costs more than the decoder of a small model. On
a CPU the kernels run whole layers (`bianque.engine.t5_program`).

Dimension letters: n rows, H heads, S places, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence as Ids
from typing import TYPE_CHECKING, cast

import torch

from bianque.engine.attention import BatchAttention, RowAttention
from bianque.engine.kv_cache import cache_shapes
from bianque.engine.runner import Prefill
from bianque.engine.slot_runner import SlotRunner
from bianque.engine.t5_program import T5Program
from bianque.models import t5_decoder

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


class T5Runner(SlotRunner):
    """See the module's docstring and `bianque.engine.runner.ModelRunner`."""

    is_encoder_decoder = True

    def __init__(
        self,
        model: T5ForConditionalGeneration,
        *,
        num_slots: int = 4,
        max_prompt_len: int = 768,
        max_new_tokens: int = 1024,
        is_batched: bool | None = None,
    ) -> None:
        """Wrap a loaded model in evaluation mode and allocate its KV cache.

        Args:
            model: any T5 with a language-model head, in any precision.
            num_slots: sequences at once.
            max_prompt_len: longest prompt in tokens. T5's relative positions set no limit of their own.
            max_new_tokens: longest reply in tokens.
            is_batched: attend to all rows in one call of fixed shape; None does so everywhere but on a CPU.
        """
        shapes = cache_shapes(
            model.config.to_dict(), num_slots=num_slots, max_prompt_len=max_prompt_len, max_new_tokens=max_new_tokens
        )
        norm = cast(torch.Tensor, model.decoder.final_layer_norm.weight)
        super().__init__(model, norm, shapes, is_batched=is_batched)
        self._model = model
        self.max_prompt_len: int | None = max_prompt_len
        self.max_new_tokens: int | None = max_new_tokens
        # T5 starts with the padding token, 0; a configuration may leave it unsaid.
        self._start_token_id: int = getattr(model.config, "decoder_start_token_id", None) or 0
        self._reply, self._prompt = self._caches
        with torch.inference_mode():
            # (H, S), the farthest first: a row of S' tokens takes the last S'.
            self._bias = t5_decoder.bias_by_distance(model, max_new_tokens).flip(-1).to(self._dtype).contiguous()
            self._program = None
            if not self._is_batched:
                self._program = T5Program.record(model, self._reply, self._prompt, self._bias)

    @torch.inference_mode()
    def prefill(self, slot: int, prompt_ids: Ids[int]) -> Prefill:
        """See `ModelRunner.prefill`."""
        self._begin(slot)
        self._reply.lengths[slot] = 0
        self._prompt.lengths[slot] = len(prompt_ids)
        if self._program is not None:
            encoder = self._program.encoder(prompt_ids)
            for layer in range(len(self._model.encoder.block)):
                encoder.run_layer(layer)
                yield
            for layer in range(self._prompt.shape.num_layers):
                encoder.write_prompt(layer, slot)
                yield
            return self.decode([slot], [self._start_token_id])[0]
        input_ids = torch.tensor([prompt_ids], device=self.device)
        encoded = yield from t5_decoder.encode(self._model, input_ids)
        for layer in range(self._prompt.shape.num_layers):
            key, value = t5_decoder.prompt_keys_values(self._model, layer, encoded)
            self._prompt.write_prompt(layer, slot, key, value)
            yield
        return self.decode([slot], [self._start_token_id])[0]

    def context_ids(self, prompt_ids: Ids[int]) -> Ids[int]:
        """Return the decoder's start token: the prompt is the encoder's and may be repeated freely."""
        return (self._start_token_id,)

    def _step_of_rows(self, slots: Ids[int], token_ids: Ids[int], num_exact: Ids[int]) -> torch.Tensor:
        if self._program is not None:
            return self._program.decode(slots, token_ids)
        return t5_decoder.decode(
            self._model,
            torch.tensor(token_ids, device=self.device),
            RowAttention(self._reply, slots, scale=1.0, bias=self._bias),
            RowAttention(self._prompt, slots, scale=1.0),
        )

    def _further_inputs(self, slot: int) -> tuple[int, ...]:
        """Return the length of the prompt."""
        return (self._prompt.lengths[slot],)

    def _batched_step(self, inputs: torch.Tensor, max_len: int) -> torch.Tensor:
        lengths = inputs[:, 1]
        # Places behind a row's end would have negative distances; they are masked.
        distances = (lengths[:, None] - torch.arange(max_len, device=lengths.device)).clamp(min=0)
        bias = self._bias[:, self._bias.shape[1] - 1 - distances].transpose(0, 1)[:, :, None]  # (n, H, 1, S)
        return t5_decoder.decode(
            self._model,
            inputs[:, 0],
            BatchAttention(self._reply, lengths, max_len, scale=1.0, bias=bias),
            BatchAttention(self._prompt, inputs[:, 2], self._prompt.shape.max_len, scale=1.0),
        )
