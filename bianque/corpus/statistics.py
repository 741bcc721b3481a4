"""Figures of a corpus: turns, lengths, questions and chains of questioning, per source.

A chain of questioning (询问链) is counted as the doctor's questions before the first reply that asks nothing; the
longest run of questions anywhere in the dialogue is counted beside it. A question is what
`consultation.questions.is_clinical_question` says.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any

from bianque.consultation.messages import Role
from bianque.consultation.questions import QuestionKind, classify
from bianque.corpus.records import Dialogue, samples_of
from bianque.corpus.report import markdown_table
from bianque.errors import DataError

QUANTILES = (0.5, 0.9, 0.99)


@dataclass
class SourceStatistics:
    """Counters of one source; each maps a value to how often it occurs.

    Attributes:
        turns: the doctor's replies of a dialogue.
        patient_chars: characters of a patient's message.
        input_chars: characters of a prompt.
        target_chars: characters of a target.
        kinds: targets by `QuestionKind`.
        chains: questions before the first reply that asks nothing.
        longest_chains: longest run of questions.
    """

    turns: Counter[int] = field(default_factory=Counter)
    patient_chars: Counter[int] = field(default_factory=Counter)
    input_chars: Counter[int] = field(default_factory=Counter)
    target_chars: Counter[int] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    chains: Counter[int] = field(default_factory=Counter)
    longest_chains: Counter[int] = field(default_factory=Counter)

    def add(self, dialogue: Dialogue) -> None:
        """Count one dialogue."""
        self.patient_chars.update(len(message.text) for message in dialogue.messages if message.role is Role.USER)
        asks = []
        for sample in samples_of(dialogue):
            kind = classify(sample.target)
            self.kinds[kind.value] += 1
            asks.append(kind is QuestionKind.CLINICAL)
            self.input_chars[len(sample.prompt)] += 1
            self.target_chars[len(sample.target)] += 1
        self.turns[len(asks)] += 1
        self.chains[sum(1 for _ in takewhile(bool, asks))] += 1
        self.longest_chains[max((len(list(run)) for is_asking, run in groupby(asks) if is_asking), default=0)] += 1

    @property
    def question_share(self) -> float:
        """Share of targets that are clinical questions, 0 to 1."""
        return self.kinds[QuestionKind.CLINICAL.value] / max(self.kinds.total(), 1)

    def to_json(self) -> dict[str, Any]:
        """Return means, quantiles and shares as plain values."""
        counters = {
            "turns": self.turns,
            "patient_chars": self.patient_chars,
            "input_chars": self.input_chars,
            "target_chars": self.target_chars,
            "chain_of_questioning": self.chains,
            "longest_chain": self.longest_chains,
        }
        return {
            "dialogues": self.turns.total(),
            "samples": self.kinds.total(),
            "question_share": self.question_share,
            "targets": dict(self.kinds),
            **{name: _summary(counter) for name, counter in counters.items()},
            "chain_of_questioning_counts": {str(length): n for length, n in sorted(self.chains.items())},
        }


def _summary(counter: Counter[int]) -> dict[str, float]:
    total = counter.total()
    if not total:
        return {}
    values = sorted(counter)
    summary: dict[str, float] = {"mean": sum(value * counter[value] for value in values) / total}
    for quantile in QUANTILES:
        seen = 0
        for value in values:
            seen += counter[value]
            if seen >= quantile * total:
                summary[f"p{quantile * 100:.0f}"] = value
                break
    return {**summary, "max": values[-1]}


def measure(dialogues: Iterable[Dialogue]) -> dict[str, SourceStatistics]:
    """Return the statistics of each source, in the order in which they come."""
    sources: dict[str, SourceStatistics] = {}
    for dialogue in dialogues:
        sources.setdefault(dialogue.source, SourceStatistics()).add(dialogue)
    return sources


def read_dialogues(path: Path) -> Iterator[Dialogue]:
    """Yield the dialogues of a built corpus, or of one JSON-lines file of dialogues.

    Raises:
        DataError: if there is nothing to read, or a line is not a dialogue.
    """
    files = [path] if path.is_file() else sorted((path / "dialogues").glob("*.jsonl"))
    if not files:
        raise DataError("corpus_file_missing", file=path / "dialogues")
    for file in files:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    yield Dialogue.from_json(json.loads(line), str(file), number)
                except (ValueError, RecursionError) as error:
                    raise DataError("data_line_invalid", file=file, line=number, reason=str(error)[:100]) from error


def markdown(sources: dict[str, SourceStatistics]) -> str:
    """Return the statistics as a Markdown table, one source a row."""
    header = ["source", "dialogues", "samples", "turns", "input chars", "target chars", "questions", "closings"]
    header += ["chain of questioning", "dialogues with a chain", "longest chain"]
    rows = []
    for name, source in sources.items():
        targets = max(source.kinds.total(), 1)
        rows.append(
            [
                name,
                source.turns.total(),
                source.kinds.total(),
                _spread(source.turns),
                _spread(source.input_chars),
                _spread(source.target_chars),
                f"{source.question_share:.1%}",
                f"{source.kinds[QuestionKind.CLOSING.value] / targets:.1%}",
                _spread(source.chains),
                f"{1 - source.chains[0] / max(source.turns.total(), 1):.1%}",
                _spread(source.longest_chains),
            ]
        )
    note = "Turns, lengths and chains: mean (median / 90 % / maximum)."
    return f"{markdown_table(header, rows)}\n\n{note}\n"


def _spread(counter: Counter[int]) -> str:
    summary = _summary(counter)
    if not summary:
        return "–"
    return f"{summary['mean']:.1f} ({summary['p50']} / {summary['p90']} / {summary['max']})"
