"""T5 as programs of the CPU kernels: the decode step in one call, and a layer of the encoder in two.

The same numbers as `bianque.models.t5_decoder` up to rounding, for models whose activations are fp32. At a few rows a
step, what a layer needs beside its weights (norms, the way through Python, waking threads) costs as much as its
products do.

Dimension letters: n rows, N slots, T tokens of the prompt, S places, H heads, D head size, C hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence as Ids
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from bianque.cpu_kernels.build import Kernels, load_kernels
from bianque.cpu_kernels.operations import FLOATS
from bianque.cpu_kernels.program import Matrix, Packed, Program
from bianque.engine.kv_cache import SlotCache
from bianque.quantization.matrix import stored_matrices

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

ACTIVATIONS = frozenset({"gelu_new", "gelu_pytorch_tanh"})
"""transformers' names of the one activation that the kernels have."""


class T5Program:
    """The programs of one model and its two caches."""

    def __init__(
        self,
        model: T5ForConditionalGeneration,
        kernels: Kernels,
        matrices: dict[nn.Module, Matrix],
        reply: SlotCache,
        prompt: SlotCache,
        bias: torch.Tensor,
    ) -> None:
        """Record the decode step; see `record`."""
        self._model: Any = model
        self._kernels = kernels
        self._matrices = matrices
        self._reply, self._prompt = reply, prompt
        num_slots = reply.shape.num_slots
        self._slots = torch.zeros(num_slots, dtype=torch.int64)
        self._lengths = torch.zeros(num_slots, dtype=torch.int64)  # the new token included
        self._prompt_lengths = torch.zeros(num_slots, dtype=torch.int64)
        self._step = Program(kernels, num_slots)
        self._hidden_states = self._step.new_rows(model.config.d_model)
        self._logits = self._record_step(bias)

    @classmethod
    def record(
        cls, model: T5ForConditionalGeneration, reply: SlotCache, prompt: SlotCache, bias: torch.Tensor
    ) -> T5Program | None:
        """Record the programs of a loaded model; None where it is not one of those that the kernels can run.

        Args:
            model: in evaluation mode; its weights stay where they are.
            reply: the cache of the decoder's attention to the reply.
            prompt: the cache of its attention to the prompt.
            bias: (H, S), what the reply's scores are biased by, the farthest first.
        """
        kernels = load_kernels()
        config = model.config
        sizes = (config.d_model, config.d_ff, config.d_kv)
        if (
            kernels is None
            or bias.device.type != "cpu"
            or bias.dtype != torch.float32
            or any(size % FLOATS for size in sizes)
            or config.dense_act_fn not in ACTIVATIONS
        ):
            return None
        matrices = stored_matrices(model, "t5")
        return None if matrices is None else cls(model, kernels, matrices, reply, prompt, bias)

    def decode(self, slots: Ids[int], token_ids: Ids[int]) -> torch.Tensor:
        """Run one token of each slot, see `ModelRunner.decode`; logits (n, V)."""
        num_rows = len(slots)
        self._slots[:num_rows] = torch.tensor(slots)
        self._lengths[:num_rows] = torch.tensor([self._reply.lengths[slot] + 1 for slot in slots])
        self._prompt_lengths[:num_rows] = torch.tensor([self._prompt.lengths[slot] for slot in slots])
        self._hidden_states[:num_rows] = self._model.decoder.embed_tokens(torch.tensor(token_ids))
        self._step.run(num_rows)
        return self._logits[:num_rows].clone()

    def encoder(self, prompt_ids: Ids[int]) -> T5EncoderProgram:
        """Return the encoder at work on a prompt."""
        return T5EncoderProgram(self._model, self._kernels, self._matrices, prompt_ids, self._prompt)

    def _record_step(self, bias: torch.Tensor) -> torch.Tensor:
        """Add the decoder's operations to the step; return the array (N, V) of its logits."""
        step, config = self._step, self._model.config
        hidden_states = self._hidden_states
        normed = step.new_rows(config.d_model)
        query, key, value, attended = (step.new_rows(config.num_heads * config.d_kv) for _ in range(4))
        split = (config.num_heads, config.d_kv)
        inner = [step.new_rows(config.d_ff) for _ in range(2)]
        bits = self._matrices[self._model.decoder.block[0].layer[0].SelfAttention.q].bits
        for index, block in enumerate(self._model.decoder.block):
            own, cross, feed_forward = block.layer
            attention = own.SelfAttention
            _norm(step, own.layer_norm, hidden_states, normed)
            packed = step.pack(normed, bits)
            for linear, out in ((attention.q, query), (attention.k, key), (attention.v, value)):
                step.multiply(packed, self._matrices[linear], out=out)
            step.attend(
                [mixed.unflatten(1, split) for mixed in (query, key, value)],
                self._reply.keys[index],
                self._reply.values[index],
                self._slots,
                self._lengths,
                scale=1.0,
                bias=bias,
                out=attended,
            )
            _add_product(step, attended, self._matrices[attention.o], hidden_states)
            attention = cross.EncDecAttention
            _norm(step, cross.layer_norm, hidden_states, normed)
            step.multiply(step.pack(normed, bits), self._matrices[attention.q], out=query)
            step.attend(
                [query.unflatten(1, split), None, None],
                self._prompt.keys[index],
                self._prompt.values[index],
                self._slots,
                self._prompt_lengths,
                scale=1.0,
                out=attended,
            )
            _add_product(step, attended, self._matrices[attention.o], hidden_states)
            _feed_forward(step, self._matrices, feed_forward, hidden_states, normed, inner)
        norm = self._model.decoder.final_layer_norm
        scale = config.d_model**-0.5 if config.scale_decoder_outputs else 1.0
        step.norm(hidden_states, norm.weight.detach() * scale, None, norm.variance_epsilon, out=normed)
        head = self._matrices[self._model.lm_head]
        return step.multiply(step.pack(normed, head.bits), head)


