"""BLEU, ROUGE and n-grams against the libraries that define them, and against counting by hand."""

from __future__ import annotations

import random

import numpy as np
import pytest
import sacrebleu
from rouge_chinese import Rouge

from bianque.evaluation.text_scores import (
    bleu_counts,
    bleu_of_counts,
    longest_common_subsequence,
    ngrams,
    rouge_scores,
    words_of,
)

PAIRS = [
    ("您好，建议多喝水，注意休息。", "你好，多喝水，多休息，必要时复查血常规。"),
    ("有没有发烧？体温38.5度吗", "发烧吗？最高多少度？"),
    ("建议到消化内科就诊", "建议到消化内科做胃镜"),
    ("", "多喝水"),
]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_added_up_counts_give_the_librarys_corpus_bleu(order):
    counts = np.array([bleu_counts(*pair) for pair in PAIRS]).sum(axis=0)
    replies, references = zip(*PAIRS, strict=True)
    library = sacrebleu.metrics.BLEU(tokenize="zh", max_ngram_order=order)
    expected = library.corpus_score(list(replies), [list(references)]).score
    assert bleu_of_counts(counts, order) == pytest.approx(expected)


@pytest.mark.parametrize(
    "pair", [*PAIRS, ("多喝", "多喝水"), ("水多喝", "多喝水"), ("我要去医院看病", "病人要去看医生")]
)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_missing_orders_are_smoothed_as_the_library_does(pair, order):
    library = sacrebleu.metrics.BLEU(tokenize="zh", max_ngram_order=order)
    assert bleu(*pair, order) == pytest.approx(library.corpus_score([pair[0]], [[pair[1]]]).score)


def bleu(reply: str, reference: str, order: int) -> float:
    return float(bleu_of_counts(np.array(bleu_counts(reply, reference)), order))


def test_bleu_at_its_ends():
    assert bleu("多喝水，多休息。", "多喝水，多休息。", 4) == pytest.approx(100)
    assert bleu("多喝水", "去医院", 1) == 0
    assert bleu("", "去医院", 4) == 0


@pytest.mark.parametrize(("reply", "reference"), PAIRS[:3])
def test_rouge_is_the_librarys(reply, reference):
    words = words_of(reply.replace(".", "")), words_of(reference)
    expected = Rouge().get_scores(" ".join(words[0]), " ".join(words[1]))[0]
    found = rouge_scores(*words)
    assert found == pytest.approx([expected[name]["f"] for name in ("rouge-1", "rouge-2", "rouge-l")], abs=1e-6)


def test_rouge_at_its_ends():
    assert rouge_scores(["多", "喝水"], ["多", "喝水"]) == pytest.approx((1, 1, 1), abs=1e-6)
    assert rouge_scores([], ["水"]) == rouge_scores(["水"], []) == (0, 0, 0)
    assert rouge_scores(["."], ["."])[2] == 1  # a full stop alone is a word like any other


def test_the_longest_common_subsequence_by_dynamic_programming():
    rng = random.Random(5)
    for _ in range(60):
        one, other = ([rng.choice("甲乙丙丁") for _ in range(rng.randrange(12))] for _ in range(2))
        table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
        for i, a in enumerate(one):
            for j, b in enumerate(other):
                table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
        assert longest_common_subsequence(one, other) == table[-1][-1]


def test_ngrams():
    assert ngrams("甲乙丙", 2) == [("甲", "乙"), ("乙", "丙")]
    assert ngrams("甲", 2) == []
