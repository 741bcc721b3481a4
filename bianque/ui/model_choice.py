"""The choice of a model and its precision on the page, where the owner allows it.

What is offered, and whether it may be had, is decided by `bianque.manager.switching`; nothing is kept here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from bianque.errors import BianQueError
from bianque.manager.registry import Job
from bianque.texts import Language, text
from bianque.ui import fragments
from bianque.ui.language import language_of
from bianque.ui.updates import warn

if TYPE_CHECKING:
    from bianque.consultation.service import ConsultationService
    from bianque.manager.switching import ModelOffer, ModelSwitcher, PrecisionOffer

AUTO = "auto"


class ModelChoice:
    """Event handlers of the panel, for any number of visitors."""

    def __init__(self, service: ConsultationService, switcher: ModelSwitcher) -> None:
        self._service = service
        self._switcher = switcher

    def show(self, request: gr.Request, job: object) -> tuple[Any, ...]:
        """Return the models offered for a job, the precisions of the one that does it, how it is, and the timer."""
        language, job = language_of(request), _read_job(job)
        offers = self._switcher.offers(job)
        chosen = next((offer for offer in offers if offer.is_planned), offers[0] if offers else None)
        models = gr.update(
            choices=[(_describe_model(offer, language), offer.name) for offer in offers],
            value=chosen.name if chosen else None,
        )
        is_settled = self._service.status().is_settled
        return (models, _precisions(chosen, language), self._state(job, language), gr.Timer(active=not is_settled))

    def follow(self, request: gr.Request, job: object) -> tuple[Any, ...]:
        """Return how a change goes on; once it is over, what is offered then."""
        if self._service.status().is_settled:
            return self.show(request, job)
        return (gr.skip(), gr.skip(), self._state(_read_job(job), language_of(request)), gr.skip())

    def show_precisions(self, request: gr.Request, job: object, name: object) -> Any:
        """Return the precisions of one model."""
        offers = self._switcher.offers(_read_job(job))
        return _precisions(next((offer for offer in offers if offer.name == name), None), language_of(request))

    def change(self, request: gr.Request, job: object, name: object, precision: object) -> tuple[Any, ...]:
        """Begin a change; return how it goes, and the timers of this panel and of the page."""
        language, job = language_of(request), _read_job(job)
        try:
            self._switcher.switch(job, str(name), str(precision))  # type: ignore[arg-type]  # checked there
        except BianQueError as error:
            warn(error, language)
            return self._state(job, language), gr.skip(), gr.skip()
        return self._state(job, language), gr.Timer(active=True), gr.Timer(active=True)

    def cancel(self, request: gr.Request, job: object) -> str:
        """Give up a change that is under way; return how it goes."""
        try:
            self._switcher.cancel()
        except BianQueError as error:
            warn(error, language_of(request))
        return self._state(_read_job(job), language_of(request))

    def _state(self, job: Job, language: Language) -> str:
        """Return how the model of a job is, and how far another one has come that is to take its place."""
        statuses = [status for status in self._service.status().models if status.job is job]
        return fragments.change_state(statuses, language)


def _read_job(job: object) -> Job:
    """Return the job a page sent; the adviser for one that there is not."""
    return Job(job) if isinstance(job, str) and job in set(Job) else Job.ADVISER


def _describe_model(offer: ModelOffer, language: Language) -> str:
    notes = [text("choice_serving", language)] if offer.is_planned else []
    if not offer.is_demonstration:
        notes.append(text(f"choice_{offer.on_disk}", language))
    return " · ".join([offer.name, *notes])


def _precisions(offer: ModelOffer | None, language: Language) -> Any:
    """Return the choice among the precisions of a model, highest first after the automatic one."""
    if offer is None:
        return gr.update(choices=[], value=None)
    choices = [(text("choice_auto", language), AUTO)]
    choices += [(_describe_precision(one, language), one.precision) for one in offer.precisions]
    return gr.update(choices=choices, value=AUTO)


def _describe_precision(one: PrecisionOffer, language: Language) -> str:
    key = "choice_fits" if one.fits else "choice_too_large"
    gigabytes = f"{one.needed_gb:.1f}" if one.needed_gb >= 0.1 else f"{one.needed_gb:.2f}"
    return text(key, language, precision=one.precision, gb=gigabytes, visitors=one.visitors)