class T5EncoderProgram:
    """A prompt on its way through the encoder; the caller decides when the next layer is run."""

    def __init__(
        self,
        model: Any,
        kernels: Kernels,
        matrices: dict[nn.Module, Matrix],
        prompt_ids: Ids[int],
        cache: SlotCache,
    ) -> None:
        """Embed the prompt; see `T5Program.encoder`."""
        self._model = model
        self._kernels = kernels
        self._matrices = matrices
        self._cache = cache
        self._num_tokens = len(prompt_ids)
        config = model.config
        new_rows = self._program().new_rows
        self._hidden_states = model.encoder.embed_tokens(torch.tensor(prompt_ids)).float().contiguous()
        self._normed = new_rows(config.d_model)
        self._mixed = [new_rows(config.num_heads * config.d_kv) for _ in range(3)]
        self._inner = [new_rows(config.d_ff) for _ in range(2)]
        first = model.encoder.block[0].layer[0].SelfAttention
        self._bits = matrices[first.q].bits
        self._bias = first.compute_bias(self._num_tokens, self._num_tokens)  # (1, H, T, T)
        self._encoded: Packed | None = None

    def run_layer(self, index: int) -> None:
        """Run a layer of the encoder."""
        attention, feed_forward = self._model.encoder.block[index].layer
        linears = attention.SelfAttention
        program = self._program()
        _norm(program, attention.layer_norm, self._hidden_states, self._normed)
        packed = program.pack(self._normed, self._bits)
        for linear, out in zip((linears.q, linears.k, linears.v), self._mixed, strict=True):
            program.multiply(packed, self._matrices[linear], out=out)
        program.run(self._num_tokens)
        query, key, value = (self._heads(mixed)[None] for mixed in self._mixed)
        attended = scaled_dot_product_attention(query, key, value, attn_mask=self._bias, scale=1.0)
        attended = attended[0].transpose(0, 1).flatten(1)  # (T, H · D)
        program = self._program()
        _add_product(program, attended.contiguous(), self._matrices[linears.o], self._hidden_states)
        _feed_forward(program, self._matrices, feed_forward, self._hidden_states, self._normed, self._inner)
        program.run(self._num_tokens)

    def write_prompt(self, layer: int, slot: int) -> None:
        """Store what a layer of the decoder attends to in the prompt; the encoder's layers have all been run."""
        attention = self._model.decoder.block[layer].layer[1].EncDecAttention
        program = self._program()
        if self._encoded is None:  # all layers of the decoder take the same
            _norm(program, self._model.encoder.final_layer_norm, self._hidden_states, self._normed)
            self._encoded = program.pack(self._normed, self._bits)
        _, key, value = self._mixed
        program.multiply(self._encoded, self._matrices[attention.k], out=key)
        program.multiply(self._encoded, self._matrices[attention.v], out=value)
        program.run(self._num_tokens)
        self._cache.write_prompt(layer, slot, self._heads(key), self._heads(value))

    def _program(self) -> Program:
        return Program(self._kernels, self._num_tokens)

    def _heads(self, mixed: torch.Tensor) -> torch.Tensor:
        """Return heads apart, (T, H · D) -> (H, T, D)."""
        config = self._model.config
        return mixed.unflatten(1, (config.num_heads, config.d_kv)).transpose(0, 1)


def _norm(program: Program, norm: Any, rows: torch.Tensor, out: torch.Tensor) -> None:
    program.norm(rows, norm.weight.detach(), None, norm.variance_epsilon, out=out)


def _add_product(program: Program, rows: torch.Tensor, matrix: Matrix, hidden_states: torch.Tensor) -> None:
    """Add rows · Wᵀ to the hidden states."""
    program.multiply(program.pack(rows, matrix.bits), matrix, residual=hidden_states, out=hidden_states)


def _feed_forward(
    program: Program,
    matrices: dict[nn.Module, Matrix],
    part: Any,
    hidden_states: torch.Tensor,
    normed: torch.Tensor,
    inner: list[torch.Tensor],
) -> None:
    """Add a block's feed-forward part, gated or not, to the hidden states."""
    dense = part.DenseReluDense
    names = ("wi_0", "wi_1") if hasattr(dense, "wi_0") else ("wi",)
    _norm(program, part.layer_norm, hidden_states, normed)
    packed = program.pack(normed, matrices[dense.wo].bits)
    products = [
        program.multiply(packed, matrices[getattr(dense, name)], out=out)
        for name, out in zip(names, inner, strict=False)
    ]
    activated = program.gelu(*products)
    _add_product(program, activated, matrices[dense.wo], hidden_states)
