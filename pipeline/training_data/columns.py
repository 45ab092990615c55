"""Columns of a training set in memory: millions of names and lists without a Python object for each."""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

AT_ONCE = 2**16
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


class Names(Sequence[str]):
    """Texts, such as the names of clips."""

    def __init__(self, parts: list[pa.Array]) -> None:
        """Put parts together, [N] in all."""
        texts = [part.cast(pa.large_string()) for part in parts]
        self._texts = pa.concat_arrays(texts) if texts else pa.array([], pa.large_string())

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return self._texts[place].to_pylist()  # type: ignore[no-any-return]
        return self._texts[int(place)].as_py()  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), AT_ONCE):
            yield from self[start : start + AT_ONCE]

    def places(self, names: "Names") -> Indices:
        """Return the position of each of other names in these, -1 for those that are not among them, [n]."""
        found = pc.index_in(names._texts, value_set=self._texts)
        return np.asarray(pc.fill_null(found, -1)).astype(np.int64)


class Lists:
    """Lists of numbers, such as the classes of clips.

    Attributes:
        offsets: Start of each list in `values`, and the end of the last one, [N + 1].
        values: The numbers of all lists.
    """

    def __init__(self, offsets: Indices, values: npt.NDArray[np.int16]) -> None:
        self.offsets, self.values = offsets, values

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, place: int) -> list[int]:
        return self.values[self.offsets[place] : self.offsets[place + 1]].tolist()  # type: ignore[no-any-return]

    @property
    def lengths(self) -> Indices:
        """Length of each list, [N]."""
        return np.diff(self.offsets)

    def counts(self, weights: npt.NDArray[np.float32] | None = None, *, classes: int) -> Floats:
        """Return how often each number occurs, or the sum of the weights of its occurrences, [classes]."""
        sums = np.zeros(classes)
        for start in range(0, len(self.values), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            sums += np.bincount(self.values[part], None if weights is None else weights[part], classes)
        return sums

    def sums(self, of: Floats, weights: npt.NDArray[np.float32] | None = None) -> Floats:
        """Return the sum over each list of what `of` has for its numbers, times the weights, [N]."""
        sums = np.zeros(len(self))
        for start in range(0, len(self), AT_ONCE):
            bounds = self.offsets[start : start + AT_ONCE + 1]
            part = slice(bounds[0], bounds[-1])
            terms = of[self.values[part]] * (1.0 if weights is None else weights[part])
            running = np.concatenate([[0.0], np.cumsum(terms)])[bounds - bounds[0]]
            sums[start : start + AT_ONCE] = np.diff(running)
        return sums
