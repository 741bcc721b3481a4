"""Which script and which handler each event of the panels calls."""

from __future__ import annotations

from typing import Any

from bianque.ui.handlers import Handlers
from bianque.ui.model_choice import ModelChoice
from bianque.ui.sharing import JSON, MARKDOWN, PAPER, PICTURE, Sharing

INSTANT: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
# Values go to the handlers as they came: their own checks have a sentence for each fault.
RAW: dict[str, Any] = {**INSTANT, "preprocess": False}
# For handlers that may have to say what is wrong: gradio drops notices of events that do not go through its queue.
TELLING: dict[str, Any] = {**RAW, "queue": True, "concurrency_limit": None}


def script(name: str) -> str:
    """Return the call of a function of `assets/page.js`."""
    return f"(...values) => window.bianque.{name}(...values)"


def connect_kept(
    handlers: Handlers,
    sharing: Sharing,
    kept: dict[str, Any],
    conversation: list[Any],
    outputs: list[Any],
    arrival: Any,
    settings: list[Any],
    sliders: list[Any],
) -> list[Any]:
    """Connect the panel of kept conversations; return the events after which the page has another conversation.

    Args:
        handlers: of the conversation.
        sharing: of what comes and goes.
        kept: parts of `panels.kept_panel`.
        conversation: the messages put aside, the chatbot and the mode.
        outputs: of every conversation event.
        arrival: the event of the page's loading.
        settings: mode, seed, greedy and asking limit.
        sliders: what a mode has its own defaults for.
    """
    saved, carried, chatbot, mode = kept["saved"], kept["carried"], conversation[1], conversation[2]
    message = outputs[1]
    arrived = arrival.then(
        sharing.arrive, [carried, saved], [*outputs, *sliders, *settings], js=script("restore"), **TELLING
    )
    for finish in (arrived.then, arrived.failure, arrival.failure):
        finish(
            None,
            [saved, message, *sliders],
            [kept["keep"], kept["list"], message],
            js=script("restored"),
            **INSTANT,
        )
    chatbot.change(None, [*conversation, saved], [saved, kept["list"]], js=script("remember"), **INSTANT)
    kept["keep"].input(None, [kept["keep"], *conversation, saved], [saved, kept["list"]], js=script("keep"), **INSTANT)
    opened = kept["list"].input(
        sharing.open_kept, [kept["list"], saved, mode], [*outputs, *sliders, mode], js=script("open"), **TELLING
    )
    opened.then(None, sliders, None, js=script("opened"), **INSTANT)
    new = kept["new"].click(None, None, None, js=script("begin"), **INSTANT).then(handlers.clear, mode, outputs, **RAW)
    emptied = [saved, kept["list"], kept["keep"]]
    forgotten = (
        kept["forget"]
        .click(None, None, emptied, js=script("forget"), **INSTANT)
        .then(handlers.clear, mode, outputs, **RAW)
    )
    return [arrived, opened, new, forgotten]


def connect_choice(choice: ModelChoice, panel: dict[str, Any], page_timer: Any) -> None:
    """Connect the panel that changes models.

    Args:
        choice: its handlers.
        panel: parts of `panels.choice_panel`.
        page_timer: asks how far the models are, for the line above the conversation.
    """
    job, model, precision, state = panel["job"], panel["model"], panel["precision"], panel["state"]
    shown = [model, precision, state, panel["timer"]]
    for event in (panel["panel"].expand, job.input):
        event(choice.show, job, shown, **RAW)
    model.input(choice.show_precisions, [job, model], precision, **RAW)
    panel["apply"].click(choice.change, [job, model, precision], [state, panel["timer"], page_timer], **TELLING)
    panel["cancel"].click(choice.cancel, job, state, **TELLING)
    panel["timer"].tick(choice.follow, job, shown, **RAW)


def connect_share(
    sharing: Sharing,
    share: dict[str, Any],
    summary: Any,
    conversation: list[Any],
    options: list[Any],
    outputs: list[Any],
    settings: list[Any],
) -> Any:
    """Connect the panel of exports and links; return the event after which the page may have a file's conversation.

    Args:
        sharing: its handlers.
        share: parts of `panels.share_panel`.
        summary: the card.
        conversation: the messages put aside and the chatbot.
        options: in the order of `options.read_options`.
        outputs: of every conversation event.
        settings: all of them, in the order of what `Sharing.arrive` returns.
    """
    for button, kind, function in (
        ("markdown", MARKDOWN, "download"),
        ("json", JSON, "download"),
        ("paper", PAPER, "paper"),
        ("picture", PICTURE, "picture"),
    ):
        made = share[button].click(sharing.export(kind), [summary, *conversation, *options], share["file"], **TELLING)
        made.then(None, share["file"], None, js=script(function), **INSTANT)
    share["panel"].expand(sharing.show_address, None, share["address"], **RAW)
    asked = [share["address"], share["question"], *options]
    share["make_link"].click(None, asked, share["link"], js=script("link"), **INSTANT)
    restored = [*outputs, share["opened"], summary, *settings]
    opened = share["open"].click(sharing.open_file, share["opened"], restored, js=script("pick"), **TELLING)
    opened.then(None, share["opened"], None, js=script("picked"), **INSTANT)
    opened.failure(None, None, None, js=script("picked"), **INSTANT)
    return opened
