"""Parquet files and the card of a built corpus, through the datasets library."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bianque.corpus.packages import require
from bianque.corpus.report import BuildReport

_CARD = """---
configs:
- config_name: samples
  default: true
  data_files:
{samples}
- config_name: dialogues
  data_files:
{dialogues}
language:
- zh
---

# Consultation corpus

Made by `{command}`.

The licence of each set applies to what comes from it, and several allow research only.

{table}
"""


def write_parquet(folder: Path, splits: Sequence[str]) -> None:
    """Write `dialogues/*.parquet` and `samples/*.parquet` beside their JSON lines; nothing is held in memory whole."""
    datasets = require("datasets", "corpus")
    was_enabled = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    cache = folder / "cache"
    try:
        for kind, features in (("dialogues", _dialogue_features(datasets)), ("samples", _sample_features(datasets))):
            for split in splits:
                lines = folder / kind / f"{split}.jsonl"
                if lines.stat().st_size:
                    table = datasets.Dataset.from_json(str(lines), features=features, cache_dir=str(cache))
                else:
                    table = datasets.Dataset.from_dict({name: [] for name in features}, features=features)
                table.to_parquet(lines.with_suffix(".parquet"))
    finally:
        if was_enabled:
            datasets.enable_progress_bars()
        shutil.rmtree(cache, ignore_errors=True)


def _dialogue_features(datasets: Any) -> Any:
    text = datasets.Value("string")
    return datasets.Features({"source": text, "id": text, "messages": [{"role": text, "content": text}]})


def _sample_features(datasets: Any) -> Any:
    text = datasets.Value("string")
    return datasets.Features(
        {
            "source": text,
            "dialogue_id": text,
            "turn": datasets.Value("int32"),
            "input": text,
            "target": text,
            "is_question": datasets.Value("bool"),
        }
    )


def write_card(path: Path, report: BuildReport) -> None:
    """Write the card that tells the datasets library which files are which split."""

    def files(kind: str) -> str:
        return "\n".join(
            f"  - split: {split}\n    path: {kind}/{split}.parquet" for split in ("train", "validation", "test")
        )

    card = _CARD.format(
        samples=files("samples"), dialogues=files("dialogues"), command=report.command, table=report.markdown()
    )
    path.write_text(card, "utf-8")
