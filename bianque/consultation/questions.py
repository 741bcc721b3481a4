"""Does a doctor's utterance ask the patient something?

`classify` tells a clinical question (有没有发烧, 请描述一下疼痛) from a closing (还有问题吗, 在吗) and from anything
else. It judges clause by clause with rules of Chinese grammar:

- sentence particles (吗, 么, 呢 after an interrogative), tags (是吧, 过没), a question mark;
- A-not-A (痒不痒, 有没有), 是否 and 有无, alternatives (饭前疼还是饭后疼);
- interrogatives (什么, 哪, 几, 多久, 怎么 ...), unless they are indefinite (没什么, 什么都, 如果有什么, 过几天);
- requests for what only the patient can tell (描述一下症状, 发照片给我).

An interrogative governed by a verb of finding out (看看有没有, 检查一下是否) or followed by what settles it
(是否手术要看结果) reports a question and asks none.
"""

from __future__ import annotations

import re
from enum import StrEnum

# Between the parts of a sentence, each of which is judged by itself.
CLAUSE_BREAK = re.compile(r"[，,：:\s]+")
ORIGINAL_KEYWORDS = ("？", "?", "吗", "呢", "么", "什么", "有没有", "多少", "几次", "怎么样")


class QuestionKind(StrEnum):
    """What an utterance asks."""

    CLINICAL = "clinical"  # about the patient; the answer helps the doctor
    CLOSING = "closing"  # whether the patient is there, satisfied, or wants to ask more
    NONE = "none"


def is_clinical_question(text: str) -> bool:
    """Return whether `text` asks the patient about their condition."""
    return classify(text) is QuestionKind.CLINICAL


def original_is_question(text: str) -> bool:
    """Return what the original program's keyword list says; kept for comparison and for parity tests."""
    return any(keyword in text for keyword in ORIGINAL_KEYWORDS)


def classify(text: str) -> QuestionKind:
    """Return what `text` asks; one clinical question makes the whole utterance clinical."""
    kind = QuestionKind.NONE
    for sentence in _SENTENCE.findall(text):
        if _is_closing(sentence):
            kind = QuestionKind.CLOSING
        elif _asks(sentence):
            return QuestionKind.CLINICAL
    return kind


_SENTENCE = re.compile(r"[^。！!；;…~～\n？?]*[。！!；;…~～\n？?]?")
_WORDS = re.compile(r"\w")

# --- closings ---

_CLOSINGS = re.compile(
    r"(?:还|其他|其它|别的|什么|任何|啥)[^，。]*(?:疑问|疑惑|疑虑|不明白|不懂|没听懂|想问|要问|想了解|要了解|要咨询|想咨询|帮您|帮你)"
    r"|还(?!是)[^，。]*不清楚"
    r"|(?:还|其他|其它|别的)[^，。]*问题"
    r"|(?:有|什么)(?:疑问|疑惑)"
    r"|(?:可以|能|需要|要)[^，。]*(?:帮助|帮忙|帮到|帮您|帮你)"
    r"|还需要(?:了解|知道|咨询)"
    r"|^(?:(?:您|你)好[，,!！ ]*)?(?:请问)?(?:您|你)?(?:还|现在)?在(?:线)?(?:不在|吗|么|嘛|不|没)"
    r"|(?:明白|听懂|看懂|懂|理解|听清楚)(?:了)?(?:吗|么|没|不|意思)"
    r"|(?:我|这样|这么|这样子)(?:解释|说|讲)[^，。]*(?:清楚|明白)"
    r"|满意|好评|评价一下"
    r"|(?:这样|这么做|这样做)(?:可以|行|好)(?:吗|么|不|吧)"
)


def _is_closing(sentence: str) -> bool:
    """Return whether the sentence asks about the consultation itself, not about the patient's condition."""
    return bool(_CLOSINGS.search(sentence)) and _asks(sentence)


# --- questions ---

# 那么, 这么 ... hold 么 without asking; 吗 begins two drug names.
_NOT_INTERROGATIVE = re.compile(
    r"那么|这么|要么|多么|什么的$|吗丁啉|吗啡|哪怕|哪会|哪能|哪有|或多或少|动不动|时不时|[少爱](\w)不\1"
    r"|的多少(?=对|与|和|$)"
)

_FINAL_PARTICLE = re.compile(r"吗|(?<![什甚怎])么(?:$|[？?])|(?<![一可真])嘛[？?]?$")
# 嘛 after these words explains, it does not ask.
_EXPLAINING = re.compile(r"才|本来|毕竟|不是|慢慢|反正")
_TAG = re.compile(
    r"(?:是|对)吧$|(?:过|了|[^\s]{2}着)没(?:有)?(?:呢|啊|呀)?$|(?<![可要行很非])不(?:呢|啊|呀)?$"
    r"|[过了][^，]{1,8}没有?$|有[^，]{1,12}没有$"
)
# 现在呢, 还有呢: the rest of the question is understood.
_ELLIPSIS = re.compile(r"^[^，]{1,5}呢$")
_TOPIC = re.compile(r"^(?:对于|关于|针对|至于)")
# 具体是哪种, 需要化验: what follows says that it is open.
_LEFT_OPEN = re.compile(r"还?[需要得由]|取决|看情况")

