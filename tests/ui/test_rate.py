"""One visitor's haste is refused with the seconds to wait; others go on, and a header is trusted on a Space only."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from starlette.datastructures import Headers

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


def a_request(forwarded: str | None, peer: str | None = "10.0.0.2"):
    return SimpleNamespace(
        headers={} if forwarded is None else {"x-forwarded-for": forwarded},
        client=SimpleNamespace(host=peer) if peer else None,
    )


def test_a_forwarded_address_counts_behind_a_proxy_only():
    request = a_request("1.2.3.4, 10.0.0.1")
    assert address_of(request, is_on_space=True) == "1.2.3.4"
    assert address_of(request) == "10.0.0.2"
    assert address_of(a_request(None, None), is_on_space=True) == ""


@pytest.mark.parametrize(
    "forwarded",
    [
        "1.2.3.4",
        "9.9.9.9, 1.2.3.4",  # the first entry is the visitor's own invention
        "9.9.9.9, 8.8.8.8, 1.2.3.4, 10.0.0.1, 100.64.0.7",
        "10.0.0.9, 1.2.3.4",
        "unknown, 1.2.3.4:51234",
        "9.9.9.9,,1.2.3.4,  ,",
    ],
)
def test_a_visitor_of_a_space_cannot_choose_an_address(forwarded):
    assert address_of(a_request(forwarded), is_on_space=True) == "1.2.3.4"


@pytest.mark.parametrize("forwarded", ["", "10.0.0.1", "unknown", None])
def test_without_a_public_entry_a_space_counts_by_the_connection(forwarded):
    assert address_of(a_request(forwarded), is_on_space=True) == "10.0.0.2"


@pytest.mark.parametrize(
    ("num_proxies", "visitor"), [(1, "10.0.0.7"), (2, "192.168.1.5"), (3, "9.9.9.9"), (5, "9.9.9.9")]
)
def test_a_known_number_of_proxies_tells_the_entry(num_proxies, visitor):
    request = a_request("9.9.9.9, 192.168.1.5, 10.0.0.7")
    assert address_of(request, num_proxies=num_proxies) == visitor


def test_a_header_sent_twice_does_not_hide_the_proxys_line():
    request = SimpleNamespace(
        headers=Headers(raw=[(b"x-forwarded-for", b"9.9.9.9"), (b"x-forwarded-for", b"1.2.3.4")]),
        client=SimpleNamespace(host="10.0.0.2"),
    )
    assert address_of(request, is_on_space=True) == address_of(request, num_proxies=1) == "1.2.3.4"


def test_one_network_of_ipv6_is_one_visitor():
    first, second = (
        address_of(a_request(f"9.9.9.9, {entry}"), is_on_space=True)
        for entry in ("2606:4700:1:2::1", "[2606:4700:1:2:aaaa::2]:4711")
    )
    assert first == second == "2606:4700:1:2::/64"
    assert address_of(a_request(None, "::ffff:1.2.3.4")) == "1.2.3.4"


def test_an_invented_header_does_not_get_round_the_limit():
    limiter = RateLimiter(2)
    with pytest.raises(InputError):
        for number in range(3):
            limiter.admit(address_of(a_request(f"9.9.9.{number}, 1.2.3.4"), is_on_space=True))
