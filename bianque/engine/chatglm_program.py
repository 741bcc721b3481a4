"""ChatGLM as programs of the CPU kernels: the decode step in one call, and a layer of a prompt in two.

The same numbers as the plain path of `bianque.engine.chatglm_runner` up to rounding, for models whose activations are
fp32; see `bianque.engine.t5_program` for why, and `bianque.models.chatglm` for what a block computes.

Dimension letters: n rows, N slots, T tokens of the prompt, H heads, D head size, C hidden, V vocabulary, P positions.
"""

from __future__ import annotations

from collections.abc import Sequence as Ids
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from bianque.cpu_kernels.build import Kernels, load_kernels
from bianque.cpu_kernels.operations import FLOATS
from bianque.cpu_kernels.program import Matrix, Program
from bianque.engine.kv_cache import SlotCache
from bianque.models.chatglm import RESIDUAL_SCALE
from bianque.quantization.matrix import stored_matrices

if TYPE_CHECKING:
    from bianque.models.chatglm import ChatGLMBlock, ChatGLMForConditionalGeneration


class ChatGLMProgram:
    """The programs of one model and its cache."""

    def __init__(
        self,
        model: ChatGLMForConditionalGeneration,
        kernels: Kernels,
        matrices: dict[nn.Module, Matrix],
        cache: SlotCache,
        table: torch.Tensor,
    ) -> None:
        """Record the decode step; see `record`."""
        self._model: Any = model
        self._kernels = kernels
        self._matrices = matrices
        self._cache = cache
        self._table = table
        num_slots = cache.shape.num_slots
        self._slots = torch.zeros(num_slots, dtype=torch.int64)
        self._lengths = torch.zeros(num_slots, dtype=torch.int64)  # the new token included
        self._positions = torch.zeros(num_slots, 2, dtype=torch.int64)
        self._num_exact = torch.zeros(num_slots, dtype=torch.int64)
        self._step = _Layers(kernels, matrices, num_slots, model.config)
        self._logits = self._record_step()

    @classmethod
    def record(
        cls, model: ChatGLMForConditionalGeneration, cache: SlotCache, table: torch.Tensor
    ) -> ChatGLMProgram | None:
        """Record the programs of a loaded model; None where it is not one of those that the kernels can run.

        Args:
            model: in evaluation mode; its weights stay where they are.
            cache: of the runner.
            table: of the rotary positions, (P, 3, D / 4).
        """
        kernels = load_kernels()
        sizes = (model.config.hidden_size, model.config.inner_hidden_size, cache.shape.head_size)
        is_fp32 = table.device.type == "cpu" and table.dtype == torch.float32
        if kernels is None or not is_fp32 or any(size % FLOATS for size in sizes):
            return None
        matrices = stored_matrices(model, "chatglm")
        return None if matrices is None else cls(model, kernels, matrices, cache, table)

    def decode(
        self, slots: Ids[int], token_ids: Ids[int], positions: Ids[Ids[int]], num_exact: Ids[int]
    ) -> torch.Tensor:
        """Run one token of each slot at both its positions, see `ModelRunner.decode`; logits (n, V)."""
        num_rows = len(slots)
        self._slots[:num_rows] = torch.tensor(slots)
        self._lengths[:num_rows] = torch.tensor([self._cache.lengths[slot] + 1 for slot in slots])
        self._positions[:num_rows] = torch.tensor(positions)
        self._num_exact[:num_rows] = torch.tensor(num_exact)
        self._step.hidden_states[:num_rows] = self._model.transformer.word_embeddings(torch.tensor(token_ids))
        self._step.program.run(num_rows)
        return self._logits[:num_rows].clone()

    def prompt(
        self, slot: int, input_ids: torch.Tensor, positions: torch.Tensor, visible: torch.Tensor
    ) -> ChatGLMPrompt:
        """Return a prompt at work, which its slot will hold.

        Args:
            slot: where its keys and values go.
            input_ids: (1, T).
            positions: (1, 2, T).
            visible: (1, 1, T, T) bool.
        """
        layers = _Layers(self._kernels, self._matrices, input_ids.shape[1], self._model.config)
        layers.hidden_states[:] = self._model.transformer.word_embeddings(input_ids)[0]
        return ChatGLMPrompt(layers, self._cache, slot, positions[0].T.contiguous(), self._table, visible)

    def _record_step(self) -> torch.Tensor:
        """Add all operations of the decode step; return the array (N, V) of its logits."""
        step, program = self._step, self._step.program
        scale = self._cache.shape.head_size**-0.5
        for index, block in enumerate(self._model.transformer.layers):
            step.add_projection(block, self._positions, self._table)
            program.attend(
                step.heads.unbind(2),
                self._cache.keys[index],
                self._cache.values[index],
                self._slots,
                self._lengths,
                scale=scale,
                out=step.attended,
            )
            step.add_rest(block)
        step.add_norm(self._model.transformer.final_layernorm)
        head = self._matrices[self._model.lm_head]
        return program.multiply(program.pack(step.normed, head.bits), head, num_exact=self._num_exact)


