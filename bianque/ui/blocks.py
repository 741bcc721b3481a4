"""The page: components, and which handler each event calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.events import api

from bianque.consultation.messages import MAX_NEW_TOKENS_RANGE, TEMPERATURE_RANGE, TOP_P_RANGE, Mode
from bianque.texts import text
from bianque.ui.handlers import LOAD_POLL_SECONDS, Handlers
from bianque.ui.history import Limits
from bianque.ui.launch import translations

if TYPE_CHECKING:
    from bianque.consultation.service import ConsultationService

# Complaints are in Chinese in both languages: the models know no other.
EXAMPLES = (
    "我最近总是失眠，白天没精神，怎么办？",
    "孩子发烧两天了，还有点咳嗽",
    "胃胀反酸，吃完饭更难受",
    "腰疼，坐久了站不起来",
    "偏头痛老是犯，一累就疼",
    "工作压力大，心里总是焦虑",
)


def build_demo(service: ConsultationService, limits: Limits | None = None) -> gr.Blocks:
    """Return the page over `service`; give it to `queue(**queue_options())` and `launch(**launch_options())`."""
    handlers = Handlers(service, limits or Limits())
    i18n = translations()
    with gr.Blocks(title=text("page_title", "zh"), fill_width=True, analytics_enabled=False) as demo:
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=3, min_width=320, elem_id="main"):
                parts = _conversation(i18n)
            with gr.Column(scale=1, min_width=280, elem_id="side"):
                choices = _choices(i18n, service)
                gr.HTML(i18n("footer"), elem_id="foot", padding=False)
        _connect(demo, handlers, parts, choices)
        api(handlers.chat, api_name="chat", concurrency_limit=None)
    # Without this, gradio puts the platform's own header into a page opened directly, with requests to other hosts.
    demo.space_id = None
    return demo


def _conversation(i18n: gr.I18n) -> dict[str, Any]:
    gr.HTML(i18n("header"), elem_id="head", padding=False)
    parts: dict[str, Any] = {"banner": gr.HTML(elem_id="status", padding=False)}
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
        feedback_options=None,
    )
    parts["emergency"] = gr.HTML(visible=False, elem_id="emergency", padding=False)
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
        choices["top_p"] = gr.Slider(
            *TOP_P_RANGE, value=defaults.top_p, step=0.05, label=i18n("top_p_label"), info=i18n("top_p_hint")
        )
        choices["temperature"] = gr.Slider(
            *TEMPERATURE_RANGE,
            value=defaults.temperature,
            step=0.05,
            label=i18n("temperature_label"),
            info=i18n("temperature_hint"),
        )
        choices["max_new_tokens"] = gr.Slider(
            *MAX_NEW_TOKENS_RANGE, value=defaults.max_new_tokens, step=16, label=i18n("max_new_tokens_label")
        )
        # A number box shows an empty seed as 0, which is a seed.
        choices["seed"] = gr.Textbox(
            label=i18n("seed_label"), info=i18n("seed_hint"), placeholder=i18n("seed_placeholder"), max_lines=1
        )
    return choices


def _connect(demo: gr.Blocks, handlers: Handlers, parts: dict[str, Any], choices: dict[str, Any]) -> None:
    chatbot, message, returned = parts["chatbot"], parts["message"], parts["returned"]
    outputs = [chatbot, message, parts["emergency"], returned]
    options = [choices[name] for name in ("mode", "top_p", "temperature", "max_new_tokens", "seed")]
    # Values go to the handlers as they came: their own checks have a sentence for each fault.
    streamed: dict[str, Any] = {
        "preprocess": False,
        "concurrency_limit": None,
        "api_visibility": "private",
        "show_progress": "minimal",
    }
    instant: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}

    running = [
        message.submit(handlers.send, [message, chatbot, *options], outputs, **streamed),
        chatbot.retry(handlers.retry, [chatbot, *options], outputs, **streamed),
        chatbot.edit(handlers.edit, [chatbot, *options], outputs, **streamed),
        *(
            button.click(handlers.send, [button, chatbot, *options], outputs, **streamed)
            for button in parts["examples"]
        ),
    ]
    for event in running:
        event.then(handlers.give_back, [returned, message], [message, returned], **instant)
    chatbot.undo(handlers.undo, [chatbot, message], outputs, preprocess=False, **instant)
    chatbot.clear(handlers.clear, choices["mode"], outputs, preprocess=False, **instant)
    message.stop(handlers.stop, **instant)

    sliders = [choices[name] for name in ("top_p", "temperature", "max_new_tokens")]
    polled = [parts["banner"], parts["timer"], *sliders]
    demo.load(handlers.load, choices["mode"], [chatbot, *polled], preprocess=False, **instant)
    parts["timer"].tick(handlers.poll, choices["mode"], polled, preprocess=False, **instant)
    choices["mode"].change(
        handlers.choose_mode, [choices["mode"], chatbot], [chatbot, *sliders], preprocess=False, **instant
    )
    demo.unload(handlers.stop)
