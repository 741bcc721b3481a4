"""What memory there is: the system's, and the limits of the control groups above the process."""

from __future__ import annotations

import pytest

from bianque.errors import SettingsError
from bianque.manager.memory import Machine, host_bytes, probe_machine

MIB = 1024 * 1024
MEMINFO = f"MemTotal: {64 * 1024 * 1024} kB\nMemAvailable:   {40 * 1024} kB\n"


@pytest.fixture
def root(tmp_path):
    """A file system with 40 MiB available and no control groups."""
    write(tmp_path / "proc/meminfo", MEMINFO)
    return tmp_path


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def limit_v2(folder, limit, usage, cached=0):
    write(folder / "memory.max", f"{limit}\n")
    write(folder / "memory.current", f"{usage}\n")
    write(folder / "memory.stat", f"anon 1\ninactive_file {cached}\nactive_file 5\n")


def test_without_a_limit_the_system_counts(root):
    assert host_bytes(root) == 40 * MIB


def test_a_container_limit_counts_with_its_cached_files_given_back(root):
    write(root / "proc/self/cgroup", "0::/\n")
    limit_v2(root / "sys/fs/cgroup", 16 * MIB, 10 * MIB, cached=4 * MIB)
    assert host_bytes(root) == 10 * MIB


def test_the_tightest_of_the_groups_above_counts(root):
    write(root / "proc/self/cgroup", "0::/outer/inner\n")
    limit_v2(root / "sys/fs/cgroup/outer", 8 * MIB, 1 * MIB)
    limit_v2(root / "sys/fs/cgroup/outer/inner", "max", 1 * MIB)
    assert host_bytes(root) == 7 * MIB


def test_version_1_groups(root):
    write(root / "proc/self/cgroup", "5:cpu:/x\n4:memory:/job\n0::/\n")
    folder = root / "sys/fs/cgroup/memory/job"
    write(folder / "memory.limit_in_bytes", str(20 * MIB))
    write(folder / "memory.usage_in_bytes", str(12 * MIB))
    write(folder / "memory.stat", f"inactive_file 3\ntotal_inactive_file {1 * MIB}\n")
    assert host_bytes(root) == 9 * MIB


def test_a_group_that_is_over_its_limit_leaves_nothing(root):
    write(root / "proc/self/cgroup", "0::/\n")
    limit_v2(root / "sys/fs/cgroup", 4 * MIB, 5 * MIB)
    assert host_bytes(root) == 0


def test_a_system_without_proc_is_taken_to_be_half_in_use(tmp_path):
    assert host_bytes(tmp_path) > 0


def test_this_machine_can_be_looked_at():
    machine = probe_machine("cpu")
    assert machine.kind == "cpu" and not machine.has_gpu
    assert machine.device_bytes == machine.host_bytes > 0


@pytest.mark.parametrize("device", ["cuda:99", "tpu"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(SettingsError) as caught:
        probe_machine(device)
    assert device in str(caught.value) and "cpu" in str(caught.value)


@pytest.mark.parametrize(("device", "kind"), [("cpu", "cpu"), ("cuda", "cuda"), ("cuda:1", "cuda"), ("mps", "mps")])
def test_kinds_of_device(device, kind):
    assert Machine(device, "", 1, 1).kind == kind
