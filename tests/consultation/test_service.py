"""The service over scripted models: routing, streaming, prompts, emergencies, cancelling, errors."""

from __future__ import annotations

import itertools
import threading

import pytest

from bianque.consultation.messages import Author, Message, Mode, ReplyOptions, Role
from bianque.consultation.service import ConsultationService
from bianque.consultation.templates import GREETING_BIANQUE
from bianque.errors import BianQueError, GenerationError, InputError, ModelUnavailableError, QueueFullError
from bianque.manager.registry import Job
from bianque.manager.status import ModelStatus
from tests.scripted import ScriptedRunner, scripted_model

GREETING = Message(Role.ASSISTANT, GREETING_BIANQUE, Author.GREETING)
QUESTION = "咳嗽有多久了？"
ADVICE = "建议多喝温水，到呼吸内科就诊。"


class ScriptedManager:
    """Stands in for `ModelManager` with models that are there from the start."""

    plan = None
    fallback_error = None
    is_settled = True
    waits = ()

    def __init__(self, models):
        self.models = models

    def get(self, job):
        if job not in self.models:
            raise ModelUnavailableError("model_loading", name=job.value)
        return self.models[job]

    def wait_for(self, job):
        yield from self.waits
        return self.get(job)

    def spec(self, job):
        return self.models[job].spec if job in self.models else None

    def statuses(self):
        return ()


class Bench:
    """A service over an asker, an adviser and a listener, whose answers a test may change."""

    def __init__(self, **engine_options):
        self.asker = ScriptedRunner(lambda prompt: QUESTION, is_encoder_decoder=True)
        self.adviser = ScriptedRunner(lambda prompt: ADVICE)
        self.listener = ScriptedRunner(lambda prompt: "听起来你很累。")
        runners = {Job.ASKER: self.asker, Job.ADVISER: self.adviser, Job.LISTENER: self.listener}
        self.models = {job: scripted_model(job, runner, **engine_options) for job, runner in runners.items()}
        self.service = ConsultationService(ScriptedManager(self.models))

    def updates(self, *texts, options=ReplyOptions(temperature=0), visitor="v"):  # noqa: B008
        return list(self.service.reply(conversation(*texts), options, visitor=visitor))


def conversation(*texts: str) -> list[Message]:
    """Return the greeting and then messages by turns, the visitor's first."""
    roles = (Role.USER, Role.ASSISTANT)
    return [GREETING, *(Message(roles[index % 2], text) for index, text in enumerate(texts))]


@pytest.fixture
def make_bench():
    benches = []

    def make(**engine_options):
        benches.append(Bench(**engine_options))
        return benches[-1]

    yield make
    for bench in benches:
        for model in bench.models.values():
            model.engine.shutdown()


@pytest.fixture
def bench(make_bench):
    return make_bench()


def test_joint_mode_asks_first_and_reads_the_escaped_prompt(bench):
    last = bench.updates("咳嗽\n晚上厉害")[-1]
    assert (last.text, last.author, last.model, last.is_final) == (QUESTION, Author.ASKER, "mini-asker", True)
    assert bench.asker.prompts == ["病人：咳嗽\\n晚上厉害\\n医生："]
    assert bench.adviser.prompts == []


def test_a_candidate_that_is_no_question_never_reaches_the_page(bench):
    bench.asker.answer = lambda prompt: "好的，情况我了解了。"
    updates = bench.updates("咳嗽", QUESTION, "三天")
    assert {update.author for update in updates} == {Author.ADVISER}
    assert updates[-1].text == ADVICE
    assert bench.adviser.prompts == [f"病人：咳嗽\n医生：{QUESTION}\n病人：三天\n医生："]


def test_a_repeated_question_gives_way_to_the_adviser(bench):
    assert bench.updates("咳嗽", QUESTION, "三天")[-1].author is Author.ADVISER


def test_after_advice_the_adviser_goes_on(bench):
    assert bench.updates("咳嗽", ADVICE, "要吃药吗")[-1].author is Author.ADVISER
    assert bench.asker.prompts == []


def test_the_greeting_counts_even_when_a_caller_leaves_it_out(bench):
    updates = list(bench.service.reply([Message(Role.USER, "咳嗽")], ReplyOptions(temperature=0), visitor="v"))
    assert updates[-1].author is Author.ASKER


