"""Answers are offered where the question has few and plain ones, and nowhere else."""

from __future__ import annotations

import pytest

from bianque.consultation.quick_answers import SINCE_WHEN, quick_answers

SURE = ("不清楚",)


@pytest.mark.parametrize(
    "question",
    ["这种情况多久了？", "耳朵从什么时候开始疼的？", "孩子拉了几天了", "您好，请问持续多长时间了？晚上睡得好吗？"],
)
def test_since_when_has_four_answers(question):
    assert quick_answers(question) == SINCE_WHEN == ("今天", "几天", "几周", "更久")


@pytest.mark.parametrize(
    "question",
    ["每次持续多久？", "晚上大概能睡几个小时？", "多久洗一次头？", "上次来月经是什么时候？", "这几天吃了什么？"],
)
def test_how_long_each_time_is_another_question(question):
    assert quick_answers(question) == ()


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        ("有没有发烧、咳嗽？", ("有", "没有")),
        ("以前做过手术吗？", ("有", "没有")),
        ("是不是着凉以后疼的？", ("是", "不是")),
        ("嗓子疼不疼，什么颜色的痰", ("疼", "不疼")),
        ("大便正常吗？", ("是的", "不是")),
        ("活动后会加重吗？", ("会", "不会")),
        ("平时抽烟喝酒吗？", ("是的", "没有")),
        ("饭前疼还是饭后疼？", ("饭前疼", "饭后疼")),
        ("疼在前额、两侧还是后脑勺？", ("前额", "两侧", "后脑勺")),
        ("头痛是一直疼，还是一阵一阵的？", ("一直疼", "一阵一阵的")),
    ],
)
def test_the_answers_are_in_the_questions_words(question, answers):
    assert quick_answers(question) == answers + SURE


def test_sex_is_one_of_two():
    assert quick_answers("请问患者是男性还是女性？") == ("男", "女")


@pytest.mark.parametrize(
    "text",
    [
        "请描述一下疼痛的部位和性质",
        "吐出来的是什么？",
        "目前用的什么药在治疗",
        "建议您多休息，如果有发烧请到呼吸内科就诊。",
        "还有什么问题要问吗？",
        "",
    ],
)
def test_what_wants_a_description_or_no_answer_has_none(text):
    assert quick_answers(text) == ()
