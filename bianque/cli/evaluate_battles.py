"""`python -m bianque evaluate battles|judge|arena|elo`: blind pairs, who is better, and ratings."""

from __future__ import annotations

import argparse
from pathlib import Path

from bianque.cli.arguments import port, positive, positive_float, read_api_key, tell_progress
from bianque.cli.corpus import command_line
from bianque.errors import SettingsError


def add_actions(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the four actions to `evaluate`."""
    battles = actions.add_parser("battles", help="make blind pairs from two or more runs")
    battles.add_argument("runs", nargs="+", type=_run, metavar="[NAME=]RUN", help="folders of runs, at least two")
    battles.add_argument("--output", type=Path, required=True, help="folder of the battles")
    battles.add_argument("--limit", type=positive, help="random pairs for every two runs (default: all)")
    battles.add_argument("--seed", type=int, default=0, help="of choice, sides and order (default: 0)")
    battles.add_argument("--overwrite", action="store_true", help="replace other battles and their verdicts")
    battles.set_defaults(run=run_battles, parser=battles)

    judge = actions.add_parser("judge", help="let a model judge each pair in both orders")
    judge.add_argument("battles", type=Path, help="folder that `evaluate battles` made")
    judge.add_argument("--endpoint", metavar="URL", required=True, help="OpenAI-compatible, up to and including /v1")
    judge.add_argument("--endpoint-model", metavar="NAME", default="default", help="the endpoint's name of the judge")
    judge.add_argument("--api-key-file", type=Path, help="file with the endpoint's key")
    judge.add_argument("--workers", type=positive, default=1, help="questions asked at once (default: 1)")
    judge.set_defaults(run=run_judge)

    arena = actions.add_parser("arena", help="judge the pairs yourself, on a page of this computer")
    arena.add_argument("battles", type=Path, help="folder that `evaluate battles` made")
    arena.add_argument("--judge", default="human", help="your name in the verdicts (default: human)")
    arena.add_argument("--port", type=port, help="of the page (default: the first free one from 7860)")
    arena.set_defaults(run=run_arena)

    elo = actions.add_parser("elo", help="rate the models of judged pairs, with intervals and a plot")
    elo.add_argument("battles", type=Path, nargs="+", help="folders of battles, or files of stored battles")
    elo.add_argument("--output", type=Path, required=True, help="folder for elo.json, .md, .png and outcomes.jsonl")
    elo.add_argument("--judge", action="append", default=[], help="only this one's verdicts; may be repeated")
    elo.add_argument("--k", type=positive_float, default=4.0, help="most that one pair moves a rating (default: 4)")
    elo.add_argument("--base", type=_base, default=10.0, help="of the odds, above 1 (default: 10)")
    elo.add_argument("--scale", type=positive_float, default=400.0, help="difference of odds base:1 (default: 400)")
    elo.add_argument("--initial", type=float, default=1000.0, help="first rating (default: 1000)")
    elo.add_argument("--bootstraps", type=_count, default=1000, help="0 takes the pairs once (default: 1000)")
    elo.add_argument("--seed", type=int, default=0, help="of the bootstraps (default: 0)")
    elo.set_defaults(run=run_elo)


def run_battles(options: argparse.Namespace) -> int:
    """Make blind pairs."""
    from bianque.evaluation.battles import make_battles, read_answers

    if len(options.runs) < 2:
        options.parser.error("name at least two runs")
    runs = [read_answers(name, path) for name, path in options.runs]
    made = make_battles(runs, limit=options.limit, seed=options.seed)
    made.write(options.output, command_line(), overwrite=options.overwrite)
    num_equal = sum(battle.is_equal for battle in made.battles)
    print(f"{len(made.battles)} pairs of {len(runs)} models, {num_equal} of them with equal answers (ties)")
    if made.failed:
        print(f"{made.failed} places left out: one of the two had no answer")
    print(f"saved {options.output}; give judges battles.jsonl alone, key.json tells who wrote what")
    return 0


def run_judge(options: argparse.Namespace) -> int:
    """Ask a model about every pair that it has not judged yet."""
    from bianque.evaluation.battles import VERDICTS_FILE, read_battles
    from bianque.evaluation.endpoint import ChatEndpoint
    from bianque.evaluation.judge import judge_battles, judge_name
    from bianque.evaluation.verdicts import VerdictBook

    battles = read_battles(options.battles)
    endpoint = ChatEndpoint(options.endpoint, options.endpoint_model, api_key=read_api_key(options.api_key_file))
    book = VerdictBook(options.battles / VERDICTS_FILE)
    unreadable = judge_battles(
        endpoint, battles, book, workers=options.workers, progress=tell_progress("questions to the judge")
    )
    if unreadable:
        print(f"{unreadable} answers could not be read; their pairs will not count")
    print(f"saved {options.battles / VERDICTS_FILE} as {judge_name(options.endpoint_model)}")
    return 0


def run_arena(options: argparse.Namespace) -> int:
    """Serve the page on this computer alone until interrupted."""
    from bianque.evaluation.arena import Arena, arena_options, build_arena
    from bianque.evaluation.battles import VERDICTS_FILE, read_battles
    from bianque.evaluation.verdicts import VerdictBook

    battles = read_battles(options.battles)
    arena = Arena(battles, VerdictBook(options.battles / VERDICTS_FILE), options.judge)
    demo = build_arena(arena)
    try:
        _, url, _ = demo.launch(
            server_name="127.0.0.1", server_port=options.port, prevent_thread_lock=True, **arena_options()
        )
    except OSError as error:  # what gradio raises when no port is free
        raise SettingsError("port_in_use", port=options.port or 7860) from error
    done, total = arena.progress
    print(f"open {url} ({done} of {total} pairs judged); Ctrl-C ends, verdicts are kept as they come", flush=True)
    demo.block_thread()
    return 0


def run_elo(options: argparse.Namespace) -> int:
    """Rate models and print the tables."""
    from bianque.evaluation.elo import EloOptions
    from bianque.evaluation.elo_report import EloReport
    from bianque.evaluation.outcomes import read_outcomes

    settings = EloOptions(options.k, options.base, options.scale, options.initial, options.bootstraps, options.seed)
    report = EloReport.of(read_outcomes(options.battles, options.judge), settings, command_line())
    report.write(options.output)
    print(report.markdown())
    print(f"saved {options.output / 'elo.json'}, .md, .png and outcomes.jsonl")
    return 0


def _run(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    return (name, Path(path)) if equals else ("", Path(text))


def _base(text: str) -> float:
    value = float(text)
    if not 1 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 1, but it is {value}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, but it is {value}")
    return value
