"""What counts as right in a reply of a demonstration model; pure functions over the knowledge."""

from __future__ import annotations

import difflib
import re
from functools import cache, cached_property

from bianque.minis.cases import GENERAL
from bianque.minis.knowledge import Knowledge

_SENTENCE_END = re.compile(r"[。；！？\n]")
# Below this similarity a question is nobody's: half of its characters stand elsewhere or not at all.
_NEAR_ENOUGH = 0.6


def clauses_of(reply: str) -> list[str]:
    """Return the clauses of a reply: what stands between full stops, semicolons, question marks and newlines."""
    return [clause.strip() for clause in _SENTENCE_END.split(reply) if clause.strip()]


class Judge:
    """Compares replies with everything the knowledge can say."""

    def __init__(self, knowledge: Knowledge) -> None:
        self._knowledge = knowledge
        self._general = knowledge.general
        parts = [part for names in self._general["parts"].values() for part in names]
        self._place = "(?:身体|" + "|".join(sorted(map(re.escape, parts), key=len, reverse=True)) + ")"
        self.departments = sorted(
            {complaint.department for complaint in knowledge.complaints}
            | set(self._general["parts"])
            | {self._general["general_department"], self._general["skin_department"]},
            key=len,
            reverse=True,
        )

    # ---- questions -----------------------------------------------------------------------------------------------

    @cached_property
    def _owners(self) -> dict[str, list[tuple[str, str]]]:
        """Map each known question to the (complaint id, item) pairs that ask it; slots stand as {place}."""
        owners: dict[str, list[tuple[str, str]]] = {}
        for complaint in self._knowledge.complaints:
            for ask in complaint.asks:
                for question in ask.questions:
                    owners.setdefault(question, []).append((complaint.id, ask.item))
        for ask in self._knowledge.general_asks:
            for question in ask.questions:
                owners.setdefault(question, []).append((GENERAL, ask.item))
        return owners

    def nearest_question(self, reply: str) -> list[tuple[str, str]]:
        """Return (complaint id, item) of the known question nearest to `reply`; empty if none is near."""
        if reply in self._owners:
            return self._owners[reply]
        with_slot = re.sub(self._place, "{place}", reply)
        if with_slot in self._owners:
            return self._owners[with_slot]
        return self._search(reply)

    @cache  # noqa: B019 - a judge lives as long as the evaluation
    def _search(self, reply: str) -> list[tuple[str, str]]:
        found = difflib.get_close_matches(reply, self._owners, n=1, cutoff=_NEAR_ENOUGH)
        return self._owners[found[0]] if found else []

    def names_place(self, reply: str, place: str) -> bool:
        """Return whether a question names no body part, or the right one."""
        named = re.search(self._place, reply)
        return named is None or named[0] == place

    # ---- advice --------------------------------------------------------------------------------------------------

    def department_of(self, reply: str) -> str | None:
        """Return the department a reply names, None if it names none or several."""
        rest, named = reply, set()
        for department in self.departments:
            if department in rest:
                named.add(department)
                rest = rest.replace(department, "")
        return named.pop() if len(named) == 1 else None

    @cached_property
    def _families(self) -> list[re.Pattern[str]]:
        """One pattern for each family of clauses the adviser may use in advice."""
        general, complaints = self._general, self._knowledge.complaints
        advices = general["advice"].values()

        def one_of(values: set[str]) -> str:
            return "(?:" + "|".join(sorted(map(re.escape, values), key=len, reverse=True)) + ")"

        causes = one_of({complaint.causes for complaint in complaints} | {advice["causes"] for advice in advices})
        names = one_of({complaint.name for complaint in complaints})
        cares = {care for complaint in complaints for care in complaint.self_care}
        care = one_of(cares | {care for advice in advices for care in advice["self_care"]})
        checks = one_of({complaint.checks for complaint in complaints} | {advice["checks"] for advice in advices})
        signs = {sign for complaint in complaints for sign in complaint.warning_signs}
        sign = one_of(signs | {sign for advice in advices for sign in advice["warning_signs"]})
        department = one_of(set(self.departments))
        frames = general["advice_frames"]
        intro = one_of(set(general["advice_intros"]) - {""})
        visit = "|".join(re.escape(frame).replace(r"\{department\}", department) for frame in frames["visit"])
        tests = "|".join(re.escape(frame).replace(r"\{checks\}", checks) for frame in frames["tests"])
        warnings = [
            re.sub(r"\\\{w\d\\\}", lambda _: sign, re.escape(frame.rstrip("。"))) for frame in frames["warning"]
        ]
        patterns = [
            f"(?:{intro})?(?:{names})?{causes}",
            f"(?:建议您)?{care}",
            f"(?:{re.escape(frames['long'])})?(?:{visit})(?:{tests})",
            *warnings,
        ]
        return [re.compile(pattern) for pattern in patterns]

    def is_known_clause(self, clause: str) -> bool:
        """Return whether a clause of advice belongs to a known family once its slots are filled with known values."""
        return any(pattern.fullmatch(clause) for pattern in self._families)

    # ---- follow-ups ----------------------------------------------------------------------------------------------

    @cached_property
    def _reply_patterns(self) -> dict[str, list[re.Pattern[str]]]:
        return {
            intent: [
                re.compile(re.sub(r"\\\{\w+\\\}", lambda _: "(.{0,60}?)", re.escape(reply)))
                for reply in entry["replies"]
            ]
            for intent, entry in self._general["followups"].items()
        }

    def intent_of(self, reply: str) -> str | None:
        """Return which follow-up question a reply answers, None if no known template fits."""
        for intent, patterns in self._reply_patterns.items():
            if any(pattern.fullmatch(reply) for pattern in patterns):
                return intent
        return None
