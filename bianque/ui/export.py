"""A conversation to take away: Markdown, JSON that can be opened again, a paper and a picture for a doctor.

Each says when, which models at which revision, which parameters, that the replies are AI-generated, and the medical
notice. The text is made here and goes to the visitor's browser, which writes the file: nothing is stored on the
server.
"""

from __future__ import annotations

import json
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
from bianque.ui.history import Entry, Limits, read_history

FORMAT = "bianque-conversation"
FORMAT_VERSION = 1
LARGEST_FILE_CHARS = 2_000_000
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


def read_export(content: object, limits: Limits) -> tuple[list[Entry], dict[str, Any]]:
    """Return the conversation of an exported JSON file, and its parameters, both still to be checked as if typed.

    Raises:
        InputError: if it is no such file, or its messages pass a limit.
    """
    if not isinstance(content, str) or len(content) > LARGEST_FILE_CHARS:
        raise InputError("export_invalid")
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        raise InputError("export_invalid") from None
    is_known = isinstance(parsed, dict) and parsed.get("format") == FORMAT and parsed.get("version") == FORMAT_VERSION
    if not is_known or not isinstance(parsed.get("messages"), list) or not isinstance(parsed.get("parameters"), dict):
        raise InputError("export_invalid")
    return read_history(parsed["messages"], limits), parsed["parameters"]


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