_A_NOT_A = re.compile(r"(\w)[不没]\1|(\w{2})不\2|有木有")
_WHETHER = re.compile(r"是否|(?<!没)有无|与否|能否|可否")
# 还是 offers a choice after 是, between parts that share a word (怕冷还是怕热), or before one last word; otherwise
# it is the adverb "still" (消炎药还是要吃的).
_ALTERNATIVE = re.compile(
    r"(?<!还)是\w{1,12}?还是(?!的)\w"
    r"|([^\W的一个了是在这那有要])\w{0,6}还是(?![以要需应得会很比可有考建最先])\w{0,5}?\1"
    r"|\w{3,}还是(?![个一])\w{1,3}(?<![的好吧了])$"
    r"|(?:都|一直|老是|只|主要|总是?)[^，]{1,12}还是(?![以要需应得会很比可有考建最先])\w"
)
# A choice may stretch over two clauses: 疼只在腰上，还是连着腿.
_FIRST_CHOICE = re.compile(r"(?<![但可还就要不])是|只|主要|在|都")
_ADVERBIAL_CHOICE = re.compile(r"还是(?:[以要需应得会很比可有考建最先]|[^，]*[的好吧]$)")
_ADVERBIAL = re.compile(r"^(?:但是?|所以|不过|建议|我们?|可能|最好|因此|虽然|而且|那|这|考虑|应该)[^，]{0,4}还是")

_WH = re.compile(
    r"为什么|为啥|为何|什么|甚么|啥|怎么|怎样|怎么样|咋|如何|哪|谁|何时"
    r"|多少|多久|多长|多大|多高|多重(?![耐因打作性])|多深|多远|多粗|多厚|几(?![十百千万率乎何])"
)
# Indefinite readings: nothing much, whatever, if any.
_NEGATED_INDEFINITE = re.compile(
    r"(?:没有?|别|甭|不(?!舒服|适|好|对|良|正常|痛|疼|通|爱|想))[^，]{0,3}(?:什么(?!时[候间])|啥(?!时)|怎么|多少|谁|哪)"
)
_FREE_CHOICE = re.compile(
    r"不管|无论|不论|任何|再怎么|(?:什么|啥|怎么|怎样|哪|谁|多少|几次)[^，]{0,6}[都也]|(?:哪|几)[^，]{0,6}就"
    r"|多久就(?:可以|能|会)|(什么|多少|哪|怎么|谁|几)[^，、]{0,3}\1"
)
_CONDITIONAL = re.compile(r"如果|(?<!主)要是|假如|倘若|若是|一旦|万一|只要|的话")
_ADVERB_MUCH = re.compile(r"^(?:您|你)?多少[^，]*(?:一点|一些|点儿?|会|有些)")
_FILLER = re.compile(r"怎么说呢?$|怎么会(?:这样|呢)|多大点|怎么办(?:才)?好呢?$")
# 几 asks only where the number is open: 几天了, 一天几次; not in 过几天, 吃几天, 几天后.
_FEW = re.compile(
    r"[这那前近好十数再下隔有][^，]{0,2}几(?![^，]*了)|[这那前近好十数隔]几|分几"
    r"|过几(?:天|周|个|年|小时|分钟|日)|几[^，]{1,3}(?:后|内|以上|左右)|只有几|多[^，]{1,2}几"
)
_HOW_MANY = re.compile(
    r"了几|几[^，]{1,8}[了的呢啊呀]$|^(?:那|您|你|大概|请问)?几|第几|几[^，]{1,3}能|几[次度岁点回趟顿遍月级期]$"
    r"|(?:一|每|大概|一般|大约|最多|最高|能|要|得|高|烧到|是|在)[^，]{0,5}几[^，]{0,6}$"
)

# Verbs of finding out: what follows is their object.
_FINDING_OUT = re.compile(
    r"看看|看(?:一)?下|看一看|看(?=是|有|用|能|会|需|要|什|哪|怎|如|到底|具体|情)|观察|监测|注意|留意"
    r"|(?:检查|化验|查|测|测量|分析|鉴别|诊断)(?:一下|下)"
    r"|(?:去|要|再|来|医院|需|先|可以)[^，]{0,3}检查(?!结果|报告|做|过|了|时|单)|查查|测测|明确|确定|确认|确诊"
    r"|诊断(?=是|有)|判断|排除|评估|考虑|取决|决定|区分|查明|寻找|找出"
    r"|(?:^|包括|主要|[应需要]|每天|定期)\W*\d*\W*检查(?=[^，]*(?:是否|有无|有没有))|(?<![想我])了解|咨询|查看"
    r"|担心(?!的)|是指|(?<!医生)建议|知道|不清楚(?=是|什|怎|哪|有|能|会)|不明|(?:会问|询问)"
    r"|告(?:诉|知)(?:您|你|医生|大夫)|跟(?:您|你)(?:说|讲)|我[^，]{0,6}(?:说|讲)|弄清|搞清|记录|记下|要看|主要看"
)
# What settles the question later in the clause.
_SETTLED = re.compile(
    r"才(?:能)?(?:知道|清楚|确定|明确)|取决|要看|得看|看(?:情况|结果|病情|具体)|因人而异|由[^，]+决定|没有?定论"
    r"|[与和跟][^，]+(?:有关|关系)|[要需]根据|而定|还得"
    r"|需要?(?:进一步|检查|化验|复查|结合|根据)|不好说|不一定|难说|无所谓|都(?:可以|行|会|是|要|没|应)|决定"
    r"|没有?(?:什么)?关系"
)

