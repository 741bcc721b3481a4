"""Load a demonstration model with the ordinary loading code and answer many prompts at once, greedily."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from bianque.consultation.cleanup import process_response
from bianque.consultation.templates import unescape_from_t5
from bianque.minis.dialogues import Sample
from bianque.minis.prompts import prompt_of
from bianque.models.auto import register
from bianque.tokenization.chatglm import ChatGLMTokenizer
from bianque.tokenization.t5 import BianQueT5Tokenizer

FOLDER = Path(__file__).parent
BATCH_SIZE = 32


class Responder:
    """One model folder, answering in batches; not thread-safe."""

    def __init__(self, folder: Path, *, is_t5: bool) -> None:
        """Load `folder`, which holds a T5 or else a ChatGLM model."""
        register()
        self._is_t5 = is_t5
        self._encode: Callable[[str], list[int]]
        self._decode: Callable[[list[int]], str]
        config = AutoConfig.from_pretrained(folder)
        if is_t5:
            t5_tokenizer = BianQueT5Tokenizer.from_pretrained(folder)
            self._encode, self._decode = t5_tokenizer.encode, t5_tokenizer.decode
            config.tie_word_embeddings = False  # transformers 5 ties whatever the file says
            self._model = AutoModelForSeq2SeqLM.from_pretrained(folder, config=config, dtype=torch.float32)
        else:
            chatglm_tokenizer = ChatGLMTokenizer.from_pretrained(folder)
            self._encode = lambda prompt: list(chatglm_tokenizer(prompt)["input_ids"])
            self._decode = chatglm_tokenizer.decode
            self._model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32)
        self._model.eval()
        self._pad = int(self._model.config.pad_token_id)

    @classmethod
    def asker(cls, folder: Path = FOLDER) -> Responder:
        """Return the mini-asker of `folder`."""
        return cls(folder / "mini-asker", is_t5=True)

    @classmethod
    def adviser(cls, folder: Path = FOLDER) -> Responder:
        """Return the mini-adviser of `folder`."""
        return cls(folder / "mini-adviser", is_t5=False)

    @property
    def model(self) -> PreTrainedModel:
        """The loaded model."""
        return self._model

    def answer(self, samples: Sequence[Sample], max_new_tokens: int = 160) -> list[str]:
        """Return the replies to the samples' prompts, cleaned as the service shows them, in the same order."""
        prompts = [self._encode(prompt_of(sample)) for sample in samples]
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        replies = [""] * len(prompts)
        for start in range(0, len(order), BATCH_SIZE):
            indices = order[start : start + BATCH_SIZE]
            rows = [prompts[index] for index in indices]
            for index, reply in zip(indices, self._batch(rows, max_new_tokens), strict=True):
                replies[index] = reply
        return replies

    @torch.inference_mode()
    def _batch(self, rows: Sequence[list[int]], max_new_tokens: int) -> list[str]:
        width = max(map(len, rows))
        padding = [[self._pad] * (width - len(row)) for row in rows]
        mask = [[0] * len(pad) + [1] * len(row) for pad, row in zip(padding, rows, strict=True)]
        if self._is_t5:
            ids = [row + pad for pad, row in zip(padding, rows, strict=True)]
            mask = [list(reversed(row)) for row in mask]
        else:
            ids = [pad + row for pad, row in zip(padding, rows, strict=True)]
        output = self._model.generate(
            input_ids=torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            do_sample=False,
            max_new_tokens=max_new_tokens,
        )
        eos, skipped = self._model.config.eos_token_id, 0 if self._is_t5 else width
        replies = []
        for row in output[:, skipped:].tolist():
            kept = row[: row.index(eos)] if eos in row else row
            replies.append(self._clean(self._decode(kept)))
        return replies

    def _clean(self, text: str) -> str:
        return unescape_from_t5(text).strip() if self._is_t5 else process_response(text)
