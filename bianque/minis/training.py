"""Train the demonstration models, on a CPU or a GPU.

A loop of its own instead of transformers' Trainer, for three things that matter for tiny models on two cores and that
the Trainer lacks: batches of about equally many tokens instead of equally many rows, an endless corpus that is never
repeated, and a schedule that can follow the clock (`minutes`) as well as the step count (`num_steps`). The weights
that are saved are a running average over the last steps.

With the same seed, `num_steps` and `num_workers` the same batches come in the same order; with `minutes` the number of
steps, and so the result, depends on the machine.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, Dataset

from bianque.minis.architectures import Batch, Encoded, MiniModel
from bianque.minis.dialogues import DialogueWriter, samples

logger = logging.getLogger(__name__)

CHUNK = 2048
"""Samples that are drawn together, sorted by length and cut into batches."""


@dataclass(frozen=True)
class TrainingOptions:
    """How long and how fast to train.

    Attributes:
        num_steps: steps of the schedule; None leaves the end to `minutes`.
        minutes: time box; the learning rate falls to zero as it runs out. At least one of the two is needed.
        seed: of weights, corpus and batch order.
        learning_rate: highest value, after `num_warmup_steps`.
        batch_tokens: tokens of a batch, padding and targets included.
        average_decay: of the running average of weights.
        device: of the model, as torch names it.
        start: a saved model to begin with in place of fresh weights, the one whose tokenizer `mini` has.
        num_workers: processes that write the corpus beside the training; 0 writes it in between. A GPU waits for one.
        checkpoint_minutes: how often a checkpoint is written.
        log_every: steps between two log lines.
    """

    num_steps: int | None = None
    minutes: float | None = None
    seed: int = 20
    learning_rate: float = 1.5e-3
    num_warmup_steps: int = 150
    batch_tokens: int = 2600
    average_decay: float = 0.998
    device: str = "cpu"
    start: Path | None = None
    num_workers: int = 0
    checkpoint_minutes: float = 3.0
    log_every: int = 100

    def __post_init__(self) -> None:
        """Check that the training has an end."""
        if self.num_steps is None and self.minutes is None:
            raise ValueError("a training needs num_steps or minutes")


class Chunks(Dataset[list[Batch]]):
    """The corpus in chunks of `CHUNK` samples, each cut into batches of samples that are about equally long."""

    def __init__(self, mini: MiniModel, writer: DialogueWriter, options: TrainingOptions) -> None:
        self._mini = mini
        self._writer = writer
        self._options = options

    def __getitem__(self, chunk: int) -> list[Batch]:
        """Return the batches of chunk number `chunk`, shuffled."""
        options = self._options
        rng = Random(f"batches-{options.seed}-{chunk}")
        source = samples(self._writer, self._mini.speaker, f"{options.seed}-{chunk}")
        encoded = [self._mini.encode(sample, rng) for sample in islice(source, CHUNK)]
        encoded.sort(key=lambda one: (len(one.prompt), len(one.target)))
        grouped: list[list[Encoded]] = []
        rows: list[Encoded] = []
        widest_prompt = widest_target = 0
        for one in encoded:
            prompt, target = max(widest_prompt, len(one.prompt)), max(widest_target, len(one.target))
            if rows and (prompt + target) * (len(rows) + 1) > options.batch_tokens:
                grouped.append(rows)
                rows, prompt, target = [], len(one.prompt), len(one.target)
            rows.append(one)
            widest_prompt, widest_target = prompt, target
        grouped.append(rows)
        rng.shuffle(grouped)
        return [self._mini.collate(group) for group in grouped]


def batches(
    mini: MiniModel, writer: DialogueWriter, options: TrainingOptions, first_chunk: int
) -> Iterator[tuple[int, Batch]]:
    """Yield (number of the chunk, batch) without end, starting with chunk `first_chunk`."""
    loader = DataLoader(
        Chunks(mini, writer, options),
        batch_size=None,
        sampler=count(first_chunk),
        num_workers=options.num_workers,
    )
    for chunk, group in zip(count(first_chunk), loader, strict=False):
        for batch in group:
            yield chunk, batch


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of a saved model."""
    return {name: value for shard in sorted(folder.glob("*.safetensors")) for name, value in load_file(shard).items()}


