"""`python -m bianque`: the parser, the table of commands and the exit codes.

Exit codes: 0 when the command did its work, 1 for an error with one sentence on standard error, 2 for wrong arguments
(argparse's own), 3 when an evaluation stayed below a floor.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from bianque import __version__
from bianque.cli import corpus, download, evaluate, finetune, minis, models, status
from bianque.errors import BianQueError

COMMANDS: dict[str, Callable[[argparse._SubParsersAction[argparse.ArgumentParser]], None]] = {
    "corpus": corpus.add_parser,
    "download": download.add_parser,
    "evaluate": evaluate.add_parser,
    "finetune": finetune.add_parser,
    "minis": minis.add_parser,
    "models": models.add_parser,
    "status": status.add_parser,
}
"""Each command adds its parser, whose default `run` takes the parsed arguments and returns the exit code."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(prog="python -m bianque", description="BianQue Space tools.")
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="command")
    for add_parser in COMMANDS.values():
        add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors meant for people become one line on standard error."""
    options = build_parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except BianQueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
