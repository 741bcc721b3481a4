"""`python -m bianque download NAME_OR_REPO`: fetch a model's files before they are needed."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from typing import TYPE_CHECKING, TextIO

from bianque.settings import ModelSource

if TYPE_CHECKING:
    from bianque.manager.download.progress import Progress

BAR_CELLS = 20
LINE_SECONDS = 10.0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "download",
        help="fetch a model's files, check them and print their folder",
        description="Fetch a model's files into the cache of huggingface_hub, check them and print their folder. "
        "Started again after an interruption it goes on where it ended. Of an adapter, the base is fetched as well.",
        epilog="Exit codes: 0 all files are there and undamaged; 1 one sentence on standard error says what is wrong; "
        "2 wrong arguments; 130 stopped with Ctrl-C.",
    )
    parser.add_argument("model", help="BianQue-1.0, BianQue-2.0, SoulChat, or a repo of the Hub (owner/name)")
    parser.add_argument("--revision", help="branch, tag or commit of the repo (default: main)")
    parser.set_defaults(run=run_download)


def run_download(options: argparse.Namespace) -> int:
    """Fetch with a progress bar on standard error; the folder is the only line on standard output."""
    from bianque.manager.adapters import base_source, is_adapter, read_adapter
    from bianque.manager.catalogue import KNOWN_MODELS, check_source
    from bianque.manager.download.snapshot import check_snapshot, resolve_snapshot

    called = (spec for spec in KNOWN_MODELS if options.model.lower() in (spec.name.lower(), spec.location.lower()))
    spec = next(called, None)
    source = ModelSource(spec.location if spec else options.model, options.revision)
    if spec is None:
        check_source(source)
    bar = ProgressBar(sys.stderr)
    try:
        folder = resolve_snapshot(source, report=bar, family=spec.family if spec else None)
        if is_adapter(folder):
            resolve_snapshot(base_source(read_adapter(folder)), report=bar)
    finally:
        bar.close()
    if spec is not None:
        check_snapshot(folder, spec.family)
    print(folder)
    return 0


class ProgressBar:
    """One line that is drawn again and again on a terminal; elsewhere a line now and then."""

    def __init__(self, stream: TextIO) -> None:
        """Write to `stream`; nothing is written before the first call."""
        self._stream = stream
        self._is_live = stream.isatty()
        self._written_at = float("-inf")
        self._is_open = False
        self._last: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        """Show `progress`."""
        self._last = progress
        if self._is_live:
            self._draw(progress)
        elif time.monotonic() - self._written_at >= LINE_SECONDS:
            self._write_line(progress)

    def close(self) -> None:
        """End the line, so that what follows begins on its own."""
        if self._is_live and self._is_open:
            self._stream.write("\n")
            self._is_open = False
        elif not self._is_live and self._last is not None:
            self._write_line(self._last)
        self._stream.flush()

    def _draw(self, progress: Progress) -> None:
        from bianque.manager.download.progress import describe

        num_full = int(progress.share * BAR_CELLS)
        line = f"[{'#' * num_full}{'.' * (BAR_CELLS - num_full)}] {describe(progress)}"
        width = shutil.get_terminal_size().columns - 1
        self._stream.write("\r" + line[:width].ljust(width))
        self._stream.flush()
        self._is_open = True

    def _write_line(self, progress: Progress) -> None:
        from bianque.manager.download.progress import describe

        self._written_at = time.monotonic()
        self._last = None
        self._stream.write(describe(progress) + "\n")
