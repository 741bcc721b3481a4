"""A link sets what it names, within the limits, and sends nothing."""

from __future__ import annotations

import pytest

from bianque.consultation.messages import Mode, ReplyOptions
from bianque.errors import InputError
from bianque.ui.history import Limits
from bianque.ui.links import link_mode, read_link

DEFAULTS = ReplyOptions(Mode.JOINT, 0.7, 0.3, 256)


def test_a_link_carries_settings_and_a_question():
    query = {
        "mode": "soulchat",
        "top_p": "0.5",
        "max_new_tokens": "64",
        "seed": "7",
        "greedy": "true",
        "q": " 我头疼 ",
    }
    link = read_link(query, DEFAULTS, Limits())
    assert link.options == ReplyOptions(Mode.SOULCHAT, 0.5, 0.3, 64, 7)
    assert link.question == "我头疼" and link.is_greedy and not link.is_empty


@pytest.mark.parametrize("query", [{}, {"lang": "en", "theme": "dark", "embed": "1"}, {"mode": "", "q": "  "}])
def test_other_parameters_ask_for_nothing(query):
    assert read_link(query, DEFAULTS, Limits()).is_empty


@pytest.mark.parametrize(
    "query",
    [
        {"top_p": "7"},
        {"top_p": "nan"},
        {"temperature": "warm"},
        {"max_new_tokens": "1e9"},
        {"max_new_tokens": "64.5"},
        {"asking_limit": "-1"},
        {"seed": "-1"},
        {"mode": "gpt"},
        {"q": "头" * 2001},
        {"q": "？？"},
    ],
)
def test_what_is_out_of_range_is_refused(query):
    with pytest.raises(InputError):
        read_link(query, DEFAULTS, Limits())


def test_the_mode_of_an_address():
    assert link_mode({"mode": "bianque-1.0"}) is Mode.ASKER
    assert link_mode({}) is None
