"""What is evaluated: samples with the doctor's reply, and beside each what a model replied.

A prediction on disk is one JSON object a line: `source`, `dialogue_id`, `turn`, `input` and `target` of the sample
(see `corpus.records`), `reply` as a visitor sees it, `raw` as the model wrote it, `author` (which part of the system
wrote), `finish_reason`, and `error` (the key of the sentence that a visitor would see) where there is no reply.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bianque.consultation.messages import Role
from bianque.corpus.records import Dialogue, Sample, samples_of
from bianque.corpus.sources.speakers import messages_of_prompt
from bianque.errors import DataError

Key = tuple[str, str, int]


@dataclass(frozen=True)
class Prediction:
    """One reply of a model beside the doctor's.

    Attributes:
        source: set of the sample.
        dialogue_id: dialogue within the set.
        turn: number of the reply in its dialogue, from 1.
        input: the conversation, ending in `医生：`.
        target: what the doctor wrote.
        reply: what the model replied, as a visitor sees it; empty if it failed.
        raw: what the model wrote before the clean-up.
        author: which part of the system wrote it.
        finish_reason: why it ended.
        error: key of the error, empty if there is a reply.
    """

    source: str
    dialogue_id: str
    turn: int
    input: str
    target: str
    reply: str
    raw: str = ""
    author: str = ""
    finish_reason: str = ""
    error: str = ""

    @property
    def key(self) -> Key:
        """What tells one prediction of a run from the others."""
        return self.source, self.dialogue_id, self.turn

    def to_json(self) -> dict[str, Any]:
        """Return the object that stands for the prediction on disk."""
        return asdict(self)


def read_samples(path: Path, limit: int | None = None, seed: int = 0) -> list[Sample]:
    """Return the samples of a JSON-lines file, all of them or a random part of whole dialogues.

    Args:
        path: lines of samples (`input`, `target`) or of dialogues (`messages`), as `bianque corpus build` writes them;
            of a built corpus, its folder, the test split.
        limit: take at most this many samples, dialogue by dialogue; the same seed takes the same ones.
        seed: of the choice.

    Raises:
        DataError: if the file is missing or empty, or a line is neither.
    """
    if path.is_dir():
        path = path / "samples" / "test.jsonl"
    samples = _samples(path)
    if limit is None:
        chosen = list(samples)
    else:
        # Only as many as are wanted are held while the file streams by.
        chosen = heapq.nsmallest(limit, samples, key=lambda sample: (_place(sample, seed), sample.turn))
    if not chosen:
        raise DataError("evaluation_no_samples", file=path)
    return chosen


def digest_of(samples: Sequence[Sample]) -> str:
    """Return a short hash of what the samples say, by which two runs know whether they answered the same."""
    digest = hashlib.blake2b(digest_size=8)
    for sample in samples:
        digest.update(json.dumps(sample.to_json(), ensure_ascii=False).encode())
    return digest.hexdigest()


def _place(sample: Sample, seed: int) -> bytes:
    text = f"{seed}\n{sample.source}\n{sample.dialogue_id}"
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _samples(path: Path) -> Iterator[Sample]:
    for line, value in read_lines(path):
        if isinstance(value, dict) and "messages" in value:
            try:
                yield from samples_of(Dialogue.from_json(value, str(path), line))
            except ValueError as error:
                raise DataError("data_line_invalid", file=path, line=line, reason=str(error)[:100]) from error
        else:
            yield _sample(path, line, value)


def _sample(path: Path, line: int, value: Any) -> Sample:
    has_texts = isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("input", "target"))
    messages = messages_of_prompt(value["input"]) if has_texts else ()
    if not messages or messages[-1].role is not Role.USER:
        raise DataError("data_line_invalid", file=path, line=line, reason="no messages, and no input and target")
    turn = value.get("turn", sum(message.role is Role.USER for message in messages))
    if not isinstance(turn, int):
        raise DataError("data_line_invalid", file=path, line=line, reason="turn is not a whole number")
    return Sample(
        str(value.get("source", "")),
        str(value.get("dialogue_id", line)),
        turn,
        messages,
        value["target"],
    )


def read_predictions(path: Path) -> list[Prediction]:
    """Return the predictions of a file; only `input`, `target` and `reply` have to be there.

    Raises:
        DataError: if the file is missing or empty, or a line is no prediction.
    """
    predictions = []
    for line, value in read_lines(path):
        if not isinstance(value, dict) or not isinstance(value.get("reply"), str):
            raise DataError("data_line_invalid", file=path, line=line, reason="no reply")
        sample = _sample(path, line, value)
        where = (sample.source, sample.dialogue_id, sample.turn, value["input"], value["target"])
        texts = [str(value.get(name, "")) for name in ("reply", "raw", "author", "finish_reason", "error")]
        predictions.append(Prediction(*where, *texts))
    if not predictions:
        raise DataError("evaluation_no_samples", file=path)
    return predictions


def read_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line, value) of every line that is not blank.

    Raises:
        DataError: if the file is missing, or a line is not JSON in UTF-8.
    """
    if not path.is_file():
        raise DataError("corpus_file_missing", file=path)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield number, json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                except UnicodeDecodeError as error:
                    raise DataError("data_line_invalid", file=path, line=number, reason="not UTF-8") from error
                except (json.JSONDecodeError, RecursionError) as error:
                    raise DataError("data_line_invalid", file=path, line=number, reason="not JSON") from error
