"""Write the dialogues of the listening mode (SoulChat): everyday worries, short replies that leave the talk open."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from bianque.minis.cases import CaseBook, pick
from bianque.minis.knowledge import Knowledge
from bianque.minis.wording import Typist

if TYPE_CHECKING:
    from bianque.minis.dialogues import Dialogue


def write_listening(dialogue: Dialogue, knowledge: Knowledge, book: CaseBook, typist: Typist, rng: Random) -> None:
    """Append a conversation of one to four exchanges to `dialogue`."""
    content = knowledge.soulchat
    if rng.random() < 0.2:
        dialogue.add("patient", typist.write(rng.choice(book.split(content["greetings"]["says"]))), "greetings")
        dialogue.add("adviser", content["greetings"]["reply"], "greetings")
    chance = rng.random()
    if chance < 0.06:
        says, reply = knowledge.general["emergencies"]["crisis"]["says"], content["crisis_reply"]
    elif chance < 0.1:
        says, reply = content["medical"]["says"], content["medical"]["reply"]
    elif chance < 0.13:
        says, reply = knowledge.general["foreign"]["says"], content["foreign_reply"]
    else:
        _write_theme(dialogue, knowledge, book, typist, rng)
        return
    dialogue.add("patient", typist.write(rng.choice(book.split(says))), "special")
    dialogue.add("adviser", reply, "special")


def _write_theme(dialogue: Dialogue, knowledge: Knowledge, book: CaseBook, typist: Typist, rng: Random) -> None:
    content = knowledge.soulchat
    if rng.random() < 0.14:
        entry = content["general"]
        openings, first, later = entry["says"], [entry["first"]], [entry["later"]]
    else:
        entry = rng.choice(content["themes"])
        openings, first, later = entry["openings"], entry["first"], list(entry["later"])
    dialogue.add("patient", typist.write(rng.choice(book.split(openings))), "worry", entry.get("id", "general"))
    dialogue.add("adviser", pick(rng, first), "listen", entry.get("id", "general"))
    for reply in later[: rng.choice((0, 1, 2))]:
        dialogue.add("patient", typist.write(rng.choice(book.split(content["more"]))), "worry")
        dialogue.add("adviser", reply, "listen", entry.get("id", "general"))
    if rng.random() < 0.25:
        dialogue.add("patient", typist.write(rng.choice(book.split(content["thanks"]["says"]))), "thanks")
        dialogue.add("adviser", content["thanks"]["reply"], "thanks")
