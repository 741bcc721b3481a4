"""Signs of an emergency in what a patient says, looked for before any model answers.

A bare topic word is no sign: 癫痫 is most often a chronic illness, 自杀 often a topic. `red_flag_signs` holds the
signs; here is decided whether one is told of now. A hit is dropped when its clause denies it (没有抽搐), puts it into
the past (三年前昏迷过) or only fears it, when the message asks in general (怎么预防煤气中毒) or tells of it afterwards
(发作时口吐白沫，怎么治), and when it is an idiom (累死了). A crisis of somebody else has a notice of its own.

What it does not cover: an answer that is a sign only together with the question before it (有), typing errors inside a
key word, and languages other than Chinese. It is a net with holes and stands beside, never instead of, the page's
notice.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum

from bianque.consultation.messages import Message, Role
from bianque.consultation.red_flag_signs import (
    CRISIS_LEAVING,
    CRISIS_STRONG,
    CRISIS_UNLESS,
    CRISIS_UNLESS_DEAD,
    CRISIS_UNLESS_LEAVING,
    CRISIS_UNLESS_SLEEP,
    CRISIS_WEAK,
    CRISIS_WEARY,
    MEDICAL_SIGNS,
    Sign,
)


class Emergency(StrEnum):
    """What kind of notice is due; the names end the keys of the translation table (`emergency_medical` …)."""

    MEDICAL = "medical"  # call 120
    CRISIS = "crisis"  # the visitor may harm themselves
    OTHER_PERSON = "other_person"  # somebody else may


def find_emergency(messages: Sequence[Message]) -> Emergency | None:
    """Return the emergency in force in a conversation.

    The newest message with a sign decides the kind. Once found, an emergency stays in force until the conversation is
    cleared: a patient who goes on chatting after 胸口压榨样疼痛 is still somebody who should call.
    """
    for message in reversed(messages):
        if message.role is Role.USER:
            found = find_in_text(message.text)
            if found:
                return found
    return None


def find_in_text(text: str) -> Emergency | None:
    """Return the emergency that one message of a patient tells of; a crisis goes before a medical one."""
    sentences = _sentences(text)
    for index, sentence in enumerate(sentences):
        match = _find_crisis(sentence, "，".join(sentences[index + 1 :]))
        if match:
            return Emergency.OTHER_PERSON if _is_about_another(sentence, match.start()) else Emergency.CRISIS
    is_told = bool(_TOLD_AFTERWARDS.search(text)) and not _GOING_ON.search(text)
    for index, sentence in enumerate(sentences):
        # What a sign needs beside it may stand in the next sentence: 胸口疼。一直出冷汗。
        around = "，".join(sentences[max(0, index - 1) : index + 2])
        if any(_has_sign(sign, sentence, around) for sign in MEDICAL_SIGNS if not (sign.may_be_told and is_told)):
            return Emergency.MEDICAL
    return None


# --- what a message looks like to the rules ---

# Idioms and figures of speech that borrow the words of death.
_IDIOM = re.compile(
    r"(?:[累笑疼痛痒困热冷饿渴烦气吓急忙堵臭丑羡爱恨晒冻辣酸甜苦晕闷挤尬慕受腻馋难]|无聊|后悔|担心)(?:得?快?要?)?死(?:了?我?了?|人了?|个人)"
    r"|[得很](?:要死|想死|要命|快死)(?:要活)?|死活|死心|想死你|想死在|生不如死|笑[到得]_?[^，]{0,6}气"
)


_CONTRAST = re.compile(r"(?<!，)(?=(?:(?<![不非])但(?![愿凡])|可是|而是|不过(?=我|他|她|这|现在|今天|突然|刚)))")


def _sentences(text: str) -> list[str]:
    """Normalise a message and cut it at full stops: one width of marks, commas for blanks, no idioms."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"(?<=[\u4e00-\u9fff])[^\S\n]+(?=[\u4e00-\u9fff])", "，", text)
    text = re.sub(r"[^\S\n]+", "", text)
    text = re.sub(r"[,;:~]+", "，", text)
    text = _CONTRAST.sub("，", text)  # what is denied before 但 says nothing of what follows
    text = _IDIOM.sub("很", text)
    return [sentence for sentence in re.split(r"[。!?\n…]+|(?<!\d)\.|\.(?!\d)", text) if sentence]


