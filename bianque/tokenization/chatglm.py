"""Text to ids and back for ChatGLM-6B checkpoints, from their `ice_text.model` and tokenizer files unchanged.

Encoding: the literals `<sop> <eop> <unk> <pad> [MASK]` in a text become their ids and the whitespace around them goes;
in every stretch between them newlines, tabs and runs of spaces become pieces of their own, and sentencepiece does the
rest. `[gMASK] <sop>` are appended. A literal `<sop>` that a user typed thus ends the model's bidirectional context, as
it does in the published tokenizer; whoever builds prompts from users' words has to take it out before.

Decoding follows the tokenizer file of 2023-04-14, which BianQue-2.0 ships: padding is dropped, `skip_special_tokens`
and `clean_up_tokenization_spaces` change nothing, special pieces have no text.

With padding (always on the left) the tokenizer delivers bool masks (B, 1, T, T), True for hidden, and positions
(B, 2, T). Quirk kept: here a literal `[MASK]` gives the position of generated tokens, while the model by itself
prefers `[gMASK]`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from transformers import PreTrainedTokenizer
from transformers.utils.generic import PaddingStrategy

from bianque.errors import SnapshotError

VOCAB_FILE = "ice_text.model"
_WHITESPACE_RUN = re.compile(r"\n|\t| {2,80}")
_WHITESPACE_PIECE = re.compile(r"<n>|<\|tab\|>|<\|blank_(\d+)\|>")
_MAX_BLANK = 80
_REQUIRED_PIECES = ("<n>", "<|tab|>", "<|blank_2|>", "[MASK]", "[gMASK]", "<sop>", "<eop>", "<pad>")


class ChatGLMTokenizer(PreTrainedTokenizer):
    """The published ChatGLM-6B tokenizer as BianQue-2.0 ships it; construct it with `from_pretrained(folder)`.

    Raises:
        SnapshotError: if `ice_text.model` is missing, unreadable or another kind of vocabulary, or the tokenizer's
            configuration asks for a variant that no BianQue checkpoint uses.
    """

    vocab_files_names = {"vocab_file": VOCAB_FILE}  # noqa: RUF012 - transformers' name for a class constant
    # Masks and positions come with padding only; without it the model derives both from the ids.
    model_input_names = ["input_ids"]  # noqa: RUF012
    padding_side = "left"

    def __init__(
        self,
        vocab_file: str | None = None,
        *,
        do_lower_case: bool = False,
        remove_space: bool = False,
        num_image_tokens: int = 0,
        bos_token: str = "<sop>",
        eos_token: str = "<eop>",
        unk_token: str = "<unk>",
        pad_token: str = "<pad>",
        mask_token: str = "[MASK]",
        model_specific_special_tokens: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Load the vocabulary; the arguments are the keys of `tokenizer_config.json`."""
        folder = Path(vocab_file).parent if vocab_file else kwargs.get("name_or_path", ".")
        for name, value in (
            ("do_lower_case", do_lower_case),
            ("remove_space", remove_space),
            ("num_image_tokens", num_image_tokens),
        ):
            if value:
                reason = f"{name} is {value!r}, but only {type(value)()!r} is supported"
                raise SnapshotError(
                    "snapshot_config_invalid", folder=folder, file="tokenizer_config.json", reason=reason
                )
        self.vocab_file = vocab_file
        self._pieces = _load_pieces(vocab_file, folder)
        size = self._pieces.get_piece_size()
        self._vocab: dict[str, int] = dict(zip(self._pieces.id_to_piece(list(range(size))), range(size), strict=True))
        if missing := [piece for piece in _REQUIRED_PIECES if piece not in self._vocab]:
            reason = f"it has no pieces {' '.join(missing)}"
            raise SnapshotError("snapshot_config_invalid", folder=folder, file=VOCAB_FILE, reason=reason)
        super().__init__(
            do_lower_case=do_lower_case,
            remove_space=remove_space,
            num_image_tokens=num_image_tokens,
            bos_token=bos_token,
            eos_token=eos_token,
            unk_token=unk_token,
            pad_token=pad_token,
            mask_token=mask_token,
            model_specific_special_tokens={
                "gmask_token": "[gMASK]",
                "end_token": "</s>",
                **(model_specific_special_tokens or {}),
            },
            **kwargs,
        )
        literals = (self.bos_token, self.eos_token, self.unk_token, self.pad_token, self.mask_token)
        self._literals = re.compile("(" + "|".join(re.escape(str(token)) for token in literals) + ")")

    @property
    def vocab_size(self) -> int:
        """Return the number of pieces in the file; the model's embedding may have more rows."""
        return len(self._vocab)

    def get_vocab(self) -> dict[str, int]:
        """Return a new dict from piece to id."""
        return dict(self._vocab)

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False, **_: Any) -> list[str]:
        """Return the pieces of `text`, literals of special tokens included; the other arguments change nothing."""
        tokens: list[str] = []
        parts = self._literals.split(text)  # text, literal, text, …, literal, text
        last = len(parts) - 1
        for index, part in enumerate(parts):
            if index % 2:
                tokens.append(part)
                continue
            if index < last:
                part = part.rstrip()
            if index > 0:
                part = part.lstrip()
            if part:
                tokens.extend(self._pieces.encode(_WHITESPACE_RUN.sub(_name_whitespace, part), out_type=str))
        return tokens

    def _convert_token_to_id(self, token: str) -> int:
        return self._pieces.piece_to_id(token)

    def _convert_id_to_token(self, index: int) -> str:
        """Return the piece; ids of surplus embedding rows have none and give `<unk>`."""
        return self._pieces.id_to_piece(index) if index < len(self._vocab) else str(self.unk_token)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Return the text of pieces, as `decode` does of their ids."""
        return self._decode([self._convert_token_to_id(token) for token in tokens])

    def _decode(self, token_ids: int | Sequence[int], *_: Any, **__: Any) -> str:
        """Return the text of one sequence; the flags of `decode` change nothing, see the module's docstring."""
        ids = [token_ids] if isinstance(token_ids, int) else token_ids
        pad_id = self.pad_token_id
        # Surplus embedding rows never win in a trained model; a damaged one must not end in an IndexError.
        text = self._pieces.decode([int(index) for index in ids if index != pad_id and index < len(self._vocab)])
        return _WHITESPACE_PIECE.sub(_restore_whitespace, text)

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Return a prompt `tokens [gMASK] <sop>`, or with a reply `tokens [gMASK] <sop> reply <eop>`."""
        prompt = [*token_ids_0, self.gmask_token_id, self.bos_token_id]
        return prompt if token_ids_1 is None else [*prompt, *token_ids_1, self.eos_token_id]

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """Return 1 for tokens that `build_inputs_with_special_tokens` adds, 0 for others."""
        if already_has_special_tokens:
            return super().get_special_tokens_mask(token_ids_0, token_ids_1, already_has_special_tokens=True)
        mask = [0] * len(token_ids_0) + [1, 1]
        return mask if token_ids_1 is None else [*mask, *[0] * len(token_ids_1), 1]

    def _pad(
        self,
        encoded_inputs: Any,
        max_length: int | None = None,
        padding_strategy: PaddingStrategy = PaddingStrategy.DO_NOT_PAD,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Pad one sequence on the left and add its mask (1, T, T) and positions (2, T).

        Nothing is added to a sequence that is not to be padded, unless its mask is asked for.

        Raises:
            ValueError: if padding on the right is asked for.
        """
        if (padding_side or self.padding_side) != "left":
            raise ValueError("ChatGLM prompts are padded on the left; leave padding_side at 'left'")
        pads = padding_strategy != PaddingStrategy.DO_NOT_PAD
        if not pads and not return_attention_mask:
            return encoded_inputs
        ids = list(encoded_inputs["input_ids"])
        length = max_length if pads and padding_strategy == PaddingStrategy.MAX_LENGTH and max_length else len(ids)
        if pads and pad_to_multiple_of:
            length = -(-length // pad_to_multiple_of) * pad_to_multiple_of
        num_padding = max(length - len(ids), 0)
        encoded_inputs["input_ids"] = [self.pad_token_id] * num_padding + ids
        if "special_tokens_mask" in encoded_inputs:
            encoded_inputs["special_tokens_mask"] = [1] * num_padding + list(encoded_inputs["special_tokens_mask"])
        encoded_inputs["attention_mask"] = self._attention_mask(ids, num_padding)
        encoded_inputs["position_ids"] = self._position_ids(ids, num_padding)
        return encoded_inputs

    def _context_length(self, ids: list[int]) -> int:
        return ids.index(self.bos_token_id) if self.bos_token_id in ids else len(ids)

    def _attention_mask(self, ids: list[int], num_padding: int) -> np.ndarray:
        """Return (1, T, T) bool, True for hidden: what follows a token, unless it is context; and padding."""
        visible = np.tri(len(ids), dtype=bool)
        visible[:, : self._context_length(ids)] = True
        return np.pad(~visible, ((num_padding, 0), (num_padding, 0)), constant_values=True)[None]

    def _position_ids(self, ids: list[int], num_padding: int) -> np.ndarray:
        """Return (2, T) int64: the position, held from `<sop>` on at the mask token's, and that after the context."""
        start = self._context_length(ids)
        mask_id = self.mask_token_id if self.mask_token_id in ids else self.gmask_token_id
        positions = np.arange(len(ids), dtype=np.int64)
        if mask_id in ids:
            positions[start:] = ids.index(mask_id)
        block_positions = np.arange(1 - start, len(ids) - start + 1, dtype=np.int64).clip(min=0)
        return np.pad(np.stack((positions, block_positions)), ((0, 0), (num_padding, 0)))

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write `ice_text.model` into a folder and return its path."""
        path = Path(save_directory, f"{filename_prefix}-{VOCAB_FILE}" if filename_prefix else VOCAB_FILE)
        path.write_bytes(self._pieces.serialized_model_proto())
        return (str(path),)


def _load_pieces(vocab_file: str | None, folder: object) -> sentencepiece.SentencePieceProcessor:
    if not vocab_file or not Path(vocab_file).is_file():
        raise SnapshotError("snapshot_file_missing", folder=folder, file=VOCAB_FILE)
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(vocab_file))
    except (RuntimeError, OSError) as error:
        reason = "not a sentencepiece model"
        raise SnapshotError("snapshot_config_invalid", folder=folder, file=VOCAB_FILE, reason=reason) from error


def _name_whitespace(run: re.Match[str]) -> str:
    """Return the piece for a newline, a tab, or 2 to 80 spaces."""
    return {"\n": "<n>", "\t": "<|tab|>"}.get(run.group()) or f"<|blank_{len(run.group())}|>"


def _restore_whitespace(piece: re.Match[str]) -> str:
    """Return what a whitespace piece stands for; there are blanks of 2 to 80 spaces, others stay as text."""
    if piece.group(1) is None:
        return "\n" if piece.group() == "<n>" else "\t"
    digits = piece.group(1)
    length = int(digits) if len(digits) <= 2 and digits == str(int(digits)) else 0
    return " " * length if 2 <= length <= _MAX_BLANK else piece.group()