_REQUEST = re.compile(
    r"^(?:那)?(?:请|麻烦|再|您|你)*(?:描述(?!的)|说说|说一下|讲讲|讲一下|谈谈|聊聊|指一下|指指)"
    r"|(?:描述(?!的)|说说|说一下|说下|讲讲|讲一下|介绍|补充|告(?:诉|知)我|(?:请|麻烦|能否|能不能)[^，]{0,4}提供|详述)[^，。]*"
    r"(?:症状|情况|经过|性质|感觉|年龄|性别|部位|位置|病史|用药|习惯|过程|特点|时间|结果|不舒服|什么|哪|怎)"
    r"|(?:报告|单子?|照片|图片|片子|结果|药|舌苔|视频)[^，。]*(?:发|传|拿|拍)[^，。]{0,4}(?:我|来|上来)"
    r"|(?:发|上传|传|拍)(?:一下|一张|一个|张|个|下|几张)?[^，。]{0,4}(?:报告|化验单|检查单|照片|图片|舌苔)"
)
# The doctor speaks of what was or will be told, and asks for nothing.
_TOLD = re.compile(r"(?:根据|从|按照?|所)[^，]{0,6}(?:描述|说|讲|提供|介绍|补充)|我[^，]{0,6}(?:说|讲|介绍|描述|告知)")
_ADVICE_START = re.compile(r"建议|可以(?!.*吗)|应该|最好|多|需要")


def _asks(sentence: str) -> bool:
    """Return whether any clause of a sentence asks something."""
    if not _WORDS.search(sentence):
        return False
    if sentence[-1] in "？?":
        return True
    clauses = [clause.strip("。！!；;…~～") for clause in CLAUSE_BREAK.split(sentence)]
    clauses = ["", *filter(None, clauses), ""]
    return any(_clause_asks(*neighbours) for neighbours in zip(clauses, clauses[1:], clauses[2:], strict=False))


def _clause_asks(previous: str, clause: str, following: str) -> bool:
    clause = _NOT_INTERROGATIVE.sub("＿", clause)
    if _FINAL_PARTICLE.search(clause) and not (clause.endswith("嘛") and _EXPLAINING.search(clause)):
        return True
    if _FILLER.search(clause) or _FREE_CHOICE.search(clause) or _CONDITIONAL.search(clause) or _TOPIC.search(clause):
        return False
    if _REQUEST.search(clause) and not (_ADVICE_START.match(clause) or _TOLD.search(clause)):
        return True
    if clause.startswith("还是") and _FIRST_CHOICE.search(previous) and not _ADVERBIAL_CHOICE.match(clause):
        return True
    if _TAG.search(clause) or (not following and _ELLIPSIS.search(clause)):
        return True
    if clause.startswith("具体") and _LEFT_OPEN.match(following):
        return False
    return any(not _is_reported(previous, clause, *span) for span in _interrogatives(clause))


def _interrogatives(clause: str) -> list[tuple[int, int]]:
    """Return where the clause has an interrogative that is not indefinite in itself."""
    spans = [match.span() for pattern in (_A_NOT_A, _WHETHER) for match in pattern.finditer(clause)]
    if not _ADVERBIAL.search(clause):
        spans += [(clause.index("还是", match.start()), match.end()) for match in _ALTERNATIVE.finditer(clause)]
    if _NEGATED_INDEFINITE.search(clause) or _ADVERB_MUCH.search(clause):
        return spans
    for match in _WH.finditer(clause):
        if match[0] != "几" or (_HOW_MANY.search(clause) and not _FEW.search(clause)):
            spans.append(match.span())
    return spans


def _is_reported(previous: str, clause: str, start: int, end: int) -> bool:
    """Return whether the interrogative at `start` is the object of finding out, or settled later in the clause.

    A clause that begins with its choice goes on with the clause before it: 检查一下，需不需要用药.
    """
    if any(match.start() < start for match in _FINDING_OUT.finditer(clause)) or _SETTLED.search(clause, end):
        return True
    return _CONTINUATION.match(clause) is not None and _FINDING_OUT.search(previous) is not None


_CONTINUATION = re.compile(rf"{_A_NOT_A.pattern}|是[^，]+还是|{_WHETHER.pattern}")
