"""Every export says when, with what and that it is AI-generated; JSON can be opened again; nothing acts as markup."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from bianque.consultation.messages import Author, Message, Mode, ReplyOptions, Role
from bianque.errors import InputError
from bianque.manager.registry import Job
from bianque.manager.status import ModelStatus
from bianque.texts import text
from bianque.ui.export import Record, read_export, to_json, to_markdown, to_paper, to_picture
from bianque.ui.history import Entry, Limits

HOSTILE = "头疼 <img src=x onerror=alert(1)> ![x](http://h/y.png)\n# 标题"
LIMITS = Limits()
COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = ModelStatus(
    Job.ASKER, "BianQue-1.0", "ready", device="cuda", precision="int8", revision=COMMIT, template="bianque"
)


def make_record(language="zh", **changes) -> Record:
    entries = [
        Entry(Message(Role.ASSISTANT, "您好", Author.GREETING), "扁鹊"),
        Entry(Message(Role.USER, HOSTILE)),
        Entry(Message(Role.ASSISTANT, "多久了？", Author.ASKER), "问 · mini-asker", "第 1 问"),
    ]
    fields = {
        "entries": entries,
        "options": ReplyOptions(Mode.JOINT, 0.7, 0.3, 256, 5, 3),
        "models": [MODEL],
        "summary": "【主诉】头疼",
        "time": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        "language": language,
    }
    return Record(**{**fields, **changes})


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("write", [to_markdown, to_json, to_paper, to_picture])
def test_every_export_has_its_duties(write, language):
    content = write(make_record(language))
    assert "2026-01-02" in content
    assert [words for words in ("BianQue-1.0", COMMIT, "int8", "cuda", "bianque") if words not in content] == []
    for name, value in (("top_p", "0.7"), ("temperature", "0.3"), ("seed", "5"), ("asking_limit", "3")):
        assert name in content and value in content
    for key in ("ai_label", "medical_notice"):
        assert text(key, language) in content
    assert "【主诉】头疼" in content and "多久了？" in content and "问 · mini-asker" in content


def test_the_revision_stands_beside_the_models_name():
    assert f"BianQue-1.0（版本 {COMMIT}，int8，cuda，提示模板 bianque）" in to_markdown(make_record())
    assert json.loads(to_json(make_record()))["models"] == [
        {"name": "BianQue-1.0", "revision": COMMIT, "precision": "int8", "device": "cuda", "template": "bianque"}
    ]
    assert "本地文件" in to_markdown(make_record(models=[replace(MODEL, revision="")]))


def test_the_picture_is_drawn_from_plain_text():
    drawn = json.loads(to_picture(make_record()))
    assert [one["text"] for one in drawn["messages"]] == ["您好", HOSTILE, "多久了？"]
    assert drawn["time"] == ["时间", "2026-01-02T03:04:00+00:00"] and drawn["rows"][0][0] == "模型"
    assert drawn["words"]["page"] == "第 {page} 页，共 {pages} 页"


def test_nothing_in_an_export_acts_as_markup():
    paper, markdown = to_paper(make_record()), to_markdown(make_record())
    assert "<img" not in paper and "&lt;img" in paper
    said = [line for line in markdown.splitlines() if "<img" in line or line.endswith("# 标题")]
    assert len(said) == 2 and all(line.startswith("    ") for line in said)


def test_an_exported_file_can_be_opened_again():
    record = make_record()
    opened = read_export(to_json(record), LIMITS)
    assert opened.entries == record.entries
    assert opened.parameters["mode"] == "joint" and opened.parameters["seed"] == 5
    assert (opened.summary, opened.models) == ("【主诉】头疼", ["BianQue-1.0"])


def changed(**changes) -> str:
    return json.dumps({**json.loads(to_json(make_record())), **changes}, ensure_ascii=False)


@pytest.mark.parametrize("content", ["x" * 2_400_001, "痛" * 800_001, 2_400_001])
def test_a_file_that_is_too_large_is_named_with_its_size(content):
    with pytest.raises(InputError) as caught:
        read_export(content, LIMITS)
    assert caught.value.key == "export_too_large"
    assert "2 MB" in caught.value.text("zh") and "2.5 MB" in caught.value.text("en")


@pytest.mark.parametrize("forged", [5, None, ["x"], {"name": "x"}, [{"name": 5}, "x", None]])
def test_what_is_forged_beside_the_conversation_is_left_out(forged):
    opened = read_export(changed(summary=forged, models=forged), LIMITS)
    assert (opened.summary, opened.models) == ("", [])


@pytest.mark.parametrize(
    "content",
    [
        10**400,
        None,
        5,
        "too large",
        "{}",
        "[1]",
        "[" * 100_000,
        changed(format="other"),
        changed(version=2),
        changed(messages="x"),
        changed(parameters=None),
        "x" * 2_000_001,
        changed(messages=[{"role": "system", "content": "x"}]),
        changed(messages=[{"role": "user", "content": "痛" * 2001}]),
        changed(messages=[{"role": "user", "content": "痛"}] * 202),
    ],
)
def test_a_forged_file_is_refused(content):
    with pytest.raises(InputError):
        read_export(content, LIMITS)
