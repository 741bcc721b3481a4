"""Conversations from links, from the browser's storage and from files, as handlers."""

from __future__ import annotations

import json
from types import SimpleNamespace

import gradio as gr
import pytest

from bianque.texts import text
from bianque.ui.handlers import Handlers
from bianque.ui.history import Limits
from bianque.ui.sharing import JSON, MARKDOWN, PAPER, PICTURE, Sharing
from tests.ui.fake_service import QUESTION, FakeService
from tests.ui.test_handlers import OPTIONS, conversation, is_skip, said

LIMITS = Limits()


def request(language: str = "zh-CN", **query: str) -> SimpleNamespace:
    return SimpleNamespace(headers={"accept-language": language}, query_params=query, session_hash="visitor")


@pytest.fixture
def sharing():
    return Sharing(FakeService(), LIMITS)


@pytest.fixture
def shown(monkeypatch):
    notices: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda message, **_: notices.append(message))
    return notices


def kept(*texts: str, pending: bool = False, mode: str = "joint") -> dict:
    """A conversation as the page's script stores it."""
    return {"id": "a", "mode": mode, "isPending": pending, "messages": conversation(*texts)}


def test_an_empty_address_changes_nothing(sharing):
    assert all(value is None or is_skip(value) for value in sharing.arrive(request(), None))


def test_a_link_sets_the_page(sharing):
    query = {"mode": "soulchat", "seed": "7", "asking_limit": "2", "top_p": "0.5"}
    chat, *_, top_p, temperature, longest, mode, seed, greedy, limit = sharing.arrive(request(**query), None)
    assert (mode, seed, greedy, limit) == ("soulchat", "7", False, 2)
    assert (top_p, temperature, longest) == (0.5, 0.95, 512)
    assert said(SimpleNamespace(chatbot=chat)) == [("assistant", text("greeting_soulchat", "zh"))]
    update = sharing.arrive(request(q="我头疼"), None)
    assert update[1]["value"] == "我头疼" and is_skip(update[0])


def test_a_links_numbers_go_before_the_modes_defaults():
    handlers = Handlers(FakeService(), LIMITS)
    _, *defaults = handlers.choose_mode(request(mode="soulchat", top_p="0.5"), "soulchat", conversation())
    assert defaults == [0.5, 0.95, 512]
    _, *defaults = handlers.choose_mode(request(mode="soulchat", top_p="0.5"), "joint", conversation())
    assert defaults == [0.7, 0.3, 256]


def test_a_bad_link_is_told_and_ignored(sharing, shown):
    assert all(value is None or is_skip(value) for value in sharing.arrive(request(top_p="7"), None))
    assert len(shown) == 1 and "top_p" in shown[0]
    _, *defaults = Handlers(FakeService(), LIMITS).choose_mode(request(top_p="7"), "joint", conversation())
    assert defaults == [0.7, 0.3, 256]


def test_a_kept_conversation_comes_back(sharing):
    chat, _, emergency, _, older, *sliders, mode, _, _, _ = sharing.arrive(request(q="别的"), kept("我失眠", QUESTION))
    assert sliders == [0.7, 0.3, 256]
    assert said(SimpleNamespace(chatbot=chat))[1:] == [("user", "我失眠"), ("assistant", QUESTION)]
    assert mode == "joint" and older == [] and not emergency.visible
    assert chat[-1]["options"]


def test_an_emergency_stands_again(sharing):
    _, _, emergency, *_ = sharing.arrive(request(), kept("我胸口压榨样疼痛，出冷汗", "请立即就医"))
    assert emergency.visible and "120" in emergency.value


def test_what_was_being_written_is_over(sharing):
    chat, box, *_ = sharing.arrive(request(), kept("我失眠", "您这种情况", pending=True))
    assert "已停止" in chat[-1]["metadata"]["log"]
    chat, box, *_ = sharing.arrive(request(), kept("头疼", QUESTION, "三天了", "", pending=True))
    assert said(SimpleNamespace(chatbot=chat))[-1] == ("assistant", QUESTION) and box["value"] == "三天了"


@pytest.mark.parametrize(
    "forged", ["x", {}, {"messages": [{"role": "system", "content": "x"}], "mode": "joint"}, kept(mode="gpt")]
)
def test_a_forged_store_is_refused(sharing, shown, forged):
    values = sharing.arrive(request(), forged)
    assert all(value is None or is_skip(value) for value in values) and len(shown) == 1


@pytest.mark.parametrize(("kind", "suffix"), [(MARKDOWN, ".md"), (JSON, ".json"), (PAPER, ".html"), (PICTURE, ".png")])
def test_an_export_is_made_for_the_browser_to_write(sharing, kind, suffix):
    file = sharing.export(kind)(request(), "【主诉】失眠", [], conversation("我失眠", QUESTION), *OPTIONS)
    assert file["name"].endswith(suffix) and "我失眠" in file["text"] and "mini-asker" in file["text"]


def test_an_export_names_the_models_that_wrote_it(sharing):
    def models(*texts):
        exported = sharing.export(JSON)(request(), "", [], conversation(*texts), *OPTIONS)
        return [model["name"] for model in json.loads(exported["text"])["models"]]

    asked = conversation("我失眠", QUESTION)
    asked[-1]["metadata"] = {"id": "asker", "title": "问 · mini-asker"}
    exported = json.loads(sharing.export(JSON)(request(), "", [], asked, *OPTIONS)["text"])
    assert [model["name"] for model in exported["models"]] == ["mini-asker"]
    assert models("我失眠") == ["mini-asker", "mini-adviser"]


