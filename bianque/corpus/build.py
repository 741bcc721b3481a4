"""Build a corpus: read, clean, drop duplicates, split, cut to length, write.

The output folder holds

    dialogues/{train,validation,test}.{jsonl,parquet}   cleaned dialogues, see `records`
    samples/{train,validation,test}.{jsonl,parquet}     (input, target) pairs made from them
    problems.jsonl                                      file, line and reason of every record that could not be read
    report.json                                         what each step did, per source
    README.md                                           a card, so that `datasets.load_dataset(folder)` works

and appears only when everything is written: an interrupted build leaves nothing that looks like a corpus.

The split is by dialogue and decided by what the patient says first, so that several dialogues that begin with the same
question (several answers of cMedQA2, prefixes of one dialogue in PromptCBLUE) come to lie on the same side.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from bianque.consultation.cleanup import skeleton
from bianque.corpus.cleaning import Cleaner
from bianque.corpus.duplicates import KINDS, DuplicateFinder, Kind
from bianque.corpus.lengths import LengthLimits
from bianque.corpus.records import Dialogue, Problem, samples_of
from bianque.corpus.report import BuildReport, SourceReport
from bianque.corpus.sources.reading import read_source
from bianque.corpus.tables import write_card, write_parquet
from bianque.errors import DataError

SPLITS = ("train", "validation", "test")
REPORT_FILE = "report.json"
PROGRESS_EVERY = 10_000


@dataclass(frozen=True)
class BuildOptions:
    """How a corpus is built.

    Attributes:
        skip: names of cleaning steps and of `duplicates.KINDS` to leave out.
        similarity: from which two dialogues are near duplicates.
        validation: share of dialogues for validation, 0 to 1.
        test: share of dialogues for testing.
        seed: of the split.
        overwrite: whether a corpus in the output folder is replaced; anything else there is never deleted.
    """

    skip: frozenset[str] = frozenset()
    similarity: float = 0.85
    validation: float = 0.02
    test: float = 0.02
    seed: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check the shares and the similarity."""
        if not (self.validation >= 0 and self.test >= 0 and self.validation + self.test <= 1):
            raise ValueError(f"shares of validation {self.validation} and test {self.test} must lie between 0 and 1")
        if not 0 < self.similarity <= 1:
            raise ValueError(f"similarity must be above 0 and at most 1, but it is {self.similarity}")


def build_corpus(
    output: Path,
    sources: Sequence[tuple[str, Path]],
    options: BuildOptions,
    limits: Callable[[], LengthLimits] | None = None,
    *,
    command: str = "",
    progress: Callable[[str], None] = lambda line: None,
) -> BuildReport:
    """Build the corpus in `output` and return what was done.

    Args:
        output: folder to make.
        sources: (key of `sources.reading.SOURCES`, path) of each set, read in this order.
        options: how to build.
        limits: makes the length limits of one source, or None for no limits.
        command: the command line, to be written into the report.
        progress: is given a line now and then.

    Raises:
        DataError: if the output exists and is not a corpus to overwrite, a source is unknown or missing, or nothing
            in it can be read.
        SettingsError: if a package of the group `corpus` is missing.
    """
    with _new_folder(output, options.overwrite) as folder, ExitStack() as stack:
        kinds: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind not in options.skip)
        finder = stack.enter_context(DuplicateFinder(folder / "seen.sqlite", kinds, options.similarity))
        writer = stack.enter_context(_Writer(folder))
        report = BuildReport(command)
        for name, path in sources:
            made = report.sources.setdefault(name, SourceReport())
            bounds = limits() if limits else None
            one = _OneSource(Cleaner(options.skip), finder, bounds, writer, options, made)
            for item in read_source(name, path):
                one.take(item)
                if made.num_read % PROGRESS_EVERY == 0 and isinstance(item, Dialogue):
                    progress(f"{name}: {made.num_read} dialogues read, {made.num_kept} kept")
            made.add_steps(one.cleaner.counts, bounds)
        stack.close()
        (folder / "seen.sqlite").unlink()
        write_parquet(folder, SPLITS)
        report.write(folder / REPORT_FILE)
        write_card(folder / "README.md", report)
    return report


@contextmanager
def _new_folder(output: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a folder beside `output` that takes its place when the block ends well."""
    is_taken = output.exists() and (not output.is_dir() or any(output.iterdir()))
    if is_taken and not overwrite:
        raise DataError("output_exists", folder=output)
    if is_taken and not ((output / REPORT_FILE).is_file() and (output / "dialogues").is_dir()):
        raise DataError("corpus_not_a_corpus", folder=output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as temporary:
        folder = Path(temporary) / "corpus"
        folder.mkdir()
        yield folder
        if output.is_dir():
            shutil.rmtree(output)
        folder.rename(output)


class _Writer:
    """The open JSON-lines files of a corpus."""

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self._files: dict[str, TextIO] = {"problems": self._open(folder / "problems.jsonl")}
        for kind in ("dialogues", "samples"):
            (folder / kind).mkdir()
            for split in SPLITS:
                self._files[f"{kind}/{split}"] = self._open(folder / kind / f"{split}.jsonl")

    def _open(self, path: Path) -> TextIO:
        return self._stack.enter_context(path.open("w", encoding="utf-8"))

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def write(self, file: str, value: dict[str, Any]) -> None:
        self._files[file].write(json.dumps(value, ensure_ascii=False) + "\n")


@dataclass
class _OneSource:
    """The way of one source's dialogues through the build."""

    cleaner: Cleaner
    finder: DuplicateFinder
    limits: LengthLimits | None
    writer: _Writer
    options: BuildOptions
    report: SourceReport

    def take(self, item: Dialogue | Problem) -> None:
        if isinstance(item, Problem):
            self.report.problems[item.reason] += 1
            self.writer.write("problems", {"file": item.file, "line": item.line, "reason": item.reason})
            return
        self.report.num_read += 1
        dialogue = self.cleaner.clean(item)
        if dialogue is None:
            return
        duplicate = self.finder.check(dialogue)
        if duplicate is not None:
            self.report.duplicates[duplicate] += 1
            return
        self._keep(dialogue)

    def _keep(self, dialogue: Dialogue) -> None:
        split = self._split(dialogue)
        self.report.num_kept += 1
        self.report.splits[split] += 1
        self.writer.write(f"dialogues/{split}", dialogue.to_json())
        for sample in samples_of(dialogue):
            self.report.num_samples += 1
            if not self.finder.is_new_sample(sample):
                self.report.num_samples_repeated += 1
                continue
            within = self.limits.apply(sample) if self.limits else sample
            if within is not None:
                self.report.num_samples_kept += 1
                self.writer.write(f"samples/{split}", within.to_json())

    def _split(self, dialogue: Dialogue) -> str:
        first = skeleton(dialogue.messages[0].text)
        digest = hashlib.blake2b(f"{self.options.seed}\n{first}".encode(), digest_size=8).digest()
        place = int.from_bytes(digest, "big") / 2**64
        if place < self.options.validation:
            return "validation"
        return "test" if place < self.options.validation + self.options.test else "train"
