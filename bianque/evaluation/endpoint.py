"""A peer or a judge behind an OpenAI-compatible endpoint: `POST …/chat/completions`, standard library only."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bianque.consultation.messages import Message, ReplyOptions
from bianque.errors import GenerationError, ModelUnavailableError
from bianque.evaluation.responders import Reply

TIMEOUT_SECONDS = 300.0
NUM_TRIES = 4
LONGEST_WAIT_SECONDS = 30.0
_BUSY = (408, 409, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Completion:
    """What an endpoint wrote: the text as it came, and why it ended."""

    text: str
    finish_reason: str


class ChatEndpoint:
    """Sends chat messages and takes the first choice; may be used from several threads."""

    def __init__(self, url: str, model: str, *, api_key: str = "", wait_seconds: float = 1.0) -> None:
        """Store where to ask; nothing is sent.

        Args:
            url: base address, for example `http://127.0.0.1:8000/v1`.
            model: name that the endpoint knows.
            api_key: sent as a bearer token if it is not empty.
            wait_seconds: before the second try, doubled for each further one, unless the endpoint says how long.

        Raises:
            ModelUnavailableError: if the address is none of HTTP.
        """
        if not url.startswith(("http://", "https://")):
            raise ModelUnavailableError(
                "endpoint_unavailable", url=url, reason="it must begin with http:// or https://"
            )
        self.url = url.rstrip("/") + "/chat/completions"
        self.model = model
        self._api_key = api_key
        self._wait_seconds = wait_seconds
        self._is_closed = threading.Event()

    def complete(self, messages: Sequence[Mapping[str, str]], **decoding: Any) -> Completion:
        """Ask the endpoint, again if it is busy.

        Args:
            messages: of `role` and `content`.
            **decoding: further fields of the request, such as `temperature`; None leaves one out.

        Raises:
            GenerationError: if it refuses this conversation or answers without a text.
            ModelUnavailableError: if it cannot be reached, or stays busy.
        """
        body = {"model": self.model, "messages": list(messages)}
        body |= {name: value for name, value in decoding.items() if value is not None}
        answer = self._ask(json.dumps(body, ensure_ascii=False).encode())
        try:
            choice = answer["choices"][0]
            text, finish_reason = choice["message"]["content"], str(choice.get("finish_reason") or "")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise GenerationError(
                "endpoint_answer_invalid", url=self.url, reason="no choices with a message"
            ) from error
        if not isinstance(text, str) or not text.strip():
            raise GenerationError("reply_empty")
        return Completion(text, finish_reason)

    def close(self) -> None:
        """End waits between tries."""
        self._is_closed.set()

    def _ask(self, body: bytes) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        request = urllib.request.Request(self.url, body, headers)
        reason = ""
        for number in range(NUM_TRIES):
            wait = self._wait_seconds * 2**number
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                with error:
                    reason = f"{error.code} {error.reason}"
                    if error.code in (401, 403, 404):
                        raise ModelUnavailableError("endpoint_unavailable", url=self.url, reason=reason) from error
                    if error.code not in _BUSY:
                        raise GenerationError("endpoint_answer_invalid", url=self.url, reason=reason) from error
                    wait = _seconds(error.headers.get("Retry-After"), wait)
            except ValueError as error:
                raise GenerationError("endpoint_answer_invalid", url=self.url, reason="not JSON") from error
            except (OSError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", error))[:100] or type(error).__name__
            if number + 1 < NUM_TRIES and self._is_closed.wait(min(wait, LONGEST_WAIT_SECONDS)):
                break
        raise ModelUnavailableError("endpoint_unavailable", url=self.url, reason=reason)


class EndpointResponder:
    """Answers conversations with the model behind an endpoint."""

    def __init__(self, endpoint: ChatEndpoint, options: ReplyOptions) -> None:
        """Store whom to ask; nothing is sent.

        Args:
            endpoint: where the model is.
            options: decoding; the mode is not sent.
        """
        self._endpoint = endpoint
        self._options = options

    def describe(self) -> dict[str, Any]:
        """Return address, model and decoding; never the key."""
        decoding = {name: getattr(self._options, name) for name in ("temperature", "top_p", "max_new_tokens", "seed")}
        models = {"endpoint": {"url": self._endpoint.url, "name": self._endpoint.model}}
        return {"mode": "endpoint", "models": models, "decoding": decoding}

    def reply(self, messages: Sequence[Message]) -> Reply:
        """Answer the newest message.

        Raises:
            GenerationError: if the endpoint refuses this conversation or answers without a text.
            ModelUnavailableError: if it cannot be reached, or stays busy.
        """
        completion = self._endpoint.complete(
            [{"role": message.role.value, "content": message.text} for message in messages],
            temperature=self._options.temperature,
            top_p=self._options.top_p,
            max_tokens=self._options.max_new_tokens,
            seed=self._options.seed,
        )
        return Reply(completion.text.strip(), completion.text, self._endpoint.model, completion.finish_reason)

    def close(self) -> None:
        """End waits between tries."""
        self._endpoint.close()


def _seconds(header: str | None, default: float) -> float:
    try:
        return max(0.0, float(header)) if header else default
    except ValueError:
        return default
