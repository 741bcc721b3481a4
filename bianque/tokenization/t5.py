"""Text to ids and back for BianQue-1.0, as the published T5 tokenizer did it.

The model was trained with the Python ("slow") T5Tokenizer of transformers 4.28. The one in transformers 5 is another
program built from the same vocabulary; it differs in three inputs (a text that ends in a literal `</s>`, U+0085, and
characters joined by U+200D), and does not tidy spaces when decoding. `BianQueT5Tokenizer` works on sentencepiece
itself, as the original did, and keeps these of its habits:

- Special tokens written out in a text become their ids. The white space beside them is dropped, and what stands
  between two of them is encoded on its own, so it begins with sentencepiece's word-start mark.
- A text that ends in a literal `</s>` gets no second one.
- White space at special tokens is what `str.strip` takes (U+0085 and U+001C to U+001F included); elsewhere it is what
  sentencepiece's normalisation takes.
- Decoding leaves out special tokens, strips the ends, and then removes spaces before `. ? ! ,` and in English
  contractions.

Pure text in and out: newlines and tabs of a prompt are escaped by the prompt template, not here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from bianque.errors import SnapshotError

VOCABULARY_FILE = "spiece.model"
CONFIG_FILE = "tokenizer_config.json"

# What the original calls `clean_up_tokenization`; applied in this order.
_CLEAN_UP = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


class BianQueT5Tokenizer:
    """The published tokenizer's behaviour; see the module's docstring. Thread-safe: nothing changes after loading.

    Attributes:
        eos_token_id: appended to every text.
        pad_token_id: also the decoder's first token.
        unk_token_id: of every piece the vocabulary does not have.
        vocab_size: pieces and extra ids; the model's embedding may have more rows.
    """

    def __init__(
        self,
        vocabulary: bytes,
        *,
        extra_ids: int = 0,
        eos_token: str = "</s>",
        unk_token: str = "<unk>",
        pad_token: str = "<pad>",
    ) -> None:
        """Read a vocabulary.

        Args:
            vocabulary: content of a `spiece.model` file.
            extra_ids: how many `<extra_id_N>` follow the pieces, highest N first; 0 for BianQue-1.0, 100 for stock T5.
            eos_token: end of a text.
            unk_token: stands for unknown pieces.
            pad_token: padding.

        Raises:
            ValueError: if the vocabulary cannot be read, lacks a special token, or `extra_ids` is negative.
        """
        if extra_ids < 0:
            raise ValueError(f"extra_ids must be at least 0, but it is {extra_ids}")
        self._pieces = sentencepiece.SentencePieceProcessor()
        try:
            self._pieces.LoadFromSerializedProto(vocabulary)
        except RuntimeError as error:
            raise ValueError("not a sentencepiece vocabulary") from error
        self._num_pieces = self._pieces.GetPieceSize()
        self.vocab_size = self._num_pieces + extra_ids
        self.unk_token_id = self._special_id(unk_token)
        self.eos_token_id = self._special_id(eos_token)
        self.pad_token_id = self._special_id(pad_token)
        self._special_tokens = {
            eos_token: self.eos_token_id,
            unk_token: self.unk_token_id,
            pad_token: self.pad_token_id,
        }
        self._special_tokens |= {f"<extra_id_{n}>": self.vocab_size - 1 - n for n in range(extra_ids)}
        self._special_ids = frozenset(self._special_tokens.values())
        # No token is the beginning of another, so the order of the alternatives does not matter.
        self._special_pattern = re.compile("(" + "|".join(map(re.escape, self._special_tokens)) + ")")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> BianQueT5Tokenizer:
        """Read `tokenizer_config.json` and `spiece.model` of a snapshot folder.

        Raises:
            SnapshotError: if the folder or a file is missing or cannot be read.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise SnapshotError("snapshot_folder_missing", folder=folder)
        for name in (CONFIG_FILE, VOCABULARY_FILE):
            if not (folder / name).is_file():
                raise SnapshotError("snapshot_file_missing", folder=folder, file=name)
        try:
            options = _read_options(folder / CONFIG_FILE)
        except ValueError as error:
            reason = str(error)[:200]
            raise SnapshotError("snapshot_config_invalid", folder=folder, file=CONFIG_FILE, reason=reason) from error
        try:
            return cls((folder / VOCABULARY_FILE).read_bytes(), **options)  # type: ignore[arg-type]
        except ValueError as error:
            reason = str(error)[:200]
            raise SnapshotError(
                "snapshot_config_invalid", folder=folder, file=VOCABULARY_FILE, reason=reason
            ) from error

    def encode(self, text: str, *, max_length: int | None = None) -> list[int]:
        """Return the ids of `text`, ending in eos.

        Args:
            text: any text.
            max_length: longest result in tokens, eos included. As in the original, what is too long loses its END,
                and with it a prompt's newest turn; callers that have turns drop the oldest ones instead.

        Raises:
            ValueError: if `max_length` is less than 1.
        """
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length must be at least 1, but it is {max_length}")
        ids: list[int] = []
        for segment in self._split(text):
            special_id = self._special_tokens.get(segment)
            if special_id is not None:
                ids.append(special_id)
            else:
                ids.extend(self._pieces.EncodeAsIds(segment))
        if max_length is not None:
            del ids[max_length - 1 :]
        if not ids or ids[-1] != self.eos_token_id:
            ids.append(self.eos_token_id)
        return ids

    def decode(
        self,
        token_ids: Iterable[int],
        *,
        skip_special_tokens: bool = True,
        clean_up_tokenization_spaces: bool = True,
    ) -> str:
        """Return the text of ids.

        Args:
            token_ids: ids of the vocabulary; an id beyond it, which the model's surplus embedding rows allow, reads
                as an `<extra_id_…>`, as in the original.
            skip_special_tokens: leave out eos, padding, unknown pieces and extra ids.
            clean_up_tokenization_spaces: remove spaces before punctuation and in contractions.
        """
        text, run, follows_special = "", [], False
        for token_id in token_ids:
            if token_id not in self._special_ids:
                run.append(self._piece(token_id))
                follows_special = False
            elif not skip_special_tokens:
                # The original writes special tokens apart from what stands before them, but not from each other.
                text += ("" if follows_special else " ") + self._join(run) + self._piece(token_id)
                run, follows_special = [], True
        text = (text + self._join(run)).strip()
        if clean_up_tokenization_spaces:
            for found, replacement in _CLEAN_UP:
                text = text.replace(found, replacement)
        return text

    def _split(self, text: str) -> list[str]:
        """Cut a text at its special tokens, without the white space beside them and without empty parts."""
        parts = self._special_pattern.split(text)  # text, token, text, token, …, text
        for index in range(1, len(parts), 2):
            parts[index - 1] = parts[index - 1].rstrip()
            parts[index + 1] = parts[index + 1].lstrip()
        return [part for part in parts if part]

    def _join(self, pieces: list[str]) -> str:
        return self._pieces.DecodePieces(pieces) if pieces else ""

    def _piece(self, token_id: int) -> str:
        if token_id < self._num_pieces:
            return self._pieces.IdToPiece(token_id)
        return f"<extra_id_{self.vocab_size - 1 - token_id}>"

    def _special_id(self, token: str) -> int:
        token_id = self._pieces.PieceToId(token)
        if self._pieces.IdToPiece(token_id) != token:
            raise ValueError(f"the vocabulary has no {token!r}")
        return token_id


def _read_options(path: Path) -> dict[str, str | int]:
    """Return the constructor's options from a `tokenizer_config.json`.

    Raises:
        ValueError: if the file is not JSON or a value has the wrong type.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ValueError("expected a JSON object")
    options: dict[str, str | int] = {}
    for key, default in (("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>"), ("extra_ids", 100)):
        # A missing key has the original's default, which for extra_ids is stock T5's 100.
        value = config.get(key, default)
        if not isinstance(value, type(default)) or isinstance(value, bool):
            raise ValueError(f"{key} must be of type {type(default).__name__}, but it is {type(value).__name__}")
        options[key] = value
    return options
