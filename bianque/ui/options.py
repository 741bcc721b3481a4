"""The choices of a visitor or an API caller, from whatever was sent to checked options."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from bianque.consultation.messages import ASKING_LIMIT_RANGE, MAX_NEW_TOKENS_RANGE, Mode, ReplyOptions
from bianque.errors import InputError

SEED_RANGE = (0, 2**31 - 1)
# In the order of `read_options` and of the page's inputs.
OPTION_NAMES = ("mode", "top_p", "temperature", "max_new_tokens", "seed", "greedy", "asking_limit")


def read_options(
    mode: object,
    top_p: object,
    temperature: object,
    max_new_tokens: object,
    seed: object,
    greedy: object = False,
    asking_limit: object = 8,
) -> ReplyOptions:
    """Return the options a page or an API caller sent, in the order of `OPTION_NAMES`.

    Args:
        mode: a name of `Mode`.
        top_p: nucleus mass.
        temperature: 0 is greedy.
        max_new_tokens: longest reply.
        seed: None or blank draws one.
        greedy: whether the most probable token is taken each time, whatever the temperature.
        asking_limit: most questions in joint mode.

    Raises:
        InputError: naming the value that is not a number in its range, or the unknown mode.
    """
    if not isinstance(greedy, bool):
        raise InputError("option_out_of_range", name="greedy", low="false", high="true", got=str(greedy)[:40])
    options = ReplyOptions(
        mode,  # type: ignore[arg-type]
        top_p,  # type: ignore[arg-type]
        temperature,  # type: ignore[arg-type]
        _whole("max_new_tokens", max_new_tokens, MAX_NEW_TOKENS_RANGE),  # type: ignore[arg-type]
        _read_seed(seed),
        _whole("asking_limit", asking_limit, ASKING_LIMIT_RANGE),  # type: ignore[arg-type]
    )
    return ReplyOptions(**{**vars(options), "temperature": 0.0}) if greedy else options


def read_mode(mode: object) -> Mode:
    """Return the mode a page or an API caller sent.

    Raises:
        InputError: if there is no such mode.
    """
    return ReplyOptions(mode).mode  # type: ignore[arg-type]


def read_saved_options(
    saved: Mapping[str, Any], defaults_of: Callable[[Mode], ReplyOptions]
) -> tuple[ReplyOptions, list[str]]:
    """Return the options that a file carries, and the names of those that are no such options.

    Args:
        saved: names and values as `ReplyOptions` has them, or anything else.
        defaults_of: gives the options of a mode, for what the file lacks or has wrong.
    """
    wrong: list[str] = []
    try:
        mode = read_mode(saved["mode"]) if "mode" in saved else Mode.JOINT
    except InputError:
        mode = Mode.JOINT
        wrong.append("mode")
    options = defaults_of(mode)
    for name, value in saved.items():
        if name == "mode":
            continue
        values = {**vars(options), "greedy": False, name: value}
        try:
            known = read_options(*(values[other] for other in OPTION_NAMES))
        except InputError:
            known = None
        if known is None or name not in vars(options):
            wrong.append(name[:40])
        else:
            options = known
    return options, wrong


def _whole(name: str, number: object, bounds: tuple[int, int]) -> object:
    """Return a whole number as an integer: JSON does not tell 256 from 256.0."""
    if not isinstance(number, float) or not math.isfinite(number):
        return number
    if not number.is_integer():
        raise InputError("option_out_of_range", name=name, low=bounds[0], high=bounds[1], got=str(number)[:40])
    return int(number)


def _read_seed(seed: object) -> int | None:
    if seed is None or (isinstance(seed, str) and not seed.strip()):
        return None
    low, high = SEED_RANGE
    digits = str(_whole("seed", seed, SEED_RANGE)).strip()
    # So many digits at most, because Python refuses to read thousands of them.
    is_number = digits.isdecimal() and len(digits) <= len(str(high)) and not isinstance(seed, bool)
    if not is_number or not low <= int(digits) <= high:
        raise InputError("option_out_of_range", name="seed", low=low, high=high, got=digits[:40])
    return int(digits)
