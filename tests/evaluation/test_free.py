"""The scripted patient answers, and the chain of questioning is measured by hand."""

from __future__ import annotations

import pytest

from bianque.consultation.messages import Role
from bianque.errors import GenerationError
from bianque.evaluation.free import MAX_QUESTIONS, converse, draw_cases, measure_free
from bianque.minis.knowledge import load_knowledge
from tests.evaluation.fakes import FakeResponder


@pytest.fixture(scope="module")
def knowledge():
    return load_knowledge()


@pytest.fixture(scope="module")
def case(knowledge):
    return next(case for case in draw_cases(knowledge, 30) if not case.answered and len(case.plan) >= 3)


def play(knowledge, case, *replies):
    """Let a model say these replies in turn, the last one for ever."""

    def answer(messages):
        number = sum(message.role is Role.ASSISTANT for message in messages)
        return replies[min(number, len(replies) - 1)]

    (dialogue,) = converse(FakeResponder(answer), knowledge, [case])
    figures = {name: one.value for name, one in measure_free([dialogue], knowledge)["all"].items()}
    return dialogue, figures


def test_questions_are_answered_from_the_case_until_the_advice(knowledge, case):
    first, second = case.plan[0].questions[0], case.plan[1].questions[0]
    dialogue, figures = play(knowledge, case, first, second, f"建议到{case.department}就诊。")
    assert dialogue.messages[0].text == case.opening
    assert dialogue.messages[2].text in case.plan[0].answers
    assert dialogue.messages[4].text in case.plan[1].answers
    assert figures["questions before advice"] == 2
    assert figures["items covered"] == pytest.approx(100 * 2 / len({ask.item for ask in case.plan}))
    assert figures["understood questions"] == figures["advice reached"] == figures["right department"] == 100
    assert figures["repeated questions"] == 0


def test_what_the_opening_tells_need_not_be_asked(knowledge):
    case = next(case for case in draw_cases(knowledge, 200) if case.answered & {ask.item for ask in case.plan})
    asked = [ask.questions[0] for ask in case.plan if ask.item not in case.answered]
    _, figures = play(knowledge, case, *asked, "多喝水。")
    assert figures["items covered"] == 100 and figures["questions before advice"] == len(asked)


def test_a_question_asked_twice_is_a_repeat_also_in_other_words(knowledge, case):
    wordings = case.plan[0].questions
    _, figures = play(knowledge, case, wordings[0], wordings[-1], wordings[0], "多喝水。")
    assert figures["repeated questions"] == pytest.approx(100 * 2 / 3)
    assert figures["right department"] == 0


def test_a_model_that_only_advises_has_no_chain(knowledge, case):
    dialogue, figures = play(knowledge, case, "多喝水。")
    assert len(dialogue.messages) == 2
    assert figures["questions before advice"] == figures["dialogues with a question"] == 0
    assert figures["advice reached"] == 100


def test_a_model_that_never_stops_asking_is_stopped(knowledge, case):
    dialogue, figures = play(knowledge, case, "请问您家的门牌是什么颜色的？")
    assert len(dialogue.questions) == MAX_QUESTIONS and dialogue.advice is None
    assert figures["advice reached"] == 0 and figures["understood questions"] < 100


def test_a_reply_that_fails_ends_its_own_dialogue_and_is_counted(knowledge, case):
    def answer(messages):
        if len(messages) > 1:
            raise GenerationError("reply_empty")
        return case.plan[0].questions[0]

    dialogues = converse(FakeResponder(answer), knowledge, [case, case])
    assert [one.error for one in dialogues] == ["reply_empty"] * 2
    figures = {name: one.value for name, one in measure_free(dialogues, knowledge)["all"].items()}
    assert figures["broken off"] == 100
    assert figures["advice reached"] == 0 and figures["questions before advice"] == 1


def test_the_same_seed_draws_the_same_cases_and_words(knowledge):
    cases = draw_cases(knowledge, 20, seed=1)
    assert cases == draw_cases(knowledge, 20, seed=1)
    assert [case.opening for case in cases] != [case.opening for case in draw_cases(knowledge, 20, seed=2)]

    def talk(workers):
        responder = FakeResponder(lambda messages: "多久了？" if len(messages) < 6 else "好")
        return [one.messages for one in converse(responder, knowledge, cases, workers=workers)]

    assert talk(1) == talk(4)
