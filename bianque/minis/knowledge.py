"""The knowledge of the demonstration models: what complaints there are, what a doctor asks and advises.

Reads and checks `knowledge/*.yaml`. Files whose name starts with `_` are not lists of complaints: `_general.yaml`
holds complaints outside the list, follow-ups and small talk, `_soulchat.yaml` the themes of the listening mode.
`knowledge/phrases/*.yaml` widens the vocabulary, for training only: for each complaint the parts of further openings,
for follow-ups, small talk and themes whole sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from bianque.errors import KnowledgeError

FOLDER = Path(__file__).parent / "knowledge"
NUM_HELDOUT = 2
"""The last openings of a complaint or theme, and the last wordings of a follow-up, that training never sees."""

ITEMS = tuple(
    "duration age place appearance severity pattern trigger fever accompanying menses stool_urine diet sleep_mood "
    "work_habit exposure allergy family history checks medicine".split()
)
"""What can be asked, in the order in which a doctor asks it."""
POPULATIONS = frozenset({"any", "child", "female", "male", "elderly"})
# A number with a unit of medicine, or how often to take it: the demonstration models must never have seen a dose.
DOSE = re.compile(
    r"\d+(\.\d+)?\s*(mg|毫克|克|g|片|粒|毫升|ml|支|袋|滴|μg|微克)|[每一]\s*[日天次]\s*[一二两三四\d]\s*(次|片|粒|袋|支|滴)[^\n]{0,3}[服吃用]"
    r"|(服|吃)[一二两三四五半]\s*(片|粒|毫克|毫升|袋)",
    re.IGNORECASE,
)
_COMPLAINT_KEYS = frozenset(
    "id name department population openings asks causes self_care checks warning_signs diet".split()
)


@dataclass(frozen=True)
class Ask:
    """One thing a doctor asks: the question in several wordings, the first preferred, and patients' answers."""

    item: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Phrases:
    """Parts of openings: `scenes` may stand before any of the `signs`, `also` after it; a sign may stand alone."""

    signs: tuple[str, ...]
    scenes: tuple[str, ...]
    also: tuple[str, ...]


@dataclass(frozen=True)
class Complaint:
    """One listed complaint; the fields are those of the knowledge file, `phrases` those of the file of phrases."""

    id: str
    name: str
    department: str
    population: str
    openings: tuple[str, ...]
    asks: tuple[Ask, ...]
    causes: str
    self_care: tuple[str, ...]
    checks: str
    warning_signs: tuple[str, ...]
    diet: str
    phrases: Phrases

    @property
    def training_openings(self) -> tuple[str, ...]:
        """Openings that training may use."""
        return self.openings[:-NUM_HELDOUT]

    @property
    def heldout_openings(self) -> tuple[str, ...]:
        """Openings kept for evaluation."""
        return self.openings[-NUM_HELDOUT:]

    @property
    def plan(self) -> tuple[Ask, ...]:
        """The six things the asker goes through: the first five of the list and the last one, in the usual order.

        The same order for every complaint keeps the asker from asking twice when it is unsure which complaint it is.
        """
        return _in_order((*self.asks[:5], self.asks[-1]))


@dataclass(frozen=True)
class Knowledge:
    """Everything the generator draws from; `general` and `soulchat` are the two special files as plain data."""

    complaints: tuple[Complaint, ...]
    general: dict[str, Any]
    soulchat: dict[str, Any]

    @property
    def general_asks(self) -> tuple[Ask, ...]:
        """What is asked about complaints outside the list, in order; questions may hold the slot {place}."""
        return _in_order(_ask("_general.yaml", entry) for entry in self.general["asks"])

    def texts(self) -> Iterator[str]:
        """Yield every string of all files."""
        for complaint in self.complaints:
            yield from _strings(vars(complaint))
            yield from _strings(vars(complaint.phrases))
            for ask in complaint.asks:
                yield from (*ask.questions, *ask.answers)
        yield from _strings(self.general)
        yield from _strings(self.soulchat)


