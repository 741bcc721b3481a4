"""Red flags on labelled sentences written for this project, and the guards one by one.

Every sentence is now known to the rules, so the test below guards against loss and says nothing about new wordings.
What does is how each set fared at first sight, before the rules were corrected by it (up to round2 these were lists of
phrases, from round3 on concepts):

    set                                 signs found      false alarms
    dev (written before any rule)       -                -
    heldout                             8 of 42          3 of 34
    fresh                               21 of 22         2 of 18
    round2 (unusual wordings)           30 of 73         4 of 56
    round3 (unusual wordings)           32 of 64         2 of 50
    round4 (rarer emergencies)          24 of 68         3 of 46
    round5 (as patients mostly write)   51 of 53         1 of 50
    round6 (made to slip through)       169 of 199       12 of 166
    round7 (written without the rules)  58 of 77         3 of 65
    round8 (around round7's misses)     12 of 49         7 of 75

So common wordings are mostly found, and of unusual ones about half is not: the notice on the page is for those. Of
round8, the signs of the kind `again` came after the rules had been corrected; these found 15 of the 18.
"""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest
import yaml

from bianque.consultation.messages import Message, Role
from bianque.consultation.red_flags import Emergency, find_emergency, find_in_text

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "red_flags.tsv"
KNOWLEDGE = Path(__file__).resolve().parents[2] / "bianque" / "minis" / "knowledge"
SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples"


def read_rows():
    with FIXTURE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def kind_of(sentence: str) -> str:
    found = find_in_text(sentence)
    return "none" if found is None else "medical" if found is Emergency.MEDICAL else "crisis"


def test_labelled_sentences():
    rows = read_rows()
    assert len(rows) >= 180 and len({row["sentence"] for row in rows}) == len(rows)
    for name in dict.fromkeys(row["set"] for row in rows):
        part = [row for row in rows if row["set"] == name]
        misses = [row["sentence"] for row in part if row["label"] != "none" and kind_of(row["sentence"]) == "none"]
        alarms = [row["sentence"] for row in part if row["label"] == "none" and kind_of(row["sentence"]) != "none"]
        print(f"{name}: {len(part)} sentences, {len(misses)} misses {misses}, {len(alarms)} false alarms {alarms}")
    for label in ("crisis", "medical"):
        signs = [row for row in rows if row["label"] == label]
        found = sum(kind_of(row["sentence"]) == label for row in signs)
        assert found >= 0.97 * len(signs), label
    harmless = [row for row in rows if row["label"] == "none"]
    assert sum(kind_of(row["sentence"]) != "none" for row in harmless) <= 0.03 * len(harmless)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("没有抽搐", None),
        ("孩子抽搐了", Emergency.MEDICAL),
        ("以前昏迷过", None),
        ("昏迷了", Emergency.MEDICAL),
        ("怎么预防煤气中毒", None),
        ("煤气中毒了怎么办", Emergency.MEDICAL),
        ("癫痫发作的时候口吐白沫，吃什么药好", None),
        ("癫痫发作十分钟了，还在口吐白沫", Emergency.MEDICAL),
        ("我不想死", None),
        ("怎样才能结束这一切", Emergency.CRISIS),
        ("我朋友说他想自杀", Emergency.OTHER_PERSON),
        ("我老公不理我，我不想活了", Emergency.CRISIS),
        ("累死了", None),
        ("有没有不痛苦的死法", Emergency.CRISIS),
        ("我没有自杀的想法", None),
        ("从没有过的剧烈头痛，还吐了", Emergency.MEDICAL),
        ("没有头痛，没有意识障碍", None),
        ("孩子发烧抽搐住院了，要注意什么", None),
        ("如果突然昏迷了怎么办", None),
        ("我儿子抑郁，昨晚爬上阳台说要跳", Emergency.OTHER_PERSON),
        ("我孩子刚才跟我说，不想活了", Emergency.OTHER_PERSON),
        ("手术失败了，我不想活了", Emergency.CRISIS),
        ("我的狗死了，我想跟它一起死", Emergency.CRISIS),
        ("每天起床都困难，不想活了", Emergency.CRISIS),
        ("我的狗死了，我很难过", None),
        ("闹钟响了也不想醒", None),
        ("没有发烧但是喘不上气", Emergency.MEDICAL),
        ("医生问我有没有自杀念头，我说没有", None),
        ("我爸心梗犯了", Emergency.MEDICAL),
        ("我爸心梗支架术后两年，吃什么药", None),
        ("宝宝心率150正常吗，不喘", None),
        ("坐公交到终点就晕车", None),
        ("胸口有点疼。按着疼", None),
        ("胸口疼。一直出冷汗", Emergency.MEDICAL),
        # What is left of an illness takes nothing from its return; a check of it is none.
        ("以前放过支架，今天心梗又犯了", Emergency.MEDICAL),
        ("心梗放过支架，今天复查心梗指标正常", None),
        ("怕心梗又犯，平时该注意什么", None),
        # Weariness of an illness is no crisis, with a second concept it is.
        ("什么时候是头啊，好累", None),
        ("好累，看不到希望", None),
        ("好累，撑不下去了", Emergency.CRISIS),
        ("好累，什么时候是头，我是家里的累赘", Emergency.CRISIS),
        # To go away from suffering, unless it is said from where or where to.
        ("太痛苦了我想走了", Emergency.CRISIS),
        ("工作太痛苦了，我想走了", None),
        ("太痛苦了，我想走了。换家公司", None),
        ("太痛苦了，但我不想走", None),
        ("我室友说太痛苦了，想走了", Emergency.OTHER_PERSON),
        ("老公喝了酒，拿着农药瓶说要喝下去", Emergency.OTHER_PERSON),
        ("什么是过敏性休克", None),
        ("活着太累了，为什么是我", Emergency.CRISIS),
        ("", None),
    ],
)
def test_negation_past_topic_and_person(text, expected):
    assert find_in_text(text) == expected


