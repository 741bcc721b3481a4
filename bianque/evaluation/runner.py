"""Teacher-forced evaluation: answer every sample after the doctor's own earlier turns, and score what comes back.

Predictions are written as they come. A run that was interrupted goes on where it stopped, if it is the same run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bianque.corpus.records import Sample
from bianque.errors import DataError, GenerationError, InputError, QueueFullError
from bianque.evaluation.metrics import groups, measure, score
from bianque.evaluation.parallel import in_order
from bianque.evaluation.predictions import Prediction, read_predictions
from bianque.evaluation.responders import Responder
from bianque.evaluation.results import Results

logger = logging.getLogger(__name__)


def predict(
    responder: Responder,
    samples: Sequence[Sample],
    folder: Path,
    run: Mapping[str, Any],
    *,
    workers: int = 1,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Prediction]:
    """Return the responder's replies to all samples, in their order.

    Args:
        responder: who answers.
        samples: what to answer.
        folder: holds `predictions.jsonl` and `run.json`; those of the same run are taken over.
        run: what makes two runs the same: data, model, decoding.
        workers: conversations that are answered at once.
        overwrite: whether another run's files are replaced.
        progress: is told how many are done.

    Raises:
        DataError: `evaluation_other_run` if the folder holds another run.
        ModelUnavailableError: if the responder cannot answer at all; what is done is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "predictions.jsonl"
    done = {one.key: one for one in _finished(folder, run, overwrite=overwrite)}
    wanted = [sample for sample in samples if (sample.source, sample.dialogue_id, sample.turn) not in done]
    with file.open("a", encoding="utf-8") as lines:
        for one in in_order(lambda sample: _answer(responder, sample), wanted, workers):
            done[one.key] = one
            lines.write(json.dumps(one.to_json(), ensure_ascii=False) + "\n")
            lines.flush()
            progress(len(done), len(samples))
    return [done[sample.source, sample.dialogue_id, sample.turn] for sample in samples]


def _finished(folder: Path, run: Mapping[str, Any], *, overwrite: bool) -> list[Prediction]:
    """Return what an earlier start of the same run has done."""
    description, file = folder / "run.json", folder / "predictions.jsonl"
    text = json.dumps(run, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    if file.exists() and not overwrite:
        if not description.exists() or description.read_text("utf-8") != text:
            raise DataError("evaluation_other_run", folder=folder)
        whole = file.read_bytes()
        file.write_bytes(whole[: whole.rfind(b"\n") + 1])  # the last line may be cut off
        return read_predictions(file) if file.stat().st_size else []
    file.unlink(missing_ok=True)
    description.write_text(text, "utf-8")
    return []


def _answer(responder: Responder, sample: Sample) -> Prediction:
    where = (sample.source, sample.dialogue_id, sample.turn, sample.prompt, sample.target)
    try:
        reply = responder.reply(sample.messages)
    except (InputError, GenerationError, QueueFullError) as error:
        logger.warning("no reply to turn %d of %s %s: %s", sample.turn, sample.source, sample.dialogue_id, error)
        return Prediction(*where, reply="", error=error.key)
    return Prediction(*where, reply.text, reply.raw, reply.author, reply.finish_reason)


def evaluate(
    predictions: Sequence[Prediction], name: str, command: str, run: Mapping[str, Any], *, num_bootstraps: int = 1000
) -> Results:
    """Score predictions and return the figures of every group."""
    scored = groups([score(prediction) for prediction in predictions])
    figures = {group: measure(members, num_bootstraps=num_bootstraps) for group, members in scored.items()}
    return Results(name, command, run, {group: len(members) for group, members in scored.items()}, figures)
