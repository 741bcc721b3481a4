"""`python -m bianque evaluate …`: measure replies, with intervals and plots."""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from bianque.cli import evaluate_battles
from bianque.cli.arguments import positive, read_api_key, tell_progress
from bianque.cli.corpus import command_line
from bianque.consultation.messages import Mode, ReplyOptions
from bianque.settings import ModelSource, PrecisionChoice, Settings

if TYPE_CHECKING:
    from bianque.evaluation.endpoint import EndpointResponder
    from bianque.evaluation.responders import ServiceResponder
    from bianque.evaluation.results import Results
    from bianque.evaluation.runs import RunOptions


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("evaluate", help="measure replies against doctors', with intervals and plots")
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")

    forced = actions.add_parser("teacher-forced", help="answer each doctor's turn after the real dialogue before it")
    forced.add_argument("data", type=Path, help="a built corpus, or a .jsonl file of samples or dialogues")
    forced.add_argument("--limit", type=positive, help="answer a random part of this many samples")
    _add_answering(forced)
    forced.set_defaults(run=run_forced)

    free = actions.add_parser("free", help="talk with a scripted patient and measure the chain of questioning")
    free.add_argument("--cases", type=positive, default=100, help="how many dialogues (default: 100)")
    _add_answering(free)
    free.set_defaults(run=run_free)

    modes = actions.add_parser("modes", help="compare asker, adviser and joint, teacher-forced and free, in one go")
    names = [mode.value for mode in Mode]
    default = [Mode.ASKER.value, Mode.ADVISER.value, Mode.JOINT.value]
    modes.add_argument("--modes", nargs="+", choices=names, default=default, help="default: all but soulchat")
    modes.add_argument("--data", type=Path, help="likewise (default: held-out dialogues of the small models)")
    modes.add_argument("--limit", type=positive, default=400, help="replies of each mode (default: 400)")
    modes.add_argument("--cases", type=positive, default=100, help="free dialogues of each mode (default: 100)")
    _add_models(modes)
    modes.add_argument("--output", type=Path, required=True, help="folder of the runs")
    modes.set_defaults(run=run_modes)

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


def _add_answering(parser: argparse.ArgumentParser) -> None:
    """Add who answers in one run, and how."""
    _add_models(parser)
    parser.add_argument(
        "--mode", choices=[mode.value for mode in Mode], default=Mode.JOINT.value, help="default: joint"
    )
    peer = parser.add_argument_group("a peer in place of the models")
    peer.add_argument("--endpoint", metavar="URL", help="an OpenAI-compatible endpoint, up to and including /v1")
    peer.add_argument("--endpoint-model", metavar="NAME", default="default", help="the endpoint's name of the model")
    peer.add_argument("--api-key-file", type=Path, help="file with the endpoint's key")
    _add_output(parser)


def _add_models(parser: argparse.ArgumentParser) -> None:
    models = parser.add_argument_group("who answers (default: the demonstration models)")
    models.add_argument("--real", action="store_true", help="the published models from the Hub")
    for job in ("asker", "adviser", "listener"):
        models.add_argument(f"--{job}", metavar="MODEL", help=f"another model as {job}: a folder or a Hub repo")
    models.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    models.add_argument("--precision", choices=get_args(PrecisionChoice), default="auto", help="default: auto")
    decoding = parser.add_argument_group("decoding")
    decoding.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    decoding.add_argument("--top-p", type=float, default=1.0, help="nucleus mass (default: 1)")
    decoding.add_argument("--max-new-tokens", type=int, default=256, help="of a reply (default: 256)")
    parser.add_argument("--seed", type=int, default=0, help="of choice, patient and sampling (default: 0)")
    parser.add_argument("--workers", type=positive, default=1, help="conversations answered at once (default: 1)")
    parser.add_argument("--overwrite", action="store_true", help="replace another run's files")


