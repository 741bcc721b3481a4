"""From the logits of a decode step to a token for each row.

What the device does for all rows at once is to find the few largest logits of each; only those come to the CPU, in one
transfer, and there the draws of all rows are made together. Every row has its own parameters and random numbers, and
none depends on its neighbours. Rows that need more than a few logits (top-p without top-k) go the way of `Sampler`,
which gives the same tokens at a higher price.

Dimension letters: n rows, V vocabulary, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bianque.cpu_kernels.build import load_kernels
from bianque.cpu_kernels.operations import Largest
from bianque.engine.sampler import Sampler, choose
from bianque.errors import GenerationError

# More than this is no short list.
_MAX_TOP_K = 256
# Tokens that tie with the last of the top k are kept as well; with this many more than k they are nearly always seen.
_MARGIN = 8
# On a CPU without the kernel, groups of this many logits are searched by their maxima first: torch's search of a whole
# row is slow.
_GROUP = 8
# Below this many logits there is nothing to gain from that.
_MIN_GROUPED = 16384


@torch.inference_mode()
def sample_rows(samplers: Sequence[Sampler], logits: torch.Tensor) -> list[int | GenerationError]:
    """Choose the next token of each row and let its sampler remember it.

    Args:
        samplers: one a row.
        logits: (n, V) of any floating dtype and device; not changed.

    Returns:
        For each row its token, or the error `logits_not_finite` that ends it.
    """
    short = [row for row, sampler in enumerate(samplers) if 0 < _num_wanted(sampler) <= _MAX_TOP_K]
    chosen: dict[int, int] = {}
    if short:
        chosen = _sample_short([samplers[row] for row in short], logits, short)
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


def num_exact(sampler: Sampler) -> int:
    """Return how many of the largest logits must be exact for a row's token to be so, see `ModelRunner.decode`.

    The k tokens that a row chooses among are then exact with all that tie with the last of them: processing that only
    lowers some logits leaves k others at the smallest exact one or above it, and every estimate below. So both ways of
    `sample_rows` see the logits that they would see were all exact, down to the k-th; what else they see is smaller.
    """
    wanted = _num_wanted(sampler)
    if not 0 < wanted <= _MAX_TOP_K or sampler.raises_logits:
        return 0
    return wanted + sampler.num_lowered


def _num_wanted(sampler: Sampler) -> int:
    """Return how many of the largest logits a row needs; 0 for all."""
    return 1 if sampler.params.is_greedy else sampler.params.top_k


def _sample_short(samplers: Sequence[Sampler], logits: torch.Tensor, rows: Sequence[int]) -> dict[int, int]:
    """Return the tokens of `rows`, those left out whose logits need a closer look.

    What comes to the CPU is a few numbers a row, for which NumPy's calls cost less than torch's.
    """
    raw = logits if len(rows) == len(logits) else logits[list(rows)]
    processed = raw.float()
    if any(sampler.changes_logits for sampler in samplers):
        processed = processed.clone() if processed is raw else processed  # bans are not to look like bad logits
        for row, sampler in zip(processed, samplers, strict=True):
            sampler.process(row)
    num_wanted = [_num_wanted(sampler) for sampler in samplers]
    values, token_ids, sums = _look_at(raw, processed, min(max(num_wanted) + _MARGIN, processed.shape[1]))
    num_found = values.shape[1]
    is_usable = np.isfinite(sums)
    smallest = values[np.arange(len(values)), np.minimum(num_wanted, num_found) - 1]
    if num_found < processed.shape[1]:
        is_usable &= smallest > values[:, -1]  # else more tokens may tie than were found
    if (values[:, 1:] == values[:, :-1]).any():
        # Equal logits in order of id: which of them the device found first must not matter.
        order = np.lexsort((token_ids, -values))
        values, token_ids = np.take_along_axis(values, order, 1), np.take_along_axis(token_ids, order, 1)
    # A row that is looked at again draws then, and once: else what it gets would depend on its neighbours' top k.
    draws = [sampler.draw() if usable else 0.0 for sampler, usable in zip(samplers, is_usable, strict=True)]
    values[values < smallest[:, None]] = -np.inf
    chosen = _choose(samplers, values, draws)
    return {row: int(token_ids[place, chosen[place]]) for place, row in enumerate(rows) if is_usable[place]}


def _look_at(raw: torch.Tensor, processed: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the k largest logits of each row with their ids, and a number that is finite if all its logits are.

    Args:
        raw: (n, V), the model's, in any floating dtype.
        processed: (n, V) fp32, among which the largest are looked for.
        k: at most V.

    Returns:
        (n, k) float64, largest first, (n, k) int64 and (n,).
    """
    is_plain = processed.device.type == "cpu" and raw.dtype == torch.float32
    kernels = load_kernels() if is_plain and raw.is_contiguous() and processed.is_contiguous() else None
    if kernels is not None:
        num_rows, vocab_size = raw.shape
        values, token_ids = np.empty((num_rows, k), np.float32), np.empty((num_rows, k), np.int64)
        sums = np.empty(num_rows, np.float32)
        arguments = Largest(
            processed.data_ptr(),
            raw.data_ptr(),
            values.ctypes.data,
            token_ids.ctypes.data,
            sums.ctypes.data,
            vocab_size,
            k,
        )
        if not kernels.largest(arguments, num_rows, torch.get_num_threads()):
            return values.astype(np.float64), token_ids, sums
    found_values, found_ids = _largest(processed, k)
    # Ids are below 2**24, so that a float holds them exactly and everything comes in one transfer.
    totals = raw.sum(1, keepdim=True, dtype=torch.float32)
    packed = torch.cat((found_values, found_ids.float(), totals), dim=1).cpu().numpy()
    return packed[:, :k].astype(np.float64), packed[:, k:-1].astype(np.int64), packed[:, -1]


def _choose(samplers: Sequence[Sampler], values: np.ndarray, draws: Sequence[float]) -> np.ndarray:
    """Return the place of each row's choice among its candidates (n, K), largest first, -inf for none; (n,)."""
    params = [sampler.params for sampler in samplers]
    temperatures = np.array([[1.0 if each.is_greedy else each.temperature] for each in params])
    top_ps = np.array([[each.top_p] for each in params])
    # Masses are relative to the best token's, which keeps a low temperature from overflowing.
    with np.errstate(invalid="ignore"):  # rows that are not finite; what they get is not looked at
        masses = np.exp((values - values[:, :1]) / temperatures)
        cumulative = masses.cumsum(1)
        is_kept = cumulative - masses < top_ps * cumulative[:, -1:]
    cumulative = (masses * (is_kept | (top_ps >= 1.0))).cumsum(1)
    return choose(cumulative, np.array(draws))


def _largest(logits: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k largest logits of each row, largest first, and their ids; (n, V) -> twice (n, k).

    On a CPU the k groups with the largest maxima are found first: no logit of another group can be among the k
    largest, but for ties. A group is every so-manieth logit, so that maxima are taken of whole stretches at once.
    """
    num_rows, vocab_size = logits.shape
    num_groups = vocab_size // _GROUP
    if logits.device.type != "cpu" or logits.numel() < _MIN_GROUPED or vocab_size % _GROUP or num_groups <= k:
        found = logits.topk(k)
        return found.values, found.indices
    groups = logits.view(num_rows, _GROUP, num_groups)
    best = groups.amax(1).topk(k, sorted=False).indices  # (n, k)
    found = groups.gather(2, best[:, None].expand(-1, _GROUP, -1)).flatten(1).topk(k)
    token_ids = found.indices // k * num_groups + best.gather(1, found.indices % k)
    return found.values, token_ids
