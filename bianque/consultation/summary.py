"""What a visitor has said, in the order a doctor asks for it: complaint, how long, what else, history, medicine.

The words are the visitor's own, cut at their punctuation marks; nothing is inferred, nothing of a reply is taken over
but the question that a bare answer (有, 没有) belongs to. What was not said has no line. Where a clause belongs is
guessed from its words and from the question before it, so the visitor is asked to check and correct the result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from bianque.consultation.messages import Author, Message, Role
from bianque.consultation.quick_answers import NOT_SURE, SINCE_WHEN, quick_answers

# What the page's button says in the visitor's name; it is no statement about their health.
ADVISE_NOW = "请直接给建议"


@dataclass(frozen=True)
class Summary:
    """The visitor's statements by kind; an empty string where nothing was said.

    Attributes:
        complaint: what the first message complains of.
        duration: since when or for how long.
        accompanying: what comes with it, or was denied when asked.
        history: earlier illnesses, operations, allergies, family.
        medication: what is or was taken for it.
        other: answers that are none of these.
    """

    complaint: str = ""
    duration: str = ""
    accompanying: str = ""
    history: str = ""
    medication: str = ""
    other: str = ""

    def lines(self) -> list[tuple[str, str]]:
        """Return name and words of each kind that was spoken of."""
        return [(one.name, getattr(self, one.name)) for one in fields(self) if getattr(self, one.name)]


def summarise(messages: Sequence[Message]) -> Summary:
    """Return what the visitor stated in a conversation."""
    found: dict[str, list[str]] = {one.name: [] for one in fields(Summary)}
    question, is_first = "", True
    for message in messages:
        if message.role is Role.ASSISTANT:
            question = "" if message.author is Author.GREETING else message.text
            continue
        said: dict[str, list[str]] = {}
        for kind, words in _statements(message.text, question, is_first=is_first):
            said.setdefault(kind, []).append(words)
        if is_first and not question and not said and (asked := _asked_about(message.text)):
            said["complaint"] = asked
        for kind, clauses in said.items():
            statement = _with_question("，".join(clauses), question, kind)
            if statement not in found[kind]:
                found[kind].append(statement)
        is_first, question = not any(found.values()), ""
    return Summary(**{kind: "；".join(statements) for kind, statements in found.items()})


# What stands in brackets is not cut: （男，32岁）.
_CLAUSE = re.compile(r"(?:[（(][^（）()\n]{0,20}[）)]|[^。！!；;，,\n？?])+[？?]?")
_TO_THE_DOCTOR = re.compile(
    r"[？?]$|[吗呢](?:医生|大夫)?$|怎么(?:处理|注意|吃|用|调理|预防)|^[^没不]*什么的?$|怎么办|咋办|怎么回事|咋回事|怎么治|什么病|什么原因|为什么|要不要|能不能|可不可以|^请问|该[^，]{0,4}[怎什]么"
)
_NO_STATEMENT = re.compile(
    rf"^(?:[^，]{{0,3}}(?:医生|医师|大夫|主任)?[您你]好|医生|大夫|谢谢|多谢|好的?|嗯+|哦|知道了|明白了?|不清楚|不知道|说不清|{NOT_SURE}|{ADVISE_NOW})+[您你了啊]?$"
)
_MEDICATION = re.compile(
    r"药|服用|口服|打[了过]?针|输液|点滴|吊针|吊瓶|胶囊|颗粒|软膏|胰岛素|(?:洛芬|西林|头孢|他汀|地平|普利|拉唑|双胍|霉素)"
)
_HISTORY = re.compile(
    r"以前|从前|过去|既往|曾|得过|患[过有]|做过|动过|病史|手术|住过?院|家族|遗传|过敏|慢性|高血压|糖尿病|冠心病|老毛病|小时候"
)
_ACCOMPANYING = re.compile(r"有没有|有无|伴|除了|还有|其他|其它|别的|同时|症状|不舒服")
_SYMPTOM = re.compile(r"[疼痛痒晕吐咳烧麻胀肿热]")
_BARE = re.compile(r"^.{0,4}$")
_NUMBER = r"(?:\d+|[一二两三四五六七八九十几半数好多]+)"
_SPAN = re.compile(
    rf"(?:今天|现在)(?:已经)?是?第{_NUMBER}天了?|(?<![每第\d])(?:快|有|大概|差不多|将近|最近|近|这)?{_NUMBER}(?:来|多)?个?(?:多|半)?"
    r"(?:分钟|小时|天|周|星期|礼拜|月|年|晚上?|宿)(?:多|左右|以上)?了?(?![^，]{0,3}(?:[次顿片粒回趟]|[一二两三四五几\d]下))"
    r"|(?:从)?(?:今天|昨天|昨晚|前天|今早|今晨|上周|上个?月|上星期|去年|前年)(?:早上|上午|中午|下午|晚上|夜里)?(?:刚)?(?:开始的?)?"
)
# 16个月的女孩, 孩子17个月, 一岁九个月, 怀孕32周: how old, not since when.
_CHILD = r"(?:宝宝?|宝贝|孩子?|小孩|儿子|女儿|娃娃?|婴儿|小儿)"
_AGE_BEFORE = re.compile(r"(?:岁零?|孕|周龄|月龄|年龄)$")
_CHILD_BEFORE = re.compile(rf"{_CHILD}(?:今年|现在|已经|才|刚|快|满|出生|有)*$|刚?满$")
_AGE_AFTER = re.compile(rf"周?岁|大(?![便小概约量])|的?(?:男|女|早产|新生|{_CHILD})")
_NO_AGE = re.compile(r"[没未不都一前后发拉咳吐]|以?来")


def _since(clause: str) -> str:
    """Return the first time span or date in a clause that is nobody's age; empty if there is none."""
    end_of_age = -1
    for span in _SPAN.finditer(clause):
        before, after = clause[: span.start()], clause[span.end() :]
        is_age = bool(_AGE_BEFORE.search(before) or _AGE_AFTER.match(after)) or span.start() == end_of_age
        if _CHILD_BEFORE.search(before) and not span[0].endswith("了") and not _NO_AGE.match(after):
            is_age = True
        if not is_age:
            return span[0]
        end_of_age = span.end()
    return ""


