"""An OpenAI-compatible endpoint on the loopback: what is sent, what comes back, and everything that goes wrong."""

from __future__ import annotations

import json

import pytest

from bianque.cli.main import main
from bianque.consultation.messages import Message, ReplyOptions, Role
from bianque.errors import GenerationError, ModelUnavailableError
from bianque.evaluation.endpoint import NUM_TRIES, ChatEndpoint, EndpointResponder
from tests.conftest import free_port
from tests.evaluation.fakes import answer

MESSAGES = [Message(Role.USER, "咳嗽"), Message(Role.ASSISTANT, "多久了？"), Message(Role.USER, "三天")]


def responder(url: str, **options) -> EndpointResponder:
    settings = ReplyOptions(temperature=0.0, top_p=0.9, max_new_tokens=64, seed=5)
    return EndpointResponder(ChatEndpoint(url, "peer", wait_seconds=0, **options), settings)


def test_the_conversation_and_the_decoding_are_sent(endpoint):
    url, requests, answers = endpoint
    answers.append(answer(" 多喝水。\n"))
    reply = responder(url, api_key="secret").reply(MESSAGES)
    assert (reply.text, reply.raw, reply.author, reply.finish_reason) == ("多喝水。", " 多喝水。\n", "peer", "stop")
    path, headers, body = requests[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
    assert body == {
        "model": "peer",
        "messages": [
            {"role": "user", "content": "咳嗽"},
            {"role": "assistant", "content": "多久了？"},
            {"role": "user", "content": "三天"},
        ],
        "temperature": 0.0,
        "top_p": 0.9,
        "max_tokens": 64,
        "seed": 5,
    }


def test_the_key_is_not_described(endpoint):
    assert "secret" not in str(responder(endpoint[0], api_key="secret").describe())


def test_a_busy_endpoint_is_asked_again(endpoint):
    url, requests, answers = endpoint
    answers += [(429, {}), (503, {}), answer("好")]
    assert responder(url).reply(MESSAGES).text == "好"
    assert len(requests) == 3


def test_an_endpoint_that_stays_busy_is_given_up(endpoint):
    url, requests, answers = endpoint
    answers.append((503, {}))
    with pytest.raises(ModelUnavailableError, match="503"):
        responder(url).reply(MESSAGES)
    assert len(requests) == NUM_TRIES


@pytest.mark.parametrize("status", [401, 404])
def test_a_wrong_key_or_model_ends_the_run_at_once(endpoint, status):
    url, requests, answers = endpoint
    answers.append((status, {}))
    with pytest.raises(ModelUnavailableError, match=str(status)):
        responder(url).reply(MESSAGES)
    assert len(requests) == 1


@pytest.mark.parametrize("bad", [(400, {}), (200, {}), (200, b"no"), (200, {"choices": []}), answer(""), answer(None)])
def test_an_answer_without_text_costs_one_conversation(endpoint, bad):
    url, _, answers = endpoint
    answers.append(bad)
    with pytest.raises(GenerationError):
        responder(url).reply(MESSAGES)


def test_an_endpoint_that_is_not_there_is_named():
    with pytest.raises(ModelUnavailableError, match="not available"):
        responder(f"http://127.0.0.1:{free_port()}/v1").reply(MESSAGES)


@pytest.mark.parametrize("url", ["127.0.0.1:8000/v1", "localhost:8000", "file:///etc/hostname", ""])
def test_an_address_that_is_none_is_refused_before_anything_is_sent(url):
    with pytest.raises(ModelUnavailableError, match="must begin with http"):
        responder(url)


def test_the_command_evaluates_an_endpoint(endpoint, tmp_path):
    url, requests, answers = endpoint
    answers.append(answer("有没有发烧？"))
    sample = {"source": "a", "dialogue_id": "1", "input": "病人：咳嗽\n医生：", "target": "有没有发烧？"}
    (tmp_path / "data.jsonl").write_text(json.dumps(sample), "utf-8")
    (tmp_path / "key").write_text("from-a-file\n")
    arguments = ["--endpoint", url, "--endpoint-model", "peer", "--api-key-file", str(tmp_path / "key")]
    output = tmp_path / "run"
    assert main(["evaluate", "teacher-forced", str(tmp_path / "data.jsonl"), *arguments, "--output", str(output)]) == 0
    assert requests[0][1]["Authorization"] == "Bearer from-a-file"
    stored = json.loads((output / "results.json").read_text("utf-8"))
    assert stored["figures"]["all"]["BLEU-4"]["value"] == pytest.approx(100)
    assert "from-a-file" not in (output / "results.json").read_text("utf-8")


def test_the_command_lets_an_endpoint_talk_with_the_scripted_patient(endpoint, tmp_path):
    url, requests, answers = endpoint
    answers += [answer("这样有多久了？"), answer("多喝水。")]
    arguments = ["evaluate", "free", "--cases", "2", "--endpoint", url, "--output", str(tmp_path / "run")]
    assert main(arguments) == 0
    assert [len(body["messages"]) for _, _, body in requests] == [1, 3, 1]
    stored = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    assert stored["figures"]["all"]["questions before advice"]["value"] == 0.5
    dialogues = (tmp_path / "run" / "dialogues.jsonl").read_text("utf-8").splitlines()
    assert [len(json.loads(line)["messages"]) for line in dialogues] == [4, 2]
    assert main(arguments) == 0 and len(requests) == 3  # a finished run is taken over
    assert main([*arguments, "--temperature", "1"]) == 1  # another one is not overwritten unasked
