"""The page: components, and which handler each event calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.events import api

from bianque.consultation.messages import (
    ASKING_LIMIT_RANGE,
    MAX_NEW_TOKENS_RANGE,
    TEMPERATURE_RANGE,
    TOP_P_RANGE,
    Mode,
)
from bianque.texts import text
from bianque.ui.api import make_chat
from bianque.ui.guidance import Guidance
from bianque.ui.handlers import LOAD_POLL_SECONDS, Handlers
from bianque.ui.history import Limits
from bianque.ui.launch import translations
from bianque.ui.model_choice import ModelChoice
from bianque.ui.options import OPTION_NAMES
from bianque.ui.panels import choice_panel, kept_panel, share_panel
from bianque.ui.sharing import Sharing
from bianque.ui.wiring import INSTANT, RAW, TELLING, connect_choice, connect_kept, connect_share, script

if TYPE_CHECKING:
    from bianque.consultation.service import ConsultationService
    from bianque.manager.switching import ModelSwitcher

# Complaints are in Chinese in both languages: the models know no other.
EXAMPLES = (
    "我最近总是失眠，白天没精神，怎么办？",
    "孩子发烧两天了，还有点咳嗽",
    "胃胀反酸，吃完饭更难受",
    "腰疼，坐久了站不起来",
    "偏头痛老是犯，一累就疼",
    "工作压力大，心里总是焦虑",
)


def build_demo(
    service: ConsultationService,
    limits: Limits | None = None,
    *,
    page_address: str = "",
    switcher: ModelSwitcher | None = None,
) -> gr.Blocks:
    """Return the page over `service`; give it to `queue(**queue_options())` and `launch(**launch_options())`.

    Args:
        service: answers.
        limits: of what a visitor may send.
        page_address: where everybody finds the page; if empty, the link that `make_public_link` makes.
        switcher: lets visitors choose models and precisions, if the owner allows it; None where it cannot be.
    """
    limits = limits or Limits()
    handlers = Handlers(service, limits)
    i18n = translations()
    with gr.Blocks(title=text("page_title", "zh"), fill_width=True, analytics_enabled=False) as demo:
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=3, min_width=320, elem_id="main"):
                parts = _conversation(i18n)
            with gr.Column(scale=1, min_width=280, elem_id="side"):
                choices = _choices(i18n, service)
                panel = choice_panel(i18n) if switcher and switcher.is_allowed else None
                kept, share = kept_panel(i18n), share_panel(i18n)
                gr.HTML(i18n("footer"), elem_id="foot", padding=False)
        outputs = [parts[name] for name in CONVERSATION]
        arrival, continued = _connect(demo, handlers, parts, choices, outputs)
        sharing = Sharing(service, limits, lambda: page_address or demo.share_url, handlers.replace)
        conversation, options = [parts["older"], parts["chatbot"]], [choices[name] for name in OPTION_NAMES]
        settings = [choices[name] for name in ("mode", "seed", "greedy", "asking_limit")]
        with_mode = [*conversation, choices["mode"]]
        sliders = [choices[name] for name in DEFAULTS]
        replaced = connect_kept(handlers, sharing, kept, with_mode, outputs, arrival, settings, sliders)
        card = parts["summary_text"]
        opened = connect_share(sharing, share, card, conversation, options, outputs, [*sliders, *settings])
        if switcher and panel:
            connect_choice(ModelChoice(service, switcher), panel, parts["timer"])
        around = [parts[name] for name in AROUND]
        guidance, summary = Guidance(limits), [parts["made"], parts["summary_text"]]
        for event in continued:
            event.then(guidance.settle, [*summary, *conversation, *options], around, **RAW)
        for event in replaced:
            event.then(guidance.settle_anew, [*conversation, *options], around, **RAW)
        opened.then(guidance.settle_opened, [card, *conversation, *options], around, **RAW)
        chat = make_chat(handlers.updates, service.default_options, limits)
        api(chat, api_name="chat", concurrency_limit=None)
    # Without this, gradio puts the platform's own header into a page opened directly, with requests to other hosts.
    demo.space_id = None
    return demo


def _conversation(i18n: gr.I18n) -> dict[str, Any]:
    gr.HTML(i18n("header"), elem_id="head", padding=False)
    parts: dict[str, Any] = {"banner": gr.HTML(elem_id="status", padding=False)}
    parts["show_older"] = gr.Button(i18n("older_button"), visible=False, size="sm", elem_id="older")
    parts["older"] = gr.JSON([], visible=False)
    parts["chatbot"] = gr.Chatbot(
        label=i18n("chat_label"),
        show_label=False,
        elem_id="chat",
        height=None,
        buttons=["copy", "copy_all"],
        watermark=text("ai_watermark", "zh"),
        editable="user",
        # Messages are plain text: neither markup nor formulas are rendered, and what is left is sanitised.
        render_markdown=False,
        sanitize_html=True,
        allow_tags=False,
        latex_delimiters=[],
        group_consecutive_messages=False,
        feedback_options=["Like", "Dislike"],
        autoscroll=False,  # gradio's pulls a reader back who has scrolled up; the page's script follows instead
    )
    parts["emergency"] = gr.HTML(visible=False, elem_id="emergency", padding=False)
    with gr.Row(visible=False, elem_id="asking") as parts["asking"]:
        parts["progress"] = gr.HTML(padding=False)
        parts["advise"] = gr.Button(i18n("advise_button"), size="sm", min_width=0, elem_id="advise")
    with gr.Accordion(i18n("summary_label"), open=False, visible=False, elem_id="summary") as parts["summary"]:
        parts["summary_text"] = gr.Textbox(
            label=i18n("summary_hint"), lines=3, max_lines=8, buttons=["copy"], elem_id="summary-text"
        )
    # The summary as the program made it; a gr.State would not reach handlers that take values as they came.
    parts["made"] = gr.Textbox("", visible=False)
    with gr.Row(elem_id="examples"):
        parts["examples"] = [gr.Button(example, size="sm", min_width=0) for example in EXAMPLES]
    parts["message"] = gr.Textbox(
        label=i18n("message_label"),
        show_label=False,
        placeholder=i18n("message_placeholder"),
        lines=1,
        max_lines=6,
        submit_btn=i18n("send_button"),  # type: ignore[arg-type]
        stop_btn=False,
        elem_id="message",
        html_attributes=gr.InputHTMLAttributes(autocomplete="off", enterkeyhint="send"),
    )
    parts["timer"] = gr.Timer(LOAD_POLL_SECONDS, active=False)
    parts["offered"] = gr.JSON(visible=False)
    parts["returned"] = gr.State()
    return parts


def _choices(i18n: gr.I18n, service: ConsultationService) -> dict[str, Any]:
    defaults = service.default_options(Mode.JOINT)
    choices: dict[str, Any] = {
        "mode": gr.Radio(
            [(i18n(f"mode_{mode.value}"), mode.value) for mode in Mode],
            value=Mode.JOINT.value,
            label=i18n("mode_label"),
            elem_id="mode",
        )
    }
    with gr.Accordion(i18n("settings_label"), open=False, elem_id="settings"):
        # gradio's button beside a slider brings back what the page began with, whatever the mode; ours is at the end.
        choices["top_p"] = gr.Slider(
            *TOP_P_RANGE,
            value=defaults.top_p,
            step=0.05,
            label=i18n("top_p_label"),
            info=i18n("top_p_hint"),
            buttons=[],
        )
        choices["temperature"] = gr.Slider(
            *TEMPERATURE_RANGE,
            value=defaults.temperature,
            step=0.05,
            label=i18n("temperature_label"),
            info=i18n("temperature_hint"),
            buttons=[],
        )
        choices["max_new_tokens"] = gr.Slider(
            *MAX_NEW_TOKENS_RANGE,
            value=defaults.max_new_tokens,
            step=16,
            label=i18n("max_new_tokens_label"),
            info=i18n("max_new_tokens_hint"),
            buttons=[],
        )
        choices["asking_limit"] = gr.Slider(
            *ASKING_LIMIT_RANGE,
            value=defaults.asking_limit,
            step=1,
            label=i18n("asking_limit_label"),
            info=i18n("asking_limit_hint"),
            buttons=[],
        )
        choices["greedy"] = gr.Checkbox(False, label=i18n("greedy_label"), info=i18n("greedy_hint"))
        # A number box shows an empty seed as 0, which is a seed.
        choices["seed"] = gr.Textbox(
            label=i18n("seed_label"), info=i18n("seed_hint"), placeholder=i18n("seed_placeholder"), max_lines=1
        )
        choices["reset"] = gr.Button(i18n("reset_button"), size="sm", elem_id="reset")
    return choices


# What a mode has its own defaults for.
DEFAULTS = ("top_p", "temperature", "max_new_tokens")
# In the order of `updates.PageUpdate`.
CONVERSATION = ("chatbot", "message", "emergency", "returned", "older")
# In the order of what `Guidance.settle` returns.
AROUND = ("asking", "progress", "advise", "summary", "summary_text", "show_older", "made")
STREAMED: dict[str, Any] = {
    "preprocess": False,
    "concurrency_limit": None,
    "api_visibility": "private",
    "show_progress": "minimal",
}


def _connect(
    demo: gr.Blocks, handlers: Handlers, parts: dict[str, Any], choices: dict[str, Any], outputs: list[Any]
) -> tuple[Any, list[Any]]:
    """Connect the conversation and its settings; return the loading, and what changes the conversation."""
    chatbot, message, returned, older = parts["chatbot"], parts["message"], parts["returned"], parts["older"]
    options = [choices[name] for name in OPTION_NAMES]
    conversation = [older, chatbot, *options]
    # Not on the composer, which gradio would fade while the next message is typed.
    streamed = {**STREAMED, "show_progress_on": chatbot}
    running = [
        message.submit(handlers.send, [message, *conversation], outputs, **streamed),
        parts["advise"].click(handlers.advise_now, [message, *conversation], outputs, **streamed),
        chatbot.retry(handlers.retry, conversation, outputs, **streamed),
        chatbot.edit(handlers.edit, conversation, outputs, **streamed),
        *(button.click(handlers.send, [button, *conversation], outputs, **streamed) for button in parts["examples"]),
    ]
    changed = [
        *(event.then(handlers.give_back, [returned, message], [message, returned], **INSTANT) for event in running),
        chatbot.undo(handlers.undo, [older, chatbot, message], outputs, **TELLING),
        chatbot.clear(handlers.clear, choices["mode"], outputs, **RAW),
        parts["show_older"].click(handlers.show_older, [older, chatbot], outputs, **TELLING),
    ]
    message.stop(handlers.stop, **INSTANT)
    chatbot.option_select(handlers.take_answer, message, message, **RAW)
    chatbot.like(handlers.feedback, **RAW)

    mode, sliders = choices["mode"], [choices[name] for name in DEFAULTS]
    banner, timer, offered = parts["banner"], parts["timer"], parts["offered"]
    arrival = demo.load(handlers.load, mode, [chatbot, banner, timer, *sliders], js=script("loading"), **RAW)
    polled = timer.tick(handlers.poll, mode, [banner, timer, offered], **RAW)
    polled.then(None, [offered, mode, *sliders], sliders, js=script("settle"), **INSTANT)
    # Only when the visitor chooses: what comes with a link, a file or a kept conversation has its own settings.
    chosen = mode.input(
        handlers.choose_mode,
        [mode, chatbot],
        [chatbot, *sliders],
        js=script("choosing"),
        trigger_mode="always_last",
        **TELLING,
    )
    for finish in (chosen.then, chosen.failure):
        finish(None, sliders, None, js=script("chosen"), **INSTANT)
    gr.on([option.change for option in options], None, options, None, js=script("note"), **INSTANT)
    gr.on([option.input for option in options], None, None, None, js=script("touch"), **INSTANT)
    changed.append(chosen)
    reset = [*sliders, choices["seed"], choices["greedy"], choices["asking_limit"]]
    is_reset = choices["reset"].click(handlers.reset, mode, reset, **TELLING)
    is_reset.then(None, sliders, None, js=script("standing"), **INSTANT)
    demo.unload(handlers.stop)
    return arrival, changed
