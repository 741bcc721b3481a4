"""How the next token is drawn: parameters of a request, the chain of logits processors, the sampler.

The order is that of the original demos: repetition penalty and n-gram ban, then temperature, top_k, top_p, softmax and
one draw. Deviation: the original replaces the logits of a whole batch when one is not finite; here that request alone
fails. Bans written by this chain are -inf and are no reason to fail.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bianque.errors import GenerationError


@dataclass(frozen=True)
class SamplingParams:
    """How one request is decoded.

    Attributes:
        temperature: at least 0; 0 takes the most probable token (greedy) and ignores top_k, top_p and seed.
        top_k: keep the k most probable tokens and all that equal the k-th; 0 keeps all.
        top_p: keep the smallest set of tokens whose probability reaches top_p, in (0, 1]; 1 keeps all.
        repetition_penalty: at least 1; logits of tokens seen before are divided (if positive) or multiplied by it.
        no_repeat_ngram_size: no sequence of this many tokens is written twice; 0 allows all.
        max_new_tokens: at least 1.
        seed: of this request's own generator; None draws one.

    Raises:
        ValueError: if a value is out of range.
    """

    temperature: float = 0.95
    top_k: int = 50
    top_p: float = 0.7
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    max_new_tokens: int = 512
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse values outside the documented ranges; NaN is outside of each."""
        checks = {
            "temperature must be finite and at least 0": math.isfinite(self.temperature) and self.temperature >= 0,
            "top_k must be at least 0": self.top_k >= 0,
            "top_p must be in (0, 1]": 0 < self.top_p <= 1,
            "repetition_penalty must be finite and at least 1": math.isfinite(self.repetition_penalty)
            and self.repetition_penalty >= 1,
            "no_repeat_ngram_size must be at least 0": self.no_repeat_ngram_size >= 0,
            "max_new_tokens must be at least 1": self.max_new_tokens >= 1,
        }
        for sentence, is_met in checks.items():
            if not is_met:
                raise ValueError(f"{sentence}; got {self}")

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is always taken."""
        return self.temperature == 0


class Sampler:
    """Draws the tokens of one sequence; holds its generator and what the processors remember. Not thread-safe."""

    def __init__(self, params: SamplingParams, context_ids: Sequence[int], device: torch.device | str = "cpu") -> None:
        """Prepare to continue `context_ids`.

        Args:
            params: of the request.
            context_ids: what repetition penalty and n-gram ban look back on: the prompt for a decoder-only model,
                the decoder's start token for an encoder-decoder.
            device: where the logits are.
        """
        self._params = params
        self._device = torch.device(device)
        self._generator = torch.Generator(self._device)
        if params.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(params.seed)
        self._token_ids: list[int] = []
        self._followers: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for token_id in context_ids:
            self._remember(token_id)

    def sample(self, logits: torch.Tensor) -> int:
        """Draw the next token and remember it.

        Args:
            logits: (V,), any floating dtype; not changed.

        Raises:
            GenerationError: if a logit is NaN or infinite.
        """
        if not bool(torch.isfinite(logits).all()):
            raise GenerationError("logits_not_finite")
        scores = self._process(logits.float())
        if self._params.is_greedy:
            token_id = int(scores.argmax())
        else:
            probabilities = self.filter(scores)
            token_id = int(torch.multinomial(probabilities, 1, generator=self._generator))
        self._remember(token_id)
        return token_id

    def filter(self, scores: torch.Tensor) -> torch.Tensor:
        """Apply temperature, top_k, top_p and softmax; (V,) float32 -> (V,) probabilities."""
        params = self._params
        scores = scores / params.temperature
        if 0 < params.top_k < scores.shape[-1]:
            threshold = scores.topk(params.top_k).values[-1]
            scores = scores.masked_fill(scores < threshold, -torch.inf)
        if params.top_p < 1:
            scores = scores.masked_fill(_outside_nucleus(scores, params.top_p), -torch.inf)
        return scores.softmax(dim=-1)

    def _process(self, scores: torch.Tensor) -> torch.Tensor:
        params = self._params
        if params.repetition_penalty != 1.0 and self._token_ids:
            seen = torch.tensor(sorted(set(self._token_ids)), device=scores.device)
            values = scores[seen]
            penalized = torch.where(values < 0, values * params.repetition_penalty, values / params.repetition_penalty)
            scores = scores.index_copy(0, seen, penalized)
        size = params.no_repeat_ngram_size
        if size and len(self._token_ids) + 1 >= size:
            prefix = tuple(self._token_ids[len(self._token_ids) - size + 1 :])
            banned = self._followers.get(prefix)
            if banned:
                scores = scores.index_fill(0, torch.tensor(banned, device=scores.device), -torch.inf)
        return scores

    def _remember(self, token_id: int) -> None:
        size = self._params.no_repeat_ngram_size
        if size and len(self._token_ids) >= size - 1:
            self._followers[tuple(self._token_ids[len(self._token_ids) - size + 1 :])].append(token_id)
        self._token_ids.append(token_id)


def _outside_nucleus(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """Return (V,) bool, True for the tokens outside the smallest set whose probability reaches `top_p`.

    Summed from the least probable up, as the original does, so that rounding falls the same way.
    """
    ascending, order = scores.sort()
    outside = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p
    outside[-1] = False  # the most probable token always stays
    return torch.zeros_like(outside).scatter(0, order, outside)
