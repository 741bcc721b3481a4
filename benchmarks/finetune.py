"""Measure fine-tuning of a small model, variant by variant, each in a process of its own: speed, memory, loss.

The same samples, rows a step and number of steps for all; ratios are to the first variant. Samples are the dialogues
that the demonstration models learn from, so nothing is downloaded.

    python benchmarks/finetune.py
    python benchmarks/finetune.py --model mini-asker --variants full lora
    python benchmarks/finetune.py --device cuda --preset bianque-2-lora --model FOLDER --variants lora lora-int8
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.cpu_linear import cpu_name  # noqa: E402
from bianque.consultation.templates import render  # noqa: E402
from bianque.minis.dialogues import DialogueWriter, samples  # noqa: E402
from bianque.minis.knowledge import load_knowledge  # noqa: E402
from bianque.minis.prompts import messages_of  # noqa: E402

VARIANTS = {
    "full": ["--method", "full"],
    "full-checkpointing": ["--method", "full", "--checkpointing"],
    "full-adafactor": ["--method", "full", "--optimizer", "adafactor"],
    "lora": [],
    "lora-checkpointing": ["--checkpointing"],
    "lora-int8": ["--base-precision", "int8"],
    "lora-bf16": ["--precision", "bf16"],
}


def write_samples(path: Path, number: int, seed: int) -> None:
    """Write samples as `bianque corpus build` does."""
    source = samples(DialogueWriter(load_knowledge()), "adviser", seed)
    kept = (sample for sample in source if sample.mode != "soulchat")
    with path.open("w", encoding="utf-8") as lines:
        for sample in islice(kept, number):
            row = {"input": render(messages_of(sample.before)), "target": sample.target.text}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")


def measure(options: argparse.Namespace, variant: str, data: Path, folder: Path) -> dict:
    """Fine-tune in a new process and return its report."""
    command = [sys.executable, "-m", "bianque", "finetune", "train", str(data), str(folder)]
    command += ["--preset", options.preset, "--model", options.model, "--device", options.device, "--patience", "0"]
    command += ["--max-steps", str(options.steps), "--batch-size", str(options.batch_size), "--log-every", "1"]
    command += ["--threads", str(options.threads), *VARIANTS[variant]]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return json.loads((folder / "report.json").read_text("utf-8"))


def main() -> None:
    """Run the variants and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--model", default="mini-adviser")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    reports = {}
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "samples.jsonl"
        write_samples(data, options.samples, options.seed)
        for variant in options.variants:
            reports[variant] = measure(options, variant, data, Path(temporary) / variant)
    first = reports[options.variants[0]]
    counts = first["data"]["train"]
    length = (counts["num_prompt_tokens"] + counts["num_target_tokens"]) / counts["num_kept"]
    machine = cpu_name() if options.device == "cpu" else first["device"]
    print(
        f"{machine}, {options.threads} threads; {options.model}, {options.steps} steps of {options.batch_size} rows,"
    )
    print(f"{length:.0f} tokens a row on average, padding {first['padding_share']:.1%}; {first['versions']}")
    print(f"{'variant':<20}{'tokens/s':>10}{'ratio':>8}{'peak GB':>9}{'loss first → last':>20}")
    for variant, report in reports.items():
        losses = [entry["loss"] for entry in report["history"] if "loss" in entry]
        speed = report["tokens_per_second"]
        print(
            f"{variant:<20}{speed:>10.0f}{speed / first['tokens_per_second']:>8.2f}"
            f"{report['peak_memory_bytes'] / 1e9:>9.2f}{losses[0]:>12.3f} → {losses[-1]:.3f}"
        )


if __name__ == "__main__":
    main()
