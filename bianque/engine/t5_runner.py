"""Runs T5 for many sequences at once: the encoder once a prompt, then the decoder one token of each row at a time.

A prompt's keys and values for the decoder's attention to it are computed once, at prefill, and kept in the slot; the
encoder's states are not kept. `generate` is left out: its bookkeeping costs more than the decoder of a small model.

Dimension letters: n rows, H heads, S places, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence as Ids
from typing import TYPE_CHECKING, cast

import torch

from bianque.engine.attention import BatchAttention, RowAttention
from bianque.engine.cuda_graph import StepGraphs
from bianque.engine.kv_cache import SlotCache, cache_shapes
from bianque.engine.runner import Prefill, eos_token_ids
from bianque.models import t5_decoder

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


class T5Runner:
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
        # A norm has the dtype of activations whatever the precision of linear layers and embedding is.
        norm = cast(torch.Tensor, model.decoder.final_layer_norm.weight)
        self._model = model
        self.device = norm.device
        self._is_batched = self.device.type != "cpu" if is_batched is None else is_batched
        self.vocab_size: int = model.config.vocab_size
        self.eos_token_ids = eos_token_ids(model)
        self.num_slots = num_slots
        self.max_prompt_len: int | None = max_prompt_len
        self.max_new_tokens: int | None = max_new_tokens
        # T5 starts with the padding token, 0; a configuration may leave it unsaid.
        self._start_token_id: int = getattr(model.config, "decoder_start_token_id", None) or 0
        self._reply, self._prompt = (
            SlotCache(shape, dtype=norm.dtype, device=self.device, is_zeroed=self._is_batched)
            for shape in cache_shapes(
                model.config.to_dict(),
                num_slots=num_slots,
                max_prompt_len=max_prompt_len,
                max_new_tokens=max_new_tokens,
            )
        )
        self.kv_cache_bytes = self._reply.num_bytes + self._prompt.num_bytes
        with torch.inference_mode():
            # (H, S), the farthest first: a row of S' tokens takes the last S'.
            self._bias = t5_decoder.bias_by_distance(model, max_new_tokens).flip(-1).to(norm.dtype)
        self._graphs = (
            StepGraphs(self._batched_step, num_slots, max_new_tokens) if self.device.type == "cuda" else None
        )

    @torch.inference_mode()
    def prefill(self, slot: int, prompt_ids: Ids[int]) -> Prefill:
        """See `ModelRunner.prefill`."""
        self._reply.lengths[slot] = 0
        self._prompt.lengths[slot] = len(prompt_ids)
        input_ids = torch.tensor([prompt_ids], device=self.device)
        encoded = yield from t5_decoder.encode(self._model, input_ids)
        for layer in range(self._prompt.shape.num_layers):
            key, value = t5_decoder.prompt_keys_values(self._model, layer, encoded)
            self._prompt.write_prompt(layer, slot, key, value)
            yield
        return self.decode([slot], [self._start_token_id])[0]

    @torch.inference_mode()
    def decode(self, slots: Ids[int], token_ids: Ids[int]) -> torch.Tensor:
        """See `ModelRunner.decode`."""
        if self._is_batched:
            logits = self._decode_batched(slots, token_ids)
        else:
            num_distances = self._bias.shape[1]
            biases = [self._bias[:, None, num_distances - 1 - self._reply.lengths[slot] :] for slot in slots]
            logits = t5_decoder.decode(
                self._model,
                torch.tensor(token_ids, device=self.device),
                RowAttention(self._reply, slots, scale=1.0, biases=biases),
                RowAttention(self._prompt, slots, scale=1.0),
            )
        for slot in slots:
            self._reply.lengths[slot] += 1
        return logits

    def free(self, slot: int) -> None:
        """See `ModelRunner.free`."""
        self._reply.free(slot)
        self._prompt.free(slot)

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
        """Return the decoder's start token: the prompt is the encoder's and may be repeated freely."""
        return (self._start_token_id,)

    def _decode_batched(self, slots: Ids[int], token_ids: Ids[int]) -> torch.Tensor:
        """Run the first slots up to the last one asked for; what the others compute is not looked at.

        A slot that is not asked for writes behind its last token, where its own next token will overwrite it.
        """
        tokens = dict(zip(slots, token_ids, strict=True))
        max_len = self._reply.shape.max_len
        inputs = torch.tensor(
            [
                [tokens.get(slot, 0), min(self._reply.lengths[slot], max_len - 1), self._prompt.lengths[slot]]
                for slot in range(max(slots) + 1)
            ]
        )
        longest = int(inputs[:, 1].max()) + 1
        if self._graphs is not None:
            return self._graphs.run(inputs, longest)[list(slots)]
        return self._batched_step(inputs.to(self.device), longest)[list(slots)]

    def _batched_step(self, inputs: torch.Tensor, max_len: int) -> torch.Tensor:
        """Run one step of the first n slots: (n, 3) of token, reply and prompt lengths -> logits (n, V)."""
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