class Trainer:
    """Trains one model; `run` may be stopped and started again from its checkpoint."""

    def __init__(self, mini: MiniModel, writer: DialogueWriter, options: TrainingOptions, checkpoint: Path) -> None:
        """Prepare; an existing `checkpoint` is continued (with the next chunk of the corpus)."""
        torch.manual_seed(options.seed)
        self._mini = mini
        self._writer = writer
        self._options = options
        self._checkpoint = checkpoint
        self._device = torch.device(options.device)
        model: nn.Module = mini.build()
        if options.start is not None:
            model.load_state_dict(read_weights(options.start))
        self.model = model.to(self._device)
        self.average = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
        for name, value in self.model.named_parameters():
            groups.setdefault((value.dim() >= 2, mini.rate_scale(name)), []).append(value)
        settings = [
            {"params": values, "weight_decay": 0.02 if is_matrix else 0.0, "rate_scale": scale}
            for (is_matrix, scale), values in groups.items()
        ]
        self._optimizer = torch.optim.AdamW(settings, lr=0.0, betas=(0.9, 0.98), fused=True)
        self.step = 0
        self._elapsed = 0.0
        self._chunk = 0
        if checkpoint.exists():
            self._load()

    @property
    def progress(self) -> float:
        """Share of the training that is done, 0 to 1."""
        options = self._options
        by_steps = self.step / options.num_steps if options.num_steps else 0.0
        by_time = self._elapsed / (60 * options.minutes) if options.minutes else 0.0
        return min(1.0, max(by_steps, by_time))

    def run(self, report: Callable[[str], None]) -> None:
        """Train to the end; `report` gets one line every `log_every` steps."""
        options = self._options
        self.model.train()
        last_save = started = time.monotonic()
        before = self._elapsed
        total = torch.zeros((), device=self._device)
        num_steps, tokens = 0, 0
        for chunk, batch in batches(self._mini, self._writer, options, self._chunk):
            self._chunk = chunk
            if self.progress >= 1:
                break
            total += self._step(batch.to(self._device))
            num_steps += 1
            tokens += batch.num_tokens
            now = time.monotonic()
            self._elapsed = before + now - started
            if self.step % options.log_every == 0:
                speed = tokens / (now - started)
                loss = total.item() / num_steps
                report(f"step {self.step} · {self.progress:.0%} · loss {loss:.4f} · {speed:.0f} tokens/s")
                total.zero_()
                num_steps = 0
            if now - last_save > 60 * options.checkpoint_minutes:
                self._save()
                last_save = now
        self._save()

    def averaged(self) -> nn.Module:
        """Return the model with the running average as its weights (the training weights are overwritten)."""
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                value.copy_(self.average[name])
        return self.model.eval()

    def _step(self, batch: Batch) -> torch.Tensor:
        options = self._options
        warmup = min(1.0, (self.step + 1) / options.num_warmup_steps)
        # Linear to zero: on a fixed budget it beats the cosine by leaving less time at middling rates.
        for group in self._optimizer.param_groups:
            group["lr"] = group["rate_scale"] * options.learning_rate * min(warmup, max(0.0, 1 - self.progress) + 0.01)
        loss = self._mini.loss(self.model, batch)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        self.step += 1
        # Early on the average must forget the random start faster than later.
        decay = min(options.average_decay, (1 + self.step) / (20 + self.step))
        with torch.no_grad():
            names = list(self.average)
            values = dict(self.model.named_parameters())
            torch._foreach_lerp_([self.average[name] for name in names], [values[name] for name in names], 1 - decay)
        return loss.detach()

    def _save(self) -> None:
        content: dict[str, Any] = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "elapsed": self._elapsed,
            "chunk": self._chunk + 1,
        }
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._checkpoint.with_suffix(".tmp")
        torch.save(content, temporary)
        temporary.replace(self._checkpoint)

    def _load(self) -> None:
        content = torch.load(self._checkpoint, map_location=self._device, weights_only=True)
        self.model.load_state_dict(content["model"])
        self.average = content["average"]
        self._optimizer.load_state_dict(content["optimizer"])
        self.step, self._elapsed, self._chunk = content["step"], content["elapsed"], content["chunk"]
        logger.info("continuing at step %d", self.step)
