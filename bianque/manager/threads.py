"""How many threads of the CPU the models get."""

from __future__ import annotations

from collections.abc import Mapping

from bianque.manager.plan import PlannedModel
from bianque.manager.registry import Job


class CpuThreads:
    """Sets torch's number of threads for the models that serve."""

    def __init__(self, requested: int) -> None:
        """Store what is needed; torch is not imported before `adapt`.

        Args:
            requested: the owner's number; 0 for none.
        """
        self._requested = requested
        self._default = 0

    def adapt(self, models: Mapping[Job, PlannedModel]) -> None:
        """Use the threads asked for; one where all are demonstration models, whose steps are too short to share.

        On two busy cores, two threads that wait for each other made a decode step of these models ten times slower.
        """
        import torch

        self._default = self._default or torch.get_num_threads()
        is_small = all(planned.spec.is_demonstration for planned in models.values())
        torch.set_num_threads(self._requested or (1 if is_small else self._default))
