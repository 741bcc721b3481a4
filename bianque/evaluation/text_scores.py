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


def bleu_of_counts(counts: Sequence[float], order: int) -> float:
    """Return BLEU-`order` in percent from added-up `bleu_counts`."""
    correct, total = (list(map(int, counts[start : start + order])) for start in (0, MAX_ORDER))
    lengths = (int(counts[2 * MAX_ORDER]), int(counts[2 * MAX_ORDER + 1]))
    if not total[0] or not correct[0]:
        return 0.0
    score = _bleu().compute_bleu(correct, total, *lengths, smooth_method="exp", max_ngram_order=order)
    return float(score.score)


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
