"""From predictions to figures with confidence intervals, over all of them, per source and per turn number.

| figure | what |
|---|---|
| BLEU-1 … BLEU-4, ROUGE-1, ROUGE-2, ROUGE-L | see `text_scores`; percent |
| distinct-1, distinct-2 | see `text_scores`; percent, without an interval: drawing replies twice would lower them |
| PQA precision, recall, F1 (our definition) | "this reply is a question" against the reference reply; percent |
| questions, reference questions | share of replies and of references that are questions; percent |
| repetition | replies that say, letter for letter, what the doctor said earlier in the dialogue; percent |
| repeated 4-grams | characters' 4-grams of a reply that it had before; percent, mean over replies |
| echo | replies whose raw text begins with a speaker's marker or the prompt's end, or holds the patient's whole
  newest message of at least six letters; percent |
| characters, reference characters | mean length |
| failed | replies that ended with an error, which count as empty; percent |

A question is what `consultation.questions.is_clinical_question` says. Intervals are 95 % percentile intervals of 1,000
bootstraps over whole dialogues, because the replies of one dialogue depend on one another.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from bianque.consultation.cleanup import ReplyCleaner, skeleton
from bianque.consultation.messages import Role
from bianque.consultation.questions import is_clinical_question
from bianque.consultation.templates import PATIENT_DOCTOR
from bianque.corpus.sources.speakers import messages_of_prompt
from bianque.evaluation.bootstrap import Figure, FigureOfSums, Sums, divide, figures_of, ratio
from bianque.evaluation.predictions import Prediction
from bianque.evaluation.text_scores import MAX_ORDER, bleu_counts, bleu_of_counts, ngrams, rouge_scores, words_of

ECHO_LETTERS = 6
LAST_TURN = 8
"""Later turns are counted together with this one."""
_NO_PROMPT = ReplyCleaner(PATIENT_DOCTOR.assistant_marker)
_MARKER = re.compile(r"\s*(?:病人|患者|医生|用户|心理咨询师)\s*[：:]")

# What is added up; BLEU's counts come first.
_COLUMNS = (
    *(f"correct{n}" for n in range(1, MAX_ORDER + 1)),
    *(f"total{n}" for n in range(1, MAX_ORDER + 1)),
    *("reply_tokens", "reference_tokens", "rouge1", "rouge2", "rougel", "both_ask", "reply_asks", "reference_asks"),
    *("repeats", "repeated_4grams", "echoes", "chars", "reference_chars", "failed", "replies"),
)
_AT = {name: index for index, name in enumerate(_COLUMNS)}
_ratio = partial(ratio, _AT)


def _bleu(order: int) -> FigureOfSums:
    return lambda sums: bleu_of_counts(sums[..., : 2 * MAX_ORDER + 2], order)


def _f1(sums: Sums) -> np.ndarray:
    both = sums[..., _AT["reply_asks"]] + sums[..., _AT["reference_asks"]]
    return 200.0 * divide(sums[..., _AT["both_ask"]], both)


FIGURES: dict[str, FigureOfSums] = {
    **{f"BLEU-{order}": _bleu(order) for order in range(1, MAX_ORDER + 1)},
    "ROUGE-1": _ratio("rouge1", "replies"),
    "ROUGE-2": _ratio("rouge2", "replies"),
    "ROUGE-L": _ratio("rougel", "replies"),
    "PQA precision": _ratio("both_ask", "reply_asks"),
    "PQA recall": _ratio("both_ask", "reference_asks"),
    "PQA F1": _f1,
    "questions": _ratio("reply_asks", "replies"),
    "reference questions": _ratio("reference_asks", "replies"),
    "repetition": _ratio("repeats", "replies"),
    "repeated 4-grams": _ratio("repeated_4grams", "replies"),
    "echo": _ratio("echoes", "replies"),
    "characters": _ratio("chars", "replies", 1.0),
    "reference characters": _ratio("reference_chars", "replies", 1.0),
    "failed": _ratio("failed", "replies"),
}
"""Each figure as a function of the added-up columns; not a number where there is nothing to divide by."""

NAMES = (*list(FIGURES)[:7], "distinct-1", "distinct-2", *list(FIGURES)[7:])
"""Every figure, in the order of the tables."""


@dataclass(frozen=True)
class Scored:
    """One prediction, scored: its columns and its words."""

    prediction: Prediction
    columns: tuple[float, ...]
    words: tuple[str, ...]


def score(prediction: Prediction) -> Scored:
    """Score one prediction."""
    reply, target = prediction.reply, prediction.target
    messages = messages_of_prompt(prediction.input)
    words = words_of(reply)
    asks, should_ask = is_clinical_question(reply), is_clinical_question(target)
    earlier = {skeleton(message.text) for message in messages if message.role is Role.ASSISTANT}
    letters = skeleton(reply)
    columns = (
        *bleu_counts(reply, target),
        *rouge_scores(words, words_of(target)),
        *map(float, (asks and should_ask, asks, should_ask, bool(letters) and letters in earlier)),
        _repeated_share(reply),
        float(_is_echo(prediction.raw or reply, prediction.input, messages[-1].text)),
        *map(float, (len(reply), len(target), bool(prediction.error), 1)),
    )
    return Scored(prediction, tuple(map(float, columns)), tuple(words))


def _repeated_share(reply: str) -> float:
    grams = [reply[start : start + 4] for start in range(len(reply) - 3)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _is_echo(raw: str, prompt: str, newest: str) -> bool:
    letters = skeleton(newest)
    if _MARKER.match(raw) or (len(letters) >= ECHO_LETTERS and letters in skeleton(raw)):
        return True
    # The clean-up takes the prompt's end off a reply's start; with another prompt there is nothing to take off.
    return ReplyCleaner(prompt).clean(raw) != _NO_PROMPT.clean(raw)


def measure(scored: Sequence[Scored], *, num_bootstraps: int = 1000, seed: int = 0) -> dict[str, Figure]:
    """Return every figure of some predictions.

    Args:
        scored: at least one.
        num_bootstraps: how often dialogues are drawn with replacement; 0 for no intervals.
        seed: of the drawing.
    """
    figures = figures_of(_by_dialogue(scored), FIGURES, num_bootstraps=num_bootstraps, seed=seed)
    figures |= {f"distinct-{order}": Figure(_distinct(scored, order)) for order in (1, 2)}
    return {name: figures[name] for name in NAMES}


def _by_dialogue(scored: Sequence[Scored]) -> np.ndarray:
    """Return the columns added up per dialogue, `(dialogues, columns)` in float64."""
    sums: dict[tuple[str, str], np.ndarray] = {}
    for one in scored:
        key = one.prediction.source, one.prediction.dialogue_id
        columns = np.asarray(one.columns)
        sums[key] = sums[key] + columns if key in sums else columns
    return np.stack(list(sums.values()))


def _distinct(scored: Sequence[Scored], order: int) -> float:
    grams = Counter(gram for one in scored for gram in ngrams(one.words, order))
    return 100 * len(grams) / grams.total() if grams else float("nan")


def groups(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    """Return the predictions together (`all`), by `source NAME` and by `turn N`; later turns count as `LAST_TURN`."""
    found: dict[str, list[Scored]] = {"all": list(scored)}
    for one in scored:
        found.setdefault(f"source {one.prediction.source or '–'}", []).append(one)
    for one in sorted(scored, key=lambda one: one.prediction.turn):
        turn = one.prediction.turn
        found.setdefault(f"turn {turn}" if turn < LAST_TURN else f"turn {LAST_TURN}+", []).append(one)
    return found
