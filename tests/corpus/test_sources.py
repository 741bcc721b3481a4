"""Every published format becomes the dialogues it holds; what cannot be read is named and nothing else is lost."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest

from bianque.corpus.files import SourceFile
from bianque.corpus.json_stream import Located, read_json
from bianque.corpus.records import Dialogue, Problem
from bianque.corpus.sources.reading import SOURCES, read_source
from bianque.errors import DataError

FIXTURES = Path(__file__).parent.parent / "fixtures" / "corpus"


def read(source: str, path: Path) -> tuple[list[Dialogue], list[Problem]]:
    items = list(read_source(source, path))
    return [item for item in items if isinstance(item, Dialogue)], [
        item for item in items if isinstance(item, Problem)
    ]


def said(dialogue: Dialogue) -> list[str]:
    """Return the messages with P before the patient's and D before the doctor's."""
    return [("P " if message.role == "user" else "D ") + message.text for message in dialogue.messages]


CASES = {
    ("meddialog_cn", "meddialog_train_data.json"): (
        [
            [
                "P 膝盖上下楼梯时酸痛，已经两个月。",
                "D 平地走路痛吗？有没有肿？",
                "P 平地不痛，没有肿。",
                "D 建议先少爬楼梯，做一个膝关节磁共振。",
            ],
            ["P 孩子换牙慢，需要补钙吗？", "D 先拍片看看恒牙胚。"],
        ],
        [],
    ),
    ("meddialog_cn", "meddialog_2011.txt"): (
        [
            [
                "P 牙龈出血\n刷牙时出血三周，不痛。\n需要洗牙吗？",
                "D 平时抽烟吗？",
                "P 不抽烟。",
                "D 可以先洗牙，\n再看是否还出血。",
            ]
        ],
        [(23, "no Dialogue section")],
    ),
    ("meddialog_cn", "meddialog_hub.jsonl"): (
        [["P 耳朵进水后闷闷的。", "D 有没有流脓？"]],
        [(2, "an unknown speaker")],
    ),
    ("imcs_v2", "imcs_train.json"): (
        [
            ["P 孩子流清鼻涕两天，夜里鼻子不通。", "D 您好", "D 发烧吗？", "P 不发烧", "D 可以用生理盐水洗鼻。"],
            ["P 脸上红疹。", "D 痒吗？"],
        ],
        [(13, "a line without speaker and sentence")],
    ),
    ("imcs_v2", "imcs_dx.txt"): (
        [["P 宝宝拉肚子，一天五次。", "D 宝宝有发烧吗?", "P 没有", "D 可能是小儿腹泻, 请去医院检查."]],
        [(1, "not a whole Python literal of self_repo and dialog")],
    ),
    ("imcs_v2", "promptcblue.jsonl"): (
        [["P 孩子呕吐两次", "D 吃了什么？", "P 凉面"]],
        [(1, "belongs to MedDG"), (2, "belongs to CHIP-MDCFNPC"), (4, "no dialogue in this instruction")],
    ),
    ("chip_mdcfnpc", "chip.jsonl"): (
        [
            [
                "P 嗓子痛三天了",
                "D 你好！吞咽口水的时候喉咙疼得厉",
                "D 害吗？",
                "P 图片因隐私问题无法显示",
                "P 厉害",
                "D 先查一个血常规",
            ]
        ],
        [(2, "not JSON"), (3, "no dialog_info")],
    ),
    ("chip_mdcfnpc", "promptcblue.jsonl"): (
        [["P 牙痛", "D 冷热刺激痛吗？\n张一一医生", "P 遇冷就痛"]],
        [(1, "belongs to MedDG"), (3, "belongs to IMCS-V2-MRG"), (4, "belongs to IMCS-V2-NER")],
    ),
    ("meddg", "meddg_train.json"): (
        [["P 饭后胃胀一周（女，30岁）", "D 有反酸吗？", "P 有一点", "D 少吃甜食，饭后散步。"]],
        [(8, "an utterance without its speaker")],
    ),
    ("meddg", "meddg_test.json"): (
        [["P 肚子痛", "D 哪个位置？", "P 肚脐周围", "D 大便正常吗？"], ["P 打嗝", "D 多久了？"]],
        [],
    ),
    ("meddg", "promptcblue.jsonl"): (
        [["P 烧心半个月\n躺下更重（男，40岁）", "D 喝酒吗？", "P 偶尔喝。", "D 先戒酒，睡前三小时不吃东西。"]],
        [(2, "belongs to CHIP-MDCFNPC"), (3, "belongs to IMCS-V2-MRG"), (4, "belongs to IMCS-V2-NER")],
    ),
    ("cmedqa2", "cmedqa2"): (
        [
            ["P 睡觉时小腿抽筋，是缺钙吗？", "D 也可能是受凉，先注意保暖。"],
            ["P 睡觉时小腿抽筋，是缺钙吗？", "D 可以查一下血钙，\n再决定是否补充。"],
        ],
        [(5, "its question is not there")],
    ),
    ("toyhom", "toyhom.csv"): (
        [
            ["P 每年春天手掌脱皮，不痒。", "D 注意保湿，少用肥皂,多涂护手霜。"],
            ["P 头皮屑多是什么原因？", "D 可能是脂溢性皮炎。"],
            ["P 家里人有脚气，\n拖鞋混穿。", "D 会的，拖鞋要分开。"],
        ],
        [(4, "not a row of the header's columns"), (5, "not a row of the header's columns")],
    ),
    ("toyhom", "toyhom.txt"): (
        [["P 看电脑久了眼睛干涩。", "D 每半小时休息一次。"]],
        [(1, "the header"), (9, "not a block of title,ask and answer")],
    ),
    ("user", "user.csv"): (
        [
            ["P 头皮发痒", "D 有头屑吗？", "P 有", "D 用温水洗头。"],
            ["P 无", "D 多喝水。"],
            ["P 没有写是谁说的", "D 好的。"],
        ],
        [(5, "an empty input or target")],
    ),
    ("cmtmedqa", "cmtmedqa.json"): ([["P 痘痘反复长。", "D 作息规律吗？", "P 要忌口吗？", "D 少吃辛辣。"]], []),
}


@pytest.mark.parametrize(("source", "name"), CASES, ids=lambda value: str(value))
def test_a_published_format_is_read(source, name):
    dialogues, problems = read(source, FIXTURES / name)
    expected, expected_problems = CASES[source, name]
    assert [said(dialogue) for dialogue in dialogues] == expected
    assert [(problem.line, problem.reason) for problem in problems] == expected_problems
    assert all(dialogue.source == source for dialogue in dialogues)
    assert len({dialogue.id for dialogue in dialogues}) == len(dialogues)


def test_every_source_has_a_case():
    assert {source for source, _ in CASES} == set(SOURCES)


def test_gb18030_and_utf16_are_read_as_utf8_is(tmp_path):
    text = (FIXTURES / "toyhom.csv").read_text("utf-8")
    expected = [said(dialogue) for dialogue in read("toyhom", FIXTURES / "toyhom.csv")[0]]
    for encoding in ("gb18030", "utf-16", "utf-8-sig"):
        path = tmp_path / f"{encoding}.csv"
        path.write_bytes(text.encode(encoding))
        assert [said(dialogue) for dialogue in read("toyhom", path)[0]] == expected


def test_half_width_colons_and_written_out_newlines_are_read(tmp_path):
    path = tmp_path / "user.csv"
    path.write_text("input,target\n病人:咳嗽\\n医生:多久了？\\n病人:三天\\n医生:,多喝水\\n休息\n", "utf-8")
    (dialogue,), problems = read("user", path)
    assert said(dialogue) == ["P 咳嗽", "D 多久了？", "P 三天", "D 多喝水\n休息"] and not problems


def test_prompts_of_soulchat_are_read(tmp_path):
    file = tmp_path / "my.csv"
    file.write_text('input,target\n"用户：难过\n心理咨询师：怎么了？\n用户：失恋\n心理咨询师：",抱抱你\n', "utf-8")
    (dialogue,) = read_source("user", file)
    assert [(message.role.value, message.text) for message in dialogue.messages] == [
        ("user", "难过"),
        ("assistant", "怎么了？"),
        ("user", "失恋"),
        ("assistant", "抱抱你"),
    ]


def test_undecodable_bytes_cost_one_record(tmp_path):
    lines = (FIXTURES / "toyhom.csv").read_text("utf-8").splitlines()[:3]
    data = "\n".join(lines).encode("gb18030").replace("手掌".encode("gb18030"), b"\xff\xff")
    path = tmp_path / "damaged.csv"
    path.write_bytes(data)
    dialogues, problems = read("toyhom", path)
    assert [said(dialogue)[0] for dialogue in dialogues] == ["P 头皮屑多是什么原因？"]
    assert [(problem.line, problem.reason) for problem in problems] == [(2, "bytes that its encoding does not know")]


def test_a_zip_is_read_member_by_member_and_a_damaged_member_alone_is_lost(tmp_path):
    archive = tmp_path / "meddg.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        file.write(FIXTURES / "meddg_test.json", "data/a.json")
        file.write(FIXTURES / "meddg_train.json", "data/b.json")
        file.writestr("__MACOSX/data/a.json", "junk")
        file.writestr("data/readme.md", "junk")
    data = bytearray(archive.read_bytes())
    data[data.index("肚子痛".encode()) + 1] ^= 1  # the member's check sum no longer fits
    archive.write_bytes(data)
    dialogues, problems = read("meddg", archive)
    assert any(said(dialogue)[0] == "P 饭后胃胀一周（女，30岁）" for dialogue in dialogues)
    assert any("damaged" in problem.reason and problem.file.endswith("a.json") for problem in problems)


def test_pickles_of_plain_values_are_read_and_others_refused(tmp_path):
    plain = [{"history": ["肚子痛", "哪里痛？", "左边"], "next_sym": [], "response": "发烧吗？", "id": 4}]
    (tmp_path / "train.pk").write_bytes(pickle.dumps(plain))
    (tmp_path / "evil.pk").write_bytes(pickle.dumps(os.getcwd))
    dialogues, problems = read("meddg", tmp_path)
    assert [said(dialogue) for dialogue in dialogues] == [["P 肚子痛", "D 哪里痛？", "P 左边", "D 发烧吗？"]]
    assert [(Path(problem.file).name, problem.reason) for problem in problems] == [
        ("evil.pk", "not a pickle of plain values (UnpicklingError)")
    ]


@pytest.mark.parametrize("indent", [None, 1], ids=["one line", "many lines"])
@pytest.mark.parametrize("damage", ["missing quote", "missing bracket", "stray word"])
def test_a_damaged_element_of_a_big_array_costs_itself_alone(tmp_path, monkeypatch, indent, damage):
    monkeypatch.setattr("bianque.corpus.json_stream.CHUNK_CHARS", 64)  # records straddle the window
    records = [[f"病人：第{number}个问题{'啊' * 30}", f"医生：第{number}个回答"] for number in range(9)]
    text = json.dumps(records, ensure_ascii=False, indent=indent)
    broken = {
        "missing quote": text.replace('第4个回答"', "第4个回答"),
        "missing bracket": text.replace('第4个回答"]', '第4个回答"').replace('第4个回答"\n ]', '第4个回答"\n '),
        "stray word": text.replace('"医生：第4个回答"', '"医生：第4个回答" None'),
    }[damage]
    assert broken != text
    path = tmp_path / "train_data.json"
    path.write_text(broken, "utf-8")
    dialogues, problems = read("meddialog_cn", path)
    kept = [dialogue.messages[0].text[:2] for dialogue in dialogues]
    assert kept == [f"第{number}" for number in range(9) if number != 4]
    line = 1 + broken[: broken.index("第4")].count("\n") - (1 if indent else 0)
    assert [(problem.line, problem.reason) for problem in problems] == [(line, "not JSON")]


def test_a_part_of_a_damaged_record_is_not_taken_for_a_record(tmp_path):
    path = tmp_path / "imcs.json"
    text = (FIXTURES / "imcs_train.json").read_text("utf-8")
    path.write_text(text.replace('"不发烧"', '"不发烧'), "utf-8")  # "report": [] follows in the same record
    dialogues, problems = read("imcs_v2", path)
    assert [dialogue.id for dialogue in dialogues] == ["900003"]
    assert [problem.reason for problem in problems] == ["not JSON", "a line without speaker and sentence"]


def test_a_file_that_ends_early_keeps_what_is_whole(tmp_path):
    path = tmp_path / "train_data.json"
    text = (FIXTURES / "meddialog_train_data.json").read_text("utf-8")
    path.write_text(text[: text.index("先拍片")], "utf-8")
    dialogues, problems = read("meddialog_cn", path)
    assert len(dialogues) == 1 and problems[0].line == 8


def test_no_more_than_a_window_of_a_big_file_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr("bianque.corpus.json_stream.CHUNK_CHARS", 1000)
    path = tmp_path / "big.json"
    path.write_text(json.dumps([["病人：痛", "医生：哪里"]] * 20_000, ensure_ascii=False), "utf-8")
    taken = 0

    class Counting(SourceFile):
        def open_text(self):
            return counted(super().open_text())

    from contextlib import contextmanager

    @contextmanager
    def counted(opened):
        with opened as stream:
            read_chars = stream.read

            def read(size):
                nonlocal taken
                text = read_chars(size)
                taken += len(text)
                return text

            stream.read = read
            yield stream

    for number, record in enumerate(read_json(Counting(path), lambda value: True), start=1):
        assert isinstance(record, Located)
        assert taken - number * len('["病人：痛", "医生：哪里"]') < 5000 + number * 2
    assert number == 20_000


ERRORS = {
    "corpus_columns_missing": ("user", "toyhom.csv"),
    "corpus_nothing_readable": ("meddg", "imcs_train.json"),
    "corpus_source_unknown": ("webmd", "user.csv"),
    "corpus_file_missing": ("user", "absent.csv"),
}


@pytest.mark.parametrize("key", ERRORS)
def test_a_wrong_set_is_named(key):
    source, name = ERRORS[key]
    with pytest.raises(DataError) as raised:
        list(read_source(source, FIXTURES / name))
    assert raised.value.key == key


def test_files_that_cannot_be_a_set_are_refused(tmp_path):
    binary = tmp_path / "table.csv"
    binary.write_bytes(b"PK\0\0\0" * 10)
    no_archive = tmp_path / "table.zip"
    no_archive.write_bytes(b"nothing")
    empty = tmp_path / "empty"
    empty.mkdir()
    questions = tmp_path / "questions"
    questions.mkdir()
    shutil.copy(FIXTURES / "cmedqa2" / "question.csv", questions)
    for source, path, key in (
        ("user", binary, "corpus_file_not_text"),
        ("user", no_archive, "corpus_archive_damaged"),
        ("user", empty, "corpus_nothing_to_read"),
        ("cmedqa2", questions, "corpus_part_missing"),
    ):
        with pytest.raises(DataError) as raised:
            list(read_source(source, path))
        assert raised.value.key == key


def test_problems_never_say_what_the_patient_wrote(tmp_path):
    path = tmp_path / "chip.jsonl"
    path.write_text((FIXTURES / "chip.jsonl").read_text("utf-8"), "utf-8")
    for problem in read("chip_mdcfnpc", path)[1]:
        assert not any("\u4e00" <= character <= "\u9fff" for character in problem.reason)
