"""One page over the scripted service for each module, and visitors to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.ui.fake_service import FakeService

SECONDS_PER_TOKEN = 0.01


def pytest_collection_modifyitems(items) -> None:
    """Give each test of the browser a second try, and no other test.

    A browser, its page, a server and what drives them share the processors of a busy machine; now and then one of them
    loses its connection or its frame, which says nothing about the page. Playwright's own runner tries again for that
    reason where it runs unattended. A page that is wrong fails both times; the last line of a run
    counts the second tries.
    """
    for item in items:
        if "chromium" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("flaky"):
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(scope="module")
def served() -> FakeService:
    return FakeService()


@pytest.fixture(scope="module")
def url(serve, served) -> str:
    return serve(served)


@pytest.fixture
def service(served) -> FakeService:
    served.reset(seconds_per_token=SECONDS_PER_TOKEN)
    return served


@pytest.fixture
def visit(chromium, url, service) -> Iterator[Callable]:
    """Open pages; after the test no page has asked another host for anything or raised a script error."""
    from tests.ui.visitor import Visitor

    visitors = []

    def open_page(query: str = "", **options) -> Visitor:
        visitors.append(Visitor(chromium, url, query=query, **options))
        return visitors[-1]

    yield open_page
    for visitor in visitors:
        visitor.close()
    assert [visitor.foreign_requests for visitor in visitors] == [[]] * len(visitors)
    assert [visitor.errors for visitor in visitors] == [[]] * len(visitors)
