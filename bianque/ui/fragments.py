"""Pieces of HTML around the conversation. Everything that is not a constant is escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from bianque.consultation.messages import Author, Mode
from bianque.texts import Language, text

if TYPE_CHECKING:
    from bianque.consultation.service import ServiceStatus

LOGO = (
    '<svg class="bq-logo" viewBox="0 0 40 40" aria-hidden="true"><rect width="40" height="40" rx="11"/>'
    '<path d="M20 9v22M9 20h22"/><circle cx="20" cy="20" r="5.2"/></svg>'
)
PHONES = {"emergency_crisis": ("12356", "120")}


def header(language: Language) -> str:
    """Return name, tagline and the medical notice, which stands above the first message."""
    return (
        f'<header class="bq-head">{LOGO}<div><h1>{escape(text("page_name", language))}</h1>'
        f"<p>{escape(text('page_tagline', language))}</p></div></header>"
        f'<p class="bq-notice" role="note">{escape(text("medical_notice", language))}</p>'
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
    """Return one line that says which models answer and why, or how far loading is."""
    names = ", ".join(dict.fromkeys(model.name for model in status.models))
    failed = next((model for model in status.models if model.state == "failed" and model.error), None)
    cause = status.fallback_error.text(language) if status.fallback_error else ""
    reason = text(status.reason, language, reason=cause)
    separator = "；" if language == "zh" else "; "
    if not status.is_settled:
        kind, title = "loading", text("status_loading", language)
        states = [f"{model.name} {text(f'state_{model.state}', language)}" for model in status.models]
        detail = separator.join(dict.fromkeys(states)) or reason
    elif failed and failed.error:
        kind, title, detail = "failed", text("status_failed", language), failed.error.text(language)
    elif status.is_demonstration:
        kind, title = "demonstration", text("status_demonstration", language)
        why = reason if status.fallback_error else f"{names}{separator}{reason}"
        stop = "" if why.endswith(("。", ".")) else "。" if language == "zh" else ". "
        detail = f"{why}{stop}{text('status_demonstration_hint', language)}"
    else:
        devices = ", ".join(dict.fromkeys(f"{model.device} {model.dtype}".strip() for model in status.models))
        kind, title, detail = "real", text("status_real", language), separator.join((names, reason, devices))
    return (
        f'<div class="bq-status bq-{kind}" role="status"><span class="bq-dot" aria-hidden="true"></span>'
        f"<p><strong>{escape(title)}</strong> <span>{escape(detail)}</span></p></div>"
    )
