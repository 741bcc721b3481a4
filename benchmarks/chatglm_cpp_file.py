"""Write a random model file of chatglm.cpp 0.4 for ChatGLM-6B, to measure beside: right sizes, meaningless weights."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import torch

from bianque.models.chatglm import ChatGLMConfig

# Scales with which uniform random int8 and int4 integers have a standard deviation of 0.02.
SCALES = {8: 0.02 / 74, 4: 0.02 / 4.6}
# ggml's numbers for q8_0 and q4_0: blocks of 32 integers with an fp16 scale before them.
GGML_TYPES = {8: 8, 4: 2}
BLOCK = 32
TOKENIZER = Path(__file__).resolve().parent.parent / "bianque/minis/mini-adviser/ice_text.model"


def write_model(path: Path, bits: int, config: ChatGLMConfig) -> None:
    """Write all tensors in the order and under the names that chatglm.cpp expects; the head is tied."""
    pool = torch.randint(0, 256, (1 << 20, 2 + BLOCK * bits // 8), dtype=torch.uint8)
    pool[:, :2] = torch.tensor([SCALES[bits]]).half().view(torch.uint8)
    hidden, inner = config.hidden_size, config.inner_hidden_size
    with path.open("wb") as file:
        _write_header(file, bits, config)
        _write_matrix(file, "transformer.word_embeddings.weight", config.vocab_size, hidden, bits, pool)
        for layer in range(config.num_layers):
            prefix = f"transformer.layers.{layer}."
            _write_norm(file, f"{prefix}input_layernorm", hidden)
            _write_linear(file, f"{prefix}attention.query_key_value", 3 * hidden, hidden, bits, pool)
            _write_linear(file, f"{prefix}attention.dense", hidden, hidden, bits, pool)
            _write_norm(file, f"{prefix}post_attention_layernorm", hidden)
            _write_linear(file, f"{prefix}mlp.dense_h_to_4h", inner, hidden, bits, pool)
            _write_linear(file, f"{prefix}mlp.dense_4h_to_h", hidden, inner, bits, pool)
        _write_norm(file, "transformer.final_layernorm", hidden)


def _write_header(file: BinaryIO, bits: int, config: ChatGLMConfig) -> None:
    file.write(b"ggml" + struct.pack("i", 1))
    numbers = (config.vocab_size, config.hidden_size, config.num_attention_heads, config.num_attention_heads)
    file.write(struct.pack("iiiiii", 2, GGML_TYPES[bits], *numbers))
    file.write(struct.pack("iifif", config.num_layers, config.inner_hidden_size, 1e-5, 0, 10000.0))
    file.write(struct.pack("iii", config.max_sequence_length, config.eos_token_id, config.pad_token_id))
    tokenizer = TOKENIZER.read_bytes()
    file.write(struct.pack("i", len(tokenizer)) + tokenizer)


def _begin(file: BinaryIO, name: str, shape: tuple[int, ...], ggml_type: int) -> None:
    file.write(struct.pack("i", len(name)) + name.encode())
    file.write(struct.pack("i" * (2 + len(shape)), len(shape), *shape, ggml_type))
    file.write(bytes(-file.tell() % 16))


def _write_vector(file: BinaryIO, name: str, size: int, value: float) -> None:
    _begin(file, name, (size,), 0)
    file.write(struct.pack("f", value) * size)


def _write_norm(file: BinaryIO, name: str, size: int) -> None:
    _write_vector(file, f"{name}.weight", size, 1.0)
    _write_vector(file, f"{name}.bias", size, 0.0)


def _write_linear(file: BinaryIO, name: str, rows: int, columns: int, bits: int, pool: torch.Tensor) -> None:
    _write_matrix(file, f"{name}.weight", rows, columns, bits, pool)
    _write_vector(file, f"{name}.bias", rows, 0.0)


def _write_matrix(file: BinaryIO, name: str, rows: int, columns: int, bits: int, pool: torch.Tensor) -> None:
    _begin(file, name, (rows, columns), GGML_TYPES[bits])
    num_left = rows * columns // BLOCK
    while num_left:
        part = pool[: min(num_left, len(pool))]
        file.write(part.numpy().tobytes())
        num_left -= len(part)