@cache
def load_knowledge(folder: Path = FOLDER) -> Knowledge:
    """Read and check all knowledge files of `folder`; the result is shared and must not be changed.

    Raises:
        KnowledgeError: if a file is missing or breaks a rule; the message names file, complaint and rule.
    """
    complaints: list[Complaint] = []
    for path in sorted(folder.glob("[!_]*.yaml")):
        phrases = _read(folder / "phrases" / path.name)
        for entry in _read(path).get("complaints", ()):
            complaints.append(_complaint(path.name, entry, phrases.get(entry.get("id"))))
    ids = [complaint.id for complaint in complaints]
    for repeated in {name for name in ids if ids.count(name) > 1}:
        raise KnowledgeError("knowledge_invalid", file=str(folder), reason=f"two complaints have the id {repeated}")
    general, soulchat = _read(folder / "_general.yaml"), _read(folder / "_soulchat.yaml")
    _widen(general, soulchat, folder / "phrases")
    knowledge = Knowledge(tuple(complaints), general, soulchat)
    for sentence in knowledge.texts():
        if DOSE.search(sentence):
            raise KnowledgeError("knowledge_invalid", file=str(folder), reason=f"a dose in {sentence!r}")
    return knowledge


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise KnowledgeError("knowledge_invalid", file=path.name, reason=str(error).splitlines()[0]) from error
    if not isinstance(content, dict):
        raise KnowledgeError("knowledge_invalid", file=path.name, reason="it must be a mapping")
    return content


def _widen(general: dict[str, Any], soulchat: dict[str, Any], folder: Path) -> None:
    """Put the further sentences of `folder` before the known ones, whose last stay the held-out ones."""
    for topic, sentences in _read(folder / "_small_talk.yaml").items():
        entry = general["emergencies"].get(topic) or general[topic]
        entry["says"] = [*sentences, *entry["says"]]
    for intent, sentences in _read(folder / "_followups.yaml").items():
        entry = general["followups"][intent]
        entry["says"] = [*sentences, *entry["says"]]
    general["synonyms"] = tuple(map(tuple, general["synonyms"]))  # looked up by their value
    general["free_openings"] = [*_read(folder / "_free_openings.yaml")["free_openings"], *general["free_openings"]]
    openings = _read(folder / "_soulchat.yaml")
    for theme in soulchat["themes"]:
        theme["openings"] = [*openings[theme["id"]], *theme["openings"]]


def _complaint(file: str, entry: dict[str, Any], phrases: dict[str, Any] | None) -> Complaint:
    """Check one entry against the schema and freeze it."""
    name = f"{file}: {entry.get('id')}"

    def check(is_right: bool, reason: str) -> None:
        if not is_right:
            raise KnowledgeError("knowledge_invalid", file=name, reason=reason)

    check(entry.keys() == _COMPLAINT_KEYS, f"keys must be {sorted(_COMPLAINT_KEYS)}, not {sorted(entry)}")
    check(entry["population"] in POPULATIONS, f"population must be one of {sorted(POPULATIONS)}")
    check(len(set(entry["openings"])) == len(entry["openings"]) >= 10, "at least 10 different openings are needed")
    check(6 <= len(entry["asks"]) <= 8, "6 to 8 asks are needed")
    check(len(entry["self_care"]) == 5, "5 self_care clauses are needed")
    check(len(entry["warning_signs"]) == 3, "3 warning_signs are needed")
    check(entry["causes"][0] in "多可常", "causes must start with 多, 可能 or 常")
    for key in ("causes", "checks", "diet"):
        check(entry[key][-1] not in "。，；", f"{key} must not end in punctuation")
    check(phrases is not None and phrases.keys() == {"signs", "scenes", "also"}, "signs, scenes, also are needed")
    assert phrases is not None
    for key, values in phrases.items():
        check(bool(values) and all(isinstance(text, str) for text in values), f"{key} must be strings")
        check(len(set(values)) == len(values), f"{key} must be different")
    asks = tuple(_ask(name, ask) for ask in entry["asks"])
    items = [ask.item for ask in asks]
    check(len(set(items)) == len(items) and set(items) <= set(ITEMS), f"items must be different and known: {items}")
    check("duration" in items, "duration must be among the asks")
    return Complaint(
        **{key: entry[key] for key in ("id", "name", "department", "population", "causes", "checks", "diet")},
        openings=tuple(entry["openings"]),
        self_care=tuple(entry["self_care"]),
        warning_signs=tuple(entry["warning_signs"]),
        asks=asks,
        phrases=Phrases(**{key: tuple(values) for key, values in phrases.items()}),
    )


def _in_order(asks: Iterable[Ask]) -> tuple[Ask, ...]:
    return tuple(sorted(asks, key=lambda ask: ITEMS.index(ask.item)))


def _ask(name: str, entry: dict[str, Any]) -> Ask:
    ask = Ask(entry["item"], tuple(entry["questions"]), tuple(entry["answers"]))
    if len(ask.questions) != 3 or not 5 <= len(ask.answers) <= 8:
        reason = f"{ask.item} needs 3 questions and 5 to 8 answers"
        raise KnowledgeError("knowledge_invalid", file=name, reason=reason)
    return ask


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for item in value.values() for text in _strings(item))
    elif isinstance(value, list | tuple):
        yield from (text for item in value for text in _strings(item))
