"""Measure what a visitor of the demonstration models feels: start, memory, first token, tokens per second.

Starts `app.py` as a visitor's machine would, waits until a first reply has come, and prints one line a figure with the
hardware and lengths it was measured with. Run: `python benchmarks/demo.py`.
"""

from __future__ import annotations

import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bianque.manager.loader import LoadedModel

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

COMPLAINTS = ["我最近总是失眠，白天没精神", "孩子咳嗽三天了，有点发烧", "胃痛，吃完饭更明显", "膝盖疼，上下楼梯厉害"]


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def resident_megabytes(pid: int) -> float:
    """Return the resident memory of a process, from /proc."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else float("nan")


def wait_for_page(url: str, process: subprocess.Popen, limit_seconds: float = 120) -> float:
    """Return the seconds until the page answers."""
    started = time.monotonic()
    while time.monotonic() - started < limit_seconds:
        if process.poll() is not None:
            raise SystemExit("app.py ended before the page came up")
        try:
            urllib.request.urlopen(url, timeout=5).read()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
        else:
            return time.monotonic() - started
    raise SystemExit(f"no page within {limit_seconds} s")


def measure_app() -> None:
    """Print start-up time, memory and the latency of whole replies through the API."""
    from gradio_client import Client

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "BIANQUE_MODELS": "demo"}
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        page_seconds = wait_for_page(url, process)
        client = Client(url, verbose=False)
        while True:
            try:
                client.predict(COMPLAINTS[0], api_name="/chat")
                break
            except Exception as error:
                if "载入" not in str(error) and "loading" not in str(error):
                    raise
                time.sleep(0.1)
        ready_seconds = time.monotonic() - started
        print(f"page answers after            {page_seconds:6.1f} s")
        print(f"first reply complete after    {ready_seconds:6.1f} s  (imports, loading and client included)")
        first_text = []
        for complaint in COMPLAINTS:
            sent = time.monotonic()
            job = client.submit(complaint, api_name="/chat")
            next(iter(job))
            first_text.append(time.monotonic() - sent)
            job.result()
        print(f"first text through the API    {statistics.median(first_text):6.3f} s  (median of {len(first_text)})")
        print(f"resident memory               {resident_megabytes(process.pid):6.0f} MB")
    finally:
        process.terminate()
        process.wait(30)


def generate_speed(loaded: LoadedModel) -> float:
    """Return the decode speed of transformers' own `generate`, greedy, prefill included, on the same prompts."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    from bianque.consultation.templates import escape_for_t5
    from bianque.models.auto import register

    is_t5 = loaded.spec.family == "t5"
    auto_class = AutoModelForSeq2SeqLM if is_t5 else AutoModelForCausalLM
    register()
    model = auto_class.from_pretrained(loaded.spec.location, dtype=torch.float32, local_files_only=True).eval()
    speeds = []
    for complaint in COMPLAINTS * 3:
        prompt = f"病人：{complaint}\n医生："
        input_ids = torch.tensor([loaded.encode(escape_for_t5(prompt) if is_t5 else prompt)])
        started = time.monotonic()
        output = model.generate(input_ids, max_new_tokens=256, do_sample=False)
        num_new = output.shape[1] - (1 if is_t5 else input_ids.shape[1])
        speeds.append(num_new / (time.monotonic() - started))
    return statistics.median(speeds)


def measure_engines() -> None:
    """Print time to first token and decode speed of each demonstration model, one chat at a time."""
    import torch

    from bianque.consultation.templates import escape_for_t5
    from bianque.engine.sampling import SamplingParams
    from bianque.manager.manager import ModelManager
    from bianque.manager.registry import Job
    from bianque.settings import Settings

    manager = ModelManager(Settings(models="demo"))
    manager.start()
    manager.wait()
    for job in (Job.ASKER, Job.ADVISER):
        loaded = manager.get(job)
        first, speeds, lengths = [], [], []
        for complaint in COMPLAINTS * 3:
            prompt = f"病人：{complaint}\n医生："
            prompt_ids = loaded.encode(escape_for_t5(prompt) if loaded.spec.family == "t5" else prompt)
            sequence = loaded.engine.submit(prompt_ids, SamplingParams(temperature=0, max_new_tokens=256))
            lengths.append((len(prompt_ids), len(list(loaded.engine.stream(sequence)))))
            first.append(sequence.time_to_first_token_seconds)
            if sequence.tokens_per_second:
                speeds.append(sequence.tokens_per_second)
        prompts, replies = zip(*lengths, strict=True)
        peer = generate_speed(loaded)
        print(
            f"{loaded.spec.name}: {loaded.num_parameters / 1e6:.1f} M parameters, {loaded.dtype} on {loaded.device}, "
            f"{torch.get_num_threads()} threads, batch 1, prompt {min(prompts)}-{max(prompts)}, "
            f"reply {min(replies)}-{max(replies)} tokens: first token {statistics.median(first):.3f} s, "
            f"{statistics.median(speeds):.0f} tokens/s (medians of {len(first)}); "
            f"transformers' generate on the same weights {peer:.0f} tokens/s, "
            f"ratio {statistics.median(speeds) / peer:.2f}"
        )
    manager.shutdown()


if __name__ == "__main__":
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    measure_app()
    measure_engines()
