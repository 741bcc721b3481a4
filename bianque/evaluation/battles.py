r"""Blind pairs: what two models said to the same, with nothing that tells which is which.

A folder of battles holds

    battles.jsonl   the pairs; a judge needs this file only
    key.json        which model wrote which answer, and the command that made the pairs
    verdicts.jsonl  what judges said, see `verdicts`

A pair is one JSON object a line:

    {"id": "…", "kind": "reply", "prompt": "病人：…\n医生：", "a": "…", "b": "…"}

`kind` is `reply` (one reply after a conversation, of `evaluate teacher-forced` or `score`) or `dialogue` (all that
follows the patient's first words, of `evaluate free`). Which model is `a` is drawn with the seed for every pair.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from bianque.consultation.messages import Role
from bianque.consultation.templates import PATIENT_DOCTOR
from bianque.corpus.records import Dialogue
from bianque.corpus.statistics import read_dialogues
from bianque.errors import DataError
from bianque.evaluation.predictions import read_lines, read_predictions

Kind = Literal["reply", "dialogue"]
BATTLES_FILE, KEY_FILE, VERDICTS_FILE = "battles.jsonl", "key.json", "verdicts.jsonl"


@dataclass(frozen=True)
class Battle:
    """One blind pair.

    Attributes:
        id: unique in its folder; tells nothing about the models.
        kind: what `a` and `b` are.
        prompt: the conversation before them.
        a: one answer.
        b: the other.
    """

    id: str
    kind: Kind
    prompt: str
    a: str
    b: str

    @property
    def is_equal(self) -> bool:
        """Whether both say the same, so that there is nothing to judge."""
        return self.a.strip() == self.b.strip()


@dataclass(frozen=True)
class Answers:
    """What one model said in one run: `(prompt, answer)` by what tells the places of a run apart."""

    name: str
    kind: Kind
    said: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class BattleSet:
    """Pairs and their key.

    Attributes:
        battles: in the order in which they are judged.
        models: (model of `a`, model of `b`) by the pair's id.
        failed: places left out because one of the two had no answer.
    """

    battles: tuple[Battle, ...]
    models: Mapping[str, tuple[str, str]]
    failed: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, command: str, *, overwrite: bool = False) -> None:
        """Write pairs and key.

        Raises:
            DataError: if the folder holds battles and `overwrite` is not set.
        """
        if (folder / BATTLES_FILE).exists() and not overwrite:
            raise DataError("output_exists", folder=folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / VERDICTS_FILE).unlink(missing_ok=True)
        lines = "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in self.battles)
        (folder / BATTLES_FILE).write_text(lines, "utf-8")
        key = {"command": command, **self.details, "failed": self.failed, "models": self.models}
        (folder / KEY_FILE).write_text(json.dumps(key, ensure_ascii=False, indent=1) + "\n", "utf-8")


def read_battles(path: Path) -> list[Battle]:
    """Return the pairs of a folder, or of a file of pairs.

    Raises:
        DataError: if there are none, or a line is no pair.
    """
    file = path / BATTLES_FILE if path.is_dir() else path
    battles = []
    for line, value in read_lines(file):
        try:
            battle = Battle(**value)
        except TypeError as error:
            raise DataError("data_line_invalid", file=file, line=line, reason="not a battle") from error
        if battle.kind not in ("reply", "dialogue") or not all(
            isinstance(one, str) for one in asdict(battle).values()
        ):
            raise DataError("data_line_invalid", file=file, line=line, reason="not a battle")
        battles.append(battle)
    if not battles:
        raise DataError("evaluation_no_samples", file=file)
    return battles


def read_key(folder: Path) -> dict[str, tuple[str, str]]:
    """Return (model of `a`, model of `b`) by the pair's id.

    Raises:
        DataError: if the key is missing or is not one.
    """
    file = folder / KEY_FILE
    if not file.is_file():
        raise DataError("corpus_file_missing", file=file)
    try:
        models = json.loads(file.read_text("utf-8"))["models"]
        return {identity: (str(pair[0]), str(pair[1])) for identity, pair in models.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError("data_line_invalid", file=file, line=1, reason="not the key of battles") from error


def read_answers(name: str, path: Path) -> Answers:
    """Return what a model said in a run.

    Args:
        name: of the model; empty for the run's own name.
        path: folder of a run, or its `predictions.jsonl` or `dialogues.jsonl`.

    Raises:
        DataError: if there is no run, or a line of it cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    file = path
    if path.is_dir():
        found = [path / part for part in ("predictions.jsonl", "dialogues.jsonl") if (path / part).is_file()]
        if not found:
            raise DataError("corpus_file_missing", file=path / "predictions.jsonl")
        file = found[0]
    name = name or _name_of(folder)
    if file.name.startswith("dialogues"):
        return Answers(name, "dialogue", dict(_of_dialogue(dialogue) for dialogue in read_dialogues(file)))
    said = {json.dumps(one.key): (one.input, one.reply) for one in read_predictions(file)}
    return Answers(name, "reply", said)


