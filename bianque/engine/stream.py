"""What a reader holds of a sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bianque.engine.sequence import Sequence
from bianque.errors import GenerationError


class TokenStream(Iterator[int]):
    """Tokens of one sequence as they come, for one reader.

    Ends when the sequence does, `Sequence.finish_reason` then says why. Closing it, or dropping it before its end,
    cancels the sequence.
    """

    def __init__(self, sequence: Sequence, cancel: Callable[[Sequence], None]) -> None:
        """Read `sequence` from its first token on; `cancel` is called when the reader leaves."""
        self._sequence = sequence
        self._cancel = cancel
        self._num_read = 0
        self._news = sequence.add_reader()

    def __next__(self) -> int:
        """Wait for the next token and return it.

        Raises:
            StopIteration: at the end.
            GenerationError: if the sequence failed, after the tokens it has.
        """
        sequence = self._sequence
        while True:
            # Looked at before the tokens, so that none of those written before the end is missed.
            is_finished = sequence.is_finished
            # After a cancel nothing more is wanted: a reader that lags must not go on for what had piled up.
            if self._num_read < len(sequence.output_ids) and sequence.finish_reason != "cancelled":
                self._num_read += 1
                return sequence.output_ids[self._num_read - 1]
            if is_finished:
                break
            self._news.get()
        if sequence.error is not None:
            raise GenerationError(sequence.error.key, **sequence.error.params)
        raise StopIteration

    def close(self) -> None:
        """Cancel the sequence unless it is finished."""
        self._cancel(self._sequence)

    def __enter__(self) -> TokenStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # No lock may be taken here: the interpreter may finalise in the middle of anything.
        self._sequence.is_abandoned = True
