"""The page for judging by hand, through gradio's own client and, for the keys, in a browser."""

from __future__ import annotations

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from bianque.evaluation.arena import Arena, arena_options, build_arena
from bianque.evaluation.battles import Battle, BattleSet
from bianque.evaluation.outcomes import read_outcomes
from bianque.evaluation.verdicts import VerdictBook
from tests.conftest import free_port

PAIRS = tuple(Battle(f"id{n}", "reply", f"病人：问{n}\n医生：", f"甲{n}<b>", f"乙{n}") for n in range(4))
EQUAL = Battle("equal", "reply", "病人：问\n医生：", "一样", "一样")


@pytest.fixture
def folder(tmp_path):
    battles = (*PAIRS, EQUAL)
    BattleSet(battles, {battle.id: ("x", "y") for battle in battles}).write(tmp_path / "battles", "command")
    return tmp_path / "battles"


def arena_of(folder, judge: str = "me") -> Arena:
    return Arena((*PAIRS, EQUAL), VerdictBook(folder / "verdicts.jsonl"), judge)


@pytest.fixture
def opened(folder, tmp_path, monkeypatch):
    """Serve the page over the folder; a further call serves it anew, as after a restart."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    demos, clients = [], []

    def serve() -> tuple[str, Client]:
        demo = build_arena(arena_of(folder))
        _, url, _ = demo.launch(
            server_name="127.0.0.1", server_port=free_port(), prevent_thread_lock=True, **arena_options()
        )
        demos.append(demo)
        clients.append(Client(url, verbose=False, analytics_enabled=False))
        return url, clients[-1]

    yield serve
    for client in clients:
        client.close()
    for demo in demos:
        demo.close()


def test_left_and_right_are_stored_by_the_pairs_own_letters(folder):
    arena = arena_of(folder)
    orders = {battle.id: arena.order(battle) for battle in PAIRS}
    for battle in PAIRS:
        arena.decide(battle.id, "left")
    assert {one.battle: one.choice for one in VerdictBook(folder / "verdicts.jsonl").all()} == {
        identity: order[0] for identity, order in orders.items()
    }
    assert arena.progress == (4, 4) and arena.next() is None


def test_sides_are_drawn_anew_for_each_person_but_stay_for_one(folder):
    people = [arena_of(folder, f"judge{n}") for n in range(8)]
    shown = [tuple(person.order(battle) for battle in PAIRS) for person in people]
    assert len(set(shown)) > 1  # all equal with probability 2 ** -28
    assert shown == [tuple(arena_of(folder, f"judge{n}").order(battle) for battle in PAIRS) for n in range(8)]


def test_a_person_judges_goes_back_and_goes_on_after_a_restart(opened, folder):
    _, client = opened()
    shown, progress, *_, prompt, left, right = client.predict(api_name="/next")[:7]
    assert progress == "**0 / 4**" and "病人：问0" in prompt
    assert "甲0&lt;b&gt;" in left + right and "<b>" not in left + right  # text, never markup
    assert "x" not in (shown, progress) and "model" not in prompt + left + right
    shown, progress = client.predict(shown, api_name="/left")[:2]
    assert (shown, progress) == ("id1", "**1 / 4**")
    assert client.predict(api_name="/back")[0] == "id0"
    assert client.predict("id0", api_name="/tie")[0] == "id1"  # instead of what was said before
    _, anew = opened()
    assert anew.predict(api_name="/next")[:2] == ("id1", "**1 / 4**")
    anew.predict("id1", api_name="/both_bad")
    anew.predict("id2", api_name="/right")
    assert anew.predict("id3", api_name="/right")[:2] == ("", "**4 / 4**")
    found = read_outcomes([folder])
    count = found.judges["me"]
    assert (count.pairs, count.ties, count.both_bad) == (4, 2, 1)
    assert len(found.outcomes) == 5 and found.judges["equal answers"].pairs == 1


def test_a_pair_that_is_not_there_is_refused(opened, folder):
    _, client = opened()
    for identity in ("", "id9", "equal"):
        with pytest.raises(AppError, match="没有这一对内容"):
            client.predict(identity, api_name="/left")
    assert VerdictBook(folder / "verdicts.jsonl").all() == []


@pytest.mark.browser
def test_keys_judge_and_nothing_is_asked_of_another_host(opened, folder, chromium):
    url, _ = opened()
    context = chromium.new_context(locale="zh-CN")
    page = context.new_page()
    page.set_default_timeout(120_000)  # a busy machine takes its time over the first page
    foreign = []
    page.on("request", lambda request: None if request.url.startswith((url, "data:", "blob:")) else foreign.append(1))
    page.goto(url)
    for number, key in enumerate("1234"):
        page.wait_for_function(f"document.getElementById('words')?.innerText.includes('问{number}')")
        page.keyboard.press(key)
    page.get_by_text("已全部评完").wait_for()
    choices = {one.battle: one.choice for one in VerdictBook(folder / "verdicts.jsonl").all()}
    assert (choices["id2"], choices["id3"]) == ("tie", "both_bad")
    arena = arena_of(folder)
    assert choices["id0"] == arena.order(PAIRS[0])[0] and choices["id1"] == arena.order(PAIRS[1])[1]
    assert foreign == []
    context.close()
