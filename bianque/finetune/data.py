"""Samples as `bianque corpus build` writes them, encoded once into an Arrow file that training maps into memory.

A sample that cannot be learnt is counted and left out; a file that holds something else is refused with a sentence.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bianque.consultation.messages import Role
from bianque.corpus.packages import require
from bianque.corpus.sources.speakers import messages_of_prompt
from bianque.errors import DataError
from bianque.finetune.encoding import Encoded, SampleEncoder

SUFFIXES = (".parquet", ".jsonl")
COLUMNS = ("input", "target")
BATCH_ROWS = 1000


@dataclass
class DataReport:
    """What became of one split.

    Attributes:
        file: what was read.
        num_read: rows.
        num_kept: samples that are learnt.
        num_shortened: of these, samples whose oldest turns were left out.
        dropped: rows left out, by reason.
        num_prompt_tokens: of the samples kept.
        num_target_tokens: of the samples kept.
    """

    file: str = ""
    num_read: int = 0
    num_kept: int = 0
    num_shortened: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    num_prompt_tokens: int = 0
    num_target_tokens: int = 0


def find_splits(data: Path, validation: Path | None) -> tuple[Path, Path | None]:
    """Return the files of the training and the validation samples.

    Args:
        data: a built corpus, or a file of samples.
        validation: a file of samples to evaluate on; None takes the corpus's own split.

    Raises:
        DataError: if there is no such file, or it is of another kind.
    """
    if data.is_dir():
        train = _first(data / "samples", "train")
        if train is None:
            raise DataError("finetune_not_samples", file=data)
        own = _first(data / "samples", "validation")
    else:
        train, own = data, None
    for file in (train, validation):
        if file is not None and not file.is_file():
            raise DataError("corpus_file_missing", file=file)
        if file is not None and file.suffix.lower() not in SUFFIXES:
            raise DataError("finetune_not_samples", file=file)
    return train, validation or own


def _first(folder: Path, split: str) -> Path | None:
    """Return the split's file, Parquet before JSON lines; None if it is not there or empty."""
    files = [folder / f"{split}{suffix}" for suffix in SUFFIXES]
    lines = folder / f"{split}.jsonl"
    if lines.is_file() and not lines.stat().st_size:
        return None
    return next((file for file in files if file.is_file()), None)


def digest_of(file: Path) -> str:
    """Return a digest of a file's bytes: what tells one data set from another."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:32]


def read_rows(file: Path) -> Iterator[tuple[int, Any, Any]]:
    """Yield (row from 1, input, target) of every row; cells may be anything.

    Raises:
        DataError: if a line is not JSON, or the file has no such columns.
    """
    if file.suffix.lower() == ".parquet":
        yield from _read_parquet(file)
        return
    is_known = False
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line.decode())
            except (ValueError, RecursionError) as error:
                reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else "not JSON"
                raise DataError("data_line_invalid", file=file, line=number, reason=reason) from error
            if not isinstance(value, dict) or not (is_known or all(name in value for name in COLUMNS)):
                got = ", ".join(value)[:100] if isinstance(value, dict) else type(value).__name__
                raise DataError("corpus_columns_missing", file=file, expected=", ".join(COLUMNS), got=got or "–")
            is_known = True
            yield number, value.get("input"), value.get("target")


def _read_parquet(file: Path) -> Iterator[tuple[int, Any, Any]]:
    parquet = require("pyarrow.parquet", "train")
    arrow = require("pyarrow", "train")
    try:
        with parquet.ParquetFile(file) as table:
            names = table.schema_arrow.names
            if not all(name in names for name in COLUMNS):
                got = ", ".join(names)[:100] or "–"
                raise DataError("corpus_columns_missing", file=file, expected=", ".join(COLUMNS), got=got)
            number = 0
            for batch in table.iter_batches(BATCH_ROWS, columns=list(COLUMNS)):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row["input"], row["target"]
    except (arrow.ArrowInvalid, OSError) as error:
        raise DataError("data_line_invalid", file=file, line=1, reason="not a Parquet file") from error


def encode_file(file: Path, encoder: SampleEncoder, output: Path) -> DataReport:
    """Encode every sample of a file into an Arrow file, nothing of which is held in memory.

    Args:
        file: of samples.
        encoder: for the model.
        output: the Arrow file, with columns `row` (in `file`, from 1), `prompt`, `target` and `length`.

    Raises:
        DataError: if the file cannot be read, or has no sample that can be learnt.
    """
    arrow = require("pyarrow", "train")
    ids = arrow.list_(arrow.int32())
    schema = arrow.schema({"row": arrow.int64(), "prompt": ids, "target": ids, "length": arrow.int32()})
    report, dropped = DataReport(str(file)), Counter[str]()
    draft = output.with_suffix(".part")
    waiting: dict[str, list[Any]] = {name: [] for name in schema.names}
    with arrow.OSFile(str(draft), "wb") as sink, arrow.ipc.new_stream(sink, schema) as writer:

        def flush() -> None:
            writer.write_batch(arrow.RecordBatch.from_pydict(waiting, schema=schema))
            for column in waiting.values():
                column.clear()

        for number, text, target in read_rows(file):
            report.num_read += 1
            encoded = _encode(text, target, encoder)
            if isinstance(encoded, str):
                dropped[encoded] += 1
                continue
            report.num_kept += 1
            report.num_shortened += bool(encoded.num_trimmed_turns)
            report.num_prompt_tokens += len(encoded.prompt)
            report.num_target_tokens += len(encoded.target)
            length = len(encoded.prompt) + len(encoded.target)
            for name, value in zip(waiting, (number, encoded.prompt, encoded.target, length), strict=True):
                waiting[name].append(value)
            if len(waiting["row"]) == BATCH_ROWS:
                flush()
        flush()
    report.dropped = dict(dropped.most_common())
    if not report.num_kept:
        draft.unlink()
        reasons = ", ".join(f"{reason}: {count}" for reason, count in report.dropped.items()) or "–"
        raise DataError("finetune_no_samples", file=file, read=report.num_read, reasons=reasons)
    draft.replace(output)
    return report


def _encode(text: Any, target: Any, encoder: SampleEncoder) -> Encoded | str:
    if not isinstance(text, str) or not isinstance(target, str) or not text.strip() or not target.strip():
        return "empty"
    messages = messages_of_prompt(text)
    while messages and messages[0].role is Role.ASSISTANT:
        messages = messages[1:]
    if not messages or messages[-1].role is not Role.USER or not messages[-1].text.strip():
        return "no_patient"  # the doctor would go on by himself, which inference never asks for
    return encoder.encode(messages, target.strip())


def open_encoded(file: Path) -> Any:
    """Return an encoded file as a `datasets.Dataset` that maps it into memory."""
    return require("datasets", "train").Dataset.from_file(str(file))
