"""Outcomes of judged pairs: from folders of battles, and from files of battles that others stored.

A stored battle is one JSON object, in lines or in one array, with the fields of FastChat's arena:

    {"model_a": "…", "model_b": "…", "winner": "model_a"}

`winner` is `model_a`, `model_b`, `tie`, `tie (bothbad)` or `both_bad`; in its place `score` may give what the pair is
worth to `model_a`, 0 to 1. Battles that are marked as not blind (`"anony": false`) are left out and counted. The two
folders of PULSE-EVAL are read as well: a file of `elo_data` names the models, the one of the same name in
`elo_outputs` holds the judge's answers, whose first line has a mark for each model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bianque.corpus.files import SourceFile
from bianque.corpus.json_stream import read_json
from bianque.corpus.records import Problem
from bianque.errors import DataError
from bianque.evaluation.battles import VERDICTS_FILE, Battle, read_battles, read_key
from bianque.evaluation.elo import Outcome
from bianque.evaluation.predictions import read_lines
from bianque.evaluation.verdicts import SCORES, Verdict, VerdictBook, judges_of

EQUAL = "equal answers"
"""Who judges pairs in which both say the same: nobody is asked, they are ties."""
_WINNERS = {"model_a": 1.0, "model_b": 0.0, "tie": 0.5, "tie (bothbad)": 0.5, "both_bad": 0.5}
_UNREAD = "tie (None)"
_MARKS = re.compile(r"\s*(\d+(?:\.\d+)?)[\s,]+(\d+(?:\.\d+)?)\s*(?:\n|$)")


@dataclass
class JudgeCount:
    """What became of one judge's verdicts.

    Attributes:
        pairs: pairs that count.
        ties: of these, those worth as much to both.
        both_bad: verdicts that found both bad; they count as ties.
        unreadable: answers that could not be read; their pairs do not count.
        incomplete: pairs judged in one order of two so far; they do not count.
        left_out: stored battles that were not blind.
        decided: readable verdicts that prefer one answer.
        first: of these, those that prefer what was shown first.
        twice: pairs read in both orders.
        agreeing: of these, those with the same verdict in both.
    """

    pairs: int = 0
    ties: int = 0
    both_bad: int = 0
    unreadable: int = 0
    incomplete: int = 0
    left_out: int = 0
    decided: int = 0
    first: int = 0
    twice: int = 0
    agreeing: int = 0

    def take(self, outcome: Outcome) -> Outcome:
        """Count a pair and return it."""
        self.pairs += 1
        self.ties += outcome.score == 0.5
        return outcome


@dataclass
class Outcomes:
    """Outcomes in the order in which they were judged, and what each judge did."""

    outcomes: list[Outcome]
    judges: dict[str, JudgeCount]


def read_outcomes(paths: Sequence[Path], judges: Collection[str] = ()) -> Outcomes:
    """Return the outcomes of folders of battles and of stored battles.

    Args:
        paths: folders that `evaluate battles` made, and files.
        judges: of which judges; empty for all. Pairs of equal answers count for all of them.

    Raises:
        DataError: if a file is missing or no record of battles, or not one outcome is there.
    """
    found = Outcomes([], {})
    for path in paths:
        if path.is_dir():
            _from_folder(path, judges, found)
        else:
            _from_file(path, found)
    if not found.outcomes:
        raise DataError("battles_not_judged", folder=", ".join(map(str, paths)))
    return found


# ---- folders of battles ---------------------------------------------------------------------------------------------


def _from_folder(folder: Path, judges: Collection[str], found: Outcomes) -> None:
    battles, models = {battle.id: battle for battle in read_battles(folder)}, read_key(folder)
    for identity in battles:
        if identity not in models:
            raise DataError("data_line_invalid", file=folder / "key.json", line=1, reason="a battle is missing")
    known = [verdict for verdict in VerdictBook(folder / VERDICTS_FILE).all() if verdict.battle in battles]
    for judge, verdicts in judges_of(known).items():
        if not judges or judge in judges:
            _of_judge(judge, verdicts, battles, models, found)
    for battle in battles.values():
        if battle.is_equal:
            count = found.judges.setdefault(EQUAL, JudgeCount())
            found.outcomes.append(count.take(Outcome(*models[battle.id], 0.5, EQUAL)))


def _of_judge(
    judge: str,
    verdicts: Sequence[Verdict],
    battles: dict[str, Battle],
    models: dict[str, tuple[str, str]],
    found: Outcomes,
) -> None:
    count = found.judges.setdefault(judge, JudgeCount())
    pairs: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        pairs.setdefault(verdict.battle, []).append(verdict)
        count.unreadable += verdict.choice == "unreadable"
        count.both_bad += verdict.choice == "both_bad"
        count.decided += verdict.choice in ("a", "b")
        count.first += verdict.choice == verdict.order[0]
    for identity, given in pairs.items():
        if len(given) < given[0].num_orders:
            count.incomplete += 1
        elif all(verdict.choice in SCORES for verdict in given) and not battles[identity].is_equal:
            if len(given) > 1:
                count.twice += 1
                count.agreeing += given[0].choice == given[1].choice
            score = sum(SCORES[verdict.choice] for verdict in given) / len(given)
            found.outcomes.append(count.take(Outcome(*models[identity], score, judge)))


# ---- stored battles -------------------------------------------------------------------------------------------------


def _from_file(path: Path, found: Outcomes) -> None:
    if not path.is_file():
        raise DataError("corpus_file_missing", file=path)
    count = found.judges.setdefault(path.name, JudgeCount())
    marks = _pulse_marks(path)
    for record in read_json(SourceFile(path), lambda value: isinstance(value, dict) and "model_a" in value):
        if isinstance(record, Problem):
            raise DataError("data_line_invalid", file=path, line=record.line, reason=record.reason)
        value = record.value
        if not isinstance(value, dict) or not all(isinstance(value.get(f"model_{one}"), str) for one in "ab"):
            raise DataError("data_line_invalid", file=path, line=record.line, reason="no model_a and model_b")
        if marks is not None:
            value = {**value, **next(marks, {})}
        _stored(value, path, record.line, count, found)


def _stored(value: dict[str, Any], path: Path, line: int, count: JudgeCount, found: Outcomes) -> None:
    winner = value.get("winner")
    worth = _WINNERS.get(winner) if isinstance(winner, str) else None
    if worth is None and _is_share(value.get("score")):
        worth = float(value["score"])
    if value.get("anony") is False:
        count.left_out += 1
    elif winner == _UNREAD:
        count.unreadable += 1
    elif worth is not None:
        count.both_bad += winner in ("tie (bothbad)", "both_bad")
        found.outcomes.append(count.take(Outcome(value["model_a"], value["model_b"], worth, path.name)))
    else:
        raise DataError("data_line_invalid", file=path, line=line, reason="no winner and no score from 0 to 1")


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _pulse_marks(path: Path) -> Iterator[dict[str, str]] | None:
    """Return who won each battle of a file in PULSE-EVAL's `elo_data`, None for another file."""
    answers = path.parent.parent / "elo_outputs" / path.name
    if path.parent.name != "elo_data" or not answers.is_file():
        return None
    return ({"winner": _winner_by_marks(value)} for _, value in read_lines(answers))


def _winner_by_marks(value: Any) -> str:
    try:
        output = value["output"]
        match = _MARKS.match((json.loads(output) if isinstance(output, str) else output)["content"])
    except (KeyError, TypeError, ValueError):
        return _UNREAD
    if match is None:
        return _UNREAD
    first, second = float(match[1]), float(match[2])
    return "tie" if first == second else "model_a" if first > second else "model_b"
