"""A scripted model and a character tokenizer: what the engine, the service and the page run on in fast tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import torch

from bianque.engine.engine import Engine
from bianque.manager.loader import LoadedModel
from bianque.manager.registry import MINI_ADVISER, MINI_ASKER, MINI_LISTENER, Job

END = 0
VOCABULARY = 0x10000


class ScriptedRunner:
    """Writes, character by character, what `answer(prompt)` returns; ids are code points of the basic plane."""

    eos_token_ids = frozenset([END])
    num_slots = 64
    max_prompt_len = None
    max_new_tokens = None
    kv_cache_bytes = 0

    def __init__(self, answer: Callable[[str], str], is_encoder_decoder: bool = False):
        self.answer = answer
        self.is_encoder_decoder = is_encoder_decoder
        self.vocab_size = VOCABULARY
        self.prompts: list[str] = []
        self.num_steps = 0
        self.may_step = threading.Event()
        self.may_step.set()
        self._replies: dict[int, Iterator[str]] = {}

    def prefill(self, slot, prompt_ids):
        prompt = decode(prompt_ids)
        self.prompts.append(prompt)
        yield
        self._replies[slot] = iter(self.answer(prompt))
        return self.decode([slot], [END])[0]

    def decode(self, slots, token_ids, num_exact=None):
        self.may_step.wait()
        self.num_steps += 1
        logits = torch.zeros(len(slots), VOCABULARY)
        for row, slot in zip(logits, slots, strict=True):
            row[ord(next(self._replies[slot], chr(END)))] = 100.0
        return logits

    def free(self, slot):
        pass

    def trim(self):
        pass

    def reset(self):
        self._replies.clear()

    def context_ids(self, prompt_ids):
        return []


def encode(text: str) -> list[int]:
    return [ord(character) for character in text]


def decode(token_ids) -> str:
    return "".join(map(chr, token_ids))


SPECS = {Job.ASKER: MINI_ASKER, Job.ADVISER: MINI_ADVISER, Job.LISTENER: MINI_LISTENER}


def scripted_model(job: Job, runner: ScriptedRunner, *, num_slots: int = 4, max_waiting: int = 8) -> LoadedModel:
    """Return a loaded model over `runner`; shut its engine down after use."""
    engine = Engine(runner, num_slots=num_slots, max_waiting=max_waiting, max_model_len=SPECS[job].max_prompt_tokens)
    return LoadedModel(SPECS[job], encode, decode, engine, "cpu", "fp32", 1)
