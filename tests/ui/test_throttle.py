"""Updates are thinned without losing the first or the last."""

from __future__ import annotations

from bianque.consultation.messages import Author, ReplyUpdate
from bianque.ui.throttle import throttle


def reply(num_tokens: int) -> list[ReplyUpdate]:
    updates = [ReplyUpdate("字" * (index + 1), Author.ADVISER, "m") for index in range(num_tokens)]
    return [*updates, ReplyUpdate("字" * num_tokens, Author.ADVISER, "m", is_final=True, finish_reason="stop")]


def shown(num_tokens: int, tokens_per_second: float) -> list[ReplyUpdate]:
    now = iter(index / tokens_per_second for index in range(num_tokens + 1))
    return list(throttle(reply(num_tokens), per_second=12, clock=lambda: next(now)))


def test_the_first_comes_at_once_and_the_last_always():
    updates = shown(100, 1000)
    assert updates[0].text == "字"
    assert updates[-1].is_final and len(updates[-1].text) == 100


def test_no_more_than_twelve_a_second_are_shown():
    # 300 tokens in 3 s: 36 fit, and the final update is passed whatever its time.
    assert 30 <= len(shown(300, 100)) <= 37


def test_a_slow_model_shows_every_token():
    assert len(shown(10, 5)) == 11
