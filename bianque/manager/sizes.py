"""How large a model is, counted from its configuration: parameters, bytes at each precision, KV cache.

Quantization follows the published scheme: the weights of the linears take 8 or 4 bits with one fp16 scale for each
output row; weights of embedding and head take two bytes, and so does everything else on a GPU. On the CPU, which
computes in fp32, the rest is fp32, and T5's embedding as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bianque.manager.registry import Family, Precision

ELEMENT_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
SCALE_BYTES = 2
BITS: dict[str, int] = {"int8": 8, "int4": 4}


@dataclass(frozen=True)
class ModelSize:
    """Numbers of elements, from which every size in bytes follows.

    Attributes:
        linear: weights of the linears that quantization replaces.
        linear_rows: output rows of those linears, each with a scale.
        embedding: weights of the table of tokens.
        head: weights of the output head.
        is_head_tied: whether the head is the embedding itself.
        rest: everything but linears and head: the embedding, norms and biases.
        cache_per_token: keys and values that one token adds to the KV cache.
        kept_fp32: weights among the linears that fp16 keeps in fp32, because it overflows in them (T5's `wo`).
        max_length: longest sequence by the configuration, in tokens; None if it sets no limit.
    """

    linear: int
    linear_rows: int
    embedding: int
    head: int
    is_head_tied: bool
    rest: int
    cache_per_token: int
    kept_fp32: int = 0
    max_length: int | None = None

    @property
    def num_parameters(self) -> int:
        """All parameters, tied ones once."""
        return self.linear + self.rest + (0 if self.is_head_tied else self.head)

    def bytes_at(self, precision: Precision, *, on_cpu: bool = False) -> int:
        """Return the bytes of the loaded weights.

        Args:
            precision: of the weights.
            on_cpu: whether they are on the CPU, where beside int8 and int4 some weights are fp32.
        """
        if precision in ELEMENT_BYTES:
            wider = self.kept_fp32 * (ELEMENT_BYTES["fp32"] - ELEMENT_BYTES["fp16"]) if precision == "fp16" else 0
            return self.num_parameters * ELEMENT_BYTES[precision] + wider
        linear = self.linear * BITS[precision] // 8 + self.linear_rows * SCALE_BYTES
        half, full = ELEMENT_BYTES["fp16"], ELEMENT_BYTES["fp32" if on_cpu else "fp16"]
        embedding = self.embedding * (half if self.is_head_tied else full)
        head = 0 if self.is_head_tied else self.head * half
        return linear + embedding + head + (self.rest - self.embedding) * full


def measure_config(config: Mapping[str, Any], family: Family) -> ModelSize:
    """Count a model from its `config.json`.

    Raises:
        KeyError: if a size is missing from the configuration.
        TypeError: if a size is no number.
        ValueError: likewise, or if it is not above 0.
        OverflowError: if it is infinite.
    """
    size = _measure_t5(config) if family == "t5" else _measure_chatglm(config)
    if min(size.linear, size.embedding, size.cache_per_token) < 1 or (size.max_length or 1) < 1:
        raise ValueError("its sizes must be above 0")
    return size


def _measure_chatglm(config: Mapping[str, Any]) -> ModelSize:
    hidden, inner = int(config["hidden_size"]), int(config["inner_hidden_size"])
    layers, vocabulary = int(config["num_layers"]), int(config["vocab_size"])
    rows = layers * (3 * hidden + hidden + inner + hidden)  # query_key_value, dense, dense_h_to_4h, dense_4h_to_h
    return ModelSize(
        linear=layers * (4 * hidden * hidden + 2 * hidden * inner),
        linear_rows=rows,
        embedding=vocabulary * hidden,
        head=vocabulary * hidden,
        is_head_tied=True,
        rest=vocabulary * hidden + rows + layers * 4 * hidden + 2 * hidden,  # every row has a bias
        cache_per_token=2 * layers * hidden,
        max_length=int(config["max_sequence_length"]),
    )


def _measure_t5(config: Mapping[str, Any]) -> ModelSize:
    hidden, inner, vocabulary = int(config["d_model"]), int(config["d_ff"]), int(config["vocab_size"])
    width = int(config["num_heads"]) * int(config["d_kv"])
    encoders = int(config["num_layers"])
    decoders = int(config.get("num_decoder_layers") or encoders)
    num_inputs = 2 if "gated" in str(config.get("feed_forward_proj", "relu")) else 1
    num_attentions = encoders + 2 * decoders
    buckets = int(config.get("relative_attention_num_buckets", 32))
    feed_forward, feed_forward_rows = (num_inputs + 1) * hidden * inner, num_inputs * inner + hidden
    norms = (2 * encoders + 3 * decoders + 2) * hidden
    return ModelSize(
        linear=num_attentions * 4 * hidden * width + (encoders + decoders) * feed_forward,
        linear_rows=num_attentions * (3 * width + hidden) + (encoders + decoders) * feed_forward_rows,
        embedding=vocabulary * hidden,
        head=vocabulary * hidden,
        is_head_tied=bool(config.get("tie_word_embeddings", True)),
        rest=vocabulary * hidden + norms + 2 * buckets * int(config["num_heads"]),
        cache_per_token=2 * decoders * width,
        kept_fp32=(encoders + decoders) * hidden * inner,
    )
