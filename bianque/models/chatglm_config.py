"""Configuration of ChatGLM-6B v1.1 under the published key names.

A key of `config.json` that would change the computation and is not implemented here is refused, never dropped: a model
that runs with half its configuration gives wrong advice without a sign.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import GenerationConfig, PreTrainedConfig

from bianque.errors import SnapshotError

# Keys that transformers writes or accepts in any configuration and that mean nothing for this architecture.
_HARMLESS = frozenset(
    "add_cross_attention architectures attn_implementation auto_map cross_attention_hidden_size "
    "decoder_start_token_id experts_implementation finetuning_task id2label is_decoder label2id model_type "
    "name_or_path num_labels output_attentions prefix pruned_heads quantization_embeddings sep_token_id "
    "task_specific_params tf_legacy_loss tie_encoder_decoder tokenizer_class torch_dtype torchscript "
    "use_bfloat16".split()
)


@cache
def _accepted_keys() -> frozenset[str]:
    """Return the keys beyond the declared ones that may stand in `config.json`; generation has its own file."""
    return _HARMLESS | frozenset(GenerationConfig().to_dict())


@strict
class ChatGLMConfig(PreTrainedConfig):
    """Configuration of a ChatGLM-6B v1.1 model; the defaults are the published model's.

    Raises:
        SnapshotError: if a key asks for something that is not implemented here: P-tuning prefixes, pre-quantized
            weights, one-dimensional positions, or any unknown key.
    """

    model_type = "chatglm"
    keys_to_ignore_at_inference = ["cache"]  # noqa: RUF012 - transformers' name for a class constant
    attribute_map = {  # noqa: RUF012
        "num_hidden_layers": "num_layers",
        "intermediate_size": "inner_hidden_size",
        "max_position_embeddings": "max_sequence_length",
    }

    vocab_size: int = 130528
    """Rows of the embedding; may exceed the pieces of the tokenizer."""
    hidden_size: int = 4096
    num_layers: int = 28
    num_attention_heads: int = 32
    inner_hidden_size: int = 16384
    layernorm_epsilon: float = 1e-5
    max_sequence_length: int = 2048
    """Prompt and reply together, in tokens."""
    position_encoding_2d: bool = True
    """Always true; the one-dimensional scheme of an earlier checkpoint is not implemented."""
    use_cache: bool = True
    bos_token_id: int = 130004
    eos_token_id: int = 130005
    mask_token_id: int = 130000
    gmask_token_id: int = 130001
    pad_token_id: int = 3
    pre_seq_len: int | None = None
    """Length of a P-tuning v2 prefix; always None here."""
    prefix_projection: bool = False
    quantization_bit: int | None = 0
    """Always 0 or None here: quantized weights are another module's work."""
    initializer_range: float = 0.02
    """Standard deviation of freshly initialised weights; not a published key."""
    tie_word_embeddings: bool = True
    """Always true: the published code ties `lm_head` to the embedding although checkpoints store both."""

    def __post_init__(self, **kwargs: Any) -> None:
        """Check what came beyond the declared fields, then let transformers do its part."""
        for key, value in kwargs.items():
            if not key.startswith("_") and key not in _accepted_keys():
                raise SnapshotError("config_key_unknown", name=key, value=value)
        for name, accepted in (
            ("position_encoding_2d", (True,)),
            ("pre_seq_len", (None, 0)),
            ("prefix_projection", (False,)),
            ("quantization_bit", (None, 0)),
            ("tie_word_embeddings", (True,)),
        ):
            value = getattr(self, name)
            if value not in accepted:
                raise SnapshotError("config_value_unsupported", name=name, value=value, expected=accepted[0])
        # Each head is cut in two halves, one per row of positions, and rotary needs pairs in each.
        if self.hidden_size % (4 * self.num_attention_heads):
            raise SnapshotError(
                "config_value_unsupported",
                name="hidden_size",
                value=self.hidden_size,
                expected=f"n × {4 * self.num_attention_heads}",
            )
        super().__post_init__(**kwargs)
