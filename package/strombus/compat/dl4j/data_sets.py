"""`DataSet` and `MultiDataSet` under DL4J's names; they do not change, so that methods return new ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from strombus import types as core
from strombus.data import load_cell, rebatch
from strombus.errors import ConfigurationError, DataError
from strombus.types.dataset import Array

__all__ = ["DataSet", "MultiDataSet", "SplitTestAndTrain"]


class SplitTestAndTrain(NamedTuple):
    """Two parts of a data set."""

    train: DataSet
    test: DataSet

    def getTrain(self) -> DataSet:
        """Return the first part."""
        return self.train

    def getTest(self) -> DataSet:
        """Return the second part."""
        return self.test


class _RowMethods:
    """What both kinds have of DL4J's."""

    __slots__ = ()

    @classmethod
    def of(cls, core: Any) -> Self:
        """Return a data set of `strombus` under DL4J's names; the arrays are not copied."""
        return cls(*(getattr(core, name) for name in core.__dataclass_fields__))

    def __getitem__(self, rows: Any) -> Self:
        return self.of(super().__getitem__(rows))  # type: ignore[misc]

    def asList(self) -> list[Self]:
        """Return single examples."""
        return [self[row : row + 1] for row in range(len(self))]  # type: ignore[arg-type]

    def copy(self) -> Self:
        """Return a data set whose arrays are its own."""
        return self[np.arange(len(self))]  # type: ignore[arg-type]

    def isEmpty(self) -> bool:
        """Say whether there are no examples."""
        return len(self) == 0  # type: ignore[arg-type]

    def hasMaskArrays(self) -> bool:
        """Say whether there is a mask."""
        return any("mask" in name for name in self.columns())  # type: ignore[attr-defined]

    def getMemoryFootprint(self) -> int:
        """Return the bytes of all arrays."""
        return sum(array.nbytes for array in self.columns().values())  # type: ignore[attr-defined]

    @classmethod
    def merge(cls, data: Iterable[Any]) -> Self:
        """Return the examples of several as one; a mask that some lack is 1 for these."""
        return cls.of(load_cell(list(data)))


class DataSet(_RowMethods, core.DataSet):
    """Examples for a network with one input and one output; see `strombus.DataSet`."""

    __slots__ = ()

    def getFeatures(self) -> Array:
        """Return the features, examples first."""
        return self.features  # type: ignore[no-any-return]

    def getLabels(self) -> Array | None:
        """Return the labels, examples first; None without any."""
        return self.labels  # type: ignore[no-any-return]

    def getFeaturesMaskArray(self) -> Array | None:
        """Return the features' mask; None without one."""
        return self.features_mask  # type: ignore[no-any-return]

    def getLabelsMaskArray(self) -> Array | None:
        """Return the labels' mask; None without one."""
        return self.labels_mask  # type: ignore[no-any-return]

    def numExamples(self) -> int:
        """Return the number of examples."""
        return self.examples

    def numInputs(self) -> int:
        """Return the columns of the features."""
        return int(self.features.shape[1]) if self.features.ndim > 1 else 1

    def numOutcomes(self) -> int:
        """Return the columns of the labels; 0 without labels."""
        if self.labels is None:
            return 0
        return int(self.labels.shape[1]) if self.labels.ndim > 1 else 1

    def outcome(self) -> int:
        """Return the class of the only example."""
        if len(self) != 1:
            raise ConfigurationError(f"outcome is for one example, this data set has {len(self)}")
        return int(self._classes()[0])

    def labelCounts(self) -> dict[int, float]:
        """Return how many examples each class has."""
        return {int(label): float(count) for label, count in sorted(Counter(self._classes().tolist()).items())}

    def _classes(self) -> Array:
        if self.labels is None:
            raise DataError("this data set has no labels")
        labels = self.labels.reshape(len(self), -1)
        return np.asarray(labels[:, 0] if labels.shape[1] == 1 else labels.argmax(axis=1))

    def get(self, rows: int | Sequence[int]) -> DataSet:
        """Return one example, or several."""
        return self[[rows] if isinstance(rows, int) else list(rows)]

    def getRange(self, start: int, stop: int) -> DataSet:
        """Return the examples from `start` up to `stop`, which is left out."""
        return self[start:stop]

    def batchBy(self, num: int) -> list[DataSet]:
        """Return data sets of `num` examples, the last one short."""
        return [DataSet.of(batch) for batch in rebatch([self], num)]

    dataSetBatches = batchBy

    def filterBy(self, labels: Sequence[int]) -> DataSet:
        """Return the examples of these classes."""
        return self[np.flatnonzero(np.isin(self._classes(), labels))]

    def sample(self, numSamples: int, seed: int = 0, withReplacement: bool = False) -> DataSet:
        """Return examples drawn at random."""
        return self[np.random.default_rng(seed).choice(len(self), numSamples, replace=withReplacement)]

    def splitTestAndTrain(self, train: int | float, seed: int | None = None) -> SplitTestAndTrain:
        """Return the first examples, a number or a share of them, and the others; shuffled first with a `seed`."""
        count = round(train * len(self)) if isinstance(train, float) else train
        if not 0 < count < len(self):
            raise ConfigurationError(f"the first part must have from 1 to {len(self) - 1} examples, got {count}")
        whole = self if seed is None else self[np.random.default_rng(seed).permutation(len(self))]
        return SplitTestAndTrain(whole[:count], whole[count:])

    def toMultiDataSet(self) -> MultiDataSet:
        """Return the same with one array of each kind."""
        labels = None if self.labels is None else [self.labels]
        labels_masks = None if labels is None else [self.labels_mask]
        return MultiDataSet([self.features], labels, [self.features_mask], labels_masks)

    def iterator(self) -> Iterator[DataSet]:
        """Return an iterator over single examples."""
        return iter(self.asList())


class MultiDataSet(_RowMethods, core.MultiDataSet):
    """Examples for a graph with several inputs and outputs; see `strombus.MultiDataSet`."""

    __slots__ = ()

    def getFeatures(self, index: int | None = None) -> Any:
        """Return all feature arrays, or one."""
        return self.features if index is None else self.features[index]

    def getLabels(self, index: int | None = None) -> Any:
        """Return all label arrays, or one."""
        return self.labels if index is None else self.labels[index]

    def getFeaturesMaskArray(self, index: int) -> Array | None:
        """Return the mask of a feature array; None without one."""
        return self.features_masks[index]  # type: ignore[no-any-return]

    def getFeaturesMaskArrays(self) -> tuple[Array | None, ...]:
        """Return the mask of each feature array, None for one without."""
        return self.features_masks  # type: ignore[no-any-return]

    def getLabelsMaskArray(self, index: int) -> Array | None:
        """Return the mask of a label array; None without one."""
        return self.labels_masks[index]  # type: ignore[no-any-return]

    def getLabelsMaskArrays(self) -> tuple[Array | None, ...]:
        """Return the mask of each label array, None for one without."""
        return self.labels_masks  # type: ignore[no-any-return]

    def numFeatureArrays(self) -> int:
        """Return the number of feature arrays."""
        return len(self.features)

    def numLabelsArrays(self) -> int:
        """Return the number of label arrays."""
        return len(self.labels)
