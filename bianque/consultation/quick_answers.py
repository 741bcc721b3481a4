"""Short answers offered under a doctor's question, for the visitor to tap, edit and send.

Only questions whose answers are few and plain get some: since when (今天 / 几天 / 几周 / 更久), one thing or another
(饭前疼 / 饭后疼), sex, and yes or no in the words of the question (有 / 没有, 是 / 不是, 疼 / 不疼). A question that
wants a description (哪里疼, 怎么疼) gets none, nor does one about how long or how often something happens each time.
"""

from __future__ import annotations

import re

from bianque.consultation.questions import CLAUSE_BREAK, is_clinical_question

SINCE_WHEN = ("今天", "几天", "几周", "更久")
NOT_SURE = "不清楚"
_LONGEST_CHOICE = 10

_SENTENCE_BREAK = re.compile(r"[。！？!?；;\n]+")
_HOW_LONG = re.compile(r"多久|多长时间|多少时间|(?<![这那前近最])[几多]少?天|几个月|[几多]少?年")
_SINCE = re.compile(r"(?:什么|啥)时候[^，]*(?:开始|出现|发现|得|起|有)|从(?:什么|啥)时候|开始[^，]*(?:什么|啥)时候")
# How long each time, how often, how much sleep: not since when.
_EACH_TIME = re.compile(
    r"每|一次|多久[^，]{0,4}次|睡|间隔|隔|才能?|坚持|[能要得]|上次|停|一天|持续几?个?小时|运动|锻炼"
)
_SEX = re.compile(r"男[^，]{0,4}还是女|男的?女|性别|是男是女")
_BESIDES = re.compile(r"^(?:那|请问|您好|你好|您|你|的|现在|目前|一般|主要|大概|通常|感觉|觉得|最近|平时|平常)+")
_TAIL = re.compile(r"(?:的?(?:呢|啊|呀|吗|么|哦))+$")
_A_NOT_A = re.compile(r"([\u4e00-\u9fff])(不|没)\1")
_PLAIN_YES = re.compile(r"(?:吗|(?<![什怎])么|没有|没|不)$")
_PRESENCE = re.compile(r"有|过|症状|史")
# Adjectives are denied by 不是, what was done or felt by 没有.
_QUALITY = re.compile(r"得[^，]{1,4}吗|(?:正常|规律|[多大高重好快])吗|容易")
_ABLE = re.compile(r"[会能](?![^，]*[会能])")
_WH = re.compile(r"什么|啥|哪|几|多少|多大|多高|怎么|怎样|如何|为何|谁")


def quick_answers(question: str) -> tuple[str, ...]:
    """Return answers that fit the first question of a doctor's utterance that has any; empty if none has."""
    if not is_clinical_question(question):
        return ()
    for sentence in filter(None, _SENTENCE_BREAK.split(question)):
        found = _since_when(sentence) or _one_or_other(sentence) or _yes_or_no(sentence)
        if found:
            return found
    return ()


def _since_when(sentence: str) -> tuple[str, ...]:
    for clause in CLAUSE_BREAK.split(sentence):
        asks = _SINCE.search(clause) or _HOW_LONG.search(clause)
        if asks and not _EACH_TIME.search(clause):
            return SINCE_WHEN
    return ()


def _one_or_other(sentence: str) -> tuple[str, ...]:
    if _SEX.search(sentence):
        return ("男", "女")
    if sentence.count("还是") != 1:
        return ()
    before, after = sentence.split("还是")
    first, *others = _last_clause(before).split("、")
    second = CLAUSE_BREAK.split(after)[0].split("、")
    # What comes before the first choice ends in 是 or 在: 头痛是, 疼痛主要在.
    choices = [_choice(re.sub(r".*[是在]", "", first)), *map(_choice, [*others, *second])]
    if not all(0 < len(choice) <= _LONGEST_CHOICE for choice in choices):
        return ()
    return (*choices, NOT_SURE)


def _last_clause(text: str) -> str:
    return next((clause for clause in reversed(CLAUSE_BREAK.split(text)) if clause), "")


def _choice(text: str) -> str:
    """Return what one side of 还是 offers, without address and particles."""
    return _TAIL.sub("", _BESIDES.sub("", text).removeprefix("是").removeprefix("在")).strip()


def _yes_or_no(sentence: str) -> tuple[str, ...]:
    clauses = [clause for clause in CLAUSE_BREAK.split(sentence) if clause]
    for clause in clauses:
        found = _answers_to(clause)
        if found and is_clinical_question(clause + "？"):
            return found
    return ()


def _answers_to(clause: str) -> tuple[str, ...]:
    if "是不是" in clause or "是否" in clause:
        return ("是", "不是", NOT_SURE)
    if re.search(r"有没有|有无|有否|伴不伴|带不带", clause):
        return ("有", "没有", NOT_SURE)
    match = _A_NOT_A.search(clause)
    if match:
        return (match[1], f"不{match[1]}" if match[2] == "不" else "没有", NOT_SURE)
    if not _PLAIN_YES.search(clause):
        return ()
    if _PRESENCE.search(clause):
        return ("有", "没有", NOT_SURE)
    if _WH.search(clause):
        return ()
    able = _ABLE.search(clause)
    if able:
        return (able[0], f"不{able[0]}", NOT_SURE)
    if "是" in clause or _QUALITY.search(clause):
        return ("是的", "不是", NOT_SURE)
    return ("是的", "没有", NOT_SURE)