def test_the_address_is_shown_once_there_is_one():
    known: list[str] = []
    sharing = Sharing(FakeService(), LIMITS, lambda: known[0] if known else None)
    assert sharing.show_address()["visible"] is False
    known.append("https://abc.gradio.live")
    assert (sharing.show_address()["visible"], sharing.show_address()["value"]) == (True, known[0])


def test_nothing_is_exported_before_something_was_said(sharing, shown):
    assert sharing.export(JSON)(request(), "", [], conversation(), *OPTIONS) is None
    assert shown == [text("nothing_to_export", "zh")]


def test_an_exported_file_opens(sharing):
    options = ("soulchat", 0.5, 1.3, 200, "7", False, 2)
    file = sharing.export(JSON)(request(), "【主诉】改过", [], conversation("我失眠", QUESTION), *options)
    chat, *_, opened, card, top_p, temperature, longest, mode, seed, greedy, limit = sharing.open_file(
        request(), file["text"]
    )
    assert said(SimpleNamespace(chatbot=chat))[1:] == [("user", "我失眠"), ("assistant", QUESTION)]
    assert (top_p, temperature, longest) == (0.5, 1.3, 200)
    assert (opened, card) == ("opened", "【主诉】改过")
    assert (mode, seed, greedy, limit) == ("soulchat", "7", False, 2)
    greedy_file = sharing.export(JSON)(request(), "", [], conversation("我失眠"), *OPTIONS[:5], True, 8)
    *_, greedy, _ = sharing.open_file(request(), greedy_file["text"])
    assert greedy is True


def exported(sharing, **changes) -> str:
    """An exported conversation with other contents."""
    file = sharing.export(JSON)(request(), "", [], conversation("我失眠", QUESTION), *OPTIONS)
    return json.dumps({**json.loads(file["text"]), **changes})


@pytest.mark.parametrize(
    ("parameters", "names", "expected"),
    [
        ({}, "", (0.7, 0.3, 256, "joint", "", False, 8)),
        ({"mode": "soulchat", "top_p": 7}, "top_p", (0.75, 0.95, 512, "soulchat", "", False, 8)),
        ({"mode": "gpt", "top_p": 0.5}, "mode", (0.5, 0.3, 256, "joint", "", False, 8)),
        ({"mode": ["joint"], "temperature": "warm"}, "mode、temperature", (0.7, 0.3, 256, "joint", "", False, 8)),
        (
            {"seed": -1, "asking_limit": 9, "top_k": 5},
            "seed、asking_limit、top_k",
            (0.7, 0.3, 256, "joint", "", False, 8),
        ),
        ({"max_new_tokens": None, "<b>": 1}, "max_new_tokens、&lt;b&gt;", (0.7, 0.3, 256, "joint", "", False, 8)),
        ({"greedy": "yes", "seed": 7}, "greedy", (0.7, 0.3, 256, "joint", "7", False, 8)),
        (
            {f"x{number}": number for number in range(9)},
            "x0、x1、x2、x3、x4、x5…",
            (0.7, 0.3, 256, "joint", "", False, 8),
        ),
    ],
)
def test_settings_of_a_file_that_are_none_are_told_once(sharing, shown, parameters, names, expected):
    _, *values = sharing.open_file(request(), exported(sharing, parameters=parameters))
    assert tuple(values[-7:]) == expected
    assert shown == ([text("export_options_ignored", "zh", names=names)] if names else [])


def test_models_that_do_not_answer_here_are_told(sharing, monkeypatch):
    told: list[str] = []
    monkeypatch.setattr(gr, "Info", lambda message, **_: told.append(message))
    sharing.open_file(request("en"), exported(sharing, models=[{"name": "mini-asker"}]))
    assert told == []
    sharing.open_file(request("en"), exported(sharing, models=[{"name": "mini-asker"}, {"name": "BianQue-2.0 <b>"}]))
    assert told == [text("share_other_models", "en", theirs="BianQue-2.0 &lt;b&gt;", ours="mini-asker, mini-adviser")]


def test_a_kept_conversation_brings_its_modes_defaults(sharing):
    *_, top_p, temperature, longest, mode = sharing.open_kept(
        request(), kept("我难过", mode="soulchat"), None, "joint"
    )
    assert (top_p, temperature, longest, mode) == (0.75, 0.95, 512, "soulchat")
    *_, top_p, temperature, longest, mode = sharing.open_kept(request(), kept("我失眠"), None, "joint")
    assert mode == "joint" and all(map(is_skip, (top_p, temperature, longest)))


def test_a_file_that_is_none_is_told(sharing, shown):
    sharing.open_file(request(), "not json")
    sharing.open_file(request(), json.dumps({"format": "bianque-conversation", "version": 1}))
    assert shown == [text("export_invalid", "zh")] * 2
    sharing.open_file(request("en"), 3_000_000)
    assert shown[2:] == [text("export_too_large", "en", limit="2", got="3")]
    assert all(value is None or is_skip(value) for value in sharing.open_file(request(), None))
