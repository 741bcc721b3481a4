"""`python -m bianque finetune train|merge|presets`: from training samples to an adapter or a model."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from bianque.cli.arguments import positive, positive_float
from bianque.cli.corpus import command_line
from bianque.errors import DataError
from bianque.settings import ModelSource

PRESET = "mini"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("finetune", help="fine-tune a model, whole or by an adapter")
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    _add_train(actions)

    merge = actions.add_parser("merge", help="write a base with an adapter added to its weights")
    merge.add_argument("adapter", type=Path, help="folder of the adapter")
    merge.add_argument("output", type=Path, help="folder to make; it must not exist or be empty")
    merge.add_argument("--base", metavar="MODEL", help="where the base is (default: what the adapter says)")
    merge.set_defaults(run=run_merge)

    presets = actions.add_parser("presets", help="print the recipes and what they change against published ones")
    presets.set_defaults(run=run_presets)


def _add_train(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from bianque.finetune.options import PRESETS, Compute, Method, Optimizer, Schedule
    from bianque.manager.registry import PRECISIONS, Template

    train = actions.add_parser(
        "train",
        help="fine-tune on samples that `corpus build` wrote",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="presets:\n" + "\n".join(f"  {name:<15} {preset.about}" for name, preset in PRESETS.items()),
    )
    train.add_argument("data", type=Path, help="a built corpus, or a .jsonl or .parquet file of samples")
    train.add_argument("output", type=Path, help="folder of the run; its name becomes the adapter's")
    train.add_argument("--preset", choices=PRESETS, default=PRESET, help=f"default: {PRESET}")
    train.add_argument("--model", help="base: a name, a Hub repo or a folder (default: the preset's)")
    train.add_argument("--revision", help="branch, tag or commit of the repo")
    train.add_argument("--validation", type=Path, help="samples to evaluate on (default: the corpus's own)")
    train.add_argument("--template", choices=get_args(Template), help="prompts to train on (default: the base's)")
    train.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    train.add_argument("--threads", type=positive, help="threads of torch on a CPU")
    train.add_argument("--resume", action="store_true", help="go on with the run in the output folder")
    train.add_argument("--overwrite", action="store_true", help="replace the run in the output folder")
    choices = train.add_argument_group("instead of the preset's")
    choices.add_argument("--method", choices=get_args(Method))
    choices.add_argument("--learning-rate", type=positive_float)
    choices.add_argument("--schedule", choices=get_args(Schedule))
    choices.add_argument("--warmup", type=float, help="share of the steps")
    choices.add_argument("--epochs", type=positive_float)
    choices.add_argument("--max-steps", type=int, help="end after so many steps; 0 for the epochs")
    choices.add_argument("--batch-size", type=positive, help="rows of one forward pass on one device")
    choices.add_argument("--accumulation", type=positive, help="forward passes of one step")
    choices.add_argument("--optimizer", choices=get_args(Optimizer))
    choices.add_argument("--weight-decay", type=float)
    choices.add_argument("--max-grad-norm", type=float)
    choices.add_argument("--max-prompt-tokens", type=positive)
    choices.add_argument("--max-target-tokens", type=positive)
    choices.add_argument("--precision", choices=get_args(Compute), help="of the computation")
    choices.add_argument("--base-precision", choices=("auto", *PRECISIONS), help="of the weights beside an adapter")
    choices.add_argument(
        "--checkpointing", dest="is_checkpointing", action=argparse.BooleanOptionalAction, help="recompute activations"
    )
    choices.add_argument("--lora-rank", type=positive)
    choices.add_argument("--lora-alpha", type=positive)
    choices.add_argument("--lora-dropout", type=float)
    choices.add_argument("--lora-targets", nargs="+", metavar="NAME", help="linears with an adapter (default: all)")
    choices.add_argument("--save-every", type=int, help="steps between checkpoints and evaluations; 0 for epochs")
    choices.add_argument("--patience", type=int, help="evaluations without progress before it stops; 0 for never")
    choices.add_argument("--keep", type=positive, help="checkpoints to keep beside the best one")
    choices.add_argument("--log-every", type=positive, help="steps between log lines")
    choices.add_argument("--seed", type=int)
    train.set_defaults(run=run_train, parser=train)


def run_train(options: argparse.Namespace) -> int:
    """Fine-tune and print the report."""
    from bianque.corpus.packages import require
    from bianque.finetune.options import PRESETS, FinetuneOptions

    preset = PRESETS[options.preset]
    given: dict[str, Any] = {
        name: getattr(options, name)
        for name in FinetuneOptions.__dataclass_fields__
        if getattr(options, name, None) is not None
    }
    if "lora_targets" in given:
        given["lora_targets"] = tuple(given["lora_targets"])
    try:
        settings = replace(preset.options, **given)
    except ValueError as error:
        options.parser.error(str(error))
    for module in ("peft", "accelerate", "datasets", "tensorboard", "matplotlib"):
        require(module, "train")
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    from bianque.finetune.run import FinetuneJob, finetune

    job = FinetuneJob(
        data=options.data,
        output=options.output,
        model=ModelSource(options.model or preset.model, options.revision),
        validation=options.validation,
        device=options.device,
        template=options.template,
        resume=options.resume,
        overwrite=options.overwrite,
        command=command_line(),
        notes=preset.notes,
    )
    report = finetune(job, settings, lambda line: print(line, flush=True))
    print(report.table())
    print(f"saved {report.result}; open it with BIANQUE_ADVISER, BIANQUE_ASKER or BIANQUE_LISTENER={report.result}")
    return 0


def run_merge(options: argparse.Namespace) -> int:
    """Merge an adapter into its base."""
    from bianque.finetune.base import resolve_base
    from bianque.finetune.whole import merge_adapter
    from bianque.manager.adapters import base_source, read_adapter

    if options.output.exists() and (not options.output.is_dir() or any(options.output.iterdir())):
        raise DataError("finetune_merge_target", folder=options.output)
    adapter = read_adapter(options.adapter)
    source = ModelSource(options.base) if options.base else base_source(adapter)
    number = merge_adapter(options.adapter, resolve_base(source), options.output)
    print(f"saved {options.output}: {number} linears changed")
    return 0


def run_presets(options: argparse.Namespace) -> int:
    """Print every preset."""
    from dataclasses import asdict

    from bianque.finetune.options import PRESETS

    for name, preset in PRESETS.items():
        print(f"{name}: {preset.about}\n  model: {preset.model}")
        print("  " + ", ".join(f"{key}={value}" for key, value in asdict(preset.options).items()))
        for note in preset.notes:
            print(f"  - {note}")
        print()
    return 0
