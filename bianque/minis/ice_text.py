"""Train an `ice_text.model` of our own with the layout of the published one.

The published file of ChatGLM-6B is a unigram sentencepiece model whose ids are laid out by hand:

    0 <unk>   1 <s>   2 </s>   3 <pad>   4 <n>   5 ▁   6 … M-1 pieces, best first
    M [MASK]  [gMASK]  [sMASK]  <unused_0>  <sop>  <eop>  <ENC>  <dBLOCK>      (M is 130000 there)
    M+8 <|tab|>   M+9 … M+87 <|blank_2|> … <|blank_80|>   M+88 … M+343 the 256 bytes

sentencepiece's trainer puts its special pieces first, so the trained pieces are moved to these places afterwards. The
result is read by `bianque.tokenization.chatglm` exactly like the published file.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as sentencepiece_model

HEAD = ("<unk>", "<s>", "</s>", "<pad>", "<n>", "▁")
CONTROL = ("[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>")
WHITESPACE = ("<|tab|>", *(f"<|blank_{length}|>" for length in range(2, 81)))
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
NUM_TAIL_PIECES = len(CONTROL) + len(WHITESPACE) + len(BYTES)

# The generated protobuf module declares its classes at run time only, so type checkers see `Any`.
ModelProto: Any = sentencepiece_model.ModelProto  # type: ignore[attr-defined]
PieceType: Any = ModelProto.SentencePiece


@dataclass(frozen=True)
class IceTextIds:
    """The ids that a ChatGLM `config.json` needs for a tokenizer file; names as in the published configuration."""

    num_pieces: int
    """All pieces of the file; the smallest `vocab_size` the model may have."""
    pad_token_id: int
    mask_token_id: int
    gmask_token_id: int
    bos_token_id: int
    eos_token_id: int


def build_ice_text_model(
    sentences: Iterable[str], num_pieces: int, path: str | Path, *, character_coverage: float = 0.9995
) -> IceTextIds:
    """Train a unigram model on `sentences` and write it to `path` in the published layout.

    The same sentences in the same order give the same file, byte for byte.

    Args:
        sentences: texts as the model will see them; may hold newlines, tabs and runs of spaces.
        num_pieces: number of ids before `[MASK]`, which therefore gets this id (130000 in the published file). The
            file holds `num_pieces + 344` pieces.
        path: the file to write, by convention named `ice_text.model`.
        character_coverage: share of the text's characters that become pieces; rarer ones are spelled in bytes, as
            the published file does with them.

    Returns:
        The ids for the model's configuration.

    Raises:
        ValueError: if the text is too short or too uniform for so many pieces, or `num_pieces` is too small for its
            characters.
    """
    trained = _train(sentences, num_pieces, character_coverage)
    model = _lay_out(trained, num_pieces)
    Path(path).write_bytes(model.SerializeToString(deterministic=True))
    return IceTextIds(
        num_pieces=num_pieces + NUM_TAIL_PIECES,
        pad_token_id=HEAD.index("<pad>"),
        mask_token_id=num_pieces + CONTROL.index("[MASK]"),
        gmask_token_id=num_pieces + CONTROL.index("[gMASK]"),
        bos_token_id=num_pieces + CONTROL.index("<sop>"),
        eos_token_id=num_pieces + CONTROL.index("<eop>"),
    )


def _train(sentences: Iterable[str], num_pieces: int, character_coverage: float) -> Any:
    """Run sentencepiece's trainer; its model has the right pieces in the trainer's own order."""
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_prepared(sentences),
            model_writer=written,
            model_type="unigram",
            vocab_size=num_pieces + NUM_TAIL_PIECES,
            character_coverage=character_coverage,
            byte_fallback=True,
            normalization_rule_name="nmt_nfkc",
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=3,
            control_symbols=list(CONTROL),
            user_defined_symbols=["<n>", *WHITESPACE],
            max_sentence_length=1 << 20,  # the trainer skips longer ones; in bytes
            num_threads=1,  # more threads add floats in another order
            shuffle_input_sentence=False,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise ValueError(f"cannot train {num_pieces} pieces on this text: {error}") from error
    return ModelProto.FromString(written.getvalue())


def _prepared(sentences: Iterable[str]) -> Iterator[str]:
    """Write whitespace as the tokenizer does before it calls sentencepiece, so that no piece is learnt across it."""
    for sentence in sentences:
        visible = sentence.replace("\n", "<n>").replace("\t", "<|tab|>")
        yield re.sub(" {2,80}", lambda run: f"<|blank_{len(run.group())}|>", visible)


def _lay_out(trained: Any, num_pieces: int) -> Any:
    """Return a model with the trained pieces and scores at the published places."""
    learnt = {piece.piece: piece.score for piece in trained.pieces if piece.type == PieceType.NORMAL}
    lowest = min(learnt.values())
    space_score = learnt.pop("▁", lowest)
    ranked = sorted(learnt.items(), key=lambda item: (-item[1], item[0]))
    if len(HEAD) + len(ranked) < num_pieces:
        raise ValueError(
            f"the text gives only {len(HEAD) + len(ranked)} of {num_pieces} pieces; use fewer or more text"
        )
    model = ModelProto()
    model.trainer_spec.CopyFrom(trained.trainer_spec)
    model.trainer_spec.model_prefix = ""
    model.normalizer_spec.CopyFrom(trained.normalizer_spec)

    def add(name: str, kind: int, score: float = 0.0) -> None:
        model.pieces.add(piece=name, score=score, type=kind)

    add("<unk>", PieceType.UNKNOWN)
    for name in ("<s>", "</s>", "<pad>"):
        add(name, PieceType.CONTROL)
    add("<n>", PieceType.USER_DEFINED)
    add("▁", PieceType.NORMAL, space_score)
    for name, score in ranked[: num_pieces - len(HEAD)]:
        add(name, PieceType.NORMAL, score)
    for name in CONTROL:
        add(name, PieceType.CONTROL)
    for name in WHITESPACE:
        add(name, PieceType.USER_DEFINED)
    for name in BYTES:
        add(name, PieceType.BYTE)
    return model