def _name_of(folder: Path) -> str:
    try:
        return str(json.loads((folder / "results.json").read_text("utf-8"))["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return folder.resolve().name


def _of_dialogue(dialogue: Dialogue) -> tuple[str, tuple[str, str]]:
    markers = {Role.USER: PATIENT_DOCTOR.user_marker, Role.ASSISTANT: PATIENT_DOCTOR.assistant_marker}
    lines = [f"{markers[message.role]}{message.text}" for message in dialogue.messages]
    return json.dumps([dialogue.source, dialogue.id]), (lines[0] if lines else "", "\n".join(lines[1:]))


def make_battles(runs: Sequence[Answers], *, limit: int | None = None, seed: int = 0) -> BattleSet:
    """Pair what every two runs said to the same prompt.

    Args:
        runs: at least two, with different names.
        limit: pairs for every two runs, drawn at random; None for all.
        seed: of the drawing, of who is `a` and of the order.

    Raises:
        DataError: if two runs have one name, or not one place is common to two runs.
    """
    names = [run.name for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise DataError("battles_names_equal", name=name)
    drawn: list[tuple[bytes, Battle, tuple[str, str]]] = []
    failed = 0
    for first, second in combinations(runs, 2):
        pairs = []
        for place, (prompt, answer) in first.said.items():
            other = second.said.get(place)
            if first.kind != second.kind or other is None or other[0] != prompt:
                continue
            if not answer.strip() or not other[1].strip():
                failed += 1
                continue
            pairs.append(_pair(place, prompt, (first, answer), (second, other[1]), seed))
        drawn += sorted(pairs, key=lambda one: one[0])[:limit]
    if not drawn:
        raise DataError("battles_nothing_common", names=", ".join(names))
    drawn.sort(key=lambda one: one[0])
    models = {battle.id: pair for _, battle, pair in drawn}
    return BattleSet(tuple(battle for _, battle, _ in drawn), models, failed, {"seed": seed, "limit": limit})


def _pair(
    place: str, prompt: str, one: tuple[Answers, str], other: tuple[Answers, str], seed: int
) -> tuple[bytes, Battle, tuple[str, str]]:
    """Return (place in the order, pair, names); all of it follows from the seed and what is paired."""
    names = sorted((one[0].name, other[0].name))
    digest = hashlib.blake2b(json.dumps([seed, place, prompt, *names]).encode(), digest_size=16).digest()
    first, second = sorted((one, other), key=lambda said: said[0].name)
    if digest[7] & 1:  # neither of the bytes that decide the order, and what is drawn, nor of the id
        first, second = second, first
    battle = Battle(digest[8:].hex(), one[0].kind, prompt, first[1], second[1])
    return digest, battle, (first[0].name, second[0].name)
