"""Duplicate dialogues, exact and near, found while they stream by; what has been seen is kept on disk.

Two dialogues are the same when their letters are, whoever spoke them, without marks, blanks, case and width. They are
near when the estimated Jaccard similarity of their sets of 5-letter shingles reaches a threshold: MinHash of rensa
with 128 permutations, candidates by 16 bands of 8 rows (of pairs with similarity 0.85 these find 99.4 %), decided by
the estimate over all 128, whose standard error is at most 0.05. The first of a group stays.

A set that has a record for each reply of the doctor holds every dialogue as a row of beginnings. A record that goes on
with an earlier one is no near duplicate of it: its last reply is new. What it repeats are samples, told by
`is_new_sample`.
"""

from __future__ import annotations

import hashlib
import sqlite3
from array import array
from pathlib import Path
from typing import Any, Literal, Self

from bianque.consultation.cleanup import skeleton
from bianque.consultation.messages import Role
from bianque.corpus.packages import require
from bianque.corpus.records import Dialogue, Sample

Kind = Literal["exact_duplicates", "near_duplicates"]
KINDS: tuple[Kind, ...] = ("exact_duplicates", "near_duplicates")
SHINGLE = 5
NUM_PERMUTATIONS = 128
NUM_BANDS = 16
MIN_LETTERS = 24
"""Shorter dialogues are only compared exactly: with few shingles one changed word decides."""
_CACHE_KIB = 256 * 1024


class DuplicateFinder:
    """Remembers dialogues in a database file; a context manager that closes it. Not thread-safe."""

    def __init__(self, file: Path, kinds: tuple[Kind, ...] = KINDS, similarity: float = 0.85) -> None:
        """Open an empty database.

        Args:
            file: database to make; delete it when the finder is closed.
            kinds: which duplicates to look for.
            similarity: estimated Jaccard similarity from which two dialogues are near, above 0 and at most 1.
        """
        self._kinds = kinds
        self._similarity = similarity
        self._num_signatures = 0
        self._minhash: Any = require("rensa", "corpus").RMinHash if "near_duplicates" in kinds else None
        self._database = sqlite3.connect(file, isolation_level=None)
        # Nobody reads the file after a crash, so nothing has to survive one.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{_CACHE_KIB}"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute("CREATE TABLE exact (digest BLOB PRIMARY KEY) WITHOUT ROWID")
        self._database.execute("CREATE TABLE signature (id INTEGER PRIMARY KEY, hashes BLOB)")
        self._database.execute("CREATE TABLE band (hash INTEGER, id INTEGER, PRIMARY KEY (hash, id)) WITHOUT ROWID")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def check(self, dialogue: Dialogue) -> Kind | None:
        """Return how the dialogue repeats an earlier one; None, and remember it, if it does not."""
        letters = "".join(skeleton(message.text) for message in dialogue.messages)
        if not self._is_new(letters) and "exact_duplicates" in self._kinds:
            return "exact_duplicates"
        if self._minhash is None or len(letters) < MIN_LETTERS:
            return None
        if self._is_near(letters, is_continuation=self._continues(dialogue, len(letters))):
            # What is not kept must not be taken for the beginning of what comes later.
            self._database.execute("DELETE FROM exact WHERE digest = ?", (_digest(letters),))
            return "near_duplicates"
        return None

    def is_new_sample(self, sample: Sample) -> bool:
        """Return whether no earlier sample had the same letters in prompt and target; always, if exact is left out."""
        if "exact_duplicates" not in self._kinds:
            return True
        return self._is_new(f"{skeleton(sample.prompt)}\n{skeleton(sample.target)}")

    def _is_new(self, letters: str) -> bool:
        added = self._database.execute("INSERT OR IGNORE INTO exact VALUES (?)", (_digest(letters),))
        return added.rowcount == 1

    def _continues(self, dialogue: Dialogue, num_letters: int) -> bool:
        """Return whether the greater part of the dialogue is a whole earlier one."""
        said = ""
        for message in dialogue.messages[:-1]:
            said += skeleton(message.text)
            if message.role is Role.ASSISTANT and 2 * len(said) >= num_letters:
                if self._database.execute("SELECT 1 FROM exact WHERE digest = ?", (_digest(said),)).fetchone():
                    return True
        return False

    def _is_near(self, letters: str, *, is_continuation: bool) -> bool:
        """Return whether an earlier dialogue is near; remember this one if none is."""
        minhash = self._minhash(num_perm=NUM_PERMUTATIONS, seed=1)
        minhash.update(list({letters[start : start + SHINGLE] for start in range(len(letters) - SHINGLE + 1)}))
        hashes = array("I", minhash.digest())
        bands = _bands(hashes)
        marks = ",".join("?" * len(bands))
        candidates = self._database.execute(
            f"SELECT hashes FROM signature WHERE id IN (SELECT id FROM band WHERE hash IN ({marks}))", bands
        )
        needed = self._similarity * NUM_PERMUTATIONS
        for (stored,) in () if is_continuation else candidates:
            if sum(map(int.__eq__, hashes, array("I", stored))) >= needed:
                return True
        self._num_signatures += 1
        identity = self._num_signatures
        self._database.execute("INSERT INTO signature VALUES (?, ?)", (identity, hashes.tobytes()))
        self._database.executemany("INSERT OR IGNORE INTO band VALUES (?, ?)", [(band, identity) for band in bands])
        return False


def _digest(letters: str) -> bytes:
    return hashlib.blake2b(letters.encode(), digest_size=16).digest()


def _bands(hashes: array[int]) -> list[int]:
    """Return one signed 64-bit hash for each band; the band's number is part of it."""
    rows = NUM_PERMUTATIONS // NUM_BANDS
    return [
        int.from_bytes(
            hashlib.blake2b(
                hashes[band * rows : (band + 1) * rows].tobytes(), digest_size=8, salt=bytes([band])
            ).digest(),
            "big",
            signed=True,
        )
        for band in range(NUM_BANDS)
    ]
