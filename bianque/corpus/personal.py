"""Masks for what identifies a person: numbers, addresses of accounts, and names where they are announced.

| mask | what |
|---|---|
| [证件号] | 18-digit ID numbers whose birth date is possible, 15-digit ones |
| [电话] | mobile numbers with or without +86 and separators, landline numbers with area code |
| [邮箱] | e-mail addresses |
| [账号] | what follows QQ, 微信 or wx with at least five letters or digits |
| [编号] | what follows 住院号, 病历号, 就诊卡号, 门诊号, 身份证号 |
| [姓名] | after 我叫, 名叫, 姓名, 名字叫, 孩子叫 …: one of the common surnames and one or two characters |

A rule cannot know every name. What is not announced (邻居李大爷) stays, and so do a doctor's surname and title.
"""

from __future__ import annotations

import re

_ID_NUMBER = re.compile(
    r"(?<!\d)[1-9]\d{5}(?:(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx]"
    r"|\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3})(?!\d)"
)
_MOBILE = re.compile(r"(?<![\d.])(?:(?:\+|00)?86[-\s]?)?1[3-9]\d[-\s]?\d{4}[-\s]?\d{4}(?![\d])")
_LANDLINE = re.compile(r"(?<!\d)(?:\(0\d{2,3}\)|（0\d{2,3}）|0\d{2,3}[-－—])\s?[2-9]\d{6,7}(?!\d)")
_EMAIL = re.compile(r"[A-Za-z0-9][\w.+-]*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+", re.ASCII)
_ACCOUNT = re.compile(
    r"((?:QQ|微信|weixin|wx|vx)(?:号码?)?(?:是|为|[:：])?\s*)(?=[\w-]*\d)[A-Za-z0-9][\w-]{4,19}", re.ASCII | re.I
)
_RECORD = re.compile(
    r"((?:住院|病历|病案|就诊卡|门诊|身份证|社保卡|医保卡)(?:号码?|ID)(?:是|为)?[:：]?\s*)[A-Za-z]{0,3}\d{4,}(?!\d)"
)

_SURNAMES = (
    "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦尤许何吕施张孔曹严华金魏陶姜戚谢邹喻柏窦章苏潘葛范彭郎鲁韦马苗凤方俞任袁柳"
    "鲍史唐费廉岑薛雷贺倪汤滕殷罗毕郝邬安常乐于傅皮卞齐康伍余顾孟黄穆萧尹姚邵汪祁毛禹狄米贝臧戴宋庞熊纪舒屈项祝董梁杜"
    "阮蓝闵席季贾路娄江童颜郭梅盛林刁钟徐邱骆高夏蔡田樊胡凌霍虞万柯管卢莫房解应丁邓洪包左石崔吉龚程邢裴陆翁荀甄封储"
    "靳段焦侯宁甘武刘龙叶黎白蒲邰赖卓屠蒙乔谭姬申冉桑桂牛边温庄晏柴瞿阎慕连茹习艾容向古易戈廖耿匡文寇欧聂关游"
    "曾沙岳肖涂付闫代覃丘辛尚农植"
)
_COMPOUND = "欧阳|太史|上官|司马|诸葛|皇甫|尉迟|公孙|慕容|令狐|司徒|夏侯|东方|南宫"
_GIVEN = r"[\u4e00-\u9fff]"
NAME = rf"(?:(?:{_COMPOUND}){_GIVEN}{{1,2}}?|[{_SURNAMES}]{_GIVEN}{{1,2}}?)"
"""Pattern of a Chinese name: a common surname and one or two characters."""
# A name ends where it cannot go on: at a mark, a digit, the text's end, or a word that says something of the person.
_END = r"(?=[^\u4e00-\u9fff]|$|今年|现在|性别|年龄|男|女|是|今天|我|最近|因为|住|来自|，)"
_ANNOUNCED = re.compile(
    rf"((?:我|他|她|孩子|宝宝|女儿|儿子|患者|病人|名字)(?:的名字)?叫(?:做)?|名叫|(?:患者|病人|孩子|宝宝)?(?:姓名|名字)(?:是|为)?[:：]?\s*)(?!叫){NAME}{_END}"
)


def mask_personal(text: str) -> str:
    """Return `text` with everything that the table above names replaced by its mask."""
    text = _RECORD.sub(r"\1[编号]", text)
    text = _ID_NUMBER.sub("[证件号]", text)
    text = _MOBILE.sub("[电话]", text)
    text = _LANDLINE.sub("[电话]", text)
    text = _EMAIL.sub("[邮箱]", text)
    text = _ACCOUNT.sub(r"\1[账号]", text)
    return _ANNOUNCED.sub(r"\1[姓名]", text)