_ONLY_ASKS = re.compile(
    r"^(?:请问|医生|大夫|那|我|该|你|您|有人|在线?)*(?:在|怎么办|咋办|怎么回事|为什么)?[吗么呢]?[？?]?$"
)


def _asked_about(text: str) -> list[str]:
    """Return the questions of a first message that states nothing else: 脚气怎么治？ complains of something."""
    clauses = [clause.strip() for clause in _CLAUSE.findall(text)]
    return [clause for clause in clauses if not _NO_STATEMENT.match(clause) and not _ONLY_ASKS.match(clause)]


def _statements(text: str, question: str, *, is_first: bool) -> Iterator[tuple[str, str]]:
    """Yield kind and words of each clause that states something."""
    asked = "complaint" if is_first else _kind_of_question(question) if question else "other"
    for clause in _CLAUSE.findall(text):
        clause = clause.strip()
        if not clause or _TO_THE_DOCTOR.search(clause) or _NO_STATEMENT.match(clause):
            continue
        if _MEDICATION.search(clause) and "过敏" not in clause:
            yield "medication", clause
        elif _HISTORY.search(clause):
            yield "history", clause
        else:
            since = _since(clause) if asked == "complaint" else ""
            if since:
                yield "duration", since
            if since != clause:
                yield asked, clause


def _kind_of_question(question: str) -> str:
    answers = quick_answers(question)
    if answers == SINCE_WHEN:
        return "duration"
    if _MEDICATION.search(question):
        return "medication"
    if _HISTORY.search(question):
        return "history"
    is_about_symptoms = _ACCOMPANYING.search(question) or (answers and _SYMPTOM.search(question))
    return "accompanying" if is_about_symptoms else "other"


def _with_question(words: str, question: str, kind: str) -> str:
    """Put the question beside an answer that says nothing without it."""
    if question and kind not in ("complaint", "duration") and _BARE.match(words):
        return f"{words}（问：{question.strip()}）"
    return words
