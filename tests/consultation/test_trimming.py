from __future__ import annotations

import pytest

from bianque.consultation.messages import Author, Message, Role
from bianque.consultation.templates import render
from bianque.consultation.trimming import trim_turns
from bianque.errors import InputError


def conversation(num_turns, length=10):
    messages = [Message(Role.ASSISTANT, "您好", Author.GREETING)]
    for number in range(num_turns):
        messages.append(Message(Role.USER, f"{number:0{length}d}"))
        messages.append(Message(Role.ASSISTANT, f"答{number}", Author.ADVISER))
    return [*messages, Message(Role.USER, "最新")]


def test_short_chat_is_kept_whole_without_the_greeting():
    messages = conversation(3)
    trimmed = trim_turns(messages, render, len, 1000)
    assert trimmed.messages == messages[1:]
    assert trimmed.num_trimmed_turns == 0
    assert trimmed.prompt == render(messages)


def test_fewest_oldest_turns_go_for_every_budget():
    messages = conversation(12)
    for budget in range(len("病人：最新\n医生："), len(render(messages)) + 2):
        trimmed = trim_turns(messages, render, len, budget)
        assert len(trimmed.prompt) <= budget
        assert trimmed.messages == messages[1 + 2 * trimmed.num_trimmed_turns :]
        assert trimmed.prompt == render(trimmed.messages)
        if trimmed.num_trimmed_turns:
            one_more = messages[1 + 2 * (trimmed.num_trimmed_turns - 1) :]
            assert len(render(one_more)) > budget


def test_newest_message_and_final_marker_always_stay():
    budget = len("病人：最新\n医生：")
    trimmed = trim_turns(conversation(5), render, len, budget)
    assert trimmed.prompt == "病人：最新\n医生："
    assert trimmed.num_trimmed_turns == 5
    with pytest.raises(InputError) as caught:
        trim_turns(conversation(5), render, len, budget - 1)
    assert caught.value.key == "prompt_too_long"
    assert caught.value.params == {"limit": budget - 1, "got": budget}


def test_single_message_too_long_is_an_error():
    with pytest.raises(InputError, match="at most 10 tokens"):
        trim_turns([Message(Role.USER, "长" * 50)], render, len, 10)


def test_unanswered_messages_do_not_block_the_newest():
    messages = [Message(Role.USER, "长" * 50), Message(Role.USER, "短")]
    trimmed = trim_turns(messages, render, len, 20)
    assert trimmed.messages == messages[1:]
    assert trimmed.num_trimmed_turns == 1


def test_long_chat_needs_few_token_counts():
    calls = []

    def num_tokens(prompt):
        calls.append(len(prompt))
        return len(prompt)

    trim_turns(conversation(2000), render, num_tokens, 300)
    # Bisection over 2001 choices: log2(2001) < 11, plus the first attempt and the final one.
    assert len(calls) <= 13


def test_conversation_without_a_message_is_refused():
    with pytest.raises(ValueError, match="no user message"):
        trim_turns([Message(Role.ASSISTANT, "您好")], render, len, 10)
