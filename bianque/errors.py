"""The exception tree.

    BianQueError
    ├── SettingsError       an environment variable or start-up condition is wrong
    ├── InputError          what a visitor or caller sent is wrong
    ├── SnapshotError       a model's files are missing, damaged or of another architecture
    ├── ModelUnavailableError  the model is still loading, or could not be loaded
    ├── QueueFullError      the engine takes no more requests for now
    ├── GenerationError     one request failed while the model computed it
    ├── KnowledgeError      a knowledge file of the demonstration models is not valid
    ├── DataError           a file of a corpus, a fine-tuning run or an evaluation is not what it should be
    └── TrainingError       a training cannot go on

Every error names an entry of the translation table (`bianque.texts.errors`) and carries its parameters. `str(error)`
is the English sentence, for logs and the command line; `error.text("zh")` is the same for the page.
"""

from __future__ import annotations

from bianque.texts import Language, text


class BianQueError(Exception):
    """Base of all errors meant for people; the message says what was expected, what came and what to do."""

    def __init__(self, key: str, **params: object) -> None:
        """Store the entry of the translation table and its parameters.

        Args:
            key: name of an entry in `bianque.texts.errors.ERRORS`.
            **params: the entry's fields. Never pass what a patient wrote: messages reach logs.
        """
        self.key = key
        self.params = params
        super().__init__(text(key, "en", **params))

    def text(self, language: Language) -> str:
        """Return the sentence in `language`."""
        return text(self.key, language, **self.params)


class SettingsError(BianQueError):
    """An environment variable or another start-up condition is wrong."""


class InputError(BianQueError):
    """What a visitor or an API caller sent is wrong."""


class SnapshotError(BianQueError):
    """A model's files are missing, damaged or describe another architecture."""


class ModelUnavailableError(BianQueError):
    """The model is still loading, or could not be loaded."""


class QueueFullError(BianQueError):
    """The engine takes no more requests for now."""


class GenerationError(BianQueError):
    """One request failed while the model computed it; other requests go on."""


class KnowledgeError(BianQueError):
    """A knowledge file of the demonstration models is not valid."""


class DataError(BianQueError):
    """A file of a corpus, a fine-tuning run or an evaluation is missing, or is not what it should be."""


class TrainingError(BianQueError):
    """A training cannot go on: its loss or its gradients are not finite."""
