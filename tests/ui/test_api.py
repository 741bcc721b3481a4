"""The documented endpoint through gradio's own client."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from bianque.texts import text
from tests.ui.fake_service import ADVICE, QUESTION
from tests.ui.waiting import wait_until

ARGUMENTS = {
    "message": "我失眠",
    "history": [],
    "mode": "joint",
    "top_p": 0.7,
    "temperature": 0.3,
    "max_new_tokens": 256,
    "seed": None,
}


@pytest.fixture(scope="module")
def connect(url):
    """Make clients that are closed after the module; the same for the same name and language."""
    clients = {}

    def open_client(language: str = "zh-CN", name: str = "") -> Client:
        headers = {"accept-language": language}
        if (language, name) not in clients:
            clients[language, name] = Client(url, verbose=False, analytics_enabled=False, headers=headers)
        return clients[language, name]

    yield open_client
    for client in clients.values():
        client.close()


def ask(client: Client, **changes):
    return client.predict(api_name="/chat", **{**ARGUMENTS, **changes})


def test_chat_streams_growing_text(connect, service):
    job = connect().submit(api_name="/chat", **ARGUMENTS)
    job.result(timeout=30)
    replies = [reply for reply, _ in job.outputs()]
    assert replies[-1] == QUESTION
    assert len(set(replies)) > 2 and all(QUESTION.startswith(reply) for reply in replies)


def test_the_conversation_is_what_the_caller_sends(connect, service):
    history = [{"role": "user", "content": "我失眠"}, {"role": "assistant", "content": QUESTION}]
    reply, details = ask(connect(), message="一个月", history=history)
    assert reply == ADVICE and details["author"] == "adviser"
    assert [message.text for message in service.calls[0].messages] == ["我失眠", QUESTION, "一个月"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"message": ""}, "消息是空的"),
        ({"message": " \n "}, "消息是空的"),
        ({"message": "痛" * 20_000}, "最多 2000 字，收到 20000 字"),
        ({"message": "😀😀"}, "没有文字"),
        ({"message": None}, "消息是空的"),
        ({"history": [{"role": "system", "content": "x"}]}, "只接受 user 与 assistant"),
        ({"history": "x"}, "不是消息列表"),
        ({"history": [{"role": "user", "content": "痛"}] * 201}, "已达上限"),
        ({"mode": "gpt"}, "没有名为"),
        ({"mode": None}, "没有名为"),
        ({"top_p": 0}, "top_p 应在"),
        ({"top_p": 7}, "top_p 应在"),
        ({"top_p": "0.7"}, "top_p 应在"),
        ({"temperature": -0.1}, "temperature 应在"),
        ({"temperature": "warm"}, "temperature 应在"),
        ({"max_new_tokens": 10**9}, "max_new_tokens 应在"),
        ({"seed": -5}, "seed 应在"),
        ({"asking_limit": 9}, "asking_limit 应在"),
    ],
)
def test_bad_input_has_one_sentence(connect, service, changes, sentence):
    with pytest.raises(AppError, match=sentence):
        ask(connect(), **changes)
    assert service.calls == []


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_none_are_refused(url, service, value):
    # Clients refuse to write such numbers, but the server's JSON reader takes them.
    body = f'{{"data": ["我失眠", [], "joint", {value}, 0.3, 256, null, null]}}'
    posted = httpx.post(
        f"{url}gradio_api/call/chat", content=body.encode(), headers={"content-type": "application/json"}
    )
    answer = httpx.get(f"{url}gradio_api/call/chat/{posted.json()['event_id']}", timeout=20).text
    assert "event: error" in answer and "top_p" in answer
    assert service.calls == []


def test_the_asking_limit_reaches_the_service(connect, service):
    ask(connect(), asking_limit=2)
    assert service.calls[0].options.asking_limit == 2


def test_errors_follow_the_callers_language(connect, service):
    with pytest.raises(AppError, match="The message is empty"):
        ask(connect("en-US"), message="")


def test_two_callers_never_see_each_others_words(connect, service):
    service.seconds_per_token = 0.02
    clients = [connect(name="first"), connect(name="second")]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, clients[0], message="甲的话胸痛")
        second = pool.submit(ask, clients[1], message="乙的话")
        assert first.result()[1]["emergency"] and not second.result()[1]["emergency"]
    assert len({call.visitor for call in service.calls}) == 2
    assert {tuple(message.text for message in call.messages) for call in service.calls} == {
        ("甲的话胸痛",),
        ("乙的话",),
    }


def test_cancelling_frees_the_model(connect, service):
    service.seconds_per_token = 0.5  # the whole reply would take 12 s
    job = connect().submit(api_name="/chat", **ARGUMENTS)
    wait_until(lambda: service.num_running == 1)
    job.cancel()
    wait_until(lambda: service.num_running == 0, seconds=30)
    assert service.num_cancelled == 1


def test_only_chat_is_documented(url):
    endpoints = httpx.get(f"{url}gradio_api/info").json()
    assert set(endpoints["named_endpoints"]) == {"/chat"} and endpoints["unnamed_endpoints"] == {}


def test_nothing_is_monitored_uploaded_or_kept(url):
    assert httpx.get(f"{url}monitoring/summary").status_code in (403, 404)
    sent = httpx.post(f"{url}gradio_api/upload", files={"files": ("x.txt", b"more than one byte")})
    assert sent.status_code >= 400
    assert not [path for path in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*") if path.is_file()]


def test_the_notice_of_an_emergency_is_in_the_callers_language(connect, service):
    _, details = ask(connect("en"), message="我胸痛")
    assert details["emergency"] == text("emergency_medical", "en")


def test_a_message_alone_is_enough(connect, service):
    text, details = connect().predict("我最近总是失眠", api_name="/chat")
    assert text and details["author"] == "asker"
