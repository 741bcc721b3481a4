"""From the logits of a decode step to a token for each row.

What the device does for all rows at once is to find the few largest logits of each; only those come to the CPU, in one
transfer, and there the draws of all rows are made together. Every row has its own parameters and random numbers, and
none depends on its neighbours. Rows that need more than a few logits (top-p without top-k) go the way of `Sampler`,
which gives the same tokens at a higher price.

Dimension letters: n rows, V vocabulary, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bianque.engine.sampler import Sampler, choose
from bianque.errors import GenerationError

# More than this is no short list.
_MAX_TOP_K = 256
# Tokens that tie with the last of the top k are kept as well; with this many more than k they are nearly always seen.
_MARGIN = 8
# Above this size a row is reduced to the largest of each block before it is searched: torch's CPU search is slow.
_LARGE_VOCABULARY = 16384
_BLOCK = 32


def sample_rows(samplers: Sequence[Sampler], logits: torch.Tensor) -> list[int | GenerationError]:
    """Choose the next token of each row and let its sampler remember it.

    Args:
        samplers: one a row.
        logits: (n, V) of any floating dtype and device; not changed.

    Returns:
        For each row its token, or the error `logits_not_finite` that ends it.
    """
    is_finite = logits.sum(1, dtype=torch.float32).isfinite()
    short = [row for row, sampler in enumerate(samplers) if 0 < _num_wanted(sampler) <= _MAX_TOP_K]
    chosen: dict[int, int] = {}
    if short:
        chosen = _sample_short([samplers[row] for row in short], logits, short, is_finite)
    results: list[int | GenerationError] = []
    for row, sampler in enumerate(samplers):
        if row in chosen:
            sampler.remember(chosen[row])
            results.append(chosen[row])
            continue
        try:
            results.append(sampler.sample(logits[row]))
        except GenerationError as error:
            results.append(error)
    return results


def _num_wanted(sampler: Sampler) -> int:
    """Return how many of the largest logits a row needs; 0 for all."""
    return 1 if sampler.params.is_greedy else sampler.params.top_k


def _sample_short(
    samplers: Sequence[Sampler], logits: torch.Tensor, rows: Sequence[int], is_finite: torch.Tensor
) -> dict[int, int]:
    """Return the tokens of `rows`, those left out whose logits need a closer look."""
    processed = (logits if len(rows) == len(logits) else logits[list(rows)]).float()
    if any(sampler.changes_logits for sampler in samplers):
        processed = processed.clone() if processed is logits else processed  # a row's closer look starts afresh
        for row, sampler in zip(processed, samplers, strict=True):
            sampler.process(row)
    num_wanted = [_num_wanted(sampler) for sampler in samplers]
    values, token_ids = _largest(processed, min(max(num_wanted) + _MARGIN, processed.shape[1]))
    # Ids are below 2**24, so that a float holds them exactly and everything comes in one transfer.
    packed = torch.cat((values, token_ids.float(), is_finite[list(rows)].float()[:, None]), dim=1).cpu()
    num_found = values.shape[1]
    values, token_ids = packed[:, :num_found].double(), packed[:, num_found:-1].long()
    is_usable = packed[:, -1] > 0
    wanted = torch.tensor(num_wanted).clamp(max=num_found)[:, None]
    smallest = values.gather(1, wanted - 1)
    if num_found < processed.shape[1]:
        is_usable &= smallest[:, 0] > values[:, -1]  # else more tokens may tie than were found
    # Equal logits in order of id: which of them the device found first must not matter.
    token_ids, order = token_ids.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    token_ids = token_ids.gather(1, order)
    # A row that is looked at again draws then, and once: else what it gets would depend on its neighbours' top k.
    draws = [sampler.draw() if usable else 0.0 for sampler, usable in zip(samplers, is_usable.tolist(), strict=True)]
    chosen = _choose(samplers, values.masked_fill(values < smallest, -torch.inf), draws)
    token_of = token_ids.gather(1, chosen[:, None])[:, 0].tolist()
    return {row: token_of[place] for place, row in enumerate(rows) if is_usable[place]}


def _choose(samplers: Sequence[Sampler], values: torch.Tensor, draws: Sequence[float]) -> torch.Tensor:
    """Return the place of each row's choice among its candidates (n, K), largest first, -inf for none; (n,)."""
    temperatures = torch.tensor(
        [1.0 if sampler.params.is_greedy else sampler.params.temperature for sampler in samplers],
        dtype=torch.float64,
    )[:, None]
    top_ps = torch.tensor([sampler.params.top_p for sampler in samplers], dtype=torch.float64)[:, None]
    # Masses are relative to the best token's, which keeps a low temperature from overflowing.
    masses = ((values - values[:, :1]) / temperatures).exp()
    cumulative = masses.cumsum(1)
    is_kept = cumulative - masses < top_ps * cumulative[:, -1:]
    cumulative = (masses * (is_kept | (top_ps >= 1.0))).cumsum(1)
    return choose(cumulative, torch.tensor(draws, dtype=torch.float64))


def _largest(logits: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k largest logits of each row, largest first, and their ids; (n, V) -> twice (n, k).

    In a large vocabulary on a CPU the k blocks with the largest maxima are found first: no logit of another block can
    be among the k largest, but for ties.
    """
    num_rows, vocab_size = logits.shape
    if logits.device.type != "cpu" or vocab_size <= _LARGE_VOCABULARY or vocab_size % _BLOCK:
        found = logits.topk(k)
        return found.values, found.indices
    blocks = logits.view(num_rows, -1, _BLOCK)
    rows = blocks.amax(2).topk(k, sorted=False).indices  # (n, k)
    found = blocks.gather(1, rows[:, :, None].expand(-1, -1, _BLOCK)).flatten(1).topk(k)
    token_ids = rows.gather(1, found.indices // _BLOCK) * _BLOCK + found.indices % _BLOCK
    return found.values, token_ids
