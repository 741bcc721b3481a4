"""Settings of the application; the only reader of environment variables.

`Settings.from_environment()` is called once, by `app.py` or the command line; everything below receives values.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

from bianque.errors import SettingsError

logger = logging.getLogger(__name__)

ModelChoice = Literal["auto", "demo", "real"]
PrecisionChoice = Literal["auto", "fp32", "bf16", "fp16", "int8", "int4"]
CacheChoice = Literal["auto", "on", "off"]
CudaBackendChoice = Literal["auto", "triton", "cpm", "torch"]

_ORIGIN = re.compile(r"(?:https?://)?(?:\*\.)?[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*(?::\d{1,5})?")

_T = TypeVar("_T")


@dataclass(frozen=True)
class ModelSource:
    """Where one model comes from: a Hub repo id or a local folder, and the revision of the former."""

    location: str
    revision: str | None = None


@dataclass(frozen=True)
class Settings:
    """All settings, validated.

    Attributes:
        models: `auto` takes the real models on a CUDA device and the demonstration models elsewhere.
        asker: BianQue-1.0 or another T5 to ask; None leaves the choice to `models`.
        adviser: BianQue-2.0 or another ChatGLM-6B to advise.
        listener: SoulChat or another ChatGLM-6B to listen.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps` (not tested).
        precision: of the weights; `auto` takes the best that fits the device's memory.
        quantized_cache: whether int8 and int4 weights are kept on disk for the next start: `on`, `off`, or `auto` for
            snapshots from the Hub only.
        cuda_backend: what computes products with int8 and int4 weights on a CUDA device; `auto` tries all and keeps
            the fastest.
        may_switch_models: whether visitors may put another model or precision in the place of the one that serves;
            off by default, because everybody is served by the same models.
        memory_gb: most that weights and KV caches may take of the device, in GB (10^9 bytes); 0 for all that is free.
        num_slots: sequences that each engine runs at once, fewer where memory is short; 0 is 24 for demonstration
            models and 4 for others.
        max_waiting: requests that may wait for a slot of one engine, at least 0.
        max_running_per_visitor: replies that one visitor may have running or waiting in one engine; 0 for any number.
        max_seconds: longest time that one reply may be computed, in seconds; 0 for no limit.
        max_message_chars: longest message a visitor may send.
        max_messages: longest conversation, in messages.
        replies_per_minute: most replies of one address in a minute; 0 for no limit.
        num_proxies: how many proxies of the owner's own stand before the server and add to `X-Forwarded-For`; 0 for
            none, or on a Space for the platform's.
        num_threads: threads of a CPU model; 0 is one for demonstration models and leaves it to torch for others.
        server_name: address to listen on.
        server_port: port to listen on.
        log_level: a name of the `logging` module.
        frame_ancestors: origins whose pages may embed this one, for example `https://example.org`; `*` for all, `self`
            for the same origin, `none` for no page.
        page_address: where everybody finds the page, if that is known before it starts: a Space's page on the Hub.
    """

    models: ModelChoice = "auto"
    asker: ModelSource | None = None
    adviser: ModelSource | None = None
    listener: ModelSource | None = None
    device: str = "auto"
    precision: PrecisionChoice = "auto"
    quantized_cache: CacheChoice = "auto"
    cuda_backend: CudaBackendChoice = "auto"
    may_switch_models: bool = False
    memory_gb: int = 0
    num_slots: int = 0
    max_waiting: int = 32
    max_running_per_visitor: int = 2
    max_seconds: int = 600
    max_message_chars: int = 2000
    max_messages: int = 200
    replies_per_minute: int = 0
    num_proxies: int = 0
    num_threads: int = 0
    server_name: str = "127.0.0.1"
    server_port: int = 7860
    log_level: str = "INFO"
    frame_ancestors: tuple[str, ...] = ("*",)
    page_address: str = ""
    is_space: bool = field(default=False)
    is_zero_gpu: bool = field(default=False)

    @property
    def local_name(self) -> str:
        """The address under which this machine itself finds the server."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}.get(self.server_name, self.server_name)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read and check every variable; an empty variable counts as unset, an unknown one is named in the log.

        Raises:
            SettingsError: naming the variable, what it must be and what it is.
        """
        read = _Reader(os.environ if environment is None else environment)
        read.refuse("BIANQUE_DTYPE", "BIANQUE_PRECISION")
        is_space, space_id = read.string("SYSTEM", "") == "spaces", read.string("SPACE_ID", "")
        port_name = "GRADIO_SERVER_PORT" if read.string("GRADIO_SERVER_PORT", "") else "PORT"
        settings = cls(
            models=read.choice("BIANQUE_MODELS", get_args(ModelChoice), "auto"),
            asker=read.source("BIANQUE_ASKER"),
            adviser=read.source("BIANQUE_ADVISER"),
            listener=read.source("BIANQUE_LISTENER"),
            device=read.device("BIANQUE_DEVICE", "auto"),
            precision=read.choice("BIANQUE_PRECISION", get_args(PrecisionChoice), "auto"),
            quantized_cache=read.choice("BIANQUE_QUANTIZED_CACHE", get_args(CacheChoice), "auto"),
            cuda_backend=read.choice("BIANQUE_CUDA_BACKEND", get_args(CudaBackendChoice), "auto"),
            may_switch_models=read.choice("BIANQUE_MODEL_SWITCH", ("0", "1"), "0") == "1",
            memory_gb=read.integer("BIANQUE_MEMORY_GB", 0, 0, 4096),
            num_slots=read.integer("BIANQUE_NUM_SLOTS", 0, 1, 64),
            max_waiting=read.integer("BIANQUE_MAX_WAITING", 32, 0, 1000),
            max_running_per_visitor=read.integer("BIANQUE_MAX_RUNNING_PER_VISITOR", 2, 0, 64),
            max_seconds=read.integer("BIANQUE_MAX_SECONDS", 600, 0, 86_400),
            max_message_chars=read.integer("BIANQUE_MAX_MESSAGE_CHARS", 2000, 10, 20_000),
            max_messages=read.integer("BIANQUE_MAX_MESSAGES", 200, 2, 1000),
            replies_per_minute=read.integer("BIANQUE_REPLIES_PER_MINUTE", 30 if is_space else 0, 0, 10_000),
            num_proxies=read.integer("BIANQUE_NUM_PROXIES", 0, 0, 10),
            num_threads=read.integer("BIANQUE_NUM_THREADS", 0, 0, 256),
            server_name=read.string("GRADIO_SERVER_NAME", "0.0.0.0" if is_space else "127.0.0.1"),
            server_port=read.integer(port_name, 7860, 1, 65_535),
            log_level=read.choice("BIANQUE_LOG_LEVEL", ("DEBUG", "INFO", "WARNING", "ERROR"), "INFO"),
            frame_ancestors=read.origins("BIANQUE_FRAME_ANCESTORS", ("*",)),
            page_address=f"https://huggingface.co/spaces/{space_id}" if is_space and space_id else "",
            is_space=is_space,
            is_zero_gpu=read.string("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true"),  # as `spaces` reads it
        )
        read.warn_of_unknown()
        return settings


class _Reader:
    """Typed reading of a mapping of strings, with one clear error for each kind."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._known: set[str] = set()
        self._refused: set[str] = set()

    def string(self, name: str, default: str) -> str:
        self._known.add(name)
        return self._environment.get(name, "").strip() or default

    def refuse(self, name: str, other: str) -> None:
        """Refuse a variable that had a meaning once: ignored, it would mislead whoever sets it."""
        self._refused.add(name)
        if self.string(name, ""):
            raise SettingsError("setting_replaced", name=name, other=other)

    def warn_of_unknown(self) -> None:
        """Say which of this project's variables nobody has asked for: a typing error would go unnoticed for long.

        Of no use are their values, which may be secret. `BIANQUE_TEST_…` are for the tests alone.
        """
        for name, value in self._environment.items():
            is_ours = name.startswith("BIANQUE_") and not name.startswith("BIANQUE_TEST_")
            if is_ours and value.strip() and name not in self._known:
                known = sorted(self._known - self._refused)
                # Without the beginning that all share, which would make any two names alike.
                ours = [one.removeprefix("BIANQUE_") for one in known if one.startswith("BIANQUE_")]
                near = difflib.get_close_matches(name.removeprefix("BIANQUE_").upper(), ours, n=1)
                advice = f"did you mean BIANQUE_{near[0]}?" if near else "README.md lists all settings"
                logger.warning("environment variable %s is no setting and is ignored; %s", name, advice)

    def choice(self, name: str, allowed: tuple[str, ...], default: str) -> Any:
        return self._parse(name, default, lambda raw: raw if raw in allowed else None, " / ".join(allowed))

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        def parse(raw: str) -> int | None:
            return int(raw) if raw.isdecimal() and low <= int(raw) <= high else None

        return self._parse(
            name, default, parse, f" {low} 到 {high} 之间的整数", f"a whole number from {low} to {high}"
        )

    def device(self, name: str, default: str) -> str:
        def parse(raw: str) -> str | None:
            kind, _, index = raw.partition(":")
            is_numbered_cuda = kind == "cuda" and index.isdecimal()
            return raw if raw in ("auto", "cpu", "cuda", "mps") or is_numbered_cuda else None

        return self._parse(name, default, parse, "auto / cpu / cuda / cuda:N / mps")

    def origins(self, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        def parse(raw: str) -> tuple[str, ...] | None:
            origins = tuple(raw.split())
            is_alone = len(origins) == 1 and origins[0] in ("*", "self", "none")
            return origins if is_alone or all(_ORIGIN.fullmatch(origin) for origin in origins) else None

        return self._parse(
            name,
            default,
            parse,
            "* / self / none，或以空格分隔的来源，如 https://example.org",
            "* / self / none, or origins like https://example.org with blanks between",
        )

    def source(self, name: str) -> ModelSource | None:
        location, revision = self.string(name, ""), self.string(f"{name}_REVISION", "")
        if revision and not location:
            raise SettingsError("setting_without_model", name=f"{name}_REVISION", other=name)
        return ModelSource(location, revision or None) if location else None

    def _parse(
        self, name: str, default: _T, parse: Callable[[str], _T | None], expected_zh: str, expected_en: str = ""
    ) -> _T:
        raw = self.string(name, "")
        if not raw:
            return default
        value = parse(raw)
        if value is None:
            expected_en = expected_en or f"one of {expected_zh}"
            raise SettingsError(
                "setting_invalid", name=name, expected_zh=expected_zh, expected_en=expected_en, got=raw[:40]
            )
        return value
