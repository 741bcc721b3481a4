"""Conversations that come and go: from a link, from the browser's own storage, from and to files."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from bianque.consultation.messages import Author, Message, Mode, Role
from bianque.consultation.red_flags import find_emergency
from bianque.errors import InputError
from bianque.manager.status import without_repeats
from bianque.texts import Language, text
from bianque.ui.asking import number_of_questions
from bianque.ui.export import Record, read_export, to_json, to_markdown, to_paper, to_picture
from bianque.ui.history import Entry, Limits, join_histories, read_history
from bianque.ui.language import language_of
from bianque.ui.links import first_options, link_mode, read_link
from bianque.ui.options import read_mode, read_options, read_saved_options
from bianque.ui.updates import PageUpdate, emergency_box, idle_box, opening, show, warn

if TYPE_CHECKING:
    from bianque.consultation.service import ConsultationService
    from bianque.manager.status import ModelStatus

MARKDOWN = ("md", "text/markdown", to_markdown)
JSON = ("json", "application/json", to_json)
PAPER = ("html", "text/html", to_paper)
PICTURE = ("png", "image/png", to_picture)


_MOST_LISTED = 6


class Sharing:
    """Event handlers of these parts, for any number of visitors; keeps nothing."""

    def __init__(
        self,
        service: ConsultationService,
        limits: Limits,
        address_of_page: Callable[[], str | None] = lambda: None,
        replace: Callable[[gr.Request, PageUpdate], None] = lambda *_: None,
    ) -> None:
        """Store what is needed.

        Args:
            service: whose models are named in exports.
            limits: of what comes in.
            address_of_page: returns where everybody finds the page, if that is known by now.
            replace: ends a running reply whose conversation another one replaces.
        """
        self._service = service
        self._limits = limits
        self._address_of_page = address_of_page
        self._replace = replace

    def show_address(self) -> Any:
        """Return where everybody finds the page; hidden where it has no public address."""
        address = self._address_of_page()
        return gr.update(value=address or "", visible=bool(address))

    def arrive(self, request: gr.Request, kept: object, _: object = None) -> tuple[Any, ...]:
        """Return what a page begins with: the conversation the browser kept, else what the link asks for.

        Args:
            request: of the page, with its query string.
            kept: a conversation as the page's script stores it, or None.

        Returns:
            The outputs of a conversation event, then top_p, temperature, longest reply, mode, seed, greedy and asking
            limit.
        """
        language = language_of(request)
        try:
            opened = None if kept is None else self._open_kept(kept, language)
            mode = opened[1] if opened else link_mode(request.query_params) or Mode.JOINT
            link = read_link(request.query_params, self._service.default_options(mode), self._limits)
        except InputError as error:
            warn(error, language)
            return (*PageUpdate(), *(gr.skip(),) * 7)
        sliders = self._sliders(mode, request) if opened or not link.is_empty else (gr.skip(),) * 3
        seed = "" if link.options.seed is None else str(link.options.seed)
        settings: tuple[Any, ...] = (seed, link.is_greedy, link.options.asking_limit)
        if link.is_empty or link.options.mode != mode:
            settings = (gr.skip(),) * len(settings)
        if opened:
            return (*opened[0], *sliders, mode.value, *settings)
        update = PageUpdate(
            opening(mode, language) if link_mode(request.query_params) else gr.skip(),
            gr.update(value=link.question) if link.question else gr.skip(),
        )
        return (*update, *sliders, gr.skip() if link.is_empty else mode.value, *settings)

    def open_kept(
        self, request: gr.Request, kept: object, _: object = None, present: object = None
    ) -> tuple[Any, ...]:
        """Return one of the conversations that the browser keeps, its mode's defaults if that is new, and its mode.

        Args:
            request: of the page.
            kept: a conversation as the page's script stores it, or None.
            present: the mode that is chosen.
        """
        if kept is None:
            return (*PageUpdate(), *(gr.skip(),) * 4)
        try:
            page, mode = self._open_kept(kept, language_of(request))
        except InputError as error:
            warn(error, language_of(request))
            return (*PageUpdate(), *(gr.skip(),) * 4)
        self._replace(request, page)
        sliders = (gr.skip(),) * 3 if present == mode.value else self._sliders(mode, request)
        return (*page, *sliders, mode.value)

    def open_file(self, request: gr.Request, content: object) -> tuple[Any, ...]:
        """Return the conversation of an exported file with its card and settings.

        The models stay: they are everybody's. Which others wrote the conversation is told.

        Returns:
            The outputs of a conversation event, a word if it was opened, the card, then the settings as from `arrive`.
        """
        language = language_of(request)
        nothing = (*PageUpdate(), None, *(gr.skip(),) * 8)
        if content is None:
            return nothing
        try:
            file = read_export(content, self._limits)
        except InputError as error:
            warn(error, language)
            return nothing
        options, wrong = read_saved_options(file.parameters, self._service.default_options)
        if wrong:
            warn(InputError("export_options_ignored", names=_listed(wrong, language)), language)
        self._tell_of_models(file.models, language)
        seed = "" if options.seed is None else str(options.seed)
        page = _opened(file.entries, language)
        self._replace(request, page)
        sliders = (options.top_p, options.temperature, options.max_new_tokens)
        settings = (options.mode.value, seed, options.temperature == 0, options.asking_limit)
        return (*page, "opened", file.summary, *sliders, *settings)

    def export(self, kind: tuple[str, str, Callable[[Record], str]]) -> Callable[..., dict[str, str] | None]:
        """Return the handler that makes one kind of file: its name, type and text, for the browser to write."""
        suffix, media_type, write = kind

        def make(
            request: gr.Request, summary: object, older: object, history: object, *choices: object
        ) -> dict[str, str] | None:
            language = language_of(request)
            try:
                entries = read_history(join_histories(older, history), self._limits)
                if not any(entry.message.role is Role.USER for entry in entries):
                    raise InputError("nothing_to_export")
                options = read_options(*choices)
            except InputError as error:
                warn(error, language)
                return None
            card = summary[: self._limits.max_reply_chars] if isinstance(summary, str) else ""
            record = Record(entries, options, self._writers(entries), card, datetime.now(UTC), language)
            name = f"bianque-{record.time:%Y%m%d-%H%M%S}.{suffix}"
            return {"name": name, "type": media_type, "text": write(record)}

        return make

    def _sliders(self, mode: Mode, request: gr.Request) -> tuple[float, float, int]:
        options = first_options(mode, request.query_params, self._service.default_options, self._limits)
        return options.top_p, options.temperature, options.max_new_tokens

    def _tell_of_models(self, names: list[str], language: Language) -> None:
        """Tell which models wrote a conversation if they are not those that answer here."""
        present = dict.fromkeys(model.name for model in self._service.status().models if model.state == "ready")
        absent = [name for name in dict.fromkeys(names) if name not in present]
        if absent and present:
            theirs, ours = _listed(absent, language), _listed(list(present), language)
            gr.Info(escape(text("share_other_models", language, theirs=theirs, ours=ours)))

    def _writers(self, entries: list[Entry]) -> list[ModelStatus]:
        """Return the models that do the jobs of those who wrote the replies; all models where that is unknown."""
        models = self._service.status().models
        authors = {entry.message.author.value for entry in entries if entry.message.author}
        writers = [model for model in models if model.job.value in authors and model.state == "ready"]
        return writers or list(without_repeats(models))

    def _open_kept(self, kept: object, language: Language) -> tuple[PageUpdate, Mode]:
        """Return a conversation from the browser's storage and its mode; what was being written then is over now.

        Raises:
            InputError: if it is none, or passes a limit.
        """
        if not isinstance(kept, dict):
            raise InputError("history_invalid", reason_zh="不是保存的对话", reason_en="it is no kept conversation")
        entries = read_history(kept.get("messages"), self._limits)
        mode = read_mode(kept.get("mode"))
        question = None
        if kept.get("isPending") is True and entries and entries[-1].message.role is Role.ASSISTANT:
            *entries, unfinished = entries
            if unfinished.message.text:
                entries.append(_stopped(unfinished, entries, language))
            elif entries and entries[-1].message.role is Role.USER:
                question = entries.pop().message.text
        return _opened(entries, language, question), mode


def _opened(entries: list[Entry], language: Language, question: str | None = None) -> PageUpdate:
    emergency = find_emergency([entry.message for entry in entries])
    alarm = emergency_box(emergency.value if emergency else None, language)
    return show(entries, message=idle_box(language, value=question), emergency=alarm)


def _listed(names: list[str], language: Language) -> str:
    """Return names in a row, the first few of them."""
    separator = "、" if language == "zh" else ", "
    return separator.join(names[:_MOST_LISTED]) + ("…" if len(names) > _MOST_LISTED else "")


def _stopped(entry: Entry, before: list[Entry], language: Language) -> Entry:
    notes = [text("reply_stopped", language)]
    if entry.message.author is Author.ASKER:
        notes.insert(0, text("asking_number", language, number=number_of_questions(before) + 1))
    message = Message(entry.message.role, entry.message.text, entry.message.author)
    return Entry(message, entry.title, " · ".join(notes))
