"""What memory this machine has for models: on the device, and on the host within the limit of its container.

Numbers are bytes. A container's limit counts, because a Space of 16 GB may run on a host that shows hundreds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bianque.errors import SettingsError

DeviceKind = Literal["cpu", "cuda", "mps"]


@dataclass(frozen=True)
class Machine:
    """What models may run on.

    Attributes:
        device: `cpu`, `cuda`, `cuda:N` or `mps`.
        name: of the device, as shown to people.
        device_bytes: free on the device; on the CPU and on Apple's shared memory the same as `host_bytes`.
        host_bytes: available to this process on the host.
    """

    device: str
    name: str
    device_bytes: int
    host_bytes: int

    @property
    def kind(self) -> DeviceKind:
        """`cpu`, `cuda` or `mps`."""
        kind = self.device.partition(":")[0]
        return "cuda" if kind == "cuda" else "mps" if kind == "mps" else "cpu"

    @property
    def has_gpu(self) -> bool:
        """Whether the device is not the CPU."""
        return self.kind != "cpu"


def probe_machine(requested: str = "auto") -> Machine:
    """Look at this machine; imports torch, which takes seconds.

    Args:
        requested: `auto` is the first CUDA device if there is one, else the CPU. Apple's `mps` has to be asked for,
            because it is not tested here.

    Raises:
        SettingsError: if the device asked for does not exist.
    """
    import torch

    num_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    host = host_bytes()
    device = ("cuda" if num_cuda else "cpu") if requested == "auto" else requested
    available = ["cpu", *(f"cuda:{number}" for number in range(num_cuda))]
    if torch.backends.mps.is_available():
        available.append("mps")
    if device not in available and not (device == "cuda" and num_cuda):
        raise SettingsError("device_unavailable", got=device, available=", ".join(available))
    if device.startswith("cuda"):
        return Machine(device, torch.cuda.get_device_name(device), free_device_bytes(device), host)
    return Machine(device, "Apple GPU" if device == "mps" else "CPU", host, host)


def free_device_bytes(device: str) -> int:
    """Return what is free on `device` now, for all programs that use it."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0]
    return host_bytes()


def host_bytes(root: Path = Path("/")) -> int:
    """Return the memory this process may still take on the host: the system's, or less where a container limits it.

    Args:
        root: where `proc` and `sys` are; for tests.
    """
    return min([_system_bytes(root), *_group_bytes(root)])


def _system_bytes(root: Path) -> int:
    try:
        lines = (root / "proc/meminfo").read_text(encoding="utf-8").splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return _physical_bytes() // 2  # of an unknown system, half is taken to be in use


def _physical_bytes() -> int:
    """Return the memory of a system without `/proc`: macOS, Windows."""
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    import ctypes

    kilobytes = ctypes.c_ulonglong()
    ctypes.windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kilobytes))  # type: ignore[attr-defined]
    return kilobytes.value * 1024


def _group_bytes(root: Path) -> Iterator[int]:
    """Yield what each control group above this process leaves, versions 1 and 2; nothing where there is no limit."""
    for folder, limit_file, usage_file, cache_field in _group_folders(root):
        try:
            limit = int((folder / limit_file).read_text(encoding="ascii"))
            usage = int((folder / usage_file).read_text(encoding="ascii"))
            stat = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        except (OSError, ValueError):  # absent, or the word `max`
            continue
        # Cached files that nothing uses are given back when memory is asked for.
        cached = sum(int(line.split()[1]) for line in stat if line.split()[:1] == [cache_field])
        yield max(0, limit - usage + cached)


def _group_folders(root: Path) -> Iterator[tuple[Path, str, str, str]]:
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        names = ("memory.max", "memory.current", "inactive_file")
        mount = root / "sys/fs/cgroup"
        if controllers:
            if "memory" not in controllers.split(","):
                continue
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            mount /= "memory"
        # Inside a container the path may be the host's, and the limit then stands at the mount itself.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for length in range(len(parts), -1, -1):
            yield (mount.joinpath(*parts[:length]), *names)
