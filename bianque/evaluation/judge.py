"""A model as the judge of blind pairs, asked about each pair in both orders.

What it is told stands in `judge.yaml`. Its answer counts only if exactly one verdict stands on a line of its own;
anything else is kept as `unreadable` and never guessed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import yaml

from bianque.errors import GenerationError
from bianque.evaluation.battles import Battle
from bianque.evaluation.endpoint import ChatEndpoint
from bianque.evaluation.parallel import in_order
from bianque.evaluation.verdicts import ORDERS, Choice, Order, Verdict, VerdictBook

PROMPT_FILE = Path(__file__).with_name("judge.yaml")
MAX_TOKENS = 400
_VERDICT = re.compile(r"^\W*判定\W*(甲|乙|平|都不好)\W*$", re.MULTILINE)
_FIRST, _SECOND = "甲", "乙"


@cache
def _prompt() -> dict[str, str]:
    return yaml.safe_load(PROMPT_FILE.read_text("utf-8"))


def judge_name(model: str) -> str:
    """Return how verdicts name a judging model: with a digest of what it is told."""
    return f"{model} ({hashlib.blake2b(PROMPT_FILE.read_bytes(), digest_size=4).hexdigest()})"


def messages_for(battle: Battle, order: Order) -> list[dict[str, str]]:
    """Return the chat messages that ask about a pair."""
    told = _prompt()
    first, second = (battle.a, battle.b) if order == "ab" else (battle.b, battle.a)
    shown = told[battle.kind].format(prompt=battle.prompt, first=first, second=second)
    return [
        {"role": "system", "content": told["system"]},
        {"role": "user", "content": f"{told['criteria']}\n\n{shown}\n\n{told['verdict']}"},
    ]


def read_choice(answer: str, order: Order) -> Choice:
    """Return the verdict in a judge's answer by the pair's own letters; `unreadable` if it does not give just one."""
    found = set(_VERDICT.findall(answer))
    if len(found) != 1:
        return "unreadable"
    chosen = found.pop()
    if chosen in (_FIRST, _SECOND):
        return "a" if (chosen == _FIRST) == (order == "ab") else "b"
    return "tie" if chosen == "平" else "both_bad"


def judge_battles(
    endpoint: ChatEndpoint,
    battles: Sequence[Battle],
    book: VerdictBook,
    *,
    name: str = "",
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Ask about every pair in both orders, but for those that the book has and those whose answers are equal.

    Args:
        endpoint: the judge.
        battles: what to judge.
        book: takes each verdict as it comes, so that an interrupted run goes on where it stopped.
        name: of the judge in the book; empty for `judge_name`.
        workers: questions asked at once.
        progress: is told how many of how many are done.

    Returns:
        How many answers of this start were unreadable, refusals of single pairs included.

    Raises:
        ModelUnavailableError: if the endpoint cannot be reached or refuses the key; what is done is kept.
    """
    name = name or judge_name(endpoint.model)
    asked = [(battle, order) for battle in battles if not battle.is_equal for order in ORDERS]
    left = [(battle, order) for battle, order in asked if book.get(battle.id, name, order) is None]
    num_unreadable = 0
    for done, verdict in enumerate(in_order(lambda one: _ask(endpoint, name, *one), left, workers), start=1):
        book.add(verdict)
        num_unreadable += verdict.choice == "unreadable"
        progress(len(asked) - len(left) + done, len(asked))
    return num_unreadable


def _ask(endpoint: ChatEndpoint, name: str, battle: Battle, order: Order) -> Verdict:
    try:
        answer = endpoint.complete(messages_for(battle, order), temperature=0.0, max_tokens=MAX_TOKENS, seed=0).text
    except GenerationError as error:
        return Verdict(battle.id, name, order, len(ORDERS), "unreadable", error.key)
    return Verdict(battle.id, name, order, len(ORDERS), read_choice(answer, order), answer)
