"""`python -m bianque models`: every model that can be named, what is on disk, and what fits this machine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

from bianque.cli.table import format_markdown, format_table
from bianque.manager.catalogue import KNOWN_MODELS, Fit, check_source, describe_source, fits
from bianque.manager.memory import Machine, probe_machine
from bianque.manager.precision import GB, in_gb
from bianque.manager.registry import PRECISIONS, Job, ModelSpec
from bianque.settings import ModelSource, Settings
from bianque.texts import Language, text


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("models", help="list the models: sizes, what is on disk, what fits this machine")
    parser.add_argument("model", nargs="*", help="a name, a Hub repo or a folder (default: every known model)")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    parser.add_argument("--hardware", action="store_true", help="print what fits the hardware of Hugging Face Spaces")
    parser.add_argument("--language", choices=("zh", "en"), default="en", help="of the table (default: en)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the table."""
    if options.hardware:
        from bianque.manager.hardware import hardware_rows

        print(format_markdown(hardware_rows(options.language)))
        return 0
    settings = Settings.from_environment()
    machine = probe_machine(settings.device)
    limit_bytes = settings.memory_gb * GB
    models = [describe_model(spec, source, machine, limit_bytes) for spec, source in _chosen(options.model, settings)]
    if options.json:
        print(json.dumps({"machine": _machine_json(machine), "models": models}, ensure_ascii=False, indent=2))
        return 0
    language: Language = options.language
    print(text("models_machine", language, device=machine.name, free=in_gb(machine.device_bytes)))
    print()
    print(format_table(_rows(models, language)))
    print()
    for line in _explanations(models, language):
        print(line)
    return 0


def describe_model(spec: ModelSpec, source: ModelSource, machine: Machine, limit_bytes: int = 0) -> dict[str, Any]:
    """Return all that is known of a model as plain values; sizes are bytes and null where nothing is known."""
    from bianque.manager.download.snapshot import snapshot_on_disk

    on_disk, num_bytes = snapshot_on_disk(source)
    known = list(fits(spec, machine, limit_bytes)) if spec.size else []
    return {
        "name": spec.name,
        "source": source.location,
        "revision": source.revision,
        "job": spec.job.value,
        "family": spec.family,
        "template": spec.template,
        "decoding": {
            "temperature": spec.sampling.temperature,
            "top_p": spec.sampling.top_p,
            "top_k": spec.sampling.top_k,
            "no_repeat_ngram_size": spec.sampling.no_repeat_ngram_size,
            "max_new_tokens": spec.sampling.max_new_tokens,
        },
        "is_embedded": spec.is_demonstration,
        "licence": spec.licence,
        "num_parameters": spec.num_parameters or None,
        "bytes": {fit.precision: fit.weight_bytes for fit in known},
        "on_disk": on_disk,
        "on_disk_bytes": num_bytes,
        "fits": {fit.precision: _fit_json(fit) for fit in known},
    }


def _chosen(names: Sequence[str], settings: Settings) -> Iterator[tuple[ModelSpec, ModelSource]]:
    """Yield the models asked for, else the known ones and those that the settings name."""
    if not names:
        for spec in KNOWN_MODELS:
            yield spec, ModelSource(spec.location)
        named = {Job.ASKER: settings.asker, Job.ADVISER: settings.adviser, Job.LISTENER: settings.listener}
        for job, source in named.items():
            if source is not None:
                check_source(source)
                spec, source = describe_source(source, job)
                if all(spec.location != known.location for known in KNOWN_MODELS):
                    yield spec, source
    for name in names:
        check_source(ModelSource(name))
        yield describe_source(ModelSource(name), Job.ADVISER)


def _fit_json(fit: Fit) -> dict[str, Any]:
    return {
        "is_possible": fit.is_possible,
        "needed_bytes": fit.needed_bytes,
        "budget_bytes": fit.budget_bytes,
        "visitors": fit.room_for,
    }


def _machine_json(machine: Machine) -> dict[str, Any]:
    return {
        "device": machine.device,
        "name": machine.name,
        "device_bytes": machine.device_bytes,
        "host_bytes": machine.host_bytes,
    }


def _rows(models: Sequence[dict[str, Any]], language: Language) -> list[list[str]]:
    head = [text(f"models_{name}", language) for name in ("name", "use", "architecture", "source", "parameters")]
    rows = [[*head, *(f"{precision} GB" for precision in PRECISIONS), text("models_on_disk", language)]]
    for model in models:
        sizes = [_gb(model["bytes"].get(precision)) for precision in PRECISIONS]
        on_disk = text(f"models_disk_{model['on_disk']}", language)
        if model["on_disk"] != "absent":
            on_disk += f" {_gb(model['on_disk_bytes'])} GB"
        use = text(f"models_use_{model['job']}", language)
        parameters = _count(model["num_parameters"])
        source = text("models_embedded", language) if model["is_embedded"] else model["source"]
        rows.append([model["name"], use, model["family"], source, parameters, *sizes, on_disk])
    return rows


def _explanations(models: Sequence[dict[str, Any]], language: Language) -> Iterator[str]:
    """Yield one line for each model: at which precisions it fits, for how many visitors, and why not at the others."""
    for model in models:
        if not model["fits"]:
            yield f"{model['name']}: {text('models_unknown_size', language)}"
            continue
        parts = []
        for precision in PRECISIONS:
            fit = model["fits"][precision]
            needed, free = _gb(fit["needed_bytes"]), in_gb(fit["budget_bytes"])
            key = (
                "models_fits" if fit["visitors"] else "models_too_large" if fit["is_possible"] else "models_impossible"
            )
            parts.append(
                text(key, language, precision=precision, visitors=min(fit["visitors"], 64), needed=needed, free=free)
            )
        licence = f" [{model['licence']}]" if model["licence"] else ""
        yield f"{model['name']}{licence}: {'；'.join(parts) if language == 'zh' else '; '.join(parts)}"


def _gb(num_bytes: int | None) -> str:
    if not num_bytes:
        return "?"
    return f"{num_bytes / 1e9:.1f}" if num_bytes >= 50_000_000 else f"{num_bytes / 1e9:.3f}"


def _count(number: int | None) -> str:
    if not number:
        return "?"
    return f"{number / 1e9:.2f} B" if number >= 1e9 / 2 else f"{number / 1e6:.1f} M"
