"""The summary repeats what the visitor stated, and nothing else."""

from __future__ import annotations

import pytest

from bianque.consultation.messages import Author, Message, Role
from bianque.consultation.summary import ADVISE_NOW, Summary, summarise


def conversation(*texts: str) -> list[Message]:
    """Alternate visitor and asker, the visitor first."""
    return [
        Message(Role.USER, words) if index % 2 == 0 else Message(Role.ASSISTANT, words, Author.ASKER)
        for index, words in enumerate(texts)
    ]


def test_each_statement_stands_under_its_kind():
    said = conversation(
        "医生您好，我失眠一个月了，白天没精神，怎么办？",
        "有没有心慌、出汗？",
        "没有",
        "以前有什么病吗？",
        "高血压十年了，青霉素过敏",
        "自己吃过药吗？",
        "吃过安定，没什么用",
        "晚上大概能睡几个小时？",
        "四五个小时",
    )
    assert summarise(said) == Summary(
        complaint="我失眠一个月了，白天没精神",
        duration="一个月了",
        accompanying="没有（问：有没有心慌、出汗？）",
        history="高血压十年了，青霉素过敏",
        medication="吃过安定，没什么用",
        other="四五个小时",
    )


def test_the_answer_to_since_when_is_the_duration():
    assert summarise(conversation("头疼", "多久了？", "几周")).duration == "几周"


def test_what_was_not_said_has_no_line():
    assert summarise(conversation("头疼")).lines() == [("complaint", "头疼")]
    assert summarise([]).lines() == []


def test_words_of_replies_never_get_in():
    said = [
        Message(Role.ASSISTANT, "我是扁鹊，您有高血压吗", Author.GREETING),
        Message(Role.USER, "胃胀"),
        Message(Role.ASSISTANT, "可能是胃炎，建议服用奥美拉唑。", Author.ADVISER),
    ]
    assert summarise(said).lines() == [("complaint", "胃胀")]


def test_questions_and_courtesies_are_no_statements():
    said = conversation("你好", "哪里不舒服？", "要不要去医院？", "多久了？", "不知道", "疼吗？", ADVISE_NOW)
    assert summarise(said).lines() == []


def test_how_often_is_no_duration():
    assert summarise(conversation("一天拉三次，每天都这样")).duration == ""


def test_a_statement_is_not_repeated():
    assert summarise(conversation("头疼", "还有吗？", "头晕", "还有吗？", "头晕")).lines() == [
        ("complaint", "头疼"),
        ("accompanying", "头晕（问：还有吗？）"),
    ]


@pytest.mark.parametrize(
    ("words", "duration"),
    [
        ("我家宝宝16个月，咳嗽三天了", "三天了"),
        ("13个半月男宝腹泻8天", "8天"),
        ("我宝一岁九个月，发烧", ""),
        ("怀孕32周，肚子疼", ""),
        ("刚满一周岁，起疹子", ""),
        ("宝宝3天没拉大便", "3天"),
        ("一天咳两三下", ""),
        ("咳嗽，今天是第5天了", "今天是第5天了"),
    ],
)
def test_an_age_is_no_duration(words, duration):
    assert summarise(conversation(words)).duration == duration


def test_a_first_message_that_only_asks_is_the_complaint():
    assert summarise(conversation("医生您好，请问脚气怎么治？")).lines() == [("complaint", "请问脚气怎么治？")]
    assert summarise(conversation("在吗？")).lines() == []


def test_the_complaint_may_come_after_a_greeting():
    said = conversation("林医生你好", "哪里不舒服？", "胃疼", "多久了？", "三天")
    assert summarise(said).lines() == [("complaint", "胃疼"), ("duration", "三天")]


def test_what_stands_in_brackets_stays_whole():
    assert summarise(conversation("胃疼（男，32岁），两天了")).complaint == "胃疼（男，32岁）"
