"""Packages that only corpus, fine-tuning and evaluation use: imported when needed, with one sentence when absent."""

from __future__ import annotations

import importlib
import logging
from typing import Any, Literal

from bianque.errors import SettingsError

Group = Literal["corpus", "evaluate", "train"]


def require(module: str, group: Group) -> Any:
    """Import and return `module`.

    Args:
        module: dotted name of the module.
        group: optional dependency group of `pyproject.toml` that installs it.

    Raises:
        SettingsError: `package_missing`, with the command that installs the group.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == module.split(".")[0]:
            raise SettingsError("package_missing", name=module.split(".")[0], group=group) from error
        raise


def load_jieba(group: Group) -> Any:
    """Return jieba with its dictionary loaded and its chatter on standard error switched off."""
    jieba = require("jieba", group)
    jieba.setLogLevel(logging.WARNING)
    jieba.initialize()
    return jieba
