"""`python -m bianque corpus build|stats`: from published sets or an own CSV to training samples."""

from __future__ import annotations

import argparse
import shlex
import sys
from functools import partial
from pathlib import Path

from bianque.cli.arguments import positive


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    from bianque.corpus.sources.reading import SOURCES

    parser = subparsers.add_parser("corpus", help="build a training corpus from published sets or your own CSV")
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    build = actions.add_parser(
        "build",
        help="read, clean, split and write",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="sources:\n" + "\n".join(f"  {name:<13} {source.files}" for name, source in SOURCES.items()),
    )
    build.add_argument("output", type=Path, help="folder to make")
    build.add_argument(
        "sources", nargs="+", type=_source, metavar="SOURCE=PATH", help="a set and its file, zip archive or folder"
    )
    build.add_argument("--skip", action="append", default=[], metavar="STEP", help=f"leave out one of: {_steps()}")
    build.add_argument(
        "--similarity", type=_share, default=0.85, help="from which dialogues are near duplicates (default: 0.85)"
    )
    build.add_argument("--tokenizer", type=Path, help="a model's folder; without it lengths are not limited")
    build.add_argument("--max-input-tokens", type=positive, default=512, help="of a prompt (default: 512)")
    build.add_argument("--max-target-tokens", type=positive, default=512, help="of a target (default: 512)")
    build.add_argument("--validation", type=_share, default=0.02, help="share of dialogues (default: 0.02)")
    build.add_argument("--test", type=_share, default=0.02, help="share of dialogues (default: 0.02)")
    build.add_argument("--seed", type=int, default=0, help="of the split (default: 0)")
    build.add_argument("--overwrite", action="store_true", help="replace the output folder")
    build.set_defaults(run=run_build, parser=build)

    stats = actions.add_parser("stats", help="print and plot turns, lengths, questions and chains of questioning")
    stats.add_argument("corpus", type=Path, help="a built corpus, or a JSON-lines file of dialogues")
    stats.add_argument("--output", type=Path, help="folder for statistics.json, .md and .png (default: the corpus)")
    stats.set_defaults(run=run_stats)


def run_build(options: argparse.Namespace) -> int:
    """Build a corpus and print what each step did."""
    from bianque.corpus.build import BuildOptions, build_corpus
    from bianque.corpus.lengths import LengthLimits, load_counter

    unknown = sorted(set(options.skip) - set(_steps().split(", ")))
    if unknown:
        options.parser.error(f"--skip {unknown[0]}: choose from {_steps()}")
    if options.validation + options.test > 1:
        options.parser.error("--validation and --test together must be at most 1")
    limits = None
    if options.tokenizer:
        count = load_counter(options.tokenizer)
        limits = partial(LengthLimits, count, options.max_input_tokens, options.max_target_tokens)
    settings = BuildOptions(
        frozenset(options.skip),
        options.similarity,
        options.validation,
        options.test,
        options.seed,
        options.overwrite,
    )
    report = build_corpus(
        options.output,
        options.sources,
        settings,
        limits,
        command=command_line(),
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(report.markdown())
    for name, source in report.sources.items():
        for reason, number in source.problems.most_common():
            print(f"{name}: {number} not readable: {reason}")
    if limits is None:
        print("lengths are not limited; give --tokenizer to limit them")
    print(f"saved {options.output}; records that could not be read are listed in problems.jsonl")
    return 0


def run_stats(options: argparse.Namespace) -> int:
    """Print the statistics of a corpus and write them beside it."""
    import json

    from bianque.corpus.plots import plot_statistics
    from bianque.corpus.statistics import markdown, measure, read_dialogues

    sources = measure(read_dialogues(options.corpus))
    is_file = options.corpus.is_file()
    folder = options.output or (options.corpus.parent if is_file else options.corpus)
    folder.mkdir(parents=True, exist_ok=True)
    table = markdown(sources)
    values = {"command": command_line(), "sources": {name: source.to_json() for name, source in sources.items()}}
    (folder / "statistics.json").write_text(json.dumps(values, ensure_ascii=False, indent=1) + "\n", "utf-8")
    (folder / "statistics.md").write_text(f"Made by `{values['command']}`.\n\n{table}", "utf-8")
    plot_statistics(sources, folder / "statistics.png")
    print(table)
    print(f"saved {folder / 'statistics.json'}, .md and .png")
    return 0


def command_line() -> str:
    """Return the command that is running, as a person would type it."""
    return shlex.join(["python", "-m", "bianque", *sys.argv[1:]])


def _steps() -> str:
    from bianque.corpus.cleaning import STEPS
    from bianque.corpus.duplicates import KINDS

    return ", ".join((*STEPS, *KINDS))


def _source(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not path:
        raise argparse.ArgumentTypeError(f"must be SOURCE=PATH, but it is {text!r}")
    return name, Path(path)


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, but it is {value}")
    return value
