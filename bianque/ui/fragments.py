"""Pieces of HTML around the conversation. Everything that is not a constant is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from bianque.consultation.messages import Author, Mode
from bianque.texts import Language, text

if TYPE_CHECKING:
    from bianque.consultation.service import ServiceStatus
    from bianque.manager.status import ModelStatus

LOGO = (
    '<svg class="bq-logo" viewBox="0 0 40 40" aria-hidden="true"><rect width="40" height="40" rx="11"/>'
    '<path d="M20 9v22M9 20h22"/><circle cx="20" cy="20" r="5.2"/></svg>'
)
PHONES = {"emergency_crisis": ("12356", "120"), "emergency_other_person": ("12356", "120")}


def header(language: Language) -> str:
    """Return name, tagline and the medical notice above the first message; the compact view shows the short one."""
    return (
        f'<header class="bq-head">{LOGO}<div><h1>{escape(text("page_name", language))}</h1>'
        f"<p>{escape(text('page_tagline', language))}</p></div></header>"
        f'<p class="bq-notice bq-long" role="note">{escape(text("medical_notice", language))}</p>'
        f'<p class="bq-notice bq-short" role="note">{escape(text("medical_notice_short", language))}</p>'
    )


def footer(language: Language) -> str:
    """Return the AI label and the licences."""
    return (
        f'<footer class="bq-foot"><p><strong>{escape(text("ai_label", language))}</strong></p>'
        f"<p>{escape(text('licence_notice', language))}</p></footer>"
    )


def greeting(mode: Mode, language: Language) -> tuple[str, str]:
    """Return the words that stand in the conversation from the start, and the line above them."""
    if mode is Mode.SOULCHAT:
        return text("greeting_soulchat", language), text("author_greeting_soulchat", language)
    return text("greeting_bianque", language), text("author_greeting", language)


def author_title(author: Author | None, model: str, language: Language) -> str:
    """Return the line above a reply that says who wrote it."""
    return text(f"author_{(author or Author.ADVISER).value}", language, model=model)


def emergency_notice(emergency: str, language: Language) -> str:
    """Return the notice that stands beside the reply when a red flag was found."""
    key = f"emergency_{emergency.lower()}"
    numbers = PHONES.get(key, ("120",))
    calls = "".join(
        f'<a class="bq-call" href="tel:{number}">{escape(text(f"emergency_call_{number}", language))}</a>'
        for number in numbers
    )
    return (
        f'<section class="bq-emergency" role="alert"><h2>{escape(text("emergency_title", language))}</h2>'
        f'<p>{escape(text(key, language))}</p><div class="bq-calls">{calls}</div></section>'
    )


def status_banner(status: ServiceStatus, language: Language) -> str:
    """Return lines that say which models answer and why, how far loading is, and what failed."""
    # One that somebody has cancelled is nobody's concern here.
    models = [model for model in status.models if not (model.error and model.error.key == "switch_cancelled")]
    failed = [model for model in models if model.state == "failed" and model.error]
    answering = [model for model in models if model not in failed]
    lines = []
    if not status.is_settled:
        lines.append(_loading_line(status, language))
    elif answering:
        lines.append(_answering_line(status, answering, language))
    # One model may do several jobs, and then fails in each for the same reason.
    causes = dict.fromkeys(model.error.text(language) for model in failed if model.error)
    lines.extend(_status_line("failed", text("status_failed", language), cause) for cause in causes)
    return "".join(lines)


def change_state(statuses: Sequence[ModelStatus], language: Language) -> str:
    """Return how a job's model is and how far the change to another one has come.

    Args:
        statuses: of one job: the model that does it, then one that is to take its place or failed to.
        language: of the words.
    """
    if not statuses:
        return _status_line("loading", text("choice_unknown", language), "")
    present, *others = statuses
    lines = [_status_line("real", text("choice_now", language), "", _model_state(present, language))]
    for other in others:
        if other.state == "failed":
            cause = other.error.text(language) if other.error else ""
            lines.append(_status_line("failed", text("choice_failed", language), f"{other.name}: {cause}"))
        else:
            parts = _model_state(other, language)
            lines.append(_status_line("loading", text("choice_incoming", language), "", parts))
    return "".join(lines)


def _loading_line(status: ServiceStatus, language: Language) -> str:
    """Return the line of a page whose models are not all there: one part for each model, with a bar for what moves."""
    states = dict.fromkeys(_model_state(model, language) for model in status.models if model.state != "failed")
    if not states:
        return _status_line("loading", text("status_loading", language), text(status.reason, language, reason=""))
    return _status_line("loading", text("status_loading", language), "", "".join(states))


def _model_state(model: ModelStatus, language: Language) -> str:
    words = escape(f"{model.name} {model.describe(language)}")
    bar = ""
    if model.is_busy:
        value = "" if model.percent is None else f' value="{model.percent}"'
        bar = f'<progress max="100"{value} aria-label="{escape(model.name)}"></progress>'
    return f'<span class="bq-model">{words}{bar}</span>'


def _answering_line(status: ServiceStatus, answering: Sequence[ModelStatus], language: Language) -> str:
    names = ", ".join(dict.fromkeys(model.name for model in answering))
    cause = status.fallback_error.text(language) if status.fallback_error else ""
    reason = text(status.reason, language, reason=cause)
    if status.is_demonstration:
        why = f"{names}{_separator(language)}{reason}"
        stop = "" if why.endswith(("。", ".")) else "。" if language == "zh" else ". "
        detail = f"{why}{stop}{text('status_demonstration_hint', language)}"
        return _status_line("demonstration", text("status_demonstration", language), detail)
    devices = ", ".join(dict.fromkeys(f"{model.device} {model.precision}".strip() for model in answering))
    detail = _separator(language).join((names, reason, devices))
    return _status_line("real", text("status_real", language), detail)


def _status_line(kind: str, title: str, detail: str, parts: str = "") -> str:
    """Return one line; `parts` is markup that stands after the words."""
    return (
        f'<div class="bq-status bq-{kind}" role="status"><span class="bq-dot" aria-hidden="true"></span>'
        f"<p><strong>{escape(title)}</strong> <span>{escape(detail)}</span></p>{parts}</div>"
    )


def _separator(language: Language) -> str:
    return "；" if language == "zh" else "; "
