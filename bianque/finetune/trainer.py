"""transformers' Trainer with what it lacks for these models.

- Order: rows of like length together, decided by seed and epoch alone, so that a resumed run sees the same batches.
- Loss: the mean over the target tokens of all accumulated batches, whatever their sizes. (T5's own loss is a mean over
  one batch, and the Trainer takes it for one that has been scaled.)
- Logits of ChatGLM: for the positions of targets alone, which are what the collator's labels are for.
- A loss or gradient that is not finite ends the run before it reaches the weights; step and samples are named.
- Tokens are counted while training.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils import get_total_norm
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from bianque.errors import TrainingError
from bianque.finetune.collators import IGNORED

WINDOW_BATCHES = 50
"""Rows of so many batches are drawn at random and then sorted by length."""


class LengthGroupedSampler(Sampler[int]):
    """Yields row numbers so that neighbours have like lengths; another order each epoch, the same for the same seed.

    The first batch holds the longest row: when memory is too small, that shows at once.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        """Store what is needed.

        Args:
            lengths: of the rows, in tokens.
            batch_size: rows that go into one batch, of all devices together.
            seed: of the order.
        """
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is yielded next."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        """Yield every row once."""
        rng = random.Random(f"{self._seed}-{self._epoch}")
        order = list(range(len(self._lengths)))
        rng.shuffle(order)
        batches: list[list[int]] = []
        window = WINDOW_BATCHES * self._batch_size
        for start in range(0, len(order), window):
            rows = sorted(order[start : start + window], key=lambda row: -self._lengths[row])
            batches += [rows[at : at + self._batch_size] for at in range(0, len(rows), self._batch_size)]
        # A batch that is not full must stay the last one, or it would borrow rows of another length.
        full = [batch for batch in batches if len(batch) == self._batch_size]
        rest = [batch for batch in batches if len(batch) < self._batch_size]
        rng.shuffle(full)
        if full:
            longest = max(range(len(full)), key=lambda at: max(self._lengths[row] for row in full[at]))
            full[0], full[longest] = full[longest], full[0]
        for batch in (*full, *rest):
            yield from batch


class TokenMeter:
    """Counts what went through the model, and the time it took."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.num_tokens = 0
        self.num_target_tokens = 0
        self.num_padded = 0
        self.seconds = 0.0

    def add(self, inputs: dict[str, Any], seconds: float) -> None:
        """Count one batch on this device."""
        tokens, targets = int(inputs["attention_mask"].sum()), int((inputs["labels"] != IGNORED).sum())
        # T5's targets go through a decoder of their own, ChatGLM's are part of the input.
        is_apart = "position_ids" not in inputs
        self.num_tokens += tokens + (targets if is_apart else 0)
        self.num_target_tokens += targets
        self.num_padded += inputs["input_ids"].numel() + (inputs["labels"].numel() if is_apart else 0)
        self.seconds += seconds

    @property
    def tokens_per_second(self) -> float:
        """Tokens, padding left out, for each second of forward and backward passes."""
        return self.num_tokens / self.seconds if self.seconds else math.nan

    @property
    def padding_share(self) -> float:
        """Share of what went through that was padding, 0 to 1."""
        return 1 - self.num_tokens / self.num_padded if self.num_padded else math.nan


class FinetuneTrainer(Trainer):
    """See the module's docstring."""

    def __init__(self, *, lengths: Sequence[int], **options: Any) -> None:
        """Build the trainer.

        Args:
            lengths: of the training rows.
            **options: of transformers' Trainer.
        """
        self._lengths = lengths
        self.meter = TokenMeter()
        self.rows_of_step: list[int] = []
        super().__init__(**options)
        # Both say that `compute_loss` divides by the number of targets in all accumulated batches.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        self.add_callback(_EpochOrder(self))
        self.add_callback(_GradientGuard(self))

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        batch = self.args.per_device_train_batch_size * self.args.world_size
        self.sampler = LengthGroupedSampler(self._lengths, batch, self.args.seed)
        return self.sampler

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Run one batch forward and backward and count it."""
        started = time.monotonic()
        counted = {name: inputs[name] for name in inputs if name != "rows"}
        loss = super().training_step(model, inputs, num_items_in_batch)
        if loss.device.type == "cuda":
            torch.cuda.synchronize(loss.device)  # the backward pass is still running there
        self.meter.add(counted, time.monotonic() - started)
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the loss over targets, as a mean over all batches of the step.

        Raises:
            TrainingError: if it is not finite.
        """
        inputs = dict(inputs)
        rows = inputs.pop("rows").tolist()
        labels = inputs["labels"]
        if "position_ids" in inputs:
            inputs["logits_to_keep"] = labels.shape[1]
        outputs = model(**inputs)
        loss = outputs["loss"]
        if not bool(torch.isfinite(loss)):
            raise TrainingError("finetune_loss_not_finite", step=self.state.global_step + 1, rows=name_rows(rows))
        if model.training:
            self.rows_of_step += rows
        if num_items_in_batch is not None:
            loss = loss * (labels != IGNORED).sum() / num_items_in_batch
            if self.args.average_tokens_across_devices:
                # The gradients of all devices are averaged, but the divisor counted the targets of all.
                loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss


class _EpochOrder(TrainerCallback):
    """Tells the sampler the epoch: on several devices accelerate does not reach it in the epoch of a resumed run."""

    def __init__(self, trainer: FinetuneTrainer) -> None:
        self._trainer = trainer

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._trainer.sampler.set_epoch(math.floor((state.epoch or 0.0) + 1e-6))


class _GradientGuard(TrainerCallback):
    """Looks at the gradients before they reach the weights."""

    def __init__(self, trainer: FinetuneTrainer) -> None:
        self._trainer = trainer

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        rows, self._trainer.rows_of_step = self._trainer.rows_of_step, []
        if args.fp16:
            return  # infinite gradients are how the loss scaler finds its scale; it skips such steps
        assert self._trainer.model is not None  # it is being trained
        gradients = [value.grad for value in self._trainer.model.parameters() if value.grad is not None]
        if not bool(torch.isfinite(get_total_norm(gradients))):
            raise TrainingError("finetune_gradient_not_finite", step=state.global_step + 1, rows=name_rows(rows))


class ProgressLines(TrainerCallback):
    """Prints a line for every entry of the log."""

    def __init__(self, trainer: FinetuneTrainer, show: Callable[[str], None]) -> None:
        """Write lines with `show`."""
        self._trainer = trainer
        self._show = show

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Print one line."""
        logs = logs or {}
        if not state.is_world_process_zero:
            return
        place = f"step {state.global_step}/{state.max_steps}"
        if "eval_loss" in logs:
            self._show(f"{place} · validation loss {logs['eval_loss']:.4f}")
        elif "loss" in logs:
            speed = self._trainer.meter.tokens_per_second
            rate = logs.get("learning_rate", math.nan)
            self._show(f"{place} · loss {logs['loss']:.4f} · rate {rate:.2e} · {speed:.0f} tokens/s")


def name_rows(rows: Sequence[int]) -> str:
    """Name the rows of a batch, as they are numbered in the file of samples."""
    named = ", ".join(map(str, rows[:8]))
    return f"{named} (+{len(rows) - 8})" if len(rows) > 8 else named