class ChatGLMPrompt:
    """A prompt on its way through the blocks; the caller decides when the next one is run."""

    def __init__(
        self,
        layers: _Layers,
        cache: SlotCache,
        slot: int,
        positions: torch.Tensor,
        table: torch.Tensor,
        visible: torch.Tensor,
    ) -> None:
        """See `ChatGLMProgram.prompt`; `positions` are (T, 2)."""
        self._layers = layers
        self._cache = cache
        self._slot = slot
        self._positions = positions
        self._table = table
        self._visible = visible

    def run_block(self, index: int, block: ChatGLMBlock) -> torch.Tensor:
        """Run a block; return its output (T, C), which the next one overwrites."""
        layers = self._layers
        layers.start()
        layers.add_projection(block, self._positions, self._table)
        layers.program.run(layers.num_rows)
        query, key, value = layers.heads.transpose(0, 1).unbind(2)  # (H, T, D)
        self._cache.write_prompt(index, self._slot, key, value)
        attended = scaled_dot_product_attention(query[None], key[None], value[None], attn_mask=self._visible)
        layers.attended.view(layers.num_rows, *query.shape[::2])[:] = attended[0].transpose(0, 1)
        layers.start()
        layers.add_rest(block)
        layers.program.run(layers.num_rows)
        return layers.hidden_states


class _Layers:
    """Arrays for so many rows, and the program that is being recorded over them."""

    def __init__(self, kernels: Kernels, matrices: dict[nn.Module, Matrix], num_rows: int, config: Any) -> None:
        self._kernels = kernels
        self._matrices = matrices
        self.num_rows = num_rows
        self.start()
        new_rows = self.program.new_rows
        self.hidden_states = new_rows(config.hidden_size)
        self.normed = new_rows(config.hidden_size)
        self.attended = new_rows(config.hidden_size)
        self._mixed = new_rows(3 * config.hidden_size)
        self._inner = new_rows(config.inner_hidden_size)
        self._num_heads = config.num_attention_heads

    @property
    def heads(self) -> torch.Tensor:
        """Query, key and value of every head, (N, H, 3, D)."""
        return self._mixed.unflatten(1, (self._num_heads, 3, -1))

    def start(self) -> None:
        """Begin a new program."""
        self.program = Program(self._kernels, self.num_rows)

    def add_norm(self, norm: nn.LayerNorm) -> None:
        """Normalize the hidden states."""
        self.program.norm(self.hidden_states, norm.weight.detach(), norm.bias.detach(), norm.eps, out=self.normed)

    def add_projection(self, block: ChatGLMBlock, positions: torch.Tensor, table: torch.Tensor) -> None:
        """Add what a block does before attention."""
        self.add_norm(block.input_layernorm)
        self._add_product(self.normed, block.attention.query_key_value, out=self._mixed)
        self.program.rotate(self._mixed, positions, table, self._num_heads)

    def add_rest(self, block: ChatGLMBlock) -> None:
        """Add what a block does after attention. The residual is the output of the norm before, not its input."""
        self._add_product(self.attended, block.attention.dense, out=self.hidden_states, residual=self.normed)
        self.add_norm(block.post_attention_layernorm)
        self._add_product(self.normed, block.mlp.dense_h_to_4h, out=self._inner)
        self.program.gelu(self._inner)
        self._add_product(self._inner, block.mlp.dense_4h_to_h, out=self.hidden_states, residual=self.normed)

    def _add_product(
        self, rows: torch.Tensor, layer: nn.Module, out: torch.Tensor, residual: torch.Tensor | None = None
    ) -> None:
        matrix = self._matrices[layer]
        packed = self.program.pack(rows, matrix.bits)
        self.program.multiply(packed, matrix, residual=residual, residual_scale=RESIDUAL_SCALE, out=out)
