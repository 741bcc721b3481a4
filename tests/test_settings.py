from __future__ import annotations

import pytest

from bianque.errors import SettingsError
from bianque.settings import ModelSource, Settings


def test_defaults_need_no_variable():
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert (settings.server_name, settings.server_port) == ("127.0.0.1", 7860)


def test_a_space_listens_on_every_address():
    assert Settings.from_environment({"SYSTEM": "spaces"}).server_name == "0.0.0.0"


def test_port_variables():
    assert Settings.from_environment({"PORT": "8000"}).server_port == 8000
    assert Settings.from_environment({"PORT": "8000", "GRADIO_SERVER_PORT": "8001"}).server_port == 8001


def test_model_sources():
    settings = Settings.from_environment({"BIANQUE_ADVISER": "me/tuned", "BIANQUE_ADVISER_REVISION": "abc"})
    assert settings.adviser == ModelSource("me/tuned", "abc")
    assert settings.asker is None


def test_empty_variables_count_as_unset():
    assert Settings.from_environment({"BIANQUE_DEVICE": " ", "BIANQUE_ADVISER": ""}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BIANQUE_MODELS", "best"),
        ("BIANQUE_DTYPE", "int8"),
        ("BIANQUE_DEVICE", "cuda:x"),
        ("BIANQUE_DEVICE", "mps"),
        ("BIANQUE_NUM_SLOTS", "0"),
        ("BIANQUE_NUM_SLOTS", "-1"),
        ("BIANQUE_NUM_SLOTS", "two"),
        ("BIANQUE_MAX_WAITING", "1e3"),
        ("PORT", "70000"),
        ("BIANQUE_LOG_LEVEL", "LOUD"),
    ],
)
def test_wrong_values_name_the_variable_and_what_is_expected(name, value):
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({name: value})
    for language in ("zh", "en"):
        sentence = caught.value.text(language)
        assert name in sentence
        assert value in sentence
