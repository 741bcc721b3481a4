"""How the page is served: limits, headers, translations, nothing from other hosts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
from starlette.routing import BaseRoute

from bianque.errors import SettingsError
from bianque.texts import LOCALES, text
from bianque.texts.page import PAGE
from bianque.ui import fragments
from bianque.ui.embedding import page_middleware
from bianque.ui.public_files import public_routes
from bianque.ui.theme import FAVICON_FILE, STYLE_FILE, make_theme

# Refuses every request to another host, should anything ever ask for one.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
    )
)
HEAD = (
    f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_SECURITY_POLICY}">'
    '<meta name="referrer" content="no-referrer">'
)
# Replies wait in the engines' own queues, each in a thread of the server.
MAX_THREADS = 128
MAX_QUEUED_EVENTS = 256


def translations() -> gr.I18n:
    """Return the texts that the browser chooses by its language."""
    tables = {
        language: {
            **{key: text(key, language) for key, entry in PAGE.items() if "{" not in entry.zh},
            "header": fragments.header(language),
            "footer": fragments.footer(language),
        }
        for language in set(LOCALES.values())
    }
    return gr.I18n(**{locale: tables[language] for locale, language in LOCALES.items()})


def launch_options(*, routes: Sequence[BaseRoute] = (), frame_ancestors: tuple[str, ...] = ("*",)) -> dict[str, Any]:
    """Return the arguments of `Blocks.launch` other than address and port.

    Args:
        routes: served beside gradio's own.
        frame_ancestors: origins that may embed the page, as `Settings.frame_ancestors` has them.
    """
    return {
        "app_kwargs": {"routes": [*public_routes(), *routes], "middleware": page_middleware(frame_ancestors)},
        "theme": make_theme(),
        "css_paths": [STYLE_FILE],
        "head": HEAD,
        "i18n": translations(),
        "favicon_path": FAVICON_FILE,
        "footer_links": ["api", "settings"],
        "run_history": False,  # would keep health text in the browser of a shared computer
        "enable_monitoring": False,
        "max_file_size": 1,  # the page takes no files, and one byte refuses them all
        "max_threads": MAX_THREADS,
        "state_session_capacity": 200,  # conversations of closed pages stay in memory up to this number
        "ssr_mode": False,  # one process, one port, half the requests
        "pwa": False,
        "mcp_server": False,
        "share": False,  # see `make_public_link`
        "show_error": False,
        "quiet": True,
    }


def make_public_link(demo: gr.Blocks) -> str:
    """Ask gradio's servers for a link to a page that is being served, and return it.

    `launch(share=True)` would do the same, but then serves a page whose scripts come from another host.

    Args:
        demo: launched; its `share_url` becomes the link.

    Raises:
        SettingsError: if no link can be made; the page is served all the same.
    """
    from gradio import networking

    try:
        link = networking.setup_tunnel(demo.server_name, demo.server_port, demo.share_token, None, None)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise SettingsError("share_failed", reason=reason, address=demo.local_url) from error
    address = f"https://{link.partition('://')[2]}"
    demo.share_url = address  # type: ignore[assignment]  # gradio declares it by its first value, None
    return address


def queue_options() -> dict[str, Any]:
    """Return the arguments of `Blocks.queue`; who waits for a model is decided by the engines."""
    return {"max_size": MAX_QUEUED_EVENTS, "default_concurrency_limit": None, "api_open": False}
