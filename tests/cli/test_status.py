"""`python -m bianque status` against a page that is served, another program, and nothing."""

from __future__ import annotations

import http.server
import json
import socket
import threading

import pytest

from bianque.cli.main import main
from tests.conftest import free_port
from tests.ui.fake_service import FakeService


@pytest.fixture(scope="module")
def service():
    return FakeService()


@pytest.fixture(scope="module")
def port(service):
    """Port of a page served over `service`."""
    from bianque.ui.blocks import build_demo
    from bianque.ui.launch import launch_options, queue_options
    from bianque.ui.status_route import status_routes

    port = free_port()
    demo = build_demo(service).queue(**queue_options())
    demo.launch(
        server_name="127.0.0.1",
        server_port=port,
        prevent_thread_lock=True,
        **launch_options(routes=status_routes(service)),
    )
    yield port
    demo.close()


def test_states_of_the_running_server(service, port, capsys):
    service.reset(is_settled=False, fraction=0.6)
    assert main(["status", "--port", str(port)]) == 0
    out = capsys.readouterr().out
    assert "mini-asker    loading 60 %" in out and "mini-adviser  loading 60 %" in out
    service.reset()
    assert main(["status", "--port", str(port), "--language", "zh"]) == 0
    assert "mini-asker    就绪，cpu fp32" in capsys.readouterr().out


def test_json_says_nothing_of_visitors(service, port, capsys):
    service.reset()
    assert main(["status", "--port", str(port), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status.keys() == {"program", "version", "is_settled", "is_demonstration", "reason", "models"}
    assert [model["state"] for model in status["models"]] == ["ready", "ready"]


def test_the_port_is_the_one_the_server_would_choose(service, port, capsys, monkeypatch):
    monkeypatch.setenv("GRADIO_SERVER_PORT", str(port))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert main(["status"]) == 0
    assert "mini-asker" in capsys.readouterr().out


def test_no_server_is_one_sentence_and_exit_code_1(capsys):
    port = free_port()
    assert main(["status", "--port", str(port)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and f"No server runs on port {port}" in captured.err


@pytest.mark.parametrize("name", ["0.0.0.0", "localhost"])
def test_the_address_is_the_one_the_server_listens_on(name, service, port, capsys, monkeypatch):
    monkeypatch.setenv("GRADIO_SERVER_NAME", name)
    assert main(["status", "--port", str(port)]) == 0
    assert "mini-asker" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "shown"), [("127.0.0.9", "127.0.0.9"), ("::", "::1"), ("[::1]", "::1")])
def test_another_address_is_asked(name, shown, service, port, capsys, monkeypatch):
    monkeypatch.setenv("GRADIO_SERVER_NAME", name)
    assert main(["status", "--port", str(port)]) == 1
    assert f"No server runs on port {port} of {shown} (" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["http://127.0.0.1:{}", "127.0.0.1:{}", "http://localhost:{}/"])
def test_a_server_is_found_by_its_address(form, service, port, capsys, monkeypatch):
    monkeypatch.setenv("GRADIO_SERVER_NAME", "127.0.0.9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert main(["status", "--url", form.format(port)]) == 0
    assert "mini-asker" in capsys.readouterr().out


def test_a_path_before_the_pages_own_is_kept(monkeypatch):
    asked = []
    monkeypatch.setattr("urllib.request.OpenerDirector.open", lambda _, url, **__: asked.append(url) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["status", "--url", "https://example.org/bianque/"])
    assert asked == ["https://example.org/bianque/models.json"]


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://", "http://127.0.0.1:99999", "http://[::1", "a b", "地址"])
def test_what_is_no_address_is_one_sentence(url, capsys):
    assert main(["status", "--url", url]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "http://127.0.0.1:7860" in error and repr(url) in error


def test_a_name_that_does_not_resolve_is_one_sentence(capsys, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    assert main(["status", "--url", "http://no.such.host.invalid:7860"]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "port 7860 of no.such.host.invalid" in error


@pytest.mark.parametrize("port", ["0", "65536", "x"])
def test_what_is_no_port_is_a_wrong_argument(port, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["status", "--port", port])
    assert caught.value.code == 2 and "--port" in capsys.readouterr().err


def test_a_program_that_does_not_speak_http_is_told_apart(capsys):
    def answer(server):
        connection, _ = server.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        assert main(["status", "--port", str(server.getsockname()[1])]) == 1
        thread.join()
    assert "Another program" in capsys.readouterr().err


@pytest.mark.parametrize("body", [b"hello", b'{"a": 1}', None])
def test_another_program_is_told_apart(body, capsys):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        assert main(["status", "--port", str(server.server_port)]) == 1
        server.shutdown()
        thread.join()
    assert "Another program" in capsys.readouterr().err
