"""Every export says when, with what and that it is AI-generated; JSON can be opened again; nothing acts as markup."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from bianque.consultation.messages import Author, Message, Mode, ReplyOptions, Role
from bianque.errors import InputError
from bianque.texts import text
from bianque.ui.export import Record, read_export, to_json, to_markdown, to_paper
from bianque.ui.history import Entry, Limits

HOSTILE = "头疼 <img src=x onerror=alert(1)> ![x](http://h/y.png)\n# 标题"
LIMITS = Limits()


def make_record(language="zh", **changes) -> Record:
    entries = [
        Entry(Message(Role.ASSISTANT, "您好", Author.GREETING), "扁鹊"),
        Entry(Message(Role.USER, HOSTILE)),
        Entry(Message(Role.ASSISTANT, "多久了？", Author.ASKER), "问 · mini-asker", "第 1 问"),
    ]
    fields = {
        "entries": entries,
        "options": ReplyOptions(Mode.JOINT, 0.7, 0.3, 256, 5, 3),
        "models": ["mini-asker fp32 cpu"],
        "summary": "【主诉】头疼",
        "time": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        "language": language,
    }
    return Record(**{**fields, **changes})


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("write", [to_markdown, to_json, to_paper])
def test_every_export_has_its_duties(write, language):
    content = write(make_record(language))
    assert "2026-01-02" in content and "mini-asker fp32 cpu" in content
    for name, value in (("top_p", "0.7"), ("temperature", "0.3"), ("seed", "5"), ("asking_limit", "3")):
        assert name in content and value in content
    for key in ("ai_label", "medical_notice"):
        assert text(key, language) in content
    assert "【主诉】头疼" in content and "多久了？" in content and "问 · mini-asker" in content


def test_nothing_in_an_export_acts_as_markup():
    paper, markdown = to_paper(make_record()), to_markdown(make_record())
    assert "<img" not in paper and "&lt;img" in paper
    said = [line for line in markdown.splitlines() if "<img" in line or line.endswith("# 标题")]
    assert len(said) == 2 and all(line.startswith("    ") for line in said)


def test_an_exported_file_can_be_opened_again():
    record = make_record()
    entries, parameters = read_export(to_json(record), LIMITS)
    assert entries == record.entries
    assert parameters["mode"] == "joint" and parameters["seed"] == 5


def changed(**changes) -> str:
    return json.dumps({**json.loads(to_json(make_record())), **changes}, ensure_ascii=False)


@pytest.mark.parametrize(
    "content",
    [
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
        changed(messages=[{"role": "user", "content": "痛"}] * 201),
    ],
)
def test_a_forged_file_is_refused(content):
    with pytest.raises(InputError):
        read_export(content, LIMITS)