def test_every_patient_message_counts_and_the_newest_sign_decides():
    def conversation(*texts):
        roles = (Role.USER, Role.ASSISTANT)
        return [Message(roles[index % 2], text) for index, text in enumerate(texts)]

    assert find_emergency(conversation("咳嗽", "有没有胸痛，呼吸困难？", "没有")) is None
    assert find_emergency(conversation("我不想活了", "您多久了？", "三天")) is Emergency.CRISIS
    assert find_emergency(conversation("我不想活了", "您在哪里？", "我吐血了，大口吐血")) is Emergency.MEDICAL
    assert find_emergency([]) is None


def test_a_crisis_goes_before_a_medical_sign():
    assert find_in_text("我割腕了，血止不住") is Emergency.CRISIS


def test_long_input_is_quick():
    # A pattern that backtracks badly takes minutes for these; the slowest takes 0.4 s on one slow core.
    start = time.monotonic()
    pieces = ("胸口", "头痛，", "我想", "血", "药吃喝", "孩子发烧", " a", "没有")
    for piece in (*pieces, "好痛苦，我", "攒安定", "好累，", "我不想死，"):
        find_in_text(piece * 5000)
    assert time.monotonic() - start < 5


def test_ordinary_complaints_do_not_alarm():
    says = []
    for path in sorted(KNOWLEDGE.glob("[a-z]*.yaml")):
        for complaint in yaml.safe_load(path.read_text(encoding="utf-8"))["complaints"]:
            says += complaint["openings"]
            says += [answer for ask in complaint["asks"] for answer in ask["answers"]]
    alarms = [sentence for sentence in says if find_in_text(sentence)]
    print(f"{len(alarms)} alarms in {len(says)} ordinary openings and answers: {alarms}")
    assert len(says) > 3000
    # Some complaints come near a red flag (blood in the sputum), so not quite none.
    assert len(alarms) <= 0.005 * len(says)


def test_real_first_messages_seldom_alarm():
    path = SAMPLES / "toyhom_internal_medicine.gb18030.csv"
    if not path.exists():
        pytest.skip("sample data is not beside this checkout")
    with path.open(encoding="gb18030", newline="") as file:
        texts = [row["title"] + "。" + row["ask"] for row in csv.DictReader(file)]
    alarms = sum(find_in_text(text) is not None for text in texts)
    print(f"{alarms} alarms in {len(texts)} first messages of an internal-medicine set")
    assert alarms <= 0.03 * len(texts)
