"""Start the application: settings, models loading in the background, the page over them.

A Space runs this file as it is; so does a newcomer with `python app.py`. With `--share` the page also gets a link that
works from anywhere for up to a week.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence

from bianque.errors import BianQueError, SettingsError
from bianque.settings import Settings

logger = logging.getLogger("bianque.app")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the page until interrupted; return the exit code."""
    is_shared = read_arguments(arguments).share
    try:
        settings = Settings.from_environment()
        set_up_logging(settings)
        check_address(settings.server_name, settings.server_port)
        # A platform stops the app with SIGTERM; leave by the same way out as Ctrl-C.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        with tempfile.TemporaryDirectory(prefix="bianque-", ignore_cleanup_errors=True) as folder:
            prepare_gradio(folder, settings.server_name)
            serve(settings, is_shared=is_shared and not settings.is_space)
    except BianQueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what was asked for on the command line."""
    parser = argparse.ArgumentParser(description="扁鹊 BianQue: serve the page. Settings are environment variables.")
    parser.add_argument(
        "--share",
        action="store_true",
        help="also make a public link through gradio's servers, for up to a week; a Space has its own",
    )
    return parser.parse_args(arguments)


def serve(settings: Settings, *, is_shared: bool = False) -> None:
    """Launch the page at once, while the models load, and block until it ends.

    Args:
        settings: of the application.
        is_shared: whether a public link is made; the page is served without one where that fails.
    """
    # Only now, because gradio reads the environment when it is imported.
    from bianque.consultation.service import ConsultationService
    from bianque.manager import zerogpu
    from bianque.manager.manager import ModelManager
    from bianque.manager.switching import ModelSwitcher
    from bianque.ui.blocks import build_demo
    from bianque.ui.history import Limits
    from bianque.ui.launch import launch_options, make_public_link, queue_options
    from bianque.ui.status_route import status_routes

    manager = zerogpu.make_manager(settings) if settings.is_zero_gpu else ModelManager(settings)
    manager.start()  # on ZeroGPU it returns when the weights are in place, which has to be before the launch
    service = ConsultationService(manager)
    limits = Limits(
        max_message_chars=settings.max_message_chars,
        max_messages=settings.max_messages,
        replies_per_minute=settings.replies_per_minute,
        is_on_space=settings.is_space,
        num_proxies=settings.num_proxies,
    )
    demo = build_demo(service, limits, page_address=settings.page_address, switcher=ModelSwitcher(manager))
    demo.queue(**queue_options())
    try:
        try:
            demo.launch(
                server_name=_url_name(settings.server_name),
                server_port=settings.server_port,
                prevent_thread_lock=True,
                **launch_options(routes=status_routes(service), frame_ancestors=settings.frame_ancestors),
            )
        except OSError as error:
            # gradio's only error of its server: another program was quicker since `check_address`.
            raise SettingsError("port_in_use", port=settings.server_port) from error
        logger.info("open http://%s:%d", _url_name(settings.local_name), settings.server_port)
        if is_shared:
            try:
                logger.info("anybody can open %s", make_public_link(demo))
            except SettingsError as error:
                logger.warning("%s", error)
        demo.block_thread()
    finally:
        manager.shutdown()


def set_up_logging(settings: Settings) -> None:
    """Log to standard error; what visitors write is never logged."""
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("httpx", "httpx2", "httpcore", "filelock", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)


def prepare_gradio(folder: str, server_name: str) -> None:
    """Switch gradio's telemetry off and keep its files out of the checkout, which may be read-only."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("GRADIO_TEMP_DIR", folder)
    # gradio asks its own server for the page at the launch, and must not do so through a proxy set for downloads.
    ours = ["127.0.0.1", "localhost", "::1", server_name.strip("[]")]
    others = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, [others, *dict.fromkeys(ours)]))
    if ":" in server_name:
        # gradio tries the port with a socket for IPv4 at the address in this variable, whatever `launch` is given.
        os.environ.pop("GRADIO_SERVER_NAME", None)


def check_address(name: str, port: int) -> None:
    """Refuse an address that cannot be listened on before anything is loaded.

    Raises:
        SettingsError: if the name has no address, or none of this machine, another program listens on the port, or
            this user may not.
    """
    try:
        found = socket.getaddrinfo(name.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: a part of the name is empty or too long for a name
        raise SettingsError("server_name_unknown", name=name[:80]) from error
    # A name like localhost has addresses of both kinds, and IPv6 may be switched off.
    family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    with socket.socket(family, kind, protocol) as probe:
        if os.name != "nt":  # on Windows this option would allow two listeners
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise SettingsError("port_in_use", port=port) from error
            raise SettingsError("server_refused", name=name, port=port, reason=error.strerror or error) from error


def _url_name(name: str) -> str:
    """Return a server name as it stands in a URL: an IPv6 address in brackets."""
    return f"[{name.strip('[]')}]" if ":" in name else name


if __name__ == "__main__":
    sys.exit(main())
