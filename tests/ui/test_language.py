"""The language follows the browser's first choice."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bianque.ui.language import language_of


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("zh-TW", "zh"),
        ("ZH", "zh"),
        ("en-US,en;q=0.9,zh;q=0.8", "en"),
        ("fr-FR", "en"),
        ("*", "zh"),
        ("", "zh"),
        (";;,,", "zh"),
    ],
)
def test_the_first_language_decides(header, language):
    assert language_of(SimpleNamespace(headers={"accept-language": header}, query_params={})) == language


def test_no_request_means_chinese():
    assert language_of(None) == "zh"


@pytest.mark.parametrize(("wanted", "language"), [("en", "en"), ("zh", "zh"), ("fr", "zh"), ("", "zh")])
def test_the_address_goes_before_the_browser(wanted, language):
    header = "en" if wanted == "zh" else "zh-CN"
    request = SimpleNamespace(headers={"accept-language": header}, query_params={"lang": wanted})
    assert language_of(request) == language
