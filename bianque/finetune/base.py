"""The model that is fine-tuned: where it comes from, what an adapter remembers of it, and its weights in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bianque.errors import DataError
from bianque.finetune.options import FinetuneOptions
from bianque.manager.adapters import is_adapter
from bianque.manager.catalogue import check_source, describe_folder, describe_source
from bianque.manager.download.progress import Progress
from bianque.manager.download.snapshot import check_snapshot, resolve_snapshot
from bianque.manager.registry import Job, ModelSpec
from bianque.manager.weights.quantized_cache import is_hub_snapshot
from bianque.settings import ModelSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Base:
    """A model on this disk.

    Attributes:
        folder: of its files.
        spec: what it is.
        location: how an adapter names it: a Hub repo, a demonstration model's name, or a folder.
        revision: commit of the repo; None otherwise.
    """

    folder: Path
    spec: ModelSpec
    location: str
    revision: str | None


def resolve_base(source: ModelSource, report: Callable[[Progress], None] | None = None) -> Base:
    """Find a model by name, Hub repo or folder, and download it if need be.

    Raises:
        SettingsError: if there is no such name.
        SnapshotError: if its files cannot be had, are incomplete or of another architecture.
        DataError: if it is itself an adapter.
    """
    check_source(source)
    # The job decides nothing that training uses: architecture and prompts are the model's own.
    spec, source = describe_source(source, Job.ADVISER)
    folder = resolve_snapshot(source, report=report)
    if is_adapter(folder):
        raise DataError("finetune_base_is_adapter", folder=folder)
    spec = describe_folder(folder, spec)
    check_snapshot(folder, spec.family)
    if spec.is_demonstration:
        return Base(folder, spec, spec.name, None)
    if is_hub_snapshot(folder):
        return Base(folder, spec, source.location, folder.name)
    return Base(folder, spec, str(folder.resolve()), None)


def load_base(base: Base, options: FinetuneOptions, device: str) -> PreTrainedModel:
    """Load the weights onto a device; all of them are trained if the method is `full`, else none.

    Raises:
        SnapshotError: if they cannot be loaded.
    """
    from bianque.manager.weights.load import load_weights

    model = load_weights(base.folder, base.spec.family, device=device, precision=options.frozen_precision)
    model.requires_grad_(options.method == "full")
    # peft writes this into every checkpoint, and looks there for the size of the vocabulary.
    model.name_or_path = str(base.folder)
    return model
