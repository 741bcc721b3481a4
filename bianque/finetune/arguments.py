"""From the options of a run to transformers' TrainingArguments, and what a device cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from bianque.errors import SettingsError
from bianque.finetune.options import FinetuneOptions


def training_arguments(
    folder: Path, options: FinetuneOptions, *, device: str, has_validation: bool
) -> TrainingArguments:
    """Return the arguments; making them starts accelerate, which may have been told of several devices.

    Args:
        folder: for checkpoints.
        options: of the run.
        device: `cpu`, `cuda` or `auto`.
        has_validation: whether there are samples to evaluate on.

    Raises:
        SettingsError: if the device is not there or cannot compute at the precision, or if training is to stop early
            without anything to evaluate on.
    """
    use_cpu = choose_device(device) == "cpu"
    check_precision(options, "cpu" if use_cpu else "cuda")
    if options.patience and not has_validation:
        raise SettingsError("finetune_no_validation")
    when = "steps" if options.save_every else "epoch"
    saving: dict[str, Any] = {"save_steps": options.save_every} if options.save_every else {}
    evaluation: dict[str, Any] = {"eval_strategy": "no"}
    if has_validation:
        evaluation = {
            "eval_strategy": when,
            **({"eval_steps": options.save_every} if options.save_every else {}),
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "greater_is_better": False,
        }
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulation,
        num_train_epochs=options.epochs,
        max_steps=options.max_steps or -1,
        learning_rate=options.learning_rate,
        lr_scheduler_type=options.schedule,
        warmup_steps=options.warmup,
        optim={"adamw": "adamw_torch", "adafactor": "adafactor"}[options.optimizer],
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        bf16=options.precision == "bf16",
        fp16=options.precision == "fp16",
        activation_checkpointing=options.is_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if options.is_checkpointing else None,
        use_cpu=use_cpu,
        seed=options.seed,
        logging_steps=options.log_every,
        logging_nan_inf_filter=False,
        save_strategy=when,
        save_total_limit=options.keep,
        prediction_loss_only=True,
        remove_unused_columns=False,
        restore_callback_states_from_checkpoint=True,
        label_names=["labels"],
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=not use_cpu,
        **saving,
        **evaluation,
    )


def choose_device(requested: str) -> str:
    """Return `cpu` or `cuda`.

    Raises:
        SettingsError: if there is no CUDA device and one is asked for.
    """
    has_cuda = torch.cuda.is_available()
    if requested == "auto":
        return "cuda" if has_cuda else "cpu"
    if requested == "cuda" and not has_cuda:
        raise SettingsError("device_unavailable", got=requested, available="cpu")
    return requested


def check_precision(options: FinetuneOptions, device: str) -> None:
    """Refuse what a device or a method cannot do.

    Raises:
        SettingsError: with what is possible.
    """
    possible = ["fp32", "bf16"] if device == "cpu" or torch.cuda.is_bf16_supported() else ["fp32"]
    if device != "cpu":
        possible.append("fp16")
    if options.precision not in possible:
        listed = " / ".join(possible)
        raise SettingsError(
            "finetune_precision_impossible", precision=options.precision, device=device, possible=listed
        )
    if options.method == "full" and options.base_precision not in ("auto", "fp32"):
        raise SettingsError("finetune_full_needs_floats", precision=options.base_precision)
    if options.method == "lora" and device == "cpu" and options.frozen_precision == "fp16":
        raise SettingsError("finetune_precision_impossible", precision="fp16", device=device, possible="fp32 / bf16")
