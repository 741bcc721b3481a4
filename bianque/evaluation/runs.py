"""Whole runs: answers, figures and files, teacher-forced or free, in one mode or in several with a comparison.

A run that was interrupted goes on where it stopped, one that is finished is taken over; another run's folder is
refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from random import Random
from typing import Any

from bianque.consultation.messages import Message, Mode, Role
from bianque.corpus.records import Dialogue, Sample, samples_of
from bianque.errors import DataError
from bianque.evaluation import free
from bianque.evaluation.predictions import digest_of
from bianque.evaluation.responders import Responder, ServiceResponder
from bianque.evaluation.results import Results, compare, write_comparison
from bianque.evaluation.runner import evaluate, predict
from bianque.minis.cases import GENERAL
from bianque.minis.dialogues import DialogueWriter
from bianque.minis.knowledge import Knowledge

Progress = Callable[[int, int], None]
MODE_NAMES = {Mode.JOINT: "joint", Mode.ASKER: "asker", Mode.ADVISER: "adviser", Mode.SOULCHAT: "listener"}


@dataclass(frozen=True)
class RunOptions:
    """How a run is made, whoever answers.

    Attributes:
        command: the command line, for the results.
        workers: conversations answered at once.
        seed: of the patient.
        overwrite: whether another run's files are replaced.
        progress: makes, from what is counted, a function that is told how many of how many are done.
    """

    command: str
    workers: int = 1
    seed: int = 0
    overwrite: bool = False
    progress: Callable[[str], Progress] = lambda what: lambda done, total: None


def run_teacher_forced(
    responder: Responder, samples: Sequence[Sample], data: str, name: str, folder: Path, options: RunOptions
) -> Results:
    """Answer samples, score the replies and write the results.

    Args:
        responder: who answers.
        samples: what to answer.
        data: name of the samples' file.
        name: of the run.
        folder: of the run.
        options: how.

    Raises:
        DataError: if the folder holds another run.
        ModelUnavailableError: if the responder cannot answer; what is done is kept.
    """
    described = {"file": data, "samples": len(samples), "digest": digest_of(samples)}
    run = {"kind": "teacher-forced", "data": described, **responder.describe()}
    predictions = predict(
        responder,
        samples,
        folder,
        run,
        workers=options.workers,
        overwrite=options.overwrite,
        progress=options.progress(f"replies ({name})"),
    )
    results = evaluate(predictions, name, options.command, run)
    results.write(folder)
    return results


def run_free(
    responder: Responder, knowledge: Knowledge, num_cases: int, name: str, folder: Path, options: RunOptions
) -> Results:
    """Talk with the scripted patient, measure, and write dialogues and results.

    Raises:
        DataError: if the folder holds another run.
        BianQueError: if the responder cannot answer.
    """
    data = {"cases": num_cases, "seed": options.seed}
    run = {"kind": "free", "data": data, **responder.describe()}
    known = _known(folder, run, overwrite=options.overwrite)
    if known is not None:
        return known
    cases = free.draw_cases(knowledge, num_cases, options.seed)
    progress = options.progress(f"dialogues ({name})")
    dialogues = free.converse(
        responder, knowledge, cases, seed=options.seed, workers=options.workers, progress=progress
    )
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "dialogues.jsonl").open("w", encoding="utf-8") as lines:
        for number, dialogue in enumerate(dialogues, start=1):
            lines.write(json.dumps(dialogue.to_dialogue(number).to_json(), ensure_ascii=False) + "\n")
    outside = sum(dialogue.case.id == GENERAL for dialogue in dialogues)
    counts = {"all": len(cases), "listed complaints": len(cases) - outside, "outside the list": outside}
    figures = free.measure_free(dialogues, knowledge)
    results = Results(name, options.command, run, counts, figures, free.DEFINITIONS)
    results.write(folder)
    return results


def _known(folder: Path, run: Mapping[str, Any], *, overwrite: bool) -> Results | None:
    """Return the results of the same run, None if there are none."""
    if overwrite or not (folder / "results.json").exists():
        return None
    known = Results.read(folder)
    if known.run != json.loads(json.dumps(run)):
        raise DataError("evaluation_other_run", folder=folder)
    return known


def run_modes(
    responder: ServiceResponder,
    modes: Sequence[Mode],
    samples: Sequence[Sample],
    data: str,
    knowledge: Knowledge,
    num_cases: int,
    folder: Path,
    options: RunOptions,
) -> str:
    """Evaluate every mode, teacher-forced and free, and write one comparison of each kind.

    Args:
        responder: answers in any mode.
        modes: which.
        samples: what to answer, teacher-forced.
        data: name of the samples' file.
        knowledge: of the scripted patient.
        num_cases: dialogues with it in each mode.
        folder: gets `teacher-forced/MODE`, `free/MODE` and a comparison in each of the two.
        options: how.

    Returns:
        Both tables, as Markdown.
    """
    made: dict[str, list[Results]] = {"teacher-forced": [], "free": []}
    for mode in modes:
        one, name = responder.in_mode(mode), MODE_NAMES[mode]
        forced, talked = (folder / kind / name for kind in made)
        made["teacher-forced"].append(run_teacher_forced(one, samples, data, name, forced, options))
        made["free"].append(run_free(one, knowledge, num_cases, name, talked, options))
    for kind, results in made.items():
        write_comparison(results, folder / kind)
    return "\n".join(f"## {kind}\n\n{compare(results)}" for kind, results in made.items())


def heldout_samples(knowledge: Knowledge, number: int, seed: int = 0) -> list[Sample]:
    """Return the first samples of made-up dialogues in wordings that the demonstration models never saw.

    Args:
        knowledge: of the demonstration models.
        number: how many.
        seed: of the dialogues; the same one gives the same samples.
    """
    writer = DialogueWriter(knowledge, heldout=True)
    drawn = (sample for place in count(1) for sample in samples_of(_heldout_dialogue(writer, seed, place)))
    return list(islice(drawn, number))


def _heldout_dialogue(writer: DialogueWriter, seed: int, place: int) -> Dialogue:
    made = writer.dialogue(Random(f"heldout-{seed}-{place}"), "joint")
    messages = [
        Message(Role.USER if step.speaker == "patient" else Role.ASSISTANT, step.text)
        for step in made.steps
        if not step.is_hidden
    ]
    return Dialogue("held-out", str(place), tuple(messages))
