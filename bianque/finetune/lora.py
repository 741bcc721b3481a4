"""Adapters while they are trained, by peft; its layout on disk, with what else the application wants to know.

peft knows no linear of ours with int8 or int4 weights. Its documented way for such modules is a class of one's own,
named when the configuration is made (https://huggingface.co/docs/peft/developer_guides/custom_models).
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import Linear
from transformers import PreTrainedModel

from bianque import __version__
from bianque.errors import DataError
from bianque.finetune.base import Base
from bianque.finetune.options import FinetuneOptions
from bianque.manager.adapters import CONFIG_FILE, ORIGIN_FILE, fingerprint
from bianque.manager.registry import Template
from bianque.quantization.linear import QUANTIZED_LINEARS, QuantizedLinear

_CARD = """---
library_name: peft
base_model: {base}
language:
- zh
---

# {name}

A LoRA adapter for {base}{revision}, made with BianQue Space {version}:

    {command}

The licences of the base and of the data apply to it. It is for research; it is not a doctor.
"""


class QuantizedLoraLinear(Linear):
    """peft's LoRA beside a quantized linear: gradients pass through the base to its input, the base stays as it is."""

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse: rounded to integers again, the sum would not be what was trained.

        Raises:
            ValueError: always.
        """
        raise ValueError("an adapter cannot be merged into quantized weights; merge it into the float ones")

    def unmerge(self) -> None:
        """Do nothing: nothing is ever merged."""


def add_adapter(model: PreTrainedModel, base: Base, options: FinetuneOptions) -> PeftModel:
    """Put a fresh adapter beside frozen weights and return the model that trains it.

    Raises:
        DataError: if a linear that was named does not exist.
    """
    known = QUANTIZED_LINEARS[base.spec.family]
    present = {name.rpartition(".")[2] for name, _ in model.named_modules()} & known
    unknown = sorted(set(options.lora_targets) - present)
    if unknown:
        raise DataError("finetune_target_unknown", got=unknown[0], expected=", ".join(sorted(present)))
    config = LoraConfig(
        r=options.lora_rank,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=sorted(options.lora_targets or present),
    )
    config._register_custom_module({QuantizedLinear: QuantizedLoraLinear})
    with warnings.catch_warnings():
        # The registered class answers for the layer type that peft warns about, and peft reads a name that
        # transformers is about to retire.
        warnings.filterwarnings("ignore", message="Unsupported layer type")
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        adapted = get_peft_model(model, config)
    assert isinstance(adapted, PeftModel)
    return adapted


def save_adapter(model: PeftModel, folder: Path, base: Base, *, name: str, template: Template, command: str) -> None:
    """Write an adapter that both peft and the application open.

    Args:
        model: what was trained.
        folder: to write into.
        base: what it was trained beside.
        name: as shown to people.
        template: the prompts it was trained on.
        command: that trained it.
    """
    model.save_pretrained(str(folder), save_embedding_layers=False)
    config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    config |= {"base_model_name_or_path": base.location, "revision": base.revision}
    _write_json(folder / CONFIG_FILE, config)
    origin = {
        "architecture": base.spec.family,
        "base_fingerprint": fingerprint(base.folder),
        "name": name,
        "template": template,
        "version": __version__,
    }
    _write_json(folder / ORIGIN_FILE, origin)
    revision = f" at {base.revision}" if base.revision else ""
    card = _CARD.format(name=name, base=base.location, revision=revision, version=__version__, command=command)
    (folder / "README.md").write_text(card, "utf-8")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", "utf-8")