def run_forced(options: argparse.Namespace) -> int:
    """Answer every sample, score, and write the results."""
    from bianque.evaluation.predictions import read_samples
    from bianque.evaluation.runs import run_teacher_forced

    samples = read_samples(options.data, options.limit, options.seed)
    with closing(_responder(options)) as responder:
        made = run_teacher_forced(
            responder, samples, options.data.name, _name(options), options.output, _run_options(options)
        )
    _tell(made, options.output)
    return 0


def run_free(options: argparse.Namespace) -> int:
    """Talk with the scripted patient, measure, and write dialogues and results."""
    from bianque.evaluation import runs
    from bianque.minis.knowledge import load_knowledge

    with closing(_responder(options)) as responder:
        made = runs.run_free(
            responder, load_knowledge(), options.cases, _name(options), options.output, _run_options(options)
        )
    _tell(made, options.output)
    return 0


def run_modes(options: argparse.Namespace) -> int:
    """Evaluate several modes on the same data and cases, and print both tables."""
    from bianque.evaluation import runs
    from bianque.evaluation.predictions import read_samples
    from bianque.minis.knowledge import load_knowledge

    knowledge = load_knowledge()
    if options.data:
        samples, data = read_samples(options.data, options.limit, options.seed), options.data.name
    else:
        samples, data = runs.heldout_samples(knowledge, options.limit, options.seed), "held-out wordings"
    modes = list(dict.fromkeys(map(Mode, options.modes)))
    with closing(_service(options, modes[0])) as responder:
        print(
            runs.run_modes(
                responder, modes, samples, data, knowledge, options.cases, options.output, _run_options(options)
            )
        )
    print(f"saved {options.output}: every run, and a comparison in teacher-forced and in free")
    return 0


def run_score(options: argparse.Namespace) -> int:
    """Score replies that were made elsewhere."""
    from bianque.evaluation.predictions import read_predictions
    from bianque.evaluation.runner import evaluate

    predictions = read_predictions(options.predictions)
    run = {"kind": "score", "data": {"file": options.predictions.name, "samples": len(predictions)}}
    results = evaluate(predictions, _name(options), command_line(), run)
    results.write(options.output)
    _tell(results, options.output)
    return 0


def run_compare(options: argparse.Namespace) -> int:
    """Compare runs and print the table of all their replies."""
    from bianque.evaluation.results import Results, compare, write_comparison

    runs = [Results.read(path) for path in options.runs]
    write_comparison(runs, options.output)
    print(compare(runs))
    print(f"saved {options.output / 'comparison.json'}, .md and .png")
    return 0


def _responder(options: argparse.Namespace) -> EndpointResponder | ServiceResponder:
    if not options.endpoint:
        return _service(options, Mode(options.mode))
    from bianque.evaluation.endpoint import ChatEndpoint, EndpointResponder

    api_key = read_api_key(options.api_key_file)
    endpoint = ChatEndpoint(options.endpoint, options.endpoint_model, api_key=api_key)
    return EndpointResponder(endpoint, _reply_options(options, Mode(options.mode)))


def _service(options: argparse.Namespace, mode: Mode) -> ServiceResponder:
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
    return ServiceResponder(settings, _reply_options(options, mode))


def _reply_options(options: argparse.Namespace, mode: Mode) -> ReplyOptions:
    # The service's own defaults leave the asking limit as the policy has it.
    return ReplyOptions(
        mode,
        top_p=options.top_p,
        temperature=options.temperature,
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
    )


def _run_options(options: argparse.Namespace) -> RunOptions:
    from bianque.evaluation.runs import RunOptions

    return RunOptions(command_line(), options.workers, options.seed, options.overwrite, tell_progress)


def _tell(results: Results, folder: Path) -> None:
    print(results.markdown())
    print(f"saved {folder / 'results.json'}, .md and .png")


def _name(options: argparse.Namespace) -> str:
    return options.name or options.output.resolve().name