def test_the_asking_limit_ends_the_asking(bench):
    bench.asker.answer = lambda prompt: "有没有发烧？"
    options = ReplyOptions(temperature=0, asking_limit=1)
    assert bench.updates("咳嗽", options=options)[-1].author is Author.ASKER
    assert bench.updates("咳嗽", QUESTION, "三天", options=options)[-1].author is Author.ADVISER


@pytest.mark.parametrize(
    ("mode", "author", "name"),
    [
        (Mode.ASKER, Author.ASKER, "mini-asker"),
        (Mode.ADVISER, Author.ADVISER, "mini-adviser"),
        (Mode.SOULCHAT, Author.LISTENER, "mini-adviser"),
    ],
)
def test_single_modes_use_their_model(bench, mode, author, name):
    last = bench.updates("最近很累", options=ReplyOptions(mode, temperature=0))[-1]
    assert (last.author, last.model) == (author, name)


def test_soulchat_has_its_own_prompt(bench):
    bench.updates("最近很累", options=ReplyOptions(Mode.SOULCHAT, temperature=0))
    assert bench.listener.prompts == ["用户：最近很累\n心理咨询师："]


def test_updates_grow_and_the_last_is_final(bench):
    bench.adviser.answer = lambda prompt: ADVICE * 20
    updates = bench.updates("咳嗽", options=ReplyOptions(Mode.ADVISER, temperature=0))
    for earlier, later in itertools.pairwise(updates):
        assert later.text.startswith(earlier.text)
    assert updates[-1].text == ADVICE * 20
    assert [update.is_final for update in updates].count(True) == 1
    assert updates[-1].finish_reason == "stop"


def test_generation_stops_where_the_model_writes_the_next_turn(bench):
    bench.adviser.answer = lambda prompt: ADVICE + "\n病人：" + "好" * 400
    last = bench.updates("咳嗽", options=ReplyOptions(Mode.ADVISER, temperature=0))[-1]
    assert last.text == ADVICE
    assert last.finish_reason == "stop"
    assert bench.adviser.num_steps < 400


def test_length_is_reported(bench):
    bench.adviser.answer = lambda prompt: "好" * 100
    last = bench.updates("咳嗽", options=ReplyOptions(Mode.ADVISER, temperature=0, max_new_tokens=16))[-1]
    assert (last.text, last.finish_reason) == ("好" * 16, "length")


def test_an_emergency_is_shown_before_any_model_and_ends_the_asking(bench):
    updates = bench.updates("我突然胸口压榨样剧痛，出冷汗，喘不上气")
    assert updates[0].emergency and updates[0].text == ""
    assert all(update.emergency for update in updates)
    assert {update.author for update in updates} == {Author.ADVISER}
    assert bench.asker.prompts == []


def test_an_emergency_is_shown_even_without_a_model(bench):
    bench.models.clear()
    replying = bench.service.reply(conversation("我不想活了，已经吃了一整瓶安眠药"), ReplyOptions(), visitor="v")
    assert next(replying).emergency
    with pytest.raises(ModelUnavailableError):
        next(replying)


def test_oldest_turns_are_left_out_and_counted(bench):
    long = "疼" * 500
    texts = [text for _ in range(6) for text in (long, ADVICE)] + ["现在好多了"]
    last = bench.updates(*texts, options=ReplyOptions(Mode.ADVISER, temperature=0))[-1]
    assert last.num_trimmed_turns > 0
    assert bench.adviser.prompts[0].endswith("\n病人：现在好多了\n医生：")


def test_a_message_too_long_for_the_model_is_refused(bench):
    with pytest.raises(InputError) as caught:
        bench.updates("疼" * 3000)
    assert caught.value.key == "prompt_too_long"


@pytest.mark.parametrize("messages", [[], [GREETING], [*conversation("咳嗽"), Message(Role.ASSISTANT, ADVICE)]])
def test_a_conversation_must_end_with_the_visitor(bench, messages):
    with pytest.raises(InputError):
        list(bench.service.reply(messages, ReplyOptions(), visitor="v"))


def test_an_empty_reply_is_an_error(bench):
    bench.adviser.answer = lambda prompt: ""
    with pytest.raises(GenerationError) as caught:
        bench.updates("咳嗽", options=ReplyOptions(Mode.ADVISER, temperature=0))
    assert caught.value.key == "reply_empty"


