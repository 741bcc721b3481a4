"""What fits the hardware of Hugging Face Spaces: the table of the README, made by the choice that runs there."""

from __future__ import annotations

from dataclasses import dataclass

from bianque.errors import SettingsError
from bianque.manager.memory import Machine
from bianque.manager.precision import GB, RESERVED_BYTES, in_gb, plan_memory
from bianque.manager.registry import BIANQUE_1, BIANQUE_2, MINI_ADVISER, MINI_ASKER, SOULCHAT, ModelSpec
from bianque.manager.zerogpu import DEVICE_BYTES
from bianque.settings import PrecisionChoice, Settings
from bianque.texts import Language, text


@dataclass(frozen=True)
class Hardware:
    """One kind of Space.

    Attributes:
        name: as in the Space's settings.
        machine: its memory as advertised.
        visitors: to be served at once.
        requested: precision, where there is no choice.
    """

    name: str
    machine: Machine
    visitors: int = Settings.num_slots
    requested: PrecisionChoice = "auto"


HARDWARE = (
    Hardware("cpu-basic", Machine("cpu", "2 vCPU", 16 * GB, 16 * GB)),
    Hardware("t4-small", Machine("cuda", "T4", 16 * GB, 15 * GB)),
    Hardware("l4x1", Machine("cuda", "L4", 24 * GB, 30 * GB)),
    Hardware("a10g-small", Machine("cuda", "A10G", 24 * GB, 15 * GB)),
    Hardware("ZeroGPU", Machine("cuda", "ZeroGPU", DEVICE_BYTES, 64 * GB), visitors=1, requested="fp16"),
)
JOINT = (BIANQUE_1, BIANQUE_2)
MINIS = (MINI_ASKER, MINI_ADVISER)


def hardware_rows(language: Language) -> list[list[str]]:
    """Return the table, its head first: hardware, models, precision, visitors at once, memory."""
    head = [text(f"hardware_{name}", language) for name in ("name", "models", "precision", "visitors", "memory")]
    rows = [head]
    for hardware in HARDWARE:
        choices: list[tuple[ModelSpec, ...]] = [JOINT] if hardware.requested != "auto" else [JOINT, (SOULCHAT,)]
        if not hardware.machine.has_gpu:
            choices.insert(0, MINIS)
        rows.extend(_row(hardware, specs) for specs in choices)
    return rows


def _row(hardware: Hardware, specs: tuple[ModelSpec, ...]) -> list[str]:
    machine = hardware.machine
    parts = [machine.name] if machine.name != hardware.name else []
    label = f"{hardware.name} ({', '.join([*parts, in_gb(machine.device_bytes).removesuffix('.0') + ' GB'])})"
    names = " + ".join(spec.name for spec in specs)
    try:
        plan = plan_memory(specs, machine, visitors=hardware.visitors, requested=hardware.requested)
    except SettingsError:
        return [label, names, "–", "–", "–"]
    precisions = " + ".join(dict.fromkeys(plan.precisions) if len(set(plan.precisions)) == 1 else plan.precisions)
    total = plan.needed_bytes + (0 if specs == MINIS else RESERVED_BYTES[machine.kind])
    most = min(plan.room_for, 64)
    visitors = f"{plan.visitors}" if hardware.requested != "auto" else f"{plan.visitors} (≤ {most})"
    return [label, names, precisions, visitors, f"{in_gb(total)} GB"]
