"""A scripted runner, so that scheduling is tested without a model and without waiting for time to pass."""

from __future__ import annotations

import threading

import pytest
import torch

from bianque.engine.engine import Engine
from bianque.models.chatglm import ChatGLMConfig, ChatGLMForConditionalGeneration

TIMEOUT_SECONDS = 20  # only ever reached by a test that fails
EOS = 0


def tiny_chatglm(**changes):
    """Return a ChatGLM of a few thousand weights, in evaluation mode; `changes` to its configuration."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 120,
        "hidden_size": 32,
        "num_layers": 2,
        "num_attention_heads": 2,
        "inner_hidden_size": 64,
        "max_sequence_length": 64,
        "bos_token_id": 104,
        "eos_token_id": 105,
        "mask_token_id": 100,
        "gmask_token_id": 101,
        "pad_token_id": 3,
    }
    return ChatGLMForConditionalGeneration(ChatGLMConfig(**{**sizes, **changes})).eval()


def prefill(runner, slot=None, prompt_ids=None):
    """Run a prompt, or what is left of one already begun; return the logits of the first token."""
    steps = runner if slot is None else runner.prefill(slot, prompt_ids)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


class ScriptedRunner:
    """Gives the tokens of a script, keyed by the first id of the prompt.

    A script's entries are token ids, tensors (logits as they are), or exceptions to raise; a prefill takes
    `num_layers` steps. With `is_gated`, every prefill step and every decode step first tells `entered` and then waits
    for a permit: `allow(n)`.

    Attributes:
        calls: (name, what was given) of every row, `prefill` or the token; a step of n rows leaves n of them.
        steps: names of the rows of every step.
        freed: slots in the order in which they were freed.
    """

    def __init__(
        self,
        scripts,
        *,
        is_gated=False,
        is_encoder_decoder=False,
        max_model_len=None,
        max_new_tokens=None,
        vocab_size=200,
        num_slots=64,
        num_layers=1,
    ):
        self.scripts = scripts
        self.is_gated = is_gated
        self.is_encoder_decoder = is_encoder_decoder
        self.max_prompt_len = max_model_len
        self.max_new_tokens = max_new_tokens
        self.vocab_size = vocab_size
        self.num_slots = num_slots
        self.num_layers = num_layers
        self.kv_cache_bytes = 1000 * num_slots
        self.eos_token_ids = (EOS,)
        self.calls = []
        self.steps = []
        self.freed = []
        self.num_trimmed = 0
        self.num_resets = 0
        self.reset_error = None
        self.entered = threading.Semaphore(0)
        self._permits = threading.Semaphore(0)
        self._states = {}

    def prefill(self, slot, prompt_ids):
        self._states.pop(slot, None)
        name = prompt_ids[0]
        for layer in range(self.num_layers):
            if layer:
                yield
            self._wait([(name, "prefill" if layer == 0 else f"layer {layer}")])
        self._states[slot] = [name, 0]
        return self._advance([slot])[0]
        yield  # a generator also with one layer

    def decode(self, slots, token_ids, num_exact=None):
        assert len(slots) == len(set(slots)) == len(token_ids)
        self._wait([(self._states[slot][0], token_id) for slot, token_id in zip(slots, token_ids, strict=True)])
        return self._advance(slots)

    def free(self, slot):
        self.freed.append(slot)

    def trim(self):
        self.num_trimmed += 1

    def reset(self):
        self.num_resets += 1
        if self.reset_error is not None:
            raise self.reset_error

    def context_ids(self, prompt_ids):
        return prompt_ids

    def allow(self, num_calls=1):
        self._permits.release(num_calls)

    def wait_entered(self):
        assert self.entered.acquire(timeout=TIMEOUT_SECONDS), "the worker did not come to a call"

    def open(self):
        """Let every call pass from now on."""
        self.is_gated = False
        self.allow(1000)

    def _wait(self, calls):
        self.calls.extend(calls)
        self.steps.append([name for name, _ in calls])
        if self.is_gated:
            self.entered.release()
            assert self._permits.acquire(timeout=TIMEOUT_SECONDS)

    def _advance(self, slots):
        """Return the rows of all slots, or raise for one of them before any has moved on."""
        entries = []
        for slot in slots:
            name, num_steps = self._states[slot]
            entries.append(self.scripts[name][num_steps % len(self.scripts[name])])
        for entry in entries:
            if isinstance(entry, BaseException):
                raise entry
        for slot in slots:
            self._states[slot][1] += 1
        return torch.stack([self._row(entry) for entry in entries])

    def _row(self, entry):
        if isinstance(entry, torch.Tensor):
            return entry
        logits = torch.zeros(self.vocab_size)
        logits[entry] = 30.0
        return logits


class Reader:
    """Reads a stream in a thread of its own."""

    def __init__(self, stream):
        self.token_ids = []
        self.error = None
        self._stream = stream
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self):
        try:
            for token_id in self._stream:
                self.token_ids.append(token_id)
        except Exception as error:
            self.error = error

    def result(self):
        """Wait for the end and return the tokens; raise what the stream raised."""
        self._thread.join(TIMEOUT_SECONDS)
        assert not self._thread.is_alive(), "the stream did not end"
        if self.error is not None:
            raise self.error
        return self.token_ids


@pytest.fixture
def start_engine():
    """Make engines that are shut down, gates open, at the end of the test."""
    started = []

    def start(runner, **options):
        if isinstance(runner, ScriptedRunner):
            runner.num_slots = options.get("num_slots", 1)
        engine = Engine(runner, **options)
        started.append((engine, runner))
        return engine

    yield start
    for engine, runner in started:
        if isinstance(runner, ScriptedRunner):
            runner.open()
        engine.shutdown()
