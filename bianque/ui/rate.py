"""How many replies one visitor may ask for in a minute. Knows visitors by address, and nothing of what they write.

Behind a proxy every request comes from the proxy, and `X-Forwarded-For` says for whom. Each proxy appends the address
that it got the request from to what came with the request, and that may be anything: whoever counts by the first entry
lets a visitor be somebody new with every message. So entries count from the right, where the trusted proxies wrote.
"""

from __future__ import annotations

import ipaddress
import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import gradio as gr

from bianque.errors import InputError

WINDOW_SECONDS = 60.0
_MOST_VISITORS = 10_000


class RateLimiter:
    """Counts replies of the last minute for each visitor. Safe from any thread."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with no replies counted.

        Args:
            per_minute: most replies of one visitor in a minute; 0 for no limit.
            clock: in seconds.
        """
        self._per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._times: dict[str, deque[float]] = {}

    def admit(self, visitor: str) -> None:
        """Count a reply.

        Raises:
            InputError: if the visitor has had as many as allowed, with the seconds until the next.
        """
        if not self._per_minute:
            return
        now = self._clock()
        with self._lock:
            times = self._times.setdefault(visitor, deque())
            while times and now - times[0] >= WINDOW_SECONDS:
                times.popleft()
            if len(times) >= self._per_minute:
                raise InputError("rate_limited", seconds=math.ceil(times[0] + WINDOW_SECONDS - now))
            times.append(now)
            if len(self._times) > _MOST_VISITORS:
                self._forget(now)

    def _forget(self, now: float) -> None:
        """Drop visitors who have asked for nothing in the last minute."""
        self._times = {visitor: times for visitor, times in self._times.items() if now - times[-1] < WINDOW_SECONDS}


def address_of(request: gr.Request | Any, *, is_on_space: bool = False, num_proxies: int = 0) -> str:
    """Return what one visitor is counted by: an IPv4 address, or the /64 network of an IPv6 address.

    Args:
        request: of the visitor.
        is_on_space: whether the platform's proxies stand before the server. How many they are is nowhere promised, but
            all inside are at private addresses and every visitor comes from a public one: the last public entry is
            what the outermost of them saw. Were it missing, everybody would count as one.
        num_proxies: how many proxies stand before the server, where that is known: the visitor is the entry that the
            outermost of them wrote. Visitors may then have private addresses too.
    """
    entries = _forwarded(request) if is_on_space or num_proxies else []
    if num_proxies:
        chosen = entries[-num_proxies:][:1]
    else:
        chosen = [entry for entry in entries if (address := _parse(entry)) is not None and address.is_global][-1:]
    client = getattr(request, "client", None)
    visitor = _parse(chosen[0]) if chosen else None
    if visitor is None:
        visitor = _parse(client.host) if client else None
    if isinstance(visitor, ipaddress.IPv6Address):
        # One subscriber has the whole network and can take another address of it for each message.
        return str(ipaddress.IPv6Network((visitor, 64), strict=False))
    return str(visitor) if visitor else client.host if client else ""


def _forwarded(request: gr.Request | Any) -> list[str]:
    """Return the entries of all `X-Forwarded-For` lines in order: a proxy may append a line instead of an entry."""
    headers = request.headers or {}
    lines = headers.getlist("x-forwarded-for") if hasattr(headers, "getlist") else [headers.get("x-forwarded-for", "")]
    return [entry.strip() for line in lines for entry in line.split(",") if entry.strip()]


def _parse(entry: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address in an entry, which some proxies write with a port: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    match = re.fullmatch(r"\[([^\]]+)\](?::\d+)?|([\d.]+):\d+", entry)
    try:
        address = ipaddress.ip_address((match[1] or match[2]) if match else entry)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address
