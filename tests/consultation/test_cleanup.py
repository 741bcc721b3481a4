from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from bianque.consultation.cleanup import ReplyCleaner, process_response
from bianque.consultation.templates import SOULCHAT

SHARED = Path(__file__).resolve().parents[3] / "shared"
PROMPT = "病人：头痛\n医生：多久了？\n病人：头痛三天,有点恶心\n医生："


def stream(cleaner, raw):
    """Show `raw` character by character; return the final text after checking that nothing shown is taken back."""
    shown = ""
    for end in range(len(raw) + 1):
        text = cleaner.visible(raw[:end])
        assert text.startswith(shown), (raw[:end], shown, text)
        shown = text
    final = cleaner.visible(raw, finished=True)
    assert final.startswith(shown), (raw, shown, final)
    assert final == cleaner.clean(raw)
    return final


# The rules of ChatGLM-6B's process_response, one case each; the golden file beside the checkout has more.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("你好,世界", "你好，世界"),
        ("a,b", "a,b"),
        ("1,000元", "1,000元"),
        ("中,1", "中，1"),
        ("1,中", "1，中"),
        ("中,,中", "中，，中"),
        ("中,,,中", "中，,，中"),
        ("中?!中", "中？！中"),
        ("你好, 世界", "你好， 世界"),
        ("中文.英文", "中文.英文"),
        ("  两侧 \n", "两侧"),
        ("[[训练时间]]截止", "2023年截止"),
        ("结尾;", "结尾；"),
        ("𠮷,𠮷", "𠮷,𠮷"),
    ],
)
def test_process_response(text, expected):
    assert process_response(text) == expected


def test_process_response_equals_the_reference():
    path = SHARED / "golden" / "golden_chatglm.json"
    if not path.exists():
        pytest.skip("reference data is not beside this checkout")
    cases = json.loads(path.read_text(encoding="utf-8"))["process_response"]
    assert len(cases) == 24
    for case in cases:
        assert process_response(case["in"]) == case["out"]
        # As a reply it goes through the same rules, whole and streamed.
        assert (
            stream(ReplyCleaner("病人：x\n医生："), case["in"]) == case["out"].lstrip("，,:： ")
            or case["in"][0] == ","
        )


REPLIES = [
    ("多喝水。", "多喝水。"),
    ("  多喝水,休息。\n", "多喝水，休息。"),
    # echoes: whole, from the last turn, from anywhere in it, of the marker or its colon only
    (PROMPT + "多喝水。", "多喝水。"),
    ("病人：头痛三天,有点恶心\n医生： 多喝水。", "多喝水。"),
    ("病人：头痛三天，有点恶心\n医生：多喝水。", "多喝水。"),
    ("天，有点恶心\n医生： 多喝水。", "多喝水。"),
    ("。\n医生：多喝水。", "多喝水。"),
    ("医生：多喝水。", "多喝水。"),
    ("：多喝水。", "多喝水。"),
    (": 多喝水。", "多喝水。"),
    ("医生：医生：多喝水。", "多喝水。"),
    # no echoes, although they begin like one
    ("头痛三天说明不严重。", "头痛三天说明不严重。"),
    ("有点恶心不要紧。", "有点恶心不要紧。"),
    ("头痛", "头痛"),
    ("医生会给您检查。", "医生会给您检查。"),
    ("多久了？", "多久了？"),
    # the next turn
    ("多喝水。\n病人：好的\n医生：再见", "多喝水。"),
    ("多喝水。病人：好的", "多喝水。"),
    ("多喝水。\n病人:好的", "多喝水。"),
    ("多喝水 病人：好的", "多喝水"),
    ("多喝水。\n用户：好的", "多喝水。"),
    (PROMPT + "多喝水。\n病人：好的\n医生：再见", "多喝水。"),
    ("病人：谢谢\n医生：不客气", ""),
    ("多喝水,\n病人", "多喝水，\n病人"),
    # not the next turn
    ("对于病人：要多喝水。", "对于病人：要多喝水。"),
    ("病人需要休息：多睡。", "病人需要休息：多睡。"),
    # the model's own marker
    ("多喝水。\n医生：还要休息。", "多喝水。\n还要休息。"),
    # nothing
    ("", ""),
    (" \n", ""),
    ("医生：", ""),
    ("病人：头痛三天,有点恶心\n医生：", ""),
    # marks and placeholders whose form depends on the next token
    ("ok,好", "ok，好"),
    ("ok,ok", "ok,ok"),
    ("[[训练时间]],好", "2023年，好"),
    ("[[训练", "[[训练"),
    ("ok,病毒", "ok，病毒"),
]


@pytest.mark.parametrize(("raw", "expected"), REPLIES)
def test_reply_is_cleaned_and_streams_without_taking_back(raw, expected):
    assert stream(ReplyCleaner(PROMPT), raw) == expected


def test_any_text_streams_without_taking_back():
    generator = random.Random(7)
    pieces = [
        *"病人医生用户：:,!?\n 头痛三天恶心好a1\\",
        "病人：",
        "医生：",
        "[[训练时间]]",
        "训练",
        "\n\n",
        "心理咨询师",
        "。",
    ]
    for template in (None, SOULCHAT):
        cleaner = ReplyCleaner(PROMPT, template) if template else ReplyCleaner(PROMPT)
        for _ in range(1500):
            raw = "".join(generator.choices(pieces, k=generator.randint(1, 14)))
            assert stream(cleaner, raw) == cleaner.clean(raw)


def test_ordinary_reply_is_shown_as_it_grows():
    raw = "头痛可能与睡眠有关，建议早睡。"
    cleaner = ReplyCleaner(PROMPT)
    # After the characters that the prompt also has, nothing but a possible marker is held back.
    assert [cleaner.visible(raw[:end]) for end in range(3, len(raw))] == [raw[:end] for end in range(3, len(raw))]


def test_repeating_an_earlier_reply_is_not_held_back():
    assert ReplyCleaner(PROMPT).visible("多久") == "多久"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("多喝水。", False),
        ("多喝水。\n病人", False),
        ("多喝水。\n病人：", True),
        ("多喝水。\n病人:好", True),
        ("病人：头痛三天", False),
        (PROMPT, False),
        (PROMPT + "多喝水。", False),
        (PROMPT + "多喝水。\n病人：", True),
        ("病人：谢谢", True),
        ("对于病人：", False),
    ],
)
def test_is_turn_over(raw, expected):
    assert ReplyCleaner(PROMPT).is_turn_over(raw) is expected


def test_soulchat_reply_folds_newlines_and_strips_its_own_marker():
    cleaner = ReplyCleaner("用户：难过\n心理咨询师：", SOULCHAT)
    assert stream(cleaner, "心理咨询师：抱抱你。\n\n\n说说看？\n用户：好") == "抱抱你。\n说说看？"


def test_real_replies_lose_their_echo_and_nothing_else():
    path = SHARED / "samples" / "bianque2_real_replies.jsonl"
    if not path.exists():
        pytest.skip("sample data is not beside this checkout")
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    num_echoes = 0
    for record in records:
        raw = record["predict_answer"]
        cleaner = ReplyCleaner(f"病人：{record['question']}\n医生：")
        clean = stream(cleaner, raw)
        assert clean
        assert raw.endswith(clean)
        assert not cleaner.is_turn_over(raw)
        assert "医生：" not in clean
        assert not clean.startswith((":", "："))
        num_echoes += clean != raw
    assert (len(records), num_echoes) == (75, 34)
