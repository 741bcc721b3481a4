"""The choices of a visitor or an API caller, from whatever was sent to checked options."""

from __future__ import annotations

from bianque.consultation.messages import Mode, ReplyOptions
from bianque.errors import InputError

SEED_RANGE = (0, 2**31 - 1)


def read_options(
    mode: object, top_p: object, temperature: object, max_new_tokens: object, seed: object
) -> ReplyOptions:
    """Return the options a page or an API caller sent.

    Raises:
        InputError: naming the value that is not a number in its range, or the unknown mode.
    """
    if isinstance(max_new_tokens, float) and max_new_tokens.is_integer():
        max_new_tokens = int(max_new_tokens)
    return ReplyOptions(mode, top_p, temperature, max_new_tokens, _read_seed(seed))  # type: ignore[arg-type]


def read_mode(mode: object) -> Mode:
    """Return the mode a page or an API caller sent.

    Raises:
        InputError: if there is no such mode.
    """
    return ReplyOptions(mode).mode  # type: ignore[arg-type]


def _read_seed(seed: object) -> int | None:
    if seed is None or (isinstance(seed, str) and not seed.strip()):
        return None
    low, high = SEED_RANGE
    digits = str(seed).strip()
    if isinstance(seed, bool) or not digits.isdecimal() or not low <= int(digits) <= high:
        raise InputError("option_out_of_range", name="seed", low=low, high=high, got=digits[:40])
    return int(digits)
