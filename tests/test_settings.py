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


def test_a_space_has_an_address_of_its_own():
    assert Settings.from_environment({"SYSTEM": "spaces"}).page_address == ""
    space = Settings.from_environment({"SYSTEM": "spaces", "SPACE_ID": "me/bianque"})
    assert space.page_address == "https://huggingface.co/spaces/me/bianque"
    assert Settings.from_environment({"SPACE_ID": "me/bianque"}).page_address == ""


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
        ("BIANQUE_PRECISION", "int2"),
        ("BIANQUE_MEMORY_GB", "12GB"),
        ("BIANQUE_CUDA_BACKEND", "cutlass"),
        ("BIANQUE_MODEL_SWITCH", "yes"),
        ("BIANQUE_DEVICE", "cuda:x"),
        ("BIANQUE_DEVICE", "tpu"),
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


def test_a_variable_that_was_replaced_is_refused_with_the_new_name():
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({"BIANQUE_DTYPE": "fp16"})
    assert "BIANQUE_DTYPE" in str(caught.value) and "BIANQUE_PRECISION" in caught.value.text("zh")


def test_a_revision_without_its_model_is_refused():
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({"BIANQUE_ADVISER_REVISION": "abc"})
    assert "BIANQUE_ADVISER_REVISION" in str(caught.value) and "BIANQUE_ADVISER " in caught.value.text("zh")


def test_precision_memory_and_zero_gpu():
    settings = Settings.from_environment({"BIANQUE_PRECISION": "int8", "BIANQUE_MEMORY_GB": "12"})
    assert (settings.precision, settings.memory_gb, settings.is_zero_gpu) == ("int8", 12, False)
    assert Settings.from_environment({"SPACES_ZERO_GPU": "true"}).is_zero_gpu
    assert not Settings.from_environment({"SPACES_ZERO_GPU": "0"}).is_zero_gpu


def test_the_backend_and_the_leave_to_switch():
    settings = Settings.from_environment({"BIANQUE_CUDA_BACKEND": "cpm", "BIANQUE_MODEL_SWITCH": "1"})
    assert (settings.cuda_backend, settings.may_switch_models) == ("cpm", True)
    assert not Settings.from_environment({"BIANQUE_MODEL_SWITCH": "0"}).may_switch_models


def test_an_unknown_variable_is_named_with_the_nearest_setting(caplog):
    with caplog.at_level("WARNING", "bianque"):
        settings = Settings.from_environment({"BIANQUE_DEVCIE": "secret", "BIANQUE_ADVISER_REVISON": "", "BIAN": "x"})
    assert settings == Settings()
    assert len(caplog.messages) == 1 and "BIANQUE_DEVCIE" in caplog.text and "BIANQUE_DEVICE?" in caplog.text
    assert "secret" not in caplog.text


def test_an_unknown_variable_like_no_setting_is_named_all_the_same(caplog):
    with caplog.at_level("WARNING", "bianque"):
        Settings.from_environment({"BIANQUE_QQQQ": "1"})
    assert "BIANQUE_QQQQ" in caplog.text and "README" in caplog.text


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("BIANQUE_MODEL", "BIANQUE_MODELS"),
        ("BIANQUE_ADVISOR", "BIANQUE_ADVISER"),
        ("BIANQUE_MAX_CHARS", "BIANQUE_MAX_MESSAGE_CHARS"),
        ("BIANQUE_THREADS", "BIANQUE_NUM_THREADS"),
        ("BIANQUE_ASKER_REVISON", "BIANQUE_ASKER_REVISION"),
        ("BIANQUE_precision", "BIANQUE_PRECISION"),
    ],
)
def test_the_nearest_setting_is_suggested(name, near, caplog):
    with caplog.at_level("WARNING", "bianque"):
        Settings.from_environment({name: "1"})
    assert caplog.messages[0].endswith(f"{name} is no setting and is ignored; did you mean {near}?")


def test_known_variables_and_those_of_the_tests_are_not_named(caplog):
    known = {"BIANQUE_ADVISER": "a/b", "BIANQUE_ADVISER_REVISION": "main", "BIANQUE_TEST_CHROMIUM": "/usr/bin/x"}
    with caplog.at_level("WARNING", "bianque"):
        Settings.from_environment(known)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("::", "::1"),
        ("[::]", "::1"),
        ("192.168.1.5", "192.168.1.5"),
        ("localhost", "localhost"),
    ],
)
def test_the_address_under_which_the_machine_finds_its_server(name, local):
    assert Settings.from_environment({"GRADIO_SERVER_NAME": name}).local_name == local
