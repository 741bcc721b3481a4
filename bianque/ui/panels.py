"""Panels beside the conversation: those kept in the visitor's browser, and what can be taken away or passed on."""

from __future__ import annotations

from typing import Any

import gradio as gr

from bianque.manager.registry import Job

# The secret reaches every browser, so it protects nothing; fixed, it lets a page read what an earlier start wrote.
STORAGE_KEY = "bianque.conversations"
STORAGE_SECRET = "bianque"
POLL_SECONDS = 1.0


def kept_panel(i18n: gr.I18n) -> dict[str, Any]:
    """Return the parts of the panel of kept conversations."""
    parts: dict[str, Any] = {
        "saved": gr.BrowserState({"keep": False, "list": []}, storage_key=STORAGE_KEY, secret=STORAGE_SECRET),
        # What the page's script hands to a handler: one conversation, never the whole list.
        "carried": gr.JSON(visible=False),
    }
    with gr.Accordion(i18n("kept_label"), open=False, elem_id="kept"):
        parts["new"] = gr.Button(i18n("kept_new"), size="sm", elem_id="kept-new")
        parts["keep"] = gr.Checkbox(False, label=i18n("kept_agree"), info=i18n("kept_agree_hint"), elem_id="keep")
        parts["list"] = gr.Radio([], label=i18n("kept_list"), elem_id="kept-list")
        parts["forget"] = gr.Button(i18n("kept_forget"), size="sm", variant="stop", elem_id="forget")
    return parts


def choice_panel(i18n: gr.I18n) -> dict[str, Any]:
    """Return the parts of the panel that puts another model or precision in the place of the one that serves."""
    parts: dict[str, Any] = {}
    with gr.Accordion(i18n("choice_label"), open=False, elem_id="models") as parts["panel"]:
        parts["job"] = gr.Radio(
            [(i18n(f"choice_{job.value}"), job.value) for job in Job],
            value=Job.ADVISER.value,
            label=i18n("choice_job"),
            info=i18n("choice_note"),
            elem_id="models-job",
        )
        parts["model"] = gr.Radio([], label=i18n("choice_model"), elem_id="models-model")
        parts["precision"] = gr.Radio([], label=i18n("choice_precision"), elem_id="models-precision")
        parts["apply"] = gr.Button(i18n("choice_apply"), size="sm", elem_id="models-apply")
        parts["state"] = gr.HTML(elem_id="models-state", padding=False)
        # Shown by the style sheet while the state says that a change is under way.
        parts["cancel"] = gr.Button(i18n("choice_cancel"), size="sm", elem_id="models-cancel")
        parts["timer"] = gr.Timer(POLL_SECONDS, active=False)
    return parts


def share_panel(i18n: gr.I18n) -> dict[str, Any]:
    """Return the parts of the panel of exports and links."""
    parts: dict[str, Any] = {"file": gr.JSON(visible=False), "opened": gr.Textbox(visible=False)}
    with gr.Accordion(i18n("share_label"), open=False, elem_id="share") as parts["panel"]:
        parts["picture"] = gr.Button(i18n("share_picture"), size="sm", elem_id="make-picture")
        with gr.Row():
            parts["paper"] = gr.Button(i18n("share_paper"), size="sm", min_width=64)
            parts["markdown"] = gr.Button("Markdown", size="sm", min_width=64)
            parts["json"] = gr.Button("JSON", size="sm", min_width=64)
        parts["open"] = gr.Button(i18n("share_open"), size="sm")
        parts["question"] = gr.Textbox(label=i18n("share_question"), info=i18n("share_question_hint"), max_lines=2)
        parts["make_link"] = gr.Button(i18n("share_make"), size="sm", elem_id="make-link")
        parts["link"] = gr.Textbox(
            label=i18n("share_link"), interactive=False, max_lines=3, buttons=["copy"], elem_id="link"
        )
        parts["address"] = gr.Textbox(
            label=i18n("share_address"),
            interactive=False,
            max_lines=2,
            buttons=["copy"],
            visible=False,
            elem_id="address",
        )
    return parts
