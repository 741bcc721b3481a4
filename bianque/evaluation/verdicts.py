"""What judges said about pairs, one JSON object a line, written as it comes; of equal places the last line counts.

    {"battle": "…", "judge": "…", "order": "ab", "num_orders": 2, "choice": "a", "answer": "…"}

`order` is how the pair was shown (`ba`: the answer `b` first), `choice` one of `a`, `b`, `tie`, `both_bad` and
`unreadable`, always by the pair's own letters whatever the order. `num_orders` is in how many orders this judge sees
each pair: 2 for a model, whose preference for what stands first is cancelled so, 1 for a person. `answer` is what a
model wrote.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from bianque.errors import DataError
from bianque.evaluation.predictions import read_lines

Order = Literal["ab", "ba"]
Choice = Literal["a", "b", "tie", "both_bad", "unreadable"]
ORDERS: tuple[Order, ...] = get_args(Order)
SCORES: dict[Choice, float] = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}
"""What a choice is worth to the answer `a`; an answer of the judge that cannot be read is worth nothing to anybody."""


@dataclass(frozen=True)
class Verdict:
    """One judgement.

    Attributes:
        battle: the pair's id.
        judge: who judged.
        order: how the pair was shown.
        num_orders: in how many orders this judge sees each pair, 1 or 2.
        choice: what was chosen.
        answer: what a model wrote; empty for a person.
    """

    battle: str
    judge: str
    order: Order
    num_orders: int
    choice: Choice
    answer: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no verdict."""
        if self.order not in ORDERS or self.choice not in get_args(Choice) or self.num_orders not in (1, 2):
            raise ValueError("not a verdict")


class VerdictBook:
    """The verdicts of a folder; may be used from several threads, but only by one process at a time."""

    def __init__(self, file: Path) -> None:
        """Read what is there; a last line that was cut off is given up.

        Raises:
            DataError: if another line is no verdict.
        """
        self._file = file
        self._lock = threading.Lock()
        self._found: dict[tuple[str, str, Order], Verdict] = {}
        if file.exists():
            whole = file.read_bytes()
            if not whole.endswith(b"\n") and whole:
                file.write_bytes(whole[: whole.rfind(b"\n") + 1])
            for line, value in read_lines(file):
                try:
                    self._put(Verdict(**value))
                except (TypeError, ValueError) as error:
                    raise DataError("data_line_invalid", file=file, line=line, reason="not a verdict") from error

    def _put(self, verdict: Verdict) -> None:
        place = verdict.battle, verdict.judge, verdict.order
        self._found.pop(place, None)  # so that the newest comes last
        self._found[place] = verdict

    def add(self, verdict: Verdict) -> None:
        """Keep a verdict, on disk before this returns."""
        with self._lock:
            with self._file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(asdict(verdict), ensure_ascii=False) + "\n")
            self._put(verdict)

    def get(self, battle: str, judge: str, order: Order) -> Verdict | None:
        """Return the verdict of one place, None if there is none."""
        with self._lock:
            return self._found.get((battle, judge, order))

    def all(self) -> list[Verdict]:
        """Return every verdict that counts, oldest first."""
        with self._lock:
            return list(self._found.values())


def judges_of(verdicts: Iterable[Verdict]) -> dict[str, list[Verdict]]:
    """Return the verdicts of each judge."""
    found: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        found.setdefault(verdict.judge, []).append(verdict)
    return found
