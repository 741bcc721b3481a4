"""Which stored tensor goes where in a model: shared embeddings, and the names of all that do not fit.

Everything is decided from names and shapes before any weight is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from bianque.errors import SnapshotError
from bianque.manager.registry import Family
from bianque.manager.weights.shards import StoredTensor, open_shard
from bianque.quantization.digit_layers import DigitTable
from bianque.quantization.embedding import StoredEmbedding
from bianque.quantization.half import HalfLinear
from bianque.quantization.linear import QuantizedLinear

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHATGLM_EMBEDDING = "transformer.word_embeddings.weight"
T5_EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
HEAD = "lm_head.weight"
SCALE_SUFFIX = "_scale"
LOW_SUFFIX = "_low"
"""Of a weight in two digits, the second; only our own cache stores such weights."""


def expected_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the full name and the shape of every weight the model needs; of a quantized one, before packing."""
    shapes = {name: tuple(each.shape) for name, each in model.named_parameters(remove_duplicate=False)}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, QuantizedLinear):
            shapes[f"{name}.weight"] = (module.out_features, module.in_features)
        elif isinstance(module, DigitTable):
            shapes[f"{name}.weight"] = tuple(module.high.shape)
        elif isinstance(module, StoredEmbedding | HalfLinear):
            shapes[f"{name}.weight"] = tuple(module.weight.shape)
    return shapes


def match_tensors(
    model: PreTrainedModel, family: Family, stored: Mapping[str, StoredTensor], folder: Path
) -> dict[str, list[str]]:
    """Return, for every stored tensor that is used, the names of the model's weights it fills.

    Args:
        model: on the meta device, with `config.tie_word_embeddings` as its file says.
        family: of the model.
        stored: what the shards hold.
        folder: for the error's text.

    Raises:
        SnapshotError: naming the tensors that are missing, left over or misshapen.
    """
    shapes = expected_shapes(model)
    sources = {name: name for name in shapes}
    sources |= _chatglm_sources(stored) if family == "chatglm" else _t5_sources(model, stored)
    missing, misshapen, used = set(), set(), set()
    for name, shape in shapes.items():
        source = sources[name]
        used |= {name, source, f"{source}{SCALE_SUFFIX}"}
        if isinstance(model.get_submodule(name.rpartition(".")[0]), DigitTable):
            used.add(f"{source}{LOW_SUFFIX}")
        if source not in stored:
            missing.add(source)
        # A tensor whose place is taken by another one is checked as well: its model is not this one if it differs.
        for candidate in {name, source} & set(stored):
            scale = stored.get(f"{candidate}{SCALE_SUFFIX}")
            if is_quantized(stored[candidate]) and scale is None:
                missing.add(f"{candidate}{SCALE_SUFFIX}")
            elif not _fits(stored[candidate], scale, shape):
                misshapen.add(candidate)
    ignored = [re.compile(pattern) for pattern in model._keys_to_ignore_on_load_unexpected or ()]
    unexpected = {name for name in stored if name not in used and not any(each.search(name) for each in ignored)}
    if missing or unexpected or misshapen:
        raise SnapshotError(
            "snapshot_tensors_mismatch",
            folder=folder,
            missing=_name_some(sorted(missing)),
            unexpected=_name_some(sorted(unexpected)),
            misshapen=_name_some(sorted(misshapen)),
        )
    targets: dict[str, list[str]] = {}
    for name, source in sources.items():
        targets.setdefault(source, []).append(name)
    return targets


def is_quantized(tensor: StoredTensor) -> bool:
    """Whether a stored weight is integers with a scale stored beside it."""
    return tensor.dtype == torch.int8


def _fits(weight: StoredTensor, scale: StoredTensor | None, shape: tuple[int, ...]) -> bool:
    """Whether a stored weight has this shape, or is integers, whole or two to a byte, that stand for it."""
    if not is_quantized(weight):
        return weight.shape == shape
    if len(shape) != 2 or scale is None or scale.shape != shape[:1]:
        return False
    return weight.shape in {shape, (shape[0], shape[1] // 2)}


def _chatglm_sources(stored: Mapping[str, StoredTensor]) -> dict[str, str]:
    """Tie the head to the embedding whatever is stored for it, as the published code does.

    An embedding that is missing is taken from the head.
    """
    only_head = HEAD in stored and CHATGLM_EMBEDDING not in stored
    return {CHATGLM_EMBEDDING: HEAD} if only_head else {HEAD: CHATGLM_EMBEDDING}


def _t5_sources(model: PreTrainedModel, stored: Mapping[str, StoredTensor]) -> dict[str, str]:
    """Let names share one tensor where theirs is missing or equal; stored differently, they stay apart.

    The head shares only when the configuration ties it, or its tensor is equal.
    """
    is_head_tied = bool(model.config.tie_word_embeddings)
    names = (*T5_EMBEDDINGS, HEAD) if is_head_tied else T5_EMBEDDINGS
    base = next((name for name in names if name in stored), T5_EMBEDDINGS[0])
    sources = {}
    for name in (*T5_EMBEDDINGS, HEAD):
        if name not in stored:
            sources[name] = base if name in names else name
        else:
            sources[name] = base if base in stored and _is_same(stored, name, base) else name
    return sources


def _is_same(stored: Mapping[str, StoredTensor], name: str, other: str) -> bool:
    """Whether two stored tensors are equal; their data is read only if their forms are."""
    one, two = stored[name], stored[other]
    if name == other or (one.shape, one.dtype) != (two.shape, two.dtype):
        return name == other
    with open_shard(one.shard) as first, open_shard(two.shard) as second:
        tensor, reference = first.read(name), second.read(other)
        if one.shard == two.shard:
            reference = first.read(other)
            if tensor.data_ptr() == reference.data_ptr():
                return True
        is_equal = torch.equal(tensor, reference)
        first.release(tensor)
        first.release(reference)
    return is_equal


def _name_some(names: list[str]) -> str:
    """Name the first three of `names` and count the rest; a wholly different checkpoint would fill the page."""
    if not names:
        return "–"
    rest = f" (+{len(names) - 3})" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest
