"""Measure how long a model takes to load, and the most host memory that takes.

    python scripts/make_checkpoint.py /tmp/full2                       a random BianQue-2.0, 13.4 GB, once
    python benchmarks/loading.py /tmp/full2 --cache /tmp/cache         bf16, fp16, int8 and int4, the latter also kept
    python benchmarks/loading.py /tmp/full2 --precisions fp16 int8 --limit-gb 15

Every row is a process of its own. Memory is its anonymous memory (RssAnon of /proc, every 20 ms) and VmHWM, the
highest resident memory of all, which counts mapped pages of the weight files too, although the system can take those
back at any time; both without what the imports took. The bound is final memory + the largest shard + 1 GB. GB are 10^9
bytes.

`--limit-gb` puts each process into a memory cgroup of that size (needs root): one that needs more is killed.
`--cold` drops the weight files from the page cache before each row, as after a restart of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

GB = 1e9
CGROUPS = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max", "memory.peak"),
)


def memory_gb(name: str) -> float:
    """Return a figure of this process: `RssAnon`, `VmRSS` or `VmHWM`."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 / GB if found else float("nan")


class PeakOfAnonymous:
    """Samples this process's anonymous memory in a thread."""

    def __init__(self) -> None:
        """Start."""
        self.peak_gb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._stop.wait(0.02):
            self.peak_gb = max(self.peak_gb, memory_gb("RssAnon"))

    def stop(self) -> float:
        """Return the peak."""
        self._stop.set()
        self._thread.join()
        return max(self.peak_gb, memory_gb("RssAnon"))


def measure(folder: Path, device: str, precision: str, cache_folder: Path | None) -> dict[str, Any]:
    """Load once in this process and return the figures; runs in a fresh one."""
    import torch
    import transformers  # noqa: F401 - part of the program, not of the model

    from bianque.manager.download.snapshot import read_json
    from bianque.manager.weights.load import load_weights
    from bianque.models import chatglm  # noqa: F401

    family = read_json(folder, "config.json")["model_type"]
    if device.startswith("cuda"):
        torch.zeros(1, device=device)
    base_gb, base_rss_gb = memory_gb("RssAnon"), memory_gb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM begins anew
    totals = {0}
    peak = PeakOfAnonymous()
    started = time.perf_counter()
    model = load_weights(
        folder,
        family,
        device=device,
        precision=precision,  # type: ignore[arg-type]
        report=lambda done, total: totals.add(total),
        cache_folder=cache_folder,
    )
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    result = {
        "seconds": seconds,
        "read_gb": max(totals) / GB,
        "peak_gb": peak.stop() - base_gb,
        "peak_rss_gb": memory_gb("VmHWM") - base_rss_gb,
        "final_gb": memory_gb("RssAnon") - base_gb,
        "device_gb": torch.cuda.max_memory_allocated() / GB if device.startswith("cuda") else 0.0,
        "threads": torch.get_num_threads(),
    }
    del model
    return result


def enter_cgroup(limit_gb: float) -> Path:
    """Put this process into a memory cgroup of its own; return its folder."""
    for root, limit_file, _ in CGROUPS:
        folder = root / f"bianque-loading-{os.getpid()}"
        try:
            folder.mkdir()
            (folder / limit_file).write_text(str(int(limit_gb * GB)), encoding="ascii")
            (folder / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        except OSError:
            continue
        return folder
    raise SystemExit("no memory cgroup can be made here: run as root, or without --limit-gb")


def run_row(arguments: argparse.Namespace, precision: str, cache_folder: Path | None) -> dict[str, Any] | None:
    """Measure in a new process; None if it was killed."""
    options = ["--child", precision, "--device", arguments.device, "--limit-gb", str(arguments.limit_gb)]
    if cache_folder is not None:
        options += ["--cache", str(cache_folder)]
    process = subprocess.Popen(
        [sys.executable, __file__, str(arguments.folder), *options], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    output, _ = process.communicate()
    for root, _, peak_file in CGROUPS:
        folder = root / f"bianque-loading-{process.pid}"
        if folder.is_dir():
            peak = folder / peak_file
            if peak.is_file():
                print(f"  cgroup: at most {int(peak.read_text()) / GB:.2f} GB with page cache", file=sys.stderr)
            folder.rmdir()
    return json.loads(output) if process.returncode == 0 else None


def drop_from_page_cache(folder: Path) -> None:
    """Make the next reads of a folder's files come from the disk."""
    os.sync()
    for path in folder.glob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def describe_hardware(device: str) -> str:
    """Return the machine in one line."""
    import torch

    cpu = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    names = [f"{cpu[1] if cpu else platform.processor()}, {os.cpu_count()} cores, {memory:.0f} GB"]
    if device.startswith("cuda"):
        names.append(torch.cuda.get_device_name())
    return " + ".join(names) + f", torch {torch.__version__}"


def print_table(arguments: argparse.Namespace) -> None:
    """Measure every row and print it."""
    shards = [*arguments.folder.glob("*.bin"), *arguments.folder.glob("*.safetensors")]
    largest = max(path.stat().st_size for path in shards) / GB
    total = sum(path.stat().st_size for path in shards) / GB
    limit = f", in a cgroup of {arguments.limit_gb:g} GB" if arguments.limit_gb else ""
    print(f"{describe_hardware(arguments.device)}{limit}")
    print(f"{total:.2f} GB in {len(shards)} files, the largest {largest:.2f} GB; on {arguments.device}")
    print(f"page cache: {'cold' if arguments.cold else 'as it is'}\n")
    print("| precision | from | read GB | seconds | final GB | peak GB | peak with files GB | bound GB | device GB |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for precision in arguments.precisions:
        rounds: list[tuple[str, Path | None]] = [("shards", None)]
        if arguments.cache is not None and precision.startswith("int"):
            rounds += [("shards, then kept", arguments.cache), ("kept", arguments.cache)]
        for source, cache_folder in rounds:
            if arguments.cold:
                drop_from_page_cache(arguments.folder)
                if cache_folder is not None and cache_folder.is_dir():
                    drop_from_page_cache(cache_folder)
            row = run_row(arguments, precision, cache_folder)
            if row is None:
                print(f"| {precision} | {source} | killed |", flush=True)
                continue
            figures = (row["final_gb"], row["peak_gb"], row["peak_rss_gb"], row["final_gb"] + largest + 1)
            print(
                f"| {precision} | {source} | {row['read_gb']:.2f} | {row['seconds']:.1f} | "
                + " | ".join(f"{figure:.2f}" for figure in figures)
                + f" | {row['device_gb']:.2f} |",
                flush=True,
            )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Measure time and host memory of loading.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp16", "int8", "int4"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cache", type=Path, help="folder for quantized weights; adds two rows for int8 and int4")
    parser.add_argument("--limit-gb", type=float, default=0.0)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is None:
        print_table(arguments)
        return
    if arguments.limit_gb:
        enter_cgroup(arguments.limit_gb)
    print(json.dumps(measure(arguments.folder, arguments.device, arguments.child, arguments.cache)))


if __name__ == "__main__":
    main()
