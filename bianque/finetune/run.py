"""One fine-tuning run from its data to a folder that the application opens.

    run.json              base, data and options: what decides the result
    data/*.arrow          encoded samples, mapped into memory while training
    checkpoints/          of transformers' Trainer; `resume` goes on from the last complete one
    tensorboard/          event files
    adapter/ or model/    the result
    report.json, report.md, curves.png

`accelerate launch -m bianque finetune …` starts one process for each GPU; the first one writes.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, PreTrainedModel, PrinterCallback, set_seed
from transformers.integrations.integration_utils import TensorBoardCallback

from bianque.errors import SettingsError
from bianque.finetune.arguments import training_arguments
from bianque.finetune.base import Base, load_base, resolve_base
from bianque.finetune.checkpoints import prepare_folder
from bianque.finetune.collators import ChatGLMCollator, T5Collator
from bianque.finetune.data import DataReport, digest_of, encode_file, find_splits, open_encoded
from bianque.finetune.encoding import SampleEncoder, load_tokens
from bianque.finetune.lora import add_adapter, save_adapter
from bianque.finetune.options import FinetuneOptions
from bianque.finetune.report import FinetuneReport, describe_device, peak_memory_bytes
from bianque.finetune.trainer import FinetuneTrainer, ProgressLines
from bianque.finetune.whole import save_whole
from bianque.manager.adapters import fingerprint
from bianque.manager.registry import Template
from bianque.settings import ModelSource

LIBRARIES = ("torch", "transformers", "peft", "accelerate")


@dataclass(frozen=True)
class FinetuneJob:
    """What is to be done, beside the hyperparameters.

    Attributes:
        data: a built corpus, or a file of samples.
        output: folder of the run.
        model: base to fine-tune.
        validation: file of samples to evaluate on; None takes the corpus's own split.
        device: `auto`, `cpu` or `cuda`.
        template: prompts to train on; None takes the base's.
        resume: go on with the run in `output`.
        overwrite: begin anew in its place.
        command: the command line, for the report.
        notes: of the preset, for the report.
    """

    data: Path
    output: Path
    model: ModelSource
    validation: Path | None = None
    device: str = "auto"
    template: Template | None = None
    resume: bool = False
    overwrite: bool = False
    command: str = ""
    notes: Sequence[str] = ()


def finetune(
    job: FinetuneJob,
    options: FinetuneOptions,
    show: Callable[[str], None] = lambda line: None,
    *,
    callbacks: Sequence[Any] = (),
) -> FinetuneReport:
    """Fine-tune a model and return what was done; `show` gets a line now and then.

    Args:
        job: data, model and folder.
        options: hyperparameters.
        show: receives lines of progress.
        callbacks: further TrainerCallbacks.

    Raises:
        BianQueError: if something is missing or does not fit, or the loss stops being finite.
    """
    started = time.monotonic()
    train_file, validation_file = find_splits(job.data, job.validation)
    base = resolve_base(job.model)
    template = job.template or base.spec.template
    _check_lengths(options, base)
    arguments = training_arguments(
        job.output / "checkpoints", options, device=job.device, has_validation=validation_file is not None
    )
    files = {"train": train_file} | ({"validation": validation_file} if validation_file else {})
    with arguments.main_process_first(local=False):
        is_first = arguments.process_index == 0
        run = _describe(base, files, template, options)
        checkpoint = prepare_folder(
            job.output, run, resume=job.resume or not is_first, overwrite=job.overwrite and is_first
        )
        reports = _encode(files, job.output / "data", base, template, options, show)
    show(f"{reports['train'].num_kept} samples; loading {base.spec.name} at {options.frozen_precision}")
    set_seed(options.seed)  # an adapter begins with random numbers, before the Trainer sets its seed
    model: Any = load_base(base, options, str(arguments.device))
    if options.method == "lora":
        model = add_adapter(model, base, options)
    if checkpoint:
        show(f"going on from {checkpoint.name}")
    trainer = _make_trainer(model, arguments, job, base, options, list(reports), show, callbacks)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    result = _save(trainer, model, job, base, options, template)
    report = _report(trainer, model, job, base, options, reports)
    report = replace(report, result=str(result), seconds=time.monotonic() - started)
    if trainer.is_world_process_zero():
        report.write(job.output)
    return report


def _check_lengths(options: FinetuneOptions, base: Base) -> None:
    """Refuse lengths that the application would never give this model.

    Raises:
        SettingsError: if prompt and target together, or T5's prompt alone, can be longer than the model's limit.
    """
    limit = base.spec.max_prompt_tokens
    got = options.max_prompt_tokens
    if base.spec.family == "chatglm":
        got += options.max_target_tokens
    if got > limit:
        raise SettingsError("finetune_lengths_too_long", got=got, limit=limit, name=base.spec.name)


def _describe(base: Base, files: Mapping[str, Path], template: Template, options: FinetuneOptions) -> dict[str, Any]:
    return {
        "base": {"location": base.location, "revision": base.revision, "fingerprint": fingerprint(base.folder)},
        "data": {split: digest_of(file) for split, file in files.items()},
        "template": template,
        "options": {**asdict(options), "lora_targets": list(options.lora_targets)},
    }


def _encode(
    files: Mapping[str, Path],
    folder: Path,
    base: Base,
    template: Template,
    options: FinetuneOptions,
    show: Callable[[str], None],
) -> dict[str, DataReport]:
    """Encode every split that is not encoded yet."""
    import json

    folder.mkdir(exist_ok=True)
    tokens = load_tokens(base.folder, base.spec.family)
    encoder = SampleEncoder(tokens, template, options.max_prompt_tokens, options.max_target_tokens)
    reports = {}
    for split, file in files.items():
        counts = folder / f"{split}.json"
        if counts.is_file() and (folder / f"{split}.arrow").is_file():
            reports[split] = DataReport(**json.loads(counts.read_text("utf-8")))
            continue
        show(f"encoding {file}")
        reports[split] = encode_file(file, encoder, folder / f"{split}.arrow")
        counts.write_text(json.dumps(asdict(reports[split]), ensure_ascii=False) + "\n", "utf-8")
    return reports


def _make_trainer(
    model: Any,
    arguments: Any,
    job: FinetuneJob,
    base: Base,
    options: FinetuneOptions,
    splits: Sequence[str],
    show: Callable[[str], None],
    callbacks: Sequence[Any],
) -> FinetuneTrainer:
    from torch.utils.tensorboard import SummaryWriter

    data = {split: open_encoded(job.output / "data" / f"{split}.arrow") for split in splits}
    config = model.config
    collator: Any = (
        T5Collator(config.pad_token_id) if base.spec.family == "t5" else ChatGLMCollator(config, config.pad_token_id)
    )
    trainer = FinetuneTrainer(
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=data["train"],
        eval_dataset=data.get("validation"),
        lengths=data["train"].data.column("length").to_pylist(),
        callbacks=[
            *([EarlyStoppingCallback(options.patience)] if options.patience else []),
            *callbacks,
        ],
    )
    if arguments.process_index == 0:
        trainer.add_callback(TensorBoardCallback(SummaryWriter(str(job.output / "tensorboard"))))
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(ProgressLines(trainer, show))
    return trainer


def _save(
    trainer: FinetuneTrainer, model: Any, job: FinetuneJob, base: Base, options: FinetuneOptions, template: Template
) -> Path:
    """Write the result; every process takes part, because shards of the weights may lie on several devices."""
    unwrapped = trainer.accelerator.unwrap_model(trainer.model)
    if options.method == "lora":
        folder = job.output / "adapter"
        if trainer.is_world_process_zero():
            save_adapter(unwrapped, folder, base, name=job.output.name, template=template, command=job.command)
        return folder
    folder = job.output / "model"
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.is_world_process_zero():
        assert isinstance(unwrapped, PreTrainedModel)
        save_whole(unwrapped, state, folder, base)
    return folder


def _report(
    trainer: FinetuneTrainer,
    model: torch.nn.Module,
    job: FinetuneJob,
    base: Base,
    options: FinetuneOptions,
    data: Mapping[str, DataReport],
) -> FinetuneReport:
    num_trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    num_added = num_trained if options.method == "lora" else 0
    device = trainer.args.device
    return FinetuneReport(
        command=job.command,
        base=f"{base.location}{f' at {base.revision}' if base.revision else ''}",
        options=asdict(options),
        data=data,
        notes=job.notes,
        history=trainer.state.log_history,
        num_trained=num_trained,
        num_parameters=base.spec.num_parameters + num_added,
        steps=trainer.state.global_step,
        best_step=trainer.state.best_global_step if "validation" in data else None,
        tokens_per_second=trainer.meter.tokens_per_second,
        num_tokens=trainer.meter.num_tokens,
        padding_share=trainer.meter.padding_share,
        peak_memory_bytes=peak_memory_bytes(device.type),
        device=describe_device(device),
        versions={name: importlib.metadata.version(name) for name in LIBRARIES},
    )
