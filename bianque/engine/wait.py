"""How long a visitor who waits will probably wait for the first token: an estimate from tokens and speeds.

Everything a device does for those who run and those who wait goes one after the other: decode steps, which all that
run share, and prompts, one at a time. So the wait is the decode steps until a slot is free, times what a step takes
now, and the prompts that are run before the first token comes, the visitor's own included.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """What is left to do for one sequence.

    Attributes:
        prompt_tokens: tokens of its prompt; 0 once that has been run.
        new_tokens: tokens that it will probably still write.
    """

    prompt_tokens: int
    new_tokens: float


@dataclass(frozen=True)
class Speeds:
    """How fast a device works while all slots are taken.

    Attributes:
        step_seconds: of one decode step.
        prompt_token_seconds: of the device, for each token of a prompt.
        own_token_seconds: until the first token comes, for each token of one's own prompt: longer than the device's
            time where a long prompt lets others take their steps between its layers.
    """

    step_seconds: float
    prompt_token_seconds: float
    own_token_seconds: float


def expected_wait_seconds(
    running: Iterable[Work], ahead: Iterable[Work], own_prompt_tokens: int, speeds: Speeds
) -> float:
    """Return how long a sequence that waits will probably wait for its first token.

    Args:
        running: what the slots still have to do; at least one.
        ahead: those that wait and come before it, in their order.
        own_prompt_tokens: length of its own prompt.
        speeds: see `Speeds`.
    """
    running = list(running)
    num_prompt_tokens = sum(work.prompt_tokens for work in running)
    ends = [work.new_tokens for work in running]  # in decode steps from now
    heapq.heapify(ends)
    for work in ahead:  # each takes the slot that is free first
        heapq.heapreplace(ends, ends[0] + work.new_tokens)
        num_prompt_tokens += work.prompt_tokens
    return (
        ends[0] * speeds.step_seconds
        + num_prompt_tokens * speeds.prompt_token_seconds
        + own_prompt_tokens * speeds.own_token_seconds
    )
