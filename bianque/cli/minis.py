"""`python -m bianque minis generate|train|evaluate`: make and measure the embedded demonstration models."""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path
from typing import Literal

from bianque.cli.arguments import not_negative, positive, positive_float
from bianque.errors import SettingsError

CORPUS_SEED = 20
RUNS = Path("runs/minis")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("minis", help="make and measure the embedded demonstration models")
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")

    generate = actions.add_parser("generate", help="write training samples as JSON lines, to read them")
    generate.add_argument("model", choices=("asker", "adviser"))
    generate.add_argument("--samples", type=positive, default=1000, help="how many (default: 1000)")
    generate.add_argument("--seed", type=int, default=CORPUS_SEED, help=f"of the corpus (default: {CORPUS_SEED})")
    generate.add_argument("--heldout", action="store_true", help="only wordings that training never sees")
    generate.add_argument("--output", type=Path, default=Path("-"), help="a file; - for standard output (default)")
    generate.set_defaults(run=run_generate)

    train = actions.add_parser("train", help="train one model; continues from its checkpoint if there is one")
    train.add_argument("model", choices=("asker", "adviser"))
    train.add_argument("--steps", type=positive, help="end after this many steps; the same steps give the same model")
    train.add_argument("--minutes", type=positive_float, help="end after this time")
    train.add_argument("--seed", type=int, default=CORPUS_SEED, help=f"of everything (default: {CORPUS_SEED})")
    train.add_argument("--threads", type=positive, default=1, help="threads of torch (default: 1)")
    train.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    train.add_argument(
        "--workers", type=not_negative, default=0, help="processes that write the corpus beside it (default: 0)"
    )
    train.add_argument("--learning-rate", type=positive_float, default=2e-3, help="highest rate (default: 0.002)")
    train.add_argument("--batch-tokens", type=positive, default=1400, help="tokens of a batch (default: 1400)")
    train.add_argument(
        "--start", type=saved_model, help="folder of a saved model whose weights and tokenizer to begin with"
    )
    train.add_argument(
        "--opening-weight",
        type=positive_float,
        default=2.0,
        help="how often a reply to an opening is drawn, one to an answer being 1 (default: 2)",
    )
    train.add_argument("--output", type=Path, default=RUNS, help=f"folder for model and checkpoint (default: {RUNS})")
    train.set_defaults(run=run_train)

    evaluate = actions.add_parser("evaluate", help="print the figures on held-out wordings and dialogues")
    evaluate.add_argument(
        "--folder", type=Path, help="where mini-asker and mini-adviser are (default: the embedded ones)"
    )
    evaluate.add_argument("--fast", action="store_true", help="a fifth of the dialogues")
    evaluate.add_argument("--threads", type=positive, default=2, help="threads of torch (default: 2)")
    evaluate.add_argument("--dialogues", type=int, default=0, help="also print this many self-play dialogues")
    evaluate.set_defaults(run=run_evaluate)


def saved_model(text: str) -> Path:
    """Return a folder that holds a saved model."""
    folder = Path(text)
    if not list(folder.glob("*.safetensors")) or not (folder / "config.json").is_file():
        raise argparse.ArgumentTypeError(f"must be a folder with config.json and *.safetensors, but it is {text}")
    return folder


def run_generate(options: argparse.Namespace) -> int:
    """Write samples, one JSON object a line: prompt, target, act and complaint."""
    from bianque.minis.dialogues import DialogueWriter, samples
    from bianque.minis.knowledge import load_knowledge
    from bianque.minis.prompts import prompt_of

    speaker: Literal["asker", "adviser"] = options.model
    writer = DialogueWriter(load_knowledge(), heldout=options.heldout)
    lines = (
        json.dumps(
            {
                "prompt": prompt_of(sample),
                "target": sample.target.text,
                "act": sample.target.act,
                "complaint": sample.case.id if sample.case else None,
            },
            ensure_ascii=False,
        )
        for sample in islice(samples(writer, speaker, options.seed), options.samples)
    )
    if options.output == Path("-"):
        for line in lines:
            print(line)
    else:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text("".join(line + "\n" for line in lines), "utf-8")
    return 0


def run_train(options: argparse.Namespace) -> int:
    """Train one model and save it in Hub layout."""
    if options.steps is None and options.minutes is None:
        raise SettingsError("training_without_end")

    import torch

    from bianque.minis.architectures import MINIS
    from bianque.minis.dialogues import DialogueWriter
    from bianque.minis.knowledge import load_knowledge
    from bianque.minis.training import Trainer, TrainingOptions

    if options.device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("training_without_cuda")
    folder, model_file = options.output / f"mini-{options.model}", MINIS[options.model].model_file
    if options.start is not None and not (options.start / model_file).is_file():
        raise SettingsError(
            "start_of_another_kind", folder=options.start, model=f"mini-{options.model}", file=model_file
        )
    if options.start is not None and options.start.resolve() == folder.resolve():
        raise SettingsError("start_is_output", folder=folder)
    torch.set_num_threads(options.threads)
    if options.device == "cuda":
        torch.set_float32_matmul_precision("high")
    knowledge = load_knowledge()
    mini = MINIS[options.model](knowledge, folder, options.seed, options.start)
    settings = TrainingOptions(
        num_steps=options.steps,
        minutes=options.minutes,
        seed=options.seed,
        learning_rate=options.learning_rate,
        batch_tokens=options.batch_tokens,
        device=options.device,
        num_workers=options.workers,
        start=options.start,
    )
    writer = DialogueWriter(knowledge, opening_weight=options.opening_weight)
    trainer = Trainer(mini, writer, settings, options.output / f"{options.model}.pt")
    trainer.run(lambda line: print(line, flush=True))
    mini.save(trainer.averaged())
    print(f"saved {mini.folder} after {trainer.step} steps")
    return 0


def run_evaluate(options: argparse.Namespace) -> int:
    """Print the figures; 3 if one is below its floor."""
    import torch

    from bianque.minis.evaluation import Evaluation, print_report
    from bianque.minis.knowledge import load_knowledge
    from bianque.minis.respond import FOLDER

    torch.set_num_threads(options.threads)
    evaluation = Evaluation(load_knowledge(), options.folder or FOLDER, is_fast=options.fast)
    for dialogue in evaluation.dialogues(options.dialogues):
        print(dialogue + "\n")
    return 0 if print_report(evaluation.run(), print) else 3
