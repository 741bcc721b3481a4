"""BLEU, ROUGE and distinct-n of single replies, as numbers that can be added up.

- BLEU: sacrebleu with its tokenizer `zh` (each Chinese character is a token, the rest as in `13a`), corpus level,
  cumulative with equal weights, exponential smoothing, brevity penalty; from the n-gram counts of each reply.
- ROUGE: words of jieba; ROUGE-1 and ROUGE-2 F1 of rouge_chinese (over sets of n-grams), ROUGE-L F1 over the longest
  common subsequence of the whole replies. rouge_chinese's own ROUGE-L is the same for texts without a full stop `.`
  but takes a second for a long reply; this one counts bits.
- distinct-n: different n-grams of jieba's words among all of them, over all replies.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from bianque.corpus.packages import load_jieba, require

MAX_ORDER = 4


@cache
def _bleu() -> Any:
    return require("sacrebleu.metrics", "evaluate").BLEU(tokenize="zh")


@cache
def _rouge() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        rouge = require("rouge_chinese", "evaluate")
    return rouge.Rouge(metrics=["rouge-1", "rouge-2"])


@cache
def _jieba() -> Any:
    return load_jieba("evaluate")


def words_of(text: str) -> list[str]:
    """Return jieba's words of a text without blanks."""
    return [word for word in _jieba().cut(text) if word.strip()]


def bleu_counts(reply: str, reference: str) -> list[int]:
    """Return matching n-grams for n = 1 … 4, all n-grams of the reply for n = 1 … 4, its tokens, the reference's."""
    score = _bleu().corpus_score([reply], [[reference]])
    return [*score.counts, *score.totals, score.sys_len, score.ref_len]


def bleu_of_counts(counts: np.ndarray, order: int) -> np.ndarray:
    """Return BLEU-`order` in percent from added-up `bleu_counts`, as sacrebleu computes it.

    Args:
        counts: `(…, 10)`: matching n-grams for n = 1 … 4, the reply's, tokens of the reply and of the reference.
        order: 1 to 4; the precisions up to it have equal weights. An order of which nothing matches is smoothed to
            1 / (2^k n-grams), k counting such orders; an order without n-grams makes the whole 0.
    """
    correct, total = counts[..., :order], counts[..., MAX_ORDER : MAX_ORDER + order]
    smoothed = np.where(correct > 0, correct, 0.5 ** np.cumsum(correct == 0, axis=-1))
    with np.errstate(divide="ignore"):
        logarithms = np.log(np.where(total > 0, smoothed / np.maximum(total, 1), 0.0))
    length, reference_length = counts[..., 2 * MAX_ORDER], counts[..., 2 * MAX_ORDER + 1]
    brevity = np.minimum(1.0 - reference_length / np.maximum(length, 1), 0.0)
    score = 100 * np.exp(brevity + logarithms.mean(axis=-1))
    return np.where(correct[..., 0] > 0, score, 0.0)


def rouge_scores(reply: Sequence[str], reference: Sequence[str]) -> tuple[float, float, float]:
    """Return F1 of ROUGE-1, ROUGE-2 and ROUGE-L, 0 to 1, of two lists of words."""
    if not reply or not reference:
        return 0.0, 0.0, 0.0
    # The library cuts sentences at full stops; a text of nothing else would be an error there.
    texts = [
        " ".join("．" if word == "." else word.replace(".", "．") for word in words) for words in (reply, reference)
    ]
    scores = _rouge().get_scores(*texts)[0]
    return scores["rouge-1"]["f"], scores["rouge-2"]["f"], _rouge_l(reply, reference)


def _rouge_l(reply: Sequence[str], reference: Sequence[str]) -> float:
    common = longest_common_subsequence(reply, reference)
    return 2 * common / (len(reply) + len(reference))


def longest_common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, by bit-parallel rows (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for index, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << index
    everything = (1 << len(one)) - 1
    row = everything  # a zero bit is a step of the subsequence
    for word in other:
        matches = row & places.get(word, 0)
        row = ((row + matches) | (row - matches)) & everything
    return len(one) - row.bit_count()


def ngrams(words: Sequence[str], order: int) -> list[tuple[str, ...]]:
    """Return the n-grams of a list of words, in order."""
    return [tuple(words[start : start + order]) for start in range(len(words) - order + 1)]