# Each place costs a look at the whole sentence, and pasted text may have thousands without a full stop.
_MOST_REPEATED = 10
_MOST_PLACES = 100


def _matches(pattern: re.Pattern[str], sentence: str) -> Iterator[re.Match[str]]:
    """Yield the places where a pattern matches; of the same words only the first ones."""
    seen = Counter[str]()
    for match in pattern.finditer(sentence):
        seen[match[0]] += 1
        if seen[match[0]] <= _MOST_REPEATED:
            yield match
        if len(seen) >= _MOST_PLACES:
            return


def _clause_bounds(sentence: str, position: int) -> tuple[int, int]:
    start = sentence.rfind("，", 0, position) + 1
    end = sentence.find("，", position)
    return start, len(sentence) if end < 0 else end


# --- what takes a sign away ---

_DENIED = re.compile(
    r"(?:(?<!有)没有?(?!反应|意识|呼吸|力|知觉|缓解|用|办法|脉|胎动|精神|吃|睡|胃口|人|多久|一会|想到|注意|来得)|(?<!不是)(?<!有)没有?(?=想)|无(?!力|法)|未"
    r"|否认|不是(?!没)|不会|不伴|并非|排除)[^，]{0,8}$|不再?$"
)
# 有没有自杀念头，我说没有
_DENIED_AFTER = re.compile(r"[^，]{0,3}，我?(?:回答|回|说|答)?(?:是|的)?没有?过?(?:，|$)")
_PRESENT = re.compile(
    r"现在|这会儿|此刻|眼下|今[天早晚晨]|刚|突然|忽然|正在|最近|这[几两]天|昨[天晚]|又[^，]{0,3}了|目前"
)
_PAST = re.compile(
    r"[一二两三四五六七八九十几半多\d]个?多?(?:年|个?月|周|星期|礼拜)多?(?:以|之)?前|去年|前年|以前|从前|曾|小时候|年轻时|年轻的时候|当年|那年|上个月"
    r"|上个?星期|(?<!没)有过|病史|史$"
)
_LONG_PAST = re.compile(
    r"[一二两三四五六七八九十几多\d]年多?(?:以|之)?前|去年|前年|以前|从前|曾|小时候|年轻时|年轻的时候|当年|那年|有过"
)
_RETURNED = re.compile(r"(?:又|再次|重新)[^，]{0,6}(?:想|有|出现|来|开始|这样|了)|还(?:是|会|想|有)")
_FEARED = re.compile(
    r"(?:如果|有没有|万一|假如|要是|会不会|会(?!儿)|担心|害怕|怕|以免|防止|避免|预防|容易|可能|导致|引起|引发|造成|看到|听说)[^，]{0,10}$"
)
_GENERAL = re.compile(
    r"预防|避免|学学|学习?一下|学习学习|了解一下|想(?:学|了解)|长知识|(?<!为)什么[是叫]|有哪些|有什么(?:症状|表现)|是什么(?!情况|原因|回事|问题)|早期|前兆|先兆|科普|新闻|报道|电视|电影|小说|视频里|课|讲座|考试|论文|遗传|几率|概率"
    r"|去世|过世|走了_年|怎么判断|什么区别|急救(?:方法|知识|措施)|知识|率(?:为什么|高|是)|热线|统计|听说|危害|坏处|副作用|有什么影响|会怎么样|培训|演练|公司组织|应该怎么做|提前学|纪录片"
)
_NOW = re.compile(r"突然|忽然|刚才|刚刚|现在|正在|马上|今[天早晚]|救命|不停")
_MILD = re.compile(
    r"偶尔|有时|有点|有些|轻微|稍微|一点点?|隐隐|几秒|慢性|老毛病|[几好多数两三四五六七八九十\d]年了?|经常|反复|好久|长期|时不时|每次|不太|不严重|不怎么|就好|缓解了"
)
_EASED = re.compile(r"就好|就没事|好些|好多了|缓解了")
_ACUTE = re.compile(r"突然|忽然|刚才|刚刚|剧|越来越|发紫|(?<!不)冷汗")
_SOMEONE = re.compile(r"有人|人们|别人|很多人|多少人|那么多人|这么多人|那些人|年轻人|患者|病人|明星|大家都")


