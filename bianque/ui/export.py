"""A conversation to take away: Markdown, JSON that can be opened again, a paper and a picture for a doctor.

Each says when, which models at which revision, which parameters, that the replies are AI-generated, and the medical
notice. The text is made here and goes to the visitor's browser, which writes the file: nothing is stored on the
server.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any

from bianque import __version__
from bianque.consultation.messages import ReplyOptions, Role
from bianque.errors import InputError
from bianque.manager.status import ModelStatus
from bianque.texts import Language, text
from bianque.ui.history import Entry, Limits, read_history, strip_controls

FORMAT = "bianque-conversation"
FORMAT_VERSION = 1
LARGEST_FILE_BYTES = 2_000_000  # as in `assets/page.js`, which does not send a larger one
_LONGEST_NAME, _MOST_MODELS = 80, 8
# Entries `picture_…` of the translation table; `{page}` and `{pages}` in them are filled in by the script.
PICTURE_WORDS = ("heading", "hint", "page", "save", "share", "close")


@dataclass(frozen=True)
class Record:
    """What an export says.

    Attributes:
        entries: the conversation.
        options: the parameters as they are set now.
        models: those that wrote it, as they serve now.
        summary: the card as the visitor corrected it, or an empty string.
        time: of the export, with its time zone.
        language: of everything around the messages.
    """

    entries: Sequence[Entry]
    options: ReplyOptions
    models: Sequence[ModelStatus]
    summary: str
    time: datetime
    language: Language

    def heading(self) -> list[tuple[str, str]]:
        """Return label and value of each line above the conversation."""
        parameters = ", ".join(f"{name}={value}" for name, value in _parameters(self.options).items())
        separator = "；" if self.language == "zh" else "; "
        rows = (
            ("export_time", self.time.strftime("%Y-%m-%d %H:%M %Z")),
            ("export_models", separator.join(self._describe(model) for model in self.models)),
            ("export_version", __version__),
            ("export_parameters", parameters),
        )
        return [(text(key, self.language), value) for key, value in rows if value]

    def _describe(self, model: ModelStatus) -> str:
        revision = model.revision or text("export_revision_unknown", self.language)
        said = text(
            "export_model",
            self.language,
            revision=revision,
            precision=model.precision or "?",
            device=model.device or "?",
            template=model.template or "?",
        )
        return f"{model.name}{said}"

    def speaker(self, entry: Entry) -> str:
        """Return who says an entry, with the remarks beside it."""
        name = text("export_visitor", self.language) if entry.message.role is Role.USER else entry.title or "AI"
        return f"{name} ({entry.note})" if entry.note else name


def to_markdown(record: Record) -> str:
    """Return the conversation as Markdown; what was said is quoted, so that nothing in it acts as markup."""
    lines = [f"# {text('page_name', record.language)}", "", f"**{text('ai_label', record.language)}**", ""]
    lines += [f"> {text('medical_notice', record.language)}", ""]
    lines += [f"- {label}: {value}" for label, value in record.heading()]
    if record.summary:
        lines += ["", f"## {text('summary_label', record.language)}", "", *_code(record.summary)]
    lines += ["", f"## {text('chat_label', record.language)}"]
    for entry in record.entries:
        lines += ["", f"**{record.speaker(entry)}**", "", *_code(entry.message.text)]
    return "\n".join([*lines, "", text("ai_watermark", record.language), ""])


def to_json(record: Record) -> str:
    """Return the conversation as JSON, to be opened again by `read_export`."""
    content = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "application": __version__,
        "exported_at": record.time.isoformat(timespec="seconds"),
        "label": text("ai_label", record.language),
        "notice": text("medical_notice", record.language),
        "models": [_model(model) for model in record.models],
        "parameters": _parameters(record.options),
        "summary": record.summary,
        "messages": [_message(entry) for entry in record.entries],
    }
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def to_paper(record: Record) -> str:
    """Return the conversation as HTML to be printed or saved as PDF; every word in it is escaped."""
    rows = "".join(f"<tr><th>{escape(label)}</th><td>{escape(value)}</td></tr>" for label, value in record.heading())
    parts = [
        f"<h1>{escape(text('page_name', record.language))}</h1>",
        f"<p><strong>{escape(text('ai_label', record.language))}</strong></p>",
        f"<p>{escape(text('medical_notice', record.language))}</p><table>{rows}</table>",
    ]
    if record.summary:
        parts.append(f"<h2>{escape(text('summary_label', record.language))}</h2><pre>{escape(record.summary)}</pre>")
    parts.append(f"<h2>{escape(text('chat_label', record.language))}</h2>")
    parts += [
        f"<section><h3>{escape(record.speaker(entry))}</h3><pre>{escape(entry.message.text)}</pre></section>"
        for entry in record.entries
    ]
    return "".join([*parts, f"<p>{escape(text('ai_watermark', record.language))}</p>"])


def to_picture(record: Record) -> str:
    """Return what `assets/picture.js` draws, as JSON: plain text only, and the words of the window that shows it."""
    later = {"page": "{page}", "pages": "{pages}"}
    words = {name: text(f"picture_{name}", record.language, **later) for name in PICTURE_WORDS}
    (time_label, _), *rows = record.heading()
    content = {
        "language": "zh-CN" if record.language == "zh" else "en",
        "time": [time_label, record.time.isoformat(timespec="seconds")],
        "title": text("page_name", record.language),
        "label": text("ai_label", record.language),
        "notice": text("medical_notice", record.language),
        "rows": rows,
        "summary": [text("summary_label", record.language), record.summary],
        "chat": text("chat_label", record.language),
        "messages": [
            {
                "speaker": record.speaker(entry),
                "text": entry.message.text,
                "isVisitor": entry.message.role is Role.USER,
            }
            for entry in record.entries
        ],
        "watermark": text("ai_watermark", record.language),
        "words": words,
    }
    return json.dumps(content, ensure_ascii=False)


@dataclass(frozen=True)
class Opened:
    """What an exported file holds.

    Attributes:
        entries: the conversation, checked.
        parameters: of the replies, still to be checked as if typed.
        summary: the card as it stood; an empty string if there is none.
        models: names of those that wrote it.
    """

    entries: list[Entry]
    parameters: dict[str, Any]
    summary: str
    models: list[str]


def read_export(content: object, limits: Limits) -> Opened:
    """Return what an exported JSON file holds.

    Args:
        content: of the file, or the size in bytes of one that was too large to be sent.
        limits: of its messages.

    Raises:
        InputError: if it is no such file, is too large, or its messages pass a limit.
    """
    size = len(content.encode("utf-8", "replace")) if isinstance(content, str) else content
    if isinstance(size, int) and size > LARGEST_FILE_BYTES:
        raise InputError("export_too_large", limit=_in_mb(LARGEST_FILE_BYTES), got=_in_mb(size))
    if not isinstance(content, str):
        raise InputError("export_invalid")
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        raise InputError("export_invalid") from None
    is_known = isinstance(parsed, dict) and parsed.get("format") == FORMAT and parsed.get("version") == FORMAT_VERSION
    if not is_known or not isinstance(parsed.get("messages"), list) or not isinstance(parsed.get("parameters"), dict):
        raise InputError("export_invalid")
    card = parsed.get("summary")
    return Opened(
        read_history(parsed["messages"], limits),
        parsed["parameters"],
        strip_controls(card)[: limits.max_reply_chars].strip() if isinstance(card, str) else "",
        _model_names(parsed.get("models")),
    )


def _model_names(models: object) -> list[str]:
    names = [model.get("name") for model in models if isinstance(model, dict)] if isinstance(models, list) else []
    return [strip_controls(name)[:_LONGEST_NAME] for name in names[:_MOST_MODELS] if isinstance(name, str)]


def _in_mb(num_bytes: int) -> str:
    """Return a size in MB (10^6 bytes), rounded up to a tenth so that what is too large never reads as the limit."""
    return f"{math.ceil(min(num_bytes, 10**15) / 100_000) / 10:.10g}"  # no file is larger, but a forged number may be


def _parameters(options: ReplyOptions) -> dict[str, Any]:
    return {**vars(options), "mode": options.mode.value}


def _model(model: ModelStatus) -> dict[str, str]:
    return {name: getattr(model, name) for name in ("name", "revision", "precision", "device", "template")}


def _message(entry: Entry) -> dict[str, Any]:
    message: dict[str, Any] = {"role": entry.message.role.value, "content": entry.message.text}
    if entry.message.role is Role.ASSISTANT:
        author = entry.message.author.value if entry.message.author else None
        message["metadata"] = {"id": author, "title": entry.title, "log": entry.note}
    return message


def _code(words: str) -> list[str]:
    """Return words as an indented block, which Markdown shows as they are."""
    return [f"    {line}" for line in words.splitlines()]
