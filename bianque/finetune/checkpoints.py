"""What a run leaves on disk while it goes on: its description, and checkpoints, the last one perhaps half written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bianque.errors import DataError

RUN_FILE = "run.json"
STATE_FILE = "trainer_state.json"
FREE_TO_CHANGE = frozenset({"log_every", "keep"})
"""Options that may differ when a run goes on."""


def prepare_folder(folder: Path, run: Mapping[str, Any], *, resume: bool, overwrite: bool) -> Path | None:
    """Make the folder of a run, and return the checkpoint from which to go on, if any.

    Args:
        folder: of the run.
        run: what decides its result: base, data and options, as plain values.
        resume: go on with the run that is there.
        overwrite: begin anew in its place.

    Raises:
        DataError: if the folder holds something and neither was asked for, or if it holds another run.
    """
    is_taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if overwrite and is_taken:
        if not (folder / RUN_FILE).is_file():
            raise DataError("finetune_not_a_run", folder=folder)
        shutil.rmtree(folder)
    elif resume:
        before = _read(folder / RUN_FILE)
        if before is None:
            raise DataError("finetune_nothing_to_resume", folder=folder)
        differing = _differences(before, json.loads(json.dumps(run)))
        if differing:
            raise DataError("finetune_other_run", folder=folder, names=", ".join(differing))
        return last_checkpoint(folder / "checkpoints")
    elif is_taken:
        if (folder / RUN_FILE).is_file():
            raise DataError("finetune_folder_taken", folder=folder)
        raise DataError("output_exists", folder=folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RUN_FILE).write_text(json.dumps(run, ensure_ascii=False, indent=2) + "\n", "utf-8")
    return None


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint; one whose writing was interrupted is removed.

    The Trainer writes the state last, so that a checkpoint with a readable state is whole.
    """
    numbered = []
    for path in folder.glob("checkpoint-*"):
        digits = path.name.rpartition("-")[2]
        if digits.isdecimal():
            numbered.append((int(digits), path))
    for number, path in sorted(numbered, reverse=True):
        state = _read(path / STATE_FILE)
        if state is not None and state.get("global_step") == number:
            return path
        shutil.rmtree(path)
    return None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names of what differs, those of nested values with dots."""
    names = []
    for name in sorted({*before, *now} - FREE_TO_CHANGE):
        one, other = before.get(name), now.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            names += [f"{name}.{inner}" for inner in _differences(one, other)]
        elif one != other:
            names.append(name)
    return names