def _is_general(sentence: str) -> bool:
    return bool(_GENERAL.search(sentence)) and not _NOW.search(sentence)


def _is_past(sentence: str, position: int, end: int, past: re.Pattern[str]) -> bool:
    """Return whether the words at `position` are told of a past time, which reaches on until a present one."""
    clause_start, clause_end = _clause_bounds(sentence, position)
    is_past = False
    for clause in sentence[:clause_end].split("，"):
        times = [(match.start(), True) for match in past.finditer(clause)]
        times += [(match.start(), False) for match in _PRESENT.finditer(clause)]
        if times:
            is_past = max(times)[1]
    has_experience = re.match(r"过(?![来去敏量])", sentence[end:clause_end]) or re.search(
        r"(?<!没有)(?<!没)过(?![来去敏量得不])", sentence[position:end]
    )
    if has_experience and not _PRESENT.search(sentence, clause_start, clause_end):
        is_past = True
    return is_past


# --- bodily emergencies ---

# An attack that is over, or a known illness, told to a doctor afterwards: seizures of epilepsy are the commonest case.
_TOLD_AFTERWARDS = re.compile(
    r"(?:发作|复发|病发|犯病|发病)(?:的时候|时|起来|之后|以后)|时不时|经常|总是|总觉|老是|有时|每(?:一)?个?(?:月|天|次|周|年|晚)|频率|频繁"
    r"|次数|医生(?:说|诊断|检查|建议|告诉)|确诊|诊断(?:为|出)|查出|患(?:有|了|上|者|这|癫|高|糖|病)|得了|哪家|偏方|根治|治好|治愈|怎[么样]+(?:治|才能)"
    r"|治疗|多少钱|费用|住院|醒(?:了)?过来|(?:哪个|什么)科|好几年|好多年|从小|反复|该病|这种病|癫痫|羊[癫角羔]|后来|前[几些两]天|前段时间|有一天|那天|有一次"
    r"|去(?:了)?医院|送[^，]{0,4}医院|仔细检|恢复正常"
)
_GOING_ON = re.compile(
    r"刚才|刚刚|正在|此刻|这会儿|还没(?:停|醒)|还不停|没停|分钟了|快不行|立刻|马上|还在抽|不停地?抽|现在(?:还|叫|人|没|昏|抽|怎么办)|怎么叫"
)


def _has_sign(sign: Sign, sentence: str, around: str) -> bool:
    """Return whether all concepts of a sign are told, the first of them in this sentence and as of now."""
    first, *others = sign.parts
    if sign.unless and sign.unless.search(sentence):
        return False
    return any(_is_present(match, sentence, sign) for match in _matches(first, sentence)) and all(
        any(not _is_denied(around, match.start()) for match in other.finditer(around)) for other in others
    )


def _is_present(match: re.Match[str], sentence: str, sign: Sign) -> bool:
    """Return whether the words are said of now: not denied, past, feared, general or slight."""
    start, end = _clause_bounds(sentence, match.start())
    prefix = sentence[start : match.start()]
    if _DENIED.search(prefix) or _FEARED.search(prefix) or _is_general(sentence):
        return False
    if _is_past(sentence, match.start(), match.end(), _PAST):
        return False
    if sign.may_be_mild and not _ACUTE.search(sentence):
        following = sentence[end + 1 : _clause_bounds(sentence, end + 1)[1]]
        return not (_MILD.search(sentence[start:end]) or _EASED.search(following))
    return True


