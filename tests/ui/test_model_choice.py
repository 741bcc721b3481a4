"""The choice of a model and a precision, where the owner allows it: handlers, and the panel in headless Chromium."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import gradio as gr
import pytest

from bianque.errors import ModelUnavailableError, SettingsError
from bianque.manager.registry import Job
from bianque.manager.status import ModelStatus
from bianque.manager.switching import ModelOffer, PrecisionOffer
from bianque.settings import ModelSource
from bianque.texts import text
from bianque.ui.fragments import status_banner
from bianque.ui.model_choice import ModelChoice
from tests.ui.fake_service import ADVICE, QUESTION, FakeService

GB = 10**9
TOO_LARGE = SettingsError("model_too_large", name="BianQue-2.0", precision="fp32", needed="25.1", free="13.0")


@dataclass
class FakeSwitcher:
    """Offers two models for each job, as `ModelSwitcher` would; the test ends a change."""

    service: FakeService
    is_allowed: bool = True
    asked: list[tuple[Job, str, str]] = field(default_factory=list)
    refusal: Exception | None = None

    def offers(self, job: Job) -> tuple[ModelOffer, ...]:
        small = (PrecisionOffer("fp32", GB // 50, 4, None), PrecisionOffer("int8", GB // 100, 4, None))
        large = (PrecisionOffer("fp32", 25 * GB, 0, TOO_LARGE), PrecisionOffer("int8", 8 * GB, 2, None))
        return (
            ModelOffer(job, f"mini-{job.value}", ModelSource("m"), "", True, small, "complete", True, None),
            ModelOffer(job, "BianQue-2.0", ModelSource("o/b"), "", False, large, "absent", False, None),
        )

    def switch(self, job: Job, name: str, precision: str) -> ModelStatus:
        self.asked.append((job, name, precision))
        if self.refusal:
            raise self.refusal
        self.service.incoming = ModelStatus(job, name, "downloading", fraction=0.25, seconds_left=90)
        self.service.is_settled = False
        return self.service.incoming

    def cancel(self) -> None:
        if self.service.is_settled:
            raise ModelUnavailableError("switch_over")
        self.fail(ModelUnavailableError("switch_cancelled"))

    def fail(self, error: Exception) -> None:
        self.service.incoming = replace(self.service.incoming, state="failed", error=error)
        self.service.is_settled = True

    def finish(self) -> None:
        self.service.incoming, self.service.is_settled = None, True


def request(language: str = "zh-CN") -> SimpleNamespace:
    return SimpleNamespace(headers={"accept-language": language}, query_params={}, session_hash="visitor")


@pytest.fixture
def scripted():
    return FakeService()


@pytest.fixture
def switcher(scripted):
    return FakeSwitcher(scripted)


@pytest.fixture
def choice(scripted, switcher):
    return ModelChoice(scripted, switcher)


def test_what_is_offered_says_its_memory(choice):
    models, precisions, state, timer = choice.show(request(), "adviser")
    assert models["choices"] == [("mini-adviser · 现用", "mini-adviser"), ("BianQue-2.0 · 需要下载", "BianQue-2.0")]
    assert models["value"] == "mini-adviser" and [value for _, value in precisions["choices"]] == [
        "auto",
        "fp32",
        "int8",
    ]
    assert "mini-adviser" in state and not timer.active
    others = choice.show_precisions(request(), "adviser", "BianQue-2.0")["choices"]
    assert others[1:] == [("fp32：放不下，约需 25.0 GB", "fp32"), ("int8：约需 8.0 GB，2 人同时用", "int8")]
    assert choice.show_precisions(request("en"), "adviser", "BianQue-2.0")["choices"][2][0].endswith("2 at once")


def test_a_change_is_followed_until_it_is_over(choice, switcher):
    state, *timers = choice.change(request(), "adviser", "BianQue-2.0", "int8")
    assert switcher.asked == [(Job.ADVISER, "BianQue-2.0", "int8")]
    assert 'value="25"' in state and "BianQue-2.0" in state and "mini-adviser" in state
    assert [timer.active for timer in timers] == [True, True]
    *_, timer = choice.follow(request(), "adviser")
    assert not hasattr(timer, "active")
    switcher.finish()
    *_, state, timer = choice.follow(request(), "adviser")
    assert "BianQue-2.0" not in state and not timer.active


def test_a_change_that_fails_leaves_the_present_model(choice, switcher):
    choice.change(request(), "adviser", "BianQue-2.0", "auto")
    error = ModelUnavailableError("load_failed", reason="<b>disk</b>")
    switcher.fail(error)
    _, _, state, timer = choice.follow(request(), "adviser")
    assert text("choice_failed", "zh") in state and "&lt;b&gt;disk" in state and "就绪" in state and not timer.active


def test_a_refusal_is_a_sentence(choice, switcher, monkeypatch):
    notices: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda message, **_: notices.append(message))
    switcher.refusal = ModelUnavailableError("switch_running")
    state, *_ = choice.change(request(), "adviser", "BianQue-2.0", "auto")
    assert notices == [switcher.refusal.text("zh")] and "BianQue-2.0" not in state


def test_a_change_can_be_cancelled(choice, scripted, monkeypatch):
    notices: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda message, **_: notices.append(message))
    choice.change(request(), "adviser", "BianQue-2.0", "auto")
    state = choice.cancel(request(), "adviser")
    assert text("choice_failed", "zh") in state and text("switch_cancelled", "zh") in state and notices == []
    # On the page itself nothing is wrong.
    banner = status_banner(scripted.status(), "zh")
    assert "BianQue-2.0" not in banner and text("status_demonstration", "zh") in banner
    choice.cancel(request("en"), "adviser")
    assert notices == [text("switch_over", "en")]


@pytest.mark.parametrize("forged", [None, 5, "owner", ["asker"], {}])
def test_a_forged_use_is_the_advisers(choice, switcher, forged):
    assert "mini-adviser" in choice.show(request(), forged)[2]


@pytest.mark.browser
def test_a_model_is_changed_on_the_page(chromium, serve, scripted, switcher):
    from playwright.sync_api import expect

    from tests.ui.visitor import Visitor

    visitor = Visitor(chromium, serve(scripted, switcher=switcher))
    visitor.page.locator("#models button.label-wrap").click()
    expect(visitor.page.locator("#models")).to_contain_text(text("choice_note", "zh"))
    visitor.page.locator("#models-model label").filter(has_text="BianQue-2.0").click()
    expect(visitor.page.locator("#models-precision")).to_contain_text("int8：约需 8.0 GB")
    visitor.page.locator("#models-precision label").last.click()
    visitor.page.locator("#models-apply").click()
    expect(visitor.page.locator("#models-state progress")).to_have_attribute("value", "25")
    assert switcher.asked == [(Job.ADVISER, "BianQue-2.0", "int8")]
    switcher.fail(ModelUnavailableError("load_failed", reason="disk"))
    expect(visitor.page.locator("#models-state")).to_contain_text(text("choice_failed", "zh"))
    expect(visitor.page.locator("#status")).to_contain_text("disk")
    visitor.close()
    assert visitor.errors == []


@pytest.mark.browser
def test_a_visitor_goes_on_during_a_change_and_cancels_it(chromium, serve, scripted, switcher):
    from playwright.sync_api import expect

    from tests.ui.visitor import Visitor

    visitor = Visitor(chromium, serve(scripted, switcher=switcher))
    visitor.page.locator("#models button.label-wrap").click()
    cancel = visitor.page.locator("#models-cancel")
    expect(visitor.page.locator("#models-state")).to_contain_text("mini-adviser")
    expect(cancel).to_be_hidden()
    visitor.page.locator("#models-model label").filter(has_text="BianQue-2.0").click()
    visitor.page.locator("#models-apply").click()
    expect(visitor.page.locator("#models-state progress")).to_have_attribute("value", "25")
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    cancel.click()
    expect(visitor.page.locator("#models-state")).to_contain_text(text("switch_cancelled", "zh"))
    expect(cancel).to_be_hidden()
    expect(visitor.page.locator("#status")).to_contain_text(text("status_demonstration", "zh"))
    expect(visitor.page.locator("#status")).not_to_contain_text(text("status_failed", "zh"))
    visitor.send("一个月了")
    visitor.expect_reply(ADVICE, 3)
    visitor.close()
    assert visitor.errors == []


@pytest.mark.browser
def test_there_is_no_choice_where_the_owner_does_not_allow_it(chromium, serve):
    from playwright.sync_api import expect

    from tests.ui.visitor import Visitor

    service = FakeService()
    visitor = Visitor(chromium, serve(service, switcher=FakeSwitcher(service, is_allowed=False)))
    visitor.open_panel("share")
    expect(visitor.page.locator("#models")).to_have_count(0)
    visitor.close()
