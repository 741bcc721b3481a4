"""How a model is fine-tuned: every choice with its range, and the presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from bianque.manager.registry import Precision

Method = Literal["full", "lora"]
Compute = Literal["fp32", "bf16", "fp16"]
Schedule = Literal["constant", "linear", "cosine"]
Optimizer = Literal["adamw", "adafactor"]


@dataclass(frozen=True)
class FinetuneOptions:
    """The hyperparameters of one run.

    Attributes:
        method: `full` changes every weight, `lora` trains an adapter beside frozen ones.
        learning_rate: highest rate, above 0.
        schedule: how the rate goes on after the warm-up.
        warmup: share of the steps over which the rate rises from 0, 0 to 1.
        epochs: passes over the training samples; may be a fraction.
        max_steps: end after this many optimizer steps; 0 leaves the end to `epochs`.
        batch_size: rows of one forward pass on one device.
        accumulation: forward passes whose gradients make one step.
        optimizer: `adamw` keeps two more numbers for each trained weight, `adafactor` next to none.
        weight_decay: of AdamW.
        max_grad_norm: gradients are scaled down to this norm; 0 leaves them.
        max_prompt_tokens: longest prompt, special tokens included; whole oldest turns go first, as in inference.
        max_target_tokens: longest target, end token included; a sample with a longer one is left out, never cut.
        precision: of the computation; `bf16` and `fp16` keep trained weights in fp32 (autocast).
        base_precision: of the frozen weights beside an adapter; `auto` is `precision`. Full fine-tuning has fp32.
        is_checkpointing: recompute activations in the backward pass instead of keeping them.
        lora_rank: of an adapter's matrices.
        lora_alpha: their product is multiplied by `lora_alpha / lora_rank`.
        lora_dropout: share of their inputs that is left out at random while training.
        lora_targets: last parts of the names of the linears that get an adapter; empty for all of the blocks.
        save_every: steps between two checkpoints and evaluations; 0 is once an epoch.
        patience: evaluations without a better loss after which training stops; 0 never stops early.
        keep: checkpoints that stay on disk, beside the best one.
        log_every: steps between two log lines.
        seed: of order, dropout and the adapter's start.
    """

    method: Method = "lora"
    learning_rate: float = 1e-4
    schedule: Schedule = "cosine"
    warmup: float = 0.03
    epochs: float = 1.0
    max_steps: int = 0
    batch_size: int = 4
    accumulation: int = 8
    optimizer: Optimizer = "adamw"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    max_prompt_tokens: int = 512
    max_target_tokens: int = 512
    precision: Compute = "fp32"
    base_precision: Precision | Literal["auto"] = "auto"
    is_checkpointing: bool = False
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    lora_targets: tuple[str, ...] = ()
    save_every: int = 0
    patience: int = 0
    keep: int = 2
    log_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("learning_rate", "epochs"):
            _require(getattr(self, name) > 0, name, "above 0", getattr(self, name))
        for name in (
            *("batch_size", "accumulation", "max_prompt_tokens", "max_target_tokens"),
            *("lora_rank", "lora_alpha", "keep", "log_every"),
        ):
            _require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("max_steps", "weight_decay", "max_grad_norm", "save_every", "patience"):
            _require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        for name in ("warmup", "lora_dropout"):
            _require(0 <= getattr(self, name) < 1, name, "from 0 to below 1", getattr(self, name))

    @property
    def frozen_precision(self) -> Precision:
        """Precision at which the base is loaded."""
        if self.method == "full":
            return "fp32"
        return self.precision if self.base_precision == "auto" else self.base_precision


def _require(condition: bool, name: str, expected: str, value: object) -> None:
    if not condition:
        raise ValueError(f"{name} must be {expected}, but it is {value}")


@dataclass(frozen=True)
class Preset:
    """A recipe with a name.

    Attributes:
        options: the hyperparameters.
        model: the base it is made for.
        about: what it is, in one line.
        notes: what was changed against a published recipe, and why.
    """

    options: FinetuneOptions
    model: str
    about: str
    notes: tuple[str, ...] = field(default=())


PRESETS: Mapping[str, Preset] = {
    "bianque-1": Preset(
        FinetuneOptions(
            method="full",
            learning_rate=5e-5,
            schedule="constant",
            warmup=0.0,
            epochs=1.0,
            batch_size=4,
            accumulation=8,
            weight_decay=0.01,
            max_prompt_tokens=512,
            max_target_tokens=512,
            save_every=1000,
            patience=3,
        ),
        "BianQue-1.0",
        "the published recipe of 1.0, corrected: full, AdamW at a constant 5e-5, one epoch, 32 rows a step, 512/512",
        (
            "published: newlines were taken out of prompts; here they stay, as the two characters inference sends",
            "published: labels were shifted by hand and once more by the model, so that the first target token was "
            "never learnt; here the model alone shifts them",
            "published: a part was split off and never evaluated; here it is, the best checkpoint is kept, and "
            "training stops when three evaluations in a row were no better",
            "published: everything was padded to 512/512; here a batch holds rows of like length, padded to its "
            "longest",
            "published: prompts were cut at the end, which loses the newest message and the final 医生：; here whole "
            "oldest turns go first",
            "published: 1 row x 4 accumulated x 8 GPUs; here 4 x 8 on one GPU, the same 32 rows a step",
        ),
    ),
    "bianque-2-lora": Preset(
        FinetuneOptions(
            method="lora",
            learning_rate=1e-4,
            schedule="cosine",
            warmup=0.03,
            epochs=1.0,
            batch_size=4,
            accumulation=8,
            max_prompt_tokens=1536,
            max_target_tokens=512,
            precision="bf16",
            is_checkpointing=True,
            lora_rank=16,
            lora_alpha=32,
            lora_dropout=0.05,
            save_every=500,
            patience=3,
        ),
        "BianQue-2.0",
        "an adapter for 2.0 or SoulChat on one GPU: rank 16 on all linears of blocks, bf16, activations recomputed",
        ("no recipe for 2.0 was ever published; this one is our own and has not been run on the 6.2 B model",),
    ),
    "mini": Preset(
        FinetuneOptions(
            method="lora",
            learning_rate=2e-3,
            schedule="cosine",
            warmup=0.05,
            epochs=3.0,
            batch_size=8,
            accumulation=1,
            max_prompt_tokens=384,
            max_target_tokens=256,
            lora_rank=8,
            lora_alpha=16,
            lora_dropout=0.0,
            patience=2,
        ),
        "mini-adviser",
        "an adapter for a demonstration model in minutes on a CPU",
    ),
}
