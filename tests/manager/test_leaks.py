"""Loading and unloading again and again leaves nothing behind: no memory, no objects, no threads."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import pytest
from torch import nn

from bianque.engine.engine import Engine
from bianque.engine.sampling import SamplingParams
from bianque.manager import residents
from bianque.manager.manager import ModelManager
from bianque.manager.memory import Machine
from bianque.manager.precision import plan_memory
from bianque.manager.registry import MINI_ADVISER, MINI_ASKER, Job
from bianque.manager.switching import ModelSwitcher
from bianque.settings import ModelSource, Settings

GB = 10**9
CYCLES = 10
# One model kept in each cycle would be ten times its size; the allocator's own slack has been seen at twice its size.
HALF_A_LEAK = CYCLES // 2 * MINI_ASKER.bytes_at("fp32")


def count_objects() -> tuple[int, int, int]:
    """Return how many engines, modules and threads there are."""
    gc.collect()
    objects = gc.get_objects()
    # By type: isinstance asks some objects of torch for their class, which warn or import in reply.
    engines = sum(issubclass(type(each), Engine) for each in objects)
    modules = sum(issubclass(type(each), nn.Module) for each in objects)
    return engines, modules, threading.active_count()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def manager(monkeypatch):
    """A manager with the embedded models and room for hardly more."""
    monkeypatch.setattr(residents, "GRACE_SECONDS", 0.0)
    needed = plan_memory([MINI_ASKER, MINI_ADVISER], Machine("cpu", "CPU", GB, GB), visitors=1).needed_bytes
    machine = Machine("cpu", "CPU", needed * 6 // 5, GB)
    settings = Settings(models="demo", num_threads=1, num_slots=1, may_switch_models=True)
    manager = ModelManager(settings, probe=lambda device: machine)
    manager.start()
    assert manager.wait(300)
    yield manager
    manager.shutdown()


def reply(manager: ModelManager, job: Job) -> None:
    loaded = manager.get(job)
    params = SamplingParams(temperature=0, max_new_tokens=2)
    assert list(loaded.engine.stream(loaded.engine.submit(loaded.encode("病人：咳嗽\\n医生："), params)))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_ten_load_and_unload_cycles_leave_nothing(manager):
    def cycle():
        manager.unload(Job.ASKER)
        manager.load(Job.ASKER)
        reply(manager, Job.ASKER)

    cycle()  # what is made once and kept is made here
    objects, memory = count_objects(), resident_bytes()
    for _ in range(CYCLES):
        cycle()
    assert count_objects() == objects
    assert resident_bytes() - memory < HALF_A_LEAK


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_ten_changes_of_precision_from_the_page_leave_nothing(manager):
    switcher = ModelSwitcher(manager)

    def cycle():
        for precision in ("int8", "fp32"):
            switcher.switch(Job.ASKER, "mini-asker", precision)
            assert manager.wait(300)
            assert manager.get(Job.ASKER).dtype == precision
            reply(manager, Job.ASKER)

    cycle()
    objects, memory = count_objects(), resident_bytes()
    for _ in range(CYCLES):
        cycle()
    assert count_objects() == objects
    assert resident_bytes() - memory < HALF_A_LEAK


def test_switching_back_and_forth_keeps_no_more_than_there_is_room_for(manager, tmp_path):
    copies = []
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(MINI_ASKER.location, target_is_directory=True)
        copies.append(ModelSource(str(tmp_path / name)))
    objects = count_objects()
    for index in range(4):
        status = manager.switch(Job.ASKER, copies[index % 2])
        assert (status.name, status.state) == (("one", "two")[index % 2], "ready")
        reply(manager, Job.ASKER)
    assert count_objects() == objects
