"""Server time of one update of a streaming reply, by length of the conversation and of the reply.

`python benchmarks/page.py` prints ratios to the shortest conversation, measured side by side: what the page's handler
writes and what gradio's chatbot makes of it. The transport, the same for all, is left out. No model runs.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import gradio as gr

from bianque.consultation.messages import Author, Message, Role
from bianque.ui.history import MAX_SHOWN, Entry
from bianque.ui.updates import growing

MESSAGES = (1, 40, 160)
REPLY_TOKENS = (100, 2000)
ROUNDS = 30
REPEATS = 20


def conversation(num_messages: int) -> list[Entry]:
    """Return a conversation of 200-character messages that ends with the visitor's."""
    roles = (Role.USER, Role.ASSISTANT)
    entries = []
    for index in range(num_messages):
        role = roles[(num_messages - 1 - index) % 2]
        author = None if role is Role.USER else Author.ASKER
        entries.append(Entry(Message(role, "头疼" * 100, author), "问 · m" if author else ""))
    return entries


def update_seconds(chatbot: gr.Chatbot, entries: list[Entry], reply: Entry) -> float:
    """Return the time of one update: the handler's part and the component's."""
    grow = growing(entries)  # once a reply
    begin = time.perf_counter()
    for _ in range(REPEATS):
        chatbot.postprocess(grow(reply).chatbot).model_dump()
    return (time.perf_counter() - begin) / REPEATS


def main() -> None:
    """Measure every case in turn, so that the machine's other work falls on all alike, and print medians."""
    chatbot = gr.Chatbot()
    cases = {
        (messages, tokens): (
            conversation(messages),
            Entry(Message(Role.ASSISTANT, "好的" * (tokens // 2), Author.ADVISER), "答 · m", is_pending=True),
        )
        for messages in MESSAGES
        for tokens in REPLY_TOKENS
    }
    times: dict[tuple[int, int], list[float]] = {case: [] for case in cases}
    for _ in range(ROUNDS):
        for case, (entries, reply) in cases.items():
            times[case].append(update_seconds(chatbot, entries, reply))
    base = statistics.median(times[MESSAGES[0], REPLY_TOKENS[0]])
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, gradio {gr.__version__}, at most {MAX_SHOWN} messages shown")
    for (messages, tokens), values in times.items():
        median = statistics.median(values)
        ratio = median / base
        print(f"{messages:4} messages, reply of {tokens:5} characters: {1000 * median:7.3f} ms, ratio {ratio:5.2f}")


if __name__ == "__main__":
    main()