def test_cancel_keeps_what_was_written_and_frees_the_slot(bench):
    bench.adviser.answer = lambda prompt: "好" * 1000
    options = ReplyOptions(Mode.ADVISER, temperature=0)
    replying = bench.service.reply(conversation("咳嗽"), options, visitor="v")
    first = next(replying)
    bench.adviser.may_step.clear()
    bench.service.cancel("someone else")
    bench.service.cancel("v")
    bench.adviser.may_step.set()
    last = list(replying)[-1]
    assert last.finish_reason == "cancelled"
    assert last.text.startswith(first.text) and 0 < len(last.text) < 400
    assert bench.models[Job.ADVISER].engine.wait_idle(30)


def test_closing_the_reply_frees_the_slot(bench):
    bench.adviser.answer = lambda prompt: "好" * 1000
    engine = bench.models[Job.ADVISER].engine
    replying = bench.service.reply(conversation("咳嗽"), ReplyOptions(Mode.ADVISER, temperature=0), visitor="v")
    next(replying)
    replying.close()
    follow_up = bench.updates("头痛", options=ReplyOptions(Mode.ADVISER, temperature=0, max_new_tokens=16))
    assert follow_up[-1].is_final
    assert engine.wait_idle(30)
    assert bench.adviser.num_steps < 400


def test_waiting_visitors_see_their_place_and_the_queue_is_bounded(make_bench):
    bench = make_bench(num_slots=1, max_waiting=1)
    bench.adviser.answer = lambda prompt: "好" * 1000
    bench.adviser.may_step.clear()
    options = ReplyOptions(Mode.ADVISER, temperature=0)
    running = bench.models[Job.ADVISER].engine.submit(
        [1], bench.service._sampling(bench.models[Job.ADVISER].spec, options)
    )
    waiting = bench.service.reply(conversation("头痛"), options, visitor="second")
    assert next(waiting).queue_position == 1
    with pytest.raises(QueueFullError):
        list(bench.service.reply(conversation("胃痛"), options, visitor="third"))
    bench.models[Job.ADVISER].engine.cancel(running)
    bench.adviser.may_step.set()
    assert next(waiting).text
    waiting.close()


def test_visitors_never_see_each_others_words(bench):
    bench.adviser.answer = lambda prompt: prompt.split("病人：")[-1].split("\n")[0] * 50
    options = ReplyOptions(Mode.ADVISER, temperature=0)
    results = {}

    def visit(name):
        results[name] = bench.updates(name, options=options, visitor=name)[-1].text

    names = ["甲头痛", "乙胃痛", "丙腰痛", "丁眼干"]
    threads = [threading.Thread(target=visit, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {name: set(text) for name, text in results.items()} == {name: set(name) for name in names}


def test_nothing_a_patient_wrote_is_logged(bench, caplog):
    caplog.set_level("DEBUG")
    secret = "特别的秘密症状"
    bench.updates(secret)
    with pytest.raises(BianQueError):
        bench.updates(secret * 500)
    assert secret not in caplog.text


def test_defaults_follow_the_mode(bench):
    assert bench.service.default_options(Mode.JOINT).mode is Mode.JOINT
    assert bench.service.default_options(Mode.SOULCHAT).mode is Mode.SOULCHAT
    without_models = ConsultationService(ScriptedManager({}))
    assert without_models.default_options(Mode.SOULCHAT).top_p == 0.75
    assert without_models.default_options(Mode.ADVISER).top_p == 0.7
    assert without_models.default_options(Mode.ASKER).top_p == 1.0


def test_a_reply_waits_for_a_model_that_is_loading_and_shows_how_far_it_is(bench):
    statuses = [ModelStatus(Job.ADVISER, "mini-adviser", "loading", fraction=share) for share in (0.2, 0.6)]
    bench.service._manager.waits = statuses
    updates = bench.updates("胸痛，喘不过气", options=ReplyOptions(Mode.ADVISER, temperature=0))
    assert [update.loading for update in updates if update.loading] == statuses
    assert all(update.emergency == "MEDICAL" for update in updates)
    assert (updates[-1].text, updates[-1].loading) == (ADVICE, None)


@pytest.mark.parametrize("mode", [Mode.JOINT, Mode.ADVISER])
def test_a_reply_that_waits_for_its_model_can_be_cancelled(bench, mode):
    bench.service._manager.waits = itertools.repeat(ModelStatus(Job.ASKER, "mini-asker", "loading"))
    replying = bench.service.reply(conversation("咳嗽"), ReplyOptions(mode), visitor="v")
    assert next(replying).loading
    bench.service.cancel("v")
    (last,) = replying
    assert (last.text, last.is_final, last.finish_reason) == ("", True, "cancelled")
    assert bench.asker.prompts == bench.adviser.prompts == []
