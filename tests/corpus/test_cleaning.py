"""Each cleaning step does its one thing, can be left out, and counts."""

from __future__ import annotations

import pytest

from bianque.consultation.messages import Message, Role
from bianque.corpus.cleaning import STEPS, Cleaner
from bianque.corpus.personal import mask_personal
from bianque.corpus.records import Dialogue, samples_of


def talk(*lines: str) -> list[Message]:
    """Return messages from lines that begin with P (patient) or D (doctor)."""
    roles = {"P": Role.USER, "D": Role.ASSISTANT}
    return [Message(roles[line[0]], line[2:]) for line in lines]


CASES = {
    "characters": (
        ["P 头痛&nbsp;&lt;38度<br/>吃了药\u200b\ufffd", "D  多  喝水 \n\n\n 休息\u3000"],
        ["P 头痛 <38度\n吃了药", "D 多 喝水\n休息"],
    ),
    "placeholders": (
        ["P 图片因隐私问题无法显示", "P 您看[图片]红不红", "D 冷热刺激痛吗？\n张一一医生", "P 谢谢医生"],
        ["P ", "P 您看红不红", "D 冷热刺激痛吗？", "P 谢谢医生"],
    ),
    "empty": (["P 无", "P ……", "P 无名指麻", "D 暂无。", "D 好"], ["P 无名指麻", "D 好"]),
    "repeated_reports": (
        ["P 咳嗽三天，有痰。", "D 发烧吗？", "P 咳嗽三天 有痰", "P 三天", "D 咳嗽三天有痰"],
        ["P 咳嗽三天，有痰。", "D 发烧吗？", "P 三天", "D 咳嗽三天有痰"],
    ),
    "cut_words": (
        ["P 早上起床的时候腰部感", "P 觉很僵", "D 太阳穴这几个位置热", "D 水银体温计量", "P 有", "P 感觉"],
        ["P 早上起床的时候腰部感觉很僵", "D 太阳穴这几个位置热", "D 水银体温计量", "P 有", "P 感觉"],
    ),
    "merge": (["P 咳嗽", "P 有痰", "D 多久了？", "P 三天"], ["P 咳嗽\n有痰", "D 多久了？", "P 三天"]),
    "order": (["D 您好", "P 咳嗽", "D 多久了？", "P 三天"], ["P 咳嗽", "D 多久了？"]),
    "personal": (["P 我叫李小明，电话13800000000", "D 好"], ["P 我叫[姓名]，电话[电话]", "D 好"]),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_does_its_one_thing(name):
    before, after = CASES[name]
    assert list(STEPS[name](talk(*before))) == talk(*after)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_can_be_left_out_and_counts_what_it_does(name):
    dialogue = Dialogue("user", "1", tuple(talk(*CASES[name][0])))
    others = set(STEPS) - {name}
    alone = Cleaner(others)
    cleaned = alone.clean(dialogue)
    assert cleaned is not None and list(cleaned.messages) == talk(*CASES[name][1])
    count = alone.counts[name]
    assert (count.seen, count.changed, count.dropped) == (1, 1, 0)
    assert count.messages == len(CASES[name][0]) - len(CASES[name][1])
    untouched = Cleaner(STEPS).clean(dialogue)
    assert untouched == dialogue


def test_what_is_clean_stays_and_counts_as_unchanged():
    cleaner = Cleaner()
    dialogue = Dialogue(
        "user", "1", tuple(talk("P 咳嗽三天了。", "D 有没有发烧？", "P 没有。", "D 多喝水，注意休息。"))
    )
    assert cleaner.clean(dialogue) == dialogue
    assert all(count.seen == 1 and not count.changed for count in cleaner.counts.values())


def test_less_than_half_of_the_report_may_be_an_answer():
    report, part = "P 咳嗽三天有痰，夜里睡不好，也没有食欲。", "P 夜里睡不好也没"
    kept = talk(report, "D 现在呢？", part)
    assert list(STEPS["repeated_reports"](kept)) == kept
    assert len(list(STEPS["repeated_reports"](talk(report, "D 现在呢？", part + "有食欲")))) == 2


def test_a_short_message_was_not_cut():
    whole = talk("P 有点感", "P 冒已经好了", "D 多喝水")
    assert list(STEPS["cut_words"](whole)) == whole
    assert len(STEPS["cut_words"](talk("P 上个星期我有点感", "P 冒已经好了", "D 多喝水"))) == 2


@pytest.mark.parametrize("lines", [["P 在吗", "P 咳嗽"], ["D 您好", "D 在吗"], ["P 无", "D 多喝水"]])
def test_a_dialogue_in_which_one_alone_speaks_is_dropped(lines):
    cleaner = Cleaner()
    assert cleaner.clean(Dialogue("user", "1", tuple(talk(*lines)))) is None
    assert cleaner.counts["order"].dropped == 1 and cleaner.counts["personal"].seen == 0


MASKED = {
    "身份证号110101199003078515。": "身份证号[编号]。",
    "证件 11010119900307851X 请查": "证件 [证件号] 请查",
    "我的手机是138-0000-0000": "我的手机是[电话]",
    "打+8613800000000或010-88886666": "打[电话]或[电话]",
    "邮箱a.b@example.com，微信：abc_12345": "邮箱[邮箱]，微信：[账号]",
    "住院号：A0012345": "住院号：[编号]",
    "我叫欧阳小明": "我叫[姓名]",
    "患者姓名：王芳 女": "患者姓名：[姓名] 女",
    "孩子叫李乐今年三岁": "孩子叫[姓名]今年三岁",
}
KEPT = [
    "我叫救护车去了医院",
    "我叫他别吃辣",
    "血压138，体重110，1990年发病",
    "白细胞13800000000000个",
    "单号913800000000",
    "系数0.13800000000",
    "化验单编号里有2023年11月",
    "微信发给您",
    "姓名不方便说",
    "名字叫什么药",
    "王医生您好",
]


@pytest.mark.parametrize("text", MASKED)
def test_what_identifies_a_person_is_masked(text):
    assert mask_personal(text) == MASKED[text]


@pytest.mark.parametrize("text", KEPT)
def test_what_identifies_nobody_stays(text):
    assert mask_personal(text) == text


def test_samples_end_with_the_patient_and_ask_for_the_next_reply():
    dialogue = Dialogue("user", "7", tuple(talk("P 咳嗽", "P 有痰", "D 发烧吗？", "P 没有", "D 多喝水。", "P 谢谢")))
    first, second = (sample.to_json() for sample in samples_of(dialogue))
    assert first == {
        "source": "user",
        "dialogue_id": "7",
        "turn": 1,
        "input": "病人：咳嗽\n有痰\n医生：",
        "target": "发烧吗？",
        "is_question": True,
    }
    assert second["input"] == "病人：咳嗽\n有痰\n医生：发烧吗？\n病人：没有\n医生："
    assert (second["turn"], second["target"], second["is_question"]) == (2, "多喝水。", False)
