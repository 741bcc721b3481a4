"""A scripted runner, so that scheduling is tested without a model and without waiting for time to pass."""

from __future__ import annotations

import threading

import pytest
import torch

from bianque.engine.engine import Engine

TIMEOUT_SECONDS = 20  # only ever reached by a test that fails
EOS = 0


class ScriptedState:
    """Stands for a KV cache; weakly referable, so that tests see it freed."""

    def __init__(self, name):
        self.name = name
        self.num_steps = 0


class ScriptedRunner:
    """Gives the tokens of a script, keyed by the first id of the prompt.

    A script's entries are token ids, tensors (logits as they are), or exceptions to raise. With `is_gated`, every call
    first tells `entered` and then waits for a permit: `allow(n)`.
    """

    def __init__(self, scripts, *, is_gated=False, is_encoder_decoder=False, max_model_len=None, vocab_size=200):
        self.scripts = scripts
        self.is_gated = is_gated
        self.is_encoder_decoder = is_encoder_decoder
        self.max_model_len = max_model_len
        self.vocab_size = vocab_size
        self.eos_token_ids = (EOS,)
        self.calls = []
        self.entered = threading.Semaphore(0)
        self._permits = threading.Semaphore(0)

    def prefill(self, prompt_ids):
        state = ScriptedState(prompt_ids[0])
        return state, self._step(state, "prefill")

    def decode(self, state, token_id):
        return self._step(state, token_id)

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

    def _step(self, state, given):
        self.calls.append((state.name, given))
        if self.is_gated:
            self.entered.release()
            assert self._permits.acquire(timeout=TIMEOUT_SECONDS)
        script = self.scripts[state.name]
        entry = script[state.num_steps % len(script)]
        state.num_steps += 1
        if isinstance(entry, BaseException):
            raise entry
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
        engine = Engine(runner, **options)
        started.append((engine, runner))
        return engine

    yield start
    for engine, runner in started:
        if isinstance(runner, ScriptedRunner):
            runner.open()
        engine.shutdown()
