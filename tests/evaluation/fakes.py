"""A responder that answers by a function, and what an endpoint answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from bianque.consultation.messages import Message
from bianque.evaluation.responders import Reply


class FakeResponder:
    def __init__(self, answer: Callable[[Sequence[Message]], str], name: str = "fake"):
        self.answer = answer
        self.name = name
        self.asked: list[str] = []
        self._lock = threading.Lock()

    def describe(self):
        return {"mode": "fake", "models": {"fake": {"name": self.name}}}

    def reply(self, messages):
        with self._lock:
            self.asked.append(messages[-1].text)
        text = self.answer(messages)
        return Reply(text, text, "fake", "stop")

    def close(self):
        pass

    def in_mode(self, mode):
        """Return a responder of the same answers that is told apart by its description."""
        other = FakeResponder(self.answer, mode.value)
        other.asked = self.asked
        return other


def answer(text: str | None) -> tuple[int, dict]:
    """Return status and body of an endpoint's answer."""
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
