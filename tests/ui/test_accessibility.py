"""No serious finding of axe-core: both themes and languages, a phone, the compact view, with all panels open."""

from __future__ import annotations

import json

import pytest

from tests.ui.fake_service import ADVICE, QUESTION

pytestmark = pytest.mark.browser
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
SERIOUS = ("serious", "critical")
# The page's policy forbids scripts of other origins, not one that is put into it, so axe can run.
RUN = {"resultTypes": ["violations"]}


def findings(page) -> list[str]:
    """Return rule and place of each serious finding."""
    results = axe.Axe().run(page, options=RUN).response
    return [
        f"{one['id']}: {json.dumps(node['target'])}"
        for one in results["violations"]
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("", {"color_scheme": "light"}),
        ("", {"color_scheme": "dark", "locale": "en"}),
        ("", PHONE),
        ("?embed=1", {"viewport": {"width": 360, "height": 480}}),
    ],
    ids=["light", "dark-en", "phone", "compact"],
)
def test_there_is_no_serious_finding(visit, query, options):
    visitor = visit(query, **options)
    if not query:
        for panel in ("settings", "kept", "share"):
            visitor.open_panel(panel)
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    visitor.page.wait_for_timeout(500)
    assert findings(visitor.page) == []
    visitor.send("我胸痛")
    visitor.expect_reply(ADVICE, 3)
    visitor.page.wait_for_timeout(500)
    assert findings(visitor.page) == []
