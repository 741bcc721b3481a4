"""`python -m bianque evaluate …`: measure replies, with intervals and plots."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from bianque.cli import evaluate_battles
from bianque.cli.arguments import positive, read_api_key, tell_progress
from bianque.cli.corpus import command_line
from bianque.consultation.messages import Mode, ReplyOptions
from bianque.errors import DataError
from bianque.settings import ModelSource, PrecisionChoice, Settings

if TYPE_CHECKING:
    from bianque.evaluation.responders import Responder
    from bianque.evaluation.results import Results


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("evaluate", help="measure replies against doctors', with intervals and plots")
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")

    forced = actions.add_parser("teacher-forced", help="answer each doctor's turn after the real dialogue before it")
    forced.add_argument("data", type=Path, help="JSON lines of samples or dialogues, as `bianque corpus build` writes")
    forced.add_argument("--limit", type=positive, help="answer a random part of this many samples")
    _add_models(forced)
    forced.set_defaults(run=run_forced)

    free = actions.add_parser("free", help="talk with a scripted patient and measure the chain of questioning")
    free.add_argument("--cases", type=positive, default=100, help="how many dialogues (default: 100)")
    _add_models(free)
    free.set_defaults(run=run_free)

    score = actions.add_parser("score", help="score replies that are there already")
    score.add_argument("predictions", type=Path, help="JSON lines of input, target and reply")
    _add_output(score)
    score.set_defaults(run=run_score)

    compare = actions.add_parser("compare", help="put several runs into one table and plot")
    compare.add_argument("runs", type=Path, nargs="+", help="folders of runs, or their results.json")
    compare.add_argument("--output", type=Path, required=True, help="folder for comparison.json, .md and .png")
    compare.set_defaults(run=run_compare)

    evaluate_battles.add_actions(actions)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--name", default="", help="of the run in tables (default: the folder's)")


def _add_models(parser: argparse.ArgumentParser) -> None:
    models = parser.add_argument_group("who answers (default: the demonstration models)")
    models.add_argument("--real", action="store_true", help="the published models from the Hub")
    for job in ("asker", "adviser", "listener"):
        models.add_argument(f"--{job}", metavar="MODEL", help=f"another model as {job}: a folder or a Hub repo")
    models.add_argument(
        "--mode", choices=[mode.value for mode in Mode], default=Mode.JOINT.value, help="default: joint"
    )
    models.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    models.add_argument("--precision", choices=get_args(PrecisionChoice), default="auto", help="default: auto")
    models.add_argument("--endpoint", metavar="URL", help="an OpenAI-compatible endpoint, up to and including /v1")
    models.add_argument("--endpoint-model", metavar="NAME", default="default", help="the endpoint's name of the model")
    models.add_argument("--api-key-file", type=Path, help="file with the endpoint's key")
    decoding = parser.add_argument_group("decoding")
    decoding.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    decoding.add_argument("--top-p", type=float, default=1.0, help="nucleus mass (default: 1)")
    decoding.add_argument("--max-new-tokens", type=int, default=256, help="of a reply (default: 256)")
    parser.add_argument("--seed", type=int, default=0, help="of choice, patient and sampling (default: 0)")
    parser.add_argument("--workers", type=positive, default=1, help="conversations answered at once (default: 1)")
    parser.add_argument("--overwrite", action="store_true", help="replace another run's files")
    _add_output(parser)


def run_forced(options: argparse.Namespace) -> int:
    """Answer every sample, score, and write the results."""
    from bianque.evaluation.predictions import digest_of, read_samples
    from bianque.evaluation.runner import evaluate, predict

    samples = read_samples(options.data, options.limit, options.seed)
    with _Answering(options) as responder:
        data = {"file": options.data.name, "samples": len(samples), "digest": digest_of(samples)}
        run = {"kind": "teacher-forced", "data": data, **responder.describe()}
        predictions = predict(
            responder,
            samples,
            options.output,
            run,
            workers=options.workers,
            overwrite=options.overwrite,
            progress=tell_progress("replies"),
        )
    _finish(evaluate(predictions, _name(options), command_line(), run), options.output)
    return 0


def run_free(options: argparse.Namespace) -> int:
    """Talk with the scripted patient, measure, and write dialogues and results."""
    from bianque.evaluation.free import DEFINITIONS, converse, draw_cases, measure_free
    from bianque.evaluation.results import Results
    from bianque.minis.cases import GENERAL
    from bianque.minis.knowledge import load_knowledge

    knowledge = load_knowledge()
    cases = draw_cases(knowledge, options.cases, options.seed)
    if (options.output / "results.json").exists() and not options.overwrite:
        raise DataError("output_exists", folder=options.output)
    with _Answering(options) as responder:
        run = {"kind": "free", "data": {"cases": len(cases), "seed": options.seed}, **responder.describe()}
        dialogues = converse(
            responder,
            knowledge,
            cases,
            seed=options.seed,
            workers=options.workers,
            progress=tell_progress("dialogues"),
        )
    options.output.mkdir(parents=True, exist_ok=True)
    with (options.output / "dialogues.jsonl").open("w", encoding="utf-8") as lines:
        for number, dialogue in enumerate(dialogues, start=1):
            lines.write(json.dumps(dialogue.to_dialogue(number).to_json(), ensure_ascii=False) + "\n")
    outside = sum(dialogue.case.id == GENERAL for dialogue in dialogues)
    counts = {"all": len(cases), "listed complaints": len(cases) - outside, "outside the list": outside}
    figures = measure_free(dialogues, knowledge)
    _finish(Results(_name(options), command_line(), run, counts, figures, DEFINITIONS), options.output)
    return 0


def run_score(options: argparse.Namespace) -> int:
    """Score replies that were made elsewhere."""
    from bianque.evaluation.predictions import read_predictions
    from bianque.evaluation.runner import evaluate

    predictions = read_predictions(options.predictions)
    run = {"kind": "score", "data": {"file": options.predictions.name, "samples": len(predictions)}}
    _finish(evaluate(predictions, _name(options), command_line(), run), options.output)
    return 0


def run_compare(options: argparse.Namespace) -> int:
    """Compare runs and print the table of all their replies."""
    from bianque.evaluation.results import Results, compare, write_comparison

    runs = [Results.read(path) for path in options.runs]
    write_comparison(runs, options.output)
    print(compare(runs))
    print(f"saved {options.output / 'comparison.json'}, .md and .png")
    return 0


class _Answering:
    """Who answers, closed at the end."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._responder = _responder(options)

    def __enter__(self) -> Responder:
        return self._responder

    def __exit__(self, *_: object) -> None:
        self._responder.close()


def _responder(options: argparse.Namespace) -> Responder:
    # The service's own defaults leave the asking limit as the policy has it.
    reply_options = ReplyOptions(
        Mode(options.mode),
        top_p=options.top_p,
        temperature=options.temperature,
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
    )
    if options.endpoint:
        from bianque.evaluation.endpoint import ChatEndpoint, EndpointResponder

        api_key = read_api_key(options.api_key_file)
        return EndpointResponder(
            ChatEndpoint(options.endpoint, options.endpoint_model, api_key=api_key), reply_options
        )
    from bianque.evaluation.responders import ServiceResponder

    def source(location: str | None) -> ModelSource | None:
        return ModelSource(location) if location else None

    settings = replace(
        Settings.from_environment(),
        models="real" if options.real else "demo",
        asker=source(options.asker),
        adviser=source(options.adviser),
        listener=source(options.listener),
        device=options.device,
        precision=options.precision,
        num_slots=options.workers,
    )
    return ServiceResponder(settings, reply_options)


def _finish(results: Results, folder: Path) -> None:
    results.write(folder)
    print(results.markdown())
    print(f"saved {folder / 'results.json'}, .md and .png")


def _name(options: argparse.Namespace) -> str:
    return options.name or options.output.resolve().name
