"""`python -m bianque download` as people run it: in a process of its own, and with its bar."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bianque.cli.download import ProgressBar
from bianque.cli.main import main
from bianque.manager.download.progress import Progress
from bianque.manager.registry import MINI_ASKER
from tests.manager.hub_server import environment, running_hub, use_hub

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = "model.safetensors"
FILES = {"config.json": b'{"model_type": "t5"}', "spiece.model": b"tokenizer", WEIGHTS: bytes(200_000)}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with running_hub() as server:
        use_hub(server, tmp_path / "cache", monkeypatch)
        server.push("owner/model", FILES)
        yield server


def start(hub, tmp_path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "bianque", "download", *arguments],
        cwd=ROOT,
        env=environment(hub, tmp_path / "cache"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background may ignore the signal, and what it starts would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_a_mirror_is_used_and_the_folder_is_printed(hub, tmp_path):
    """HF_ENDPOINT is read by huggingface_hub when it is imported, hence the process of its own."""
    process = start(hub, tmp_path, "owner/model")
    output, messages = process.communicate(timeout=120)
    assert process.returncode == 0, messages
    folder = Path(output.strip())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert "100 %" in messages and "3/3 files" in messages
    assert {Path(request.path).name for request in hub.bodies()} == set(FILES)


def test_ctrl_c_stops_with_its_own_exit_code_and_the_next_run_goes_on(hub, tmp_path, capsys):
    fault = hub.fail(WEIGHTS, is_slow=True, hold_after=150_000, times=2)
    process = start(hub, tmp_path, "owner/model")
    assert fault.held.wait(60)
    process.send_signal(signal.SIGINT)
    fault.release.set()
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 130 and messages.endswith("stopped\n")
    assert main(["download", "owner/model"]) == 0
    assert Path(capsys.readouterr().out.strip(), WEIGHTS).read_bytes() == FILES[WEIGHTS]


@pytest.mark.parametrize("name", ["BianQue-1.0", "bianque-1.0", "scutcyr/BianQue-1.0"])
def test_a_model_has_a_name(hub, capsys, name):
    hub.push("scutcyr/BianQue-1.0", FILES)
    assert main(["download", name]) == 0
    assert Path(capsys.readouterr().out.strip()).is_dir()


def test_a_named_model_must_be_of_its_architecture(hub, capsys):
    hub.push("scutcyr/BianQue-2", FILES)
    assert main(["download", "BianQue-2.0"]) == 1
    assert "chatglm" in capsys.readouterr().err
    assert hub.sent(WEIGHTS) == 0


def test_a_revision_can_be_named(hub, capsys):
    other = b'{"model_type": "t5", "other": 1}'
    hub.push("owner/model", {**FILES, "config.json": other}, branch="v2")
    assert main(["download", "owner/model", "--revision", "v2"]) == 0
    assert Path(capsys.readouterr().out.strip(), "config.json").read_bytes() == other


def test_the_demonstration_models_are_there(capsys):
    assert main(["download", "mini-asker"]) == 0
    assert capsys.readouterr().out.strip() == MINI_ASKER.location


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["no-such-model"], "BianQue-2.0"),
        (["owner/nothing"], "no model repo owner/nothing"),
        (["owner/model", "--revision", "v9"], "no revision v9"),
        (["./no/such/folder"], "does not exist"),
    ],
)
def test_an_error_is_one_sentence_and_exit_code_1(hub, capsys, arguments, sentence):
    assert main(["download", *arguments]) == 1
    output = capsys.readouterr()
    assert output.out == "" and sentence in output.err and output.err.count("\n") == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def progress(done_bytes: int) -> Progress:
    return Progress(WEIGHTS, done_bytes, 1000, 0, 1, 10.0, 5.0, done_bytes, 1000)


def test_the_bar_is_redrawn_on_one_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    terminal = Terminal()
    bar = ProgressBar(terminal)
    for done_bytes in (0, 500, 1000):
        bar(progress(done_bytes))
    bar.close()
    lines = terminal.getvalue().split("\r")[1:]
    assert [line.split("]")[0].count("#") for line in lines] == [0, 10, 20]
    assert all(len(line.rstrip("\n")) == 59 for line in lines)
    assert terminal.getvalue().count("\n") == 1


def test_without_a_terminal_there_is_a_line_now_and_then():
    stream = io.StringIO()
    bar = ProgressBar(stream)
    for done_bytes in range(0, 1001, 10):
        bar(progress(done_bytes))
    bar.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert "\r" not in stream.getvalue() and lines[-1].startswith("100 %")


def test_nothing_is_drawn_when_nothing_is_fetched():
    terminal = Terminal()
    ProgressBar(terminal).close()
    assert terminal.getvalue() == ""
