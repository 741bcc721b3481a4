"""`python -m bianque status`: which models the running server has, and how far they are."""

from __future__ import annotations

import argparse
import http.client
import ipaddress
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from bianque.cli.arguments import port
from bianque.cli.table import pad, width_of
from bianque.errors import SettingsError
from bianque.settings import Settings

TIMEOUT_SECONDS = 10


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("status", help="say how far the models of the running server are")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--port", type=port, help="of the server (default: as the server itself would choose)")
    where.add_argument("--url", help="of a server elsewhere, such as https://me-bianque.hf.space")
    parser.add_argument("--json", action="store_true", help="print what the server answers")
    parser.add_argument("--language", choices=("zh", "en"), default="en", help="of the states (default: en)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Ask the server, that of this machine unless told otherwise, and print one line for each model."""
    url = options.url
    if url is None:
        settings = Settings.from_environment()
        name = settings.local_name.strip("[]")
        url = f"http://{f'[{name}]' if ':' in name else name}:{options.port or settings.server_port}"
    status = ask(url)
    if options.json:
        print(json.dumps(status, ensure_ascii=False, indent=2))
        return 0
    for line in dict.fromkeys(_lines(status, options.language)):
        print(line)
    return 0


def ask(url: str) -> dict[str, Any]:
    """Return the status that the server at `url` gives.

    Args:
        url: of the page, with or without `http://`; a path before the page's own is kept.

    Raises:
        SettingsError: if `url` is none, nothing listens there, or something else.
    """
    from bianque.ui.status_route import STATUS_PATH

    address, host, port = _split(url)
    # A proxy set for downloads must not be asked about this machine.
    proxies = urllib.request.ProxyHandler({}) if _is_near(host) else urllib.request.ProxyHandler()
    opener = urllib.request.build_opener(proxies)
    try:
        with opener.open(address + STATUS_PATH, timeout=TIMEOUT_SECONDS) as response:
            status = json.load(response)
    except urllib.error.HTTPError as error:
        error.close()
        raise SettingsError("server_is_another", host=host, port=port) from error
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        cause = getattr(error, "reason", error)
        reason = getattr(cause, "strerror", None) or cause
        raise SettingsError("server_not_running", host=host, port=port, reason=reason) from error
    except (http.client.HTTPException, ValueError) as error:
        raise SettingsError("server_is_another", host=host, port=port) from error
    if not isinstance(status, dict) or status.get("program") != "bianque":
        raise SettingsError("server_is_another", host=host, port=port)
    return status


def _split(url: str) -> tuple[str, str, int]:
    """Return the address without its last slash, its host and its port."""
    try:
        parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
        # What is no ASCII would only fail deep inside the request.
        is_valid = parts.scheme in ("http", "https") and host and url.isascii() and not set(url) & set(" \t\r\n")
    except ValueError:
        is_valid = False
    if not is_valid or not host:
        raise SettingsError("server_url_invalid", got=url[:80])
    address = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    return address, host, port or (443 if parts.scheme == "https" else 80)


def _is_near(host: str) -> bool:
    """Whether `host` is this machine or one of its network, which a proxy would not reach."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return "." not in host


def _lines(status: dict[str, Any], language: str) -> list[str]:
    if not status["models"]:
        return [status["reason"][language]]
    width = max(width_of(model["name"]) for model in status["models"])
    return [
        status["reason"][language],
        *(f"  {pad(model['name'], width)}  {model['text'][language]}" for model in status["models"]),
    ]
