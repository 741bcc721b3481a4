"""Each model that serves says which revision of its files it is."""

from __future__ import annotations

import pytest

from bianque import __version__
from bianque.manager.registry import MINIS_FOLDER
from tests.manager.test_manager import ScriptedLoader, start  # noqa: F401 - a fixture

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("folder", "revision"),
    [
        ("hub/models--scutcyr--BianQue-2/snapshots/" + COMMIT, COMMIT),
        (MINIS_FOLDER / "mini-asker", f"bianque {__version__}"),
        ("own/" + COMMIT, ""),
        ("own/snapshots/main", ""),
    ],
    ids=["hub", "embedded", "own", "own-snapshots"],
)
def test_the_revision_is_that_of_the_files(start, tmp_path, folder, revision):  # noqa: F811
    manager = start(ScriptedLoader(tmp_path / folder))
    statuses = manager.statuses()
    assert [status.revision for status in statuses] == [revision] * len(statuses)
    assert {status.template for status in statuses} == {"bianque", "soulchat"}
    assert statuses[0].to_json()["revision"] == revision and statuses[0].to_json()["template"] == "bianque"


def test_a_model_on_its_way_has_none_yet(start, tmp_path):  # noqa: F811
    loader = ScriptedLoader(tmp_path)
    loader.may_go_on.clear()
    manager = start(loader, wait=False)
    loader.is_waiting.wait(60)
    assert {status.revision for status in manager.statuses()} == {""}
    loader.may_go_on.set()
