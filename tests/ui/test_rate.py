"""One visitor's haste is refused with the seconds to wait; others go on, and a header is trusted on a Space only."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bianque.errors import InputError
from bianque.ui.rate import RateLimiter, address_of


def test_the_next_after_the_last_allowed_waits():
    now = [100.0]
    limiter = RateLimiter(2, clock=lambda: now[0])
    limiter.admit("a")
    now[0] += 10
    limiter.admit("a")
    now[0] += 10.5
    with pytest.raises(InputError) as refused:
        limiter.admit("a")
    assert refused.value.key == "rate_limited" and "40" in refused.value.text("zh")
    limiter.admit("b")
    now[0] += 39.5
    limiter.admit("a")


def test_no_limit_counts_nothing():
    limiter = RateLimiter(0)
    for _ in range(1000):
        limiter.admit("a")
    assert not limiter._times  # no address is kept either


def test_a_forwarded_address_counts_behind_a_proxy_only():
    request = SimpleNamespace(
        headers={"x-forwarded-for": "1.2.3.4, 10.0.0.1"}, client=SimpleNamespace(host="10.0.0.2")
    )
    assert address_of(request, is_behind_proxy=True) == "1.2.3.4"
    assert address_of(request, is_behind_proxy=False) == "10.0.0.2"
    assert address_of(SimpleNamespace(headers={}, client=None), is_behind_proxy=True) == ""
