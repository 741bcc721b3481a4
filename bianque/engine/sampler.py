"""From a row of logits to a token.

The order is that of the original's effective decoding: repetition penalty, no-repeat n-grams, temperature, top-k,
top-p, softmax, draw. One departure: the original replaces a row with NaN or infinite logits by a fixed token, for a
whole batch at once; here the request of that row ends with an error. Bans are written as -inf after the check.

A draw costs far less than sorting or exponentiating a vocabulary of 130,528: only the tokens that survive top-k are
looked at. The distribution is the same as over the whole row (`probabilities` returns it in full). Draws are made on
the CPU, so that a seed gives the same reply on every device. This is for one row; `bianque.engine.batch_sampler`
chooses for a whole step.

Dimension letter: V vocabulary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from bianque.engine.sampling import SamplingParams
from bianque.errors import GenerationError

# Above this size a row is reduced by blocks before it is searched.
_LARGE_VOCABULARY = 16384
_BLOCK = 64
# Random numbers that are made at once.
_NUM_DRAWS = 32
# Without top-k, top-p looks at this many tokens first, and at eight times as many as long as their mass is too small.
_FIRST_PREFIX = 256


class Sampler:
    """Chooses the tokens of one sequence; not thread-safe, one sequence owns it."""

    def __init__(self, params: SamplingParams, context_ids: Sequence[int] = ()) -> None:
        """Start a sequence.

        Args:
            params: how to choose.
            context_ids: ids that count as already written for the repetition penalty and n-gram bans: the prompt of
                a decoder-only model, the decoder's start token of an encoder-decoder.
        """
        self.params = params
        self._generator = torch.Generator()
        if params.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(params.seed)
        self._draws: list[float] = []
        self._token_ids = list(context_ids)
        self._seen = torch.tensor(sorted(set(context_ids)), dtype=torch.long)
        self._followers: dict[tuple[int, ...], set[int]] = defaultdict(set)
        if params.no_repeat_ngram_size:
            for end in range(params.no_repeat_ngram_size, len(self._token_ids) + 1):
                self._note_ngram(end)

    def sample(self, logits: torch.Tensor) -> int:
        """Choose the next token and remember it.

        Args:
            logits: (V,) of any floating dtype and device; not changed.

        Raises:
            GenerationError: `logits_not_finite`, if any of the model's logits is NaN or infinite.
        """
        token_ids, probs = self.candidates(logits)
        token_id = int(token_ids[choose(probs.cumsum(0)[None].numpy(), np.array([self.draw()]))])
        self.remember(token_id)
        return token_id

    @property
    def changes_logits(self) -> bool:
        """Whether `process` may do anything."""
        return self.params.repetition_penalty != 1.0 or self.params.no_repeat_ngram_size > 0

    @property
    def raises_logits(self) -> bool:
        """Whether `process` may raise logits."""
        return self.params.repetition_penalty < 1.0

    @property
    def num_lowered(self) -> int:
        """How many logits `process` lowers now, at most."""
        num_penalized = len(self._seen) if self.params.repetition_penalty > 1.0 else 0
        return num_penalized + len(self._banned())

    def draw(self) -> float:
        """Return this sequence's next random number, in [0, 1); 0 where the most probable token is taken."""
        if self.params.is_greedy:
            return 0.0
        if not self._draws:
            # The same numbers as one by one, at a fraction of the cost.
            self._draws = torch.rand(_NUM_DRAWS, generator=self._generator, dtype=torch.float64).tolist()[::-1]
        return self._draws.pop()

    def candidates(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the tokens that may come next with their probabilities, both (n,), n at most V.

        The probabilities are float64 and sum to 1. Nothing is remembered.

        Raises:
            GenerationError: as `sample`.
        """
        logits = _checked(logits).clone()
        self.process(logits)
        params = self.params
        if params.is_greedy:
            return _first_largest(logits), torch.ones(1, dtype=torch.float64)
        if params.top_k:
            token_ids, total = _top_k(logits, params.top_k), None
        elif params.top_p < 1.0:
            token_ids, total = self._prefix(logits)
        else:
            token_ids, total = torch.arange(len(logits)), None
        # Equal logits in order of id.
        values, order = logits[token_ids].double().sort(descending=True, stable=True)
        token_ids = token_ids[order]
        # Masses are relative to the best token's, which keeps a low temperature from overflowing.
        masses = ((values - values[0]) / params.temperature).exp()
        if params.top_p < 1.0:
            needed = params.top_p * (masses.sum() if total is None else total)
            kept = int((masses.cumsum(0) - masses < needed).sum())  # always the first
            token_ids, masses = token_ids[:kept], masses[:kept]
        return token_ids, masses / masses.sum()

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the distribution over the whole vocabulary, (V,) float64; nothing is remembered.

        Raises:
            GenerationError: as `sample`.
        """
        token_ids, probs = self.candidates(logits)
        return torch.zeros(len(logits), dtype=torch.float64).index_copy_(0, token_ids, probs)

    def process(self, logits: torch.Tensor) -> None:
        """Apply what depends on the tokens so far to a row (V,), in place, on its device."""
        penalty = self.params.repetition_penalty
        if penalty != 1.0 and len(self._seen):
            places = self._seen.to(logits.device)
            seen = logits[places]
            logits[places] = torch.where(seen < 0, seen * penalty, seen / penalty)
        banned = self._banned()
        # Were every token banned, there would be nothing to choose from: then the bans are lifted.
        if banned and len(banned) < len(logits):
            logits[torch.tensor(list(banned), device=logits.device)] = -torch.inf

    def _prefix(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the most probable tokens, enough of them to hold the mass `top_p`, and the mass of the whole row."""
        masses = ((logits - logits.max()) / self.params.temperature).exp()
        total = masses.sum(dtype=torch.float64)
        size = _FIRST_PREFIX
        while size < len(logits):
            token_ids = _top_k(logits, size)
            # The margin keeps rounding in fp32 from ending the search a token too early.
            if masses[token_ids].sum() > total * self.params.top_p * 1.001:
                return token_ids, total
            size *= 8
        return torch.arange(len(logits)), total

    def _banned(self) -> set[int]:
        size = self.params.no_repeat_ngram_size
        if not size or len(self._token_ids) < size - 1:
            return set()
        return self._followers.get(tuple(self._token_ids[len(self._token_ids) - size + 1 :]), set())

    def remember(self, token_id: int) -> None:
        """Note a token that was chosen."""
        self._token_ids.append(token_id)
        if self.params.repetition_penalty != 1.0 and not bool((self._seen == token_id).any()):
            self._seen = torch.cat((self._seen, torch.tensor([token_id])))
        if 0 < self.params.no_repeat_ngram_size <= len(self._token_ids):
            self._note_ngram(len(self._token_ids))

    def _note_ngram(self, end: int) -> None:
        *head, last = self._token_ids[end - self.params.no_repeat_ngram_size : end]
        self._followers[tuple(head)].add(last)


def choose(cumulative: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return which candidate each row draws, (n,) int64.

    Args:
        cumulative: (n, K) float64, sums of the candidates' masses up to each one, of any total.
        draws: (n,) float64 in [0, 1).
    """
    points = draws * cumulative[:, -1]
    # Rounding may lift a point to the total; the last candidate with a mass of its own is then meant.
    last = (cumulative < cumulative[:, -1:]).sum(1)
    return np.minimum((cumulative <= points[:, None]).sum(1), last)


def _checked(logits: torch.Tensor) -> torch.Tensor:
    """Return the row as fp32 on the CPU.

    Raises:
        GenerationError: if it holds NaN or infinities.
    """
    logits = logits.detach().to(device="cpu", dtype=torch.float32)
    # A finite sum proves every logit finite at a fraction of the cost; finite logits could only in theory sum to inf.
    if not bool(logits.sum().isfinite()) and not bool(logits.isfinite().all()):
        raise GenerationError("logits_not_finite")
    return logits


def _first_largest(logits: torch.Tensor) -> torch.Tensor:
    """Return the id of the largest logit, the first of equals, as (1,)."""
    if len(logits) <= _LARGE_VOCABULARY:
        return logits.argmax(0, keepdim=True)
    blocks = _blocks(logits)
    block = blocks.amax(1).argmax()
    return (block * _BLOCK + blocks[block].argmax()).reshape(1)


def _top_k(logits: torch.Tensor, k: int) -> torch.Tensor:
    """Return the ids of all finite logits that are at least the k-th largest, in order of id.

    In a large vocabulary the k-th largest of the blocks' maxima is found first. At least k logits reach it, so no
    logit of a block that stays below it can be among the k largest.
    """
    if k >= len(logits):
        return (logits > -torch.inf).nonzero()[:, 0]
    if len(logits) <= _LARGE_VOCABULARY or k > len(logits) // _BLOCK:
        smallest = logits.topk(k, sorted=False).values.min()
        return ((logits >= smallest) & (logits > -torch.inf)).nonzero()[:, 0]
    blocks = _blocks(logits)
    maxima = blocks.amax(1)
    rows = (maxima >= maxima.topk(k, sorted=False).values.min()).nonzero()[:, 0]
    found = blocks[rows]
    smallest = found.flatten().topk(k, sorted=False).values.min()
    row, column = ((found >= smallest) & (found > -torch.inf)).nonzero(as_tuple=True)
    return rows[row] * _BLOCK + column


def _blocks(logits: torch.Tensor) -> torch.Tensor:
    """Return the row cut into blocks, (ceil(V / block), block), the last one filled up with -inf."""
    missing = -len(logits) % _BLOCK
    if missing:
        logits = functional.pad(logits, (0, missing), value=-torch.inf)
    return logits.view(-1, _BLOCK)
