"""How far the models are, as JSON, for `python -m bianque status` and for whoever watches over a Space.

Says nothing of visitors: names of models, states, numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from bianque import __version__
from bianque.texts import Language, text

if TYPE_CHECKING:
    from bianque.consultation.service import ConsultationService, ServiceStatus

STATUS_PATH = "/models.json"


def status_routes(service: ConsultationService) -> list[Route]:
    """Return the routes for the `app_kwargs` of `Blocks.launch`; they come before gradio's own."""

    def answer(request: Request) -> JSONResponse:
        return JSONResponse(status_to_json(service.status()), headers={"Cache-Control": "no-store"})

    return [Route(STATUS_PATH, answer, methods=["GET"])]


def status_to_json(status: ServiceStatus) -> dict[str, Any]:
    """Return a status as plain values: `reason` in both languages, and one entry for each job in `models`."""
    cause = status.fallback_error
    return {
        "program": "bianque",
        "version": __version__,
        "is_settled": status.is_settled,
        "is_demonstration": status.is_demonstration,
        "reason": {
            language: text(status.reason, language, reason=cause.text(language) if cause else "")
            for language in get_args(Language)
        },
        "models": [model.to_json() for model in status.models],
    }
