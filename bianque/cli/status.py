"""`python -m bianque status`: which models the running server has, and how far they are."""

from __future__ import annotations

import argparse
import http.client
import json
import urllib.error
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
    parser.add_argument("--port", type=port, help="of the server (default: as the server itself would choose)")
    parser.add_argument("--json", action="store_true", help="print what the server answers")
    parser.add_argument("--language", choices=("zh", "en"), default="en", help="of the states (default: en)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Ask the server on this machine and print one line for each model."""
    status = ask(options.port or Settings.from_environment().server_port)
    if options.json:
        print(json.dumps(status, ensure_ascii=False, indent=2))
        return 0
    for line in dict.fromkeys(_lines(status, options.language)):
        print(line)
    return 0


def ask(port: int) -> dict[str, Any]:
    """Return the status that the server on `port` of this machine gives.

    Raises:
        SettingsError: if nothing listens there, or something else.
    """
    from bianque.ui.status_route import STATUS_PATH

    # A proxy set for downloads must not be asked about this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{STATUS_PATH}", timeout=TIMEOUT_SECONDS) as response:
            status = json.load(response)
    except urllib.error.HTTPError as error:
        error.close()
        raise SettingsError("server_is_another", port=port) from error
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise SettingsError("server_not_running", port=port) from error
    except (http.client.HTTPException, ValueError) as error:
        raise SettingsError("server_is_another", port=port) from error
    if not isinstance(status, dict) or status.get("program") != "bianque":
        raise SettingsError("server_is_another", port=port)
    return status


def _lines(status: dict[str, Any], language: str) -> list[str]:
    if not status["models"]:
        return [status["reason"][language]]
    width = max(width_of(model["name"]) for model in status["models"])
    return [
        status["reason"][language],
        *(f"  {pad(model['name'], width)}  {model['text'][language]}" for model in status["models"]),
    ]