def _is_denied(sentence: str, position: int) -> bool:
    start, _ = _clause_bounds(sentence, position)
    return bool(_DENIED.search(sentence[start:position]))


# --- crisis ---


def _find_crisis(sentence: str, rest: str) -> re.Match[str] | None:
    """Return where the sentence says that someone means to die, or None."""
    for match in _matches(CRISIS_STRONG, sentence):
        if _is_meant(match, sentence, rest):
            return match
    if not CRISIS_UNLESS_LEAVING.search(f"{sentence}，{rest}"):
        for match in _matches(CRISIS_LEAVING, sentence):
            if _is_meant(match, sentence, rest):
                return match
    weak = [match for match in _matches(CRISIS_WEAK, sentence) if _is_meant(match, sentence, rest)]
    concepts = {"weary" if CRISIS_WEARY.fullmatch(match[0]) else match[0] for match in weak}
    return weak[0] if len(concepts) > 1 else None


def _is_meant(match: re.Match[str], sentence: str, rest: str) -> bool:
    start, _ = _clause_bounds(sentence, match.start())
    prefix = sentence[start : match.start()]
    if _DENIED.search(prefix) or _DENIED_AFTER.match(sentence, match.end()) or _is_something_else(match, sentence):
        return False
    if _is_past(sentence, match.start(), match.end(), _LONG_PAST) and not _RETURNED.search(
        sentence[match.end() :] + "，" + rest
    ):
        return False
    is_own = re.search(r"我(?!们?国)[^，]{0,6}$", prefix)
    return bool(is_own) or not (_SOMEONE.search(prefix) or (_is_general(sentence) and not is_own))


def _is_something_else(match: re.Match[str], sentence: str) -> bool:
    """Return whether the words are about an alarm clock, a dead pet or the like."""
    start, _ = _clause_bounds(sentence, match.start())
    _, end = _clause_bounds(sentence, match.end())
    if CRISIS_UNLESS.search(sentence, start, end):
        return True
    if re.search("[睡醒]", match[0]) and CRISIS_UNLESS_SLEEP.search(sentence, start, end):
        return True
    return any(
        dead.start() < match.end() and match.start() < dead.end() for dead in CRISIS_UNLESS_DEAD.finditer(sentence)
    )


_OTHERS = re.compile(
    r"朋友|室友|同学|同事|女儿|儿子|孩子|老公|老婆|丈夫|妻子|妈妈?|爸爸?|母亲|父亲|闺蜜|对象|男友|女友|爷爷|奶奶|外公|外婆|邻居|家人|妹妹|哥哥?|弟弟|姐姐?|学生"
    r"|网友|亲戚|侄|表|他们?|她们?"
)
_ILL_RELATIVE = re.compile(rf"(?:{_OTHERS.pattern})(?:有|得了|最近|一直)?(?:抑郁|产后|精神|躁郁|躁狂|焦虑)")
_REPORTS = re.compile(r"[说喊嚷闹问]|留言|发(?:消息|信息|来)|威胁|把自己|联系不上")


def _is_about_another(sentence: str, position: int) -> bool:
    """Return whether the words at `position` are about someone other than the writer."""
    start, _ = _clause_bounds(sentence, position)
    clause = re.sub(r"[跟对和给向]我|告诉我|让我", "", sentence[start:position])
    me = max(
        (
            match.start()
            for match in re.finditer(r"我(?!的?(?:朋友|室友|同学|同事|女儿|儿子|孩子|老公|老婆|[妈爸]))", clause)
        ),
        default=-1,
    )
    other = max((match.start() for match in _OTHERS.finditer(clause)), default=-1)
    if me >= 0 or other >= 0:
        return other > me
    _, end = _clause_bounds(sentence, position)
    is_reported = bool(_REPORTS.search(sentence[start:end]) or re.search(r"[说喊嚷道]，$", sentence[:start]))
    if is_reported and _OTHERS.search(sentence, 0, start):
        return True
    return bool(_ILL_RELATIVE.search(sentence, 0, start))
