"""The service's own reply is what is measured, with the raw text beside it."""

from __future__ import annotations

import pytest

from bianque.consultation.messages import Message, Mode, ReplyOptions, Role
from bianque.errors import GenerationError, ModelUnavailableError
from bianque.evaluation.responders import ServiceResponder
from bianque.manager.registry import Job
from bianque.settings import ModelSource, Settings
from tests.scripted import ScriptedRunner, scripted_model

PROMPT = [Message(Role.USER, "咳嗽三天了")]


@pytest.fixture
def responder():
    made = []

    def make(answers, mode=Mode.JOINT):
        def load(folder, spec, settings, **_):
            runner = ScriptedRunner(answers[spec.job], is_encoder_decoder=spec.job is Job.ASKER)
            return scripted_model(spec.job, runner)

        made.append(ServiceResponder(Settings(models="demo"), ReplyOptions(mode, temperature=0), load=load))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_the_raw_text_is_kept_beside_what_a_visitor_sees(responder):
    echo = "病人：咳嗽三天了\n医生：多喝水,注意休息。\n病人：好"
    answers = {Job.ASKER: lambda prompt: "有痰吗？", Job.ADVISER: lambda prompt: echo}
    reply = responder(answers, Mode.ADVISER).reply(PROMPT)
    assert (reply.text, reply.author, reply.finish_reason) == ("多喝水，注意休息。", "adviser", "stop")
    assert reply.raw.startswith("病人：咳嗽三天了\n医生：多喝水,注意休息。\n病人：")


def test_joint_mode_follows_the_policy(responder):
    answers = {Job.ASKER: lambda prompt: "有痰吗？", Job.ADVISER: lambda prompt: "多喝水。"}
    made = responder(answers)
    asked = made.reply(PROMPT)
    assert (asked.text, asked.raw, asked.author) == ("有痰吗？", "有痰吗？", "asker")
    told = made.reply([*PROMPT, Message(Role.ASSISTANT, "有痰吗？"), Message(Role.USER, "没有")])
    assert (told.text, told.raw, told.author) == ("多喝水。", "多喝水。", "adviser")  # the asker would repeat itself
    assert made.describe()["mode"] == "joint"


def test_other_modes_answer_with_the_same_models(responder):
    answers = {Job.ASKER: lambda prompt: "有痰吗？", Job.ADVISER: lambda prompt: "多喝水。"}
    made = responder(answers)
    adviser = made.in_mode(Mode.ADVISER)
    assert adviser.reply(PROMPT).text == "多喝水。" and made.reply(PROMPT).text == "有痰吗？"
    assert (adviser.describe()["mode"], made.describe()["mode"]) == ("bianque-2.0", "joint")


def test_a_model_that_writes_nothing_is_an_error(responder):
    made = responder({Job.ASKER: lambda prompt: "", Job.ADVISER: lambda prompt: ""}, Mode.ADVISER)
    with pytest.raises(GenerationError):
        made.reply(PROMPT)


def test_a_folder_without_a_model_is_named(tmp_path):
    settings = Settings(models="demo", adviser=ModelSource(str(tmp_path / "absent")))
    with pytest.raises(ModelUnavailableError, match="absent"):
        ServiceResponder(settings, ReplyOptions(Mode.ADVISER))
