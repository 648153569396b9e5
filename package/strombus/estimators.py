"""scikit-learn's estimators: a network that is trained by a master, in a ``Pipeline`` or a ``GridSearchCV``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from strombus.callbacks import Callback
from strombus.errors import ConfigurationError
from strombus.masters.base import TrainingMaster
from strombus.masters.parameter_averaging import ParameterAveragingTrainingMaster
from strombus.networks import MultiLayerNetwork
from strombus.trainer import Trainer
from strombus.types import DataSet

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        "StrombusClassifier and StrombusRegressor need scikit-learn 1.6 or newer: pip install 'strombus[metrics]'"
    ) from error

__all__ = ["StrombusClassifier", "StrombusRegressor", "hidden_layer"]

PRECISIONS = (np.float64, np.float32)


def hidden_layer(features: int, outputs: int, width: int = 100) -> nn.Module:
    """Make a network of one hidden layer of rectified units, as scikit-learn's ``MLPClassifier`` has by default."""
    return nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, outputs))


class _NetworkEstimator(BaseEstimator):  # type: ignore[misc]
    """What both estimators share: options, training, the network that comes of it."""

    def __init__(
        self,
        module: nn.Module | Callable[[int, int], nn.Module] | None = None,
        *,
        loss: Any = None,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        master: TrainingMaster | None = None,
        backend: Any = "local",
        epochs: int = 50,
        callbacks: tuple[Callback, ...] | list[Callback] = (),
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        progress: bool = False,
    ) -> None:
        self.module = module
        self.loss = loss
        self.optimizer = optimizer
        self.master = master
        self.backend = backend
        self.epochs = epochs
        self.callbacks = callbacks
        self.warm_start = warm_start
        self.random_state = random_state
        self.progress = progress

    def _begin(self, outputs: int, precision: np.dtype[Any], loss: Any) -> None:
        """Make a network, with values of its own seed."""
        seed = int(check_random_state(self.random_state).randint(2**31))
        module = hidden_layer if self.module is None else self.module
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = module if isinstance(module, nn.Module) else module(self.n_features_in_, outputs)
        if not isinstance(made, nn.Module):
            raise ConfigurationError(
                "module must be an nn.Module, or a function of the numbers of features and of outputs that makes "
                f"one; it made {type(made).__name__}"
            )
        optimizer = self.optimizer or functools.partial(torch.optim.Adam, lr=1e-2)
        network = MultiLayerNetwork(made, loss, optimizer)
        network.module.to(torch.float32 if precision == np.float32 else torch.float64)
        self.network_, self._seed, self.n_iter_ = network, seed, 0
        self.loss_curve_: list[float] = []

    def _train(self, features: NDArray[Any], labels: NDArray[Any], weights: ArrayLike | None, epochs: int) -> None:
        master = self.master
        if master is None:
            alone = isinstance(self.backend, str) and self.backend == "local"
            master = ParameterAveragingTrainingMaster(workers=1 if alone else None, rng_seed=self._seed)
        with Trainer(self.network_, master, backend=self.backend) as trainer:
            data = DataSet(features, labels, weights=weights)
            result = trainer.fit(data, epochs, callbacks=self.callbacks, progress=self.progress)
        self.loss_curve_ += [record.score for record in result.epochs]
        self.n_iter_ += len(result.epochs)

    def _weights(self, sample_weight: ArrayLike | None, features: NDArray[Any]) -> NDArray[Any] | None:
        """Return what is given for each row, checked as scikit-learn does; None stays None, which counts alike."""
        if sample_weight is None:
            return None
        options = {"dtype": features.dtype, "ensure_non_negative": True}
        return np.asarray(_check_sample_weight(sample_weight, features, **options))

    def _goes_on(self, partial: bool) -> bool:
        return (partial or self.warm_start) and hasattr(self, "network_")

    def _outputs(self, features: ArrayLike) -> NDArray[Any]:
        """Compute outputs here, in the precision that the network was trained in."""
        check_is_fitted(self)
        precision = np.float32 if self.network_.dtype == torch.float32 else np.float64
        checked = validate_data(self, features, dtype=precision, reset=False)
        return np.asarray(self.network_.predict(checked))


class StrombusClassifier(ClassifierMixin, _NetworkEstimator):  # type: ignore[misc]
    """A network that classifies, as an estimator of scikit-learn.

    Parameters
    ----------
    module : nn.Module or callable, optional
        A module, of which a copy is trained, or ``module(features, classes)``, which makes one; by default
        `hidden_layer`. Its outputs are what `loss` takes: logits by default, one column for each class.
    loss : callable, optional
        ``loss(outputs, class numbers)``, ``nn.CrossEntropyLoss()`` by default; see `strombus.MultiLayerNetwork`.
    optimizer : callable, optional
        ``optimizer(parameters)``; Adam at 0.01 by default.
    master : TrainingMaster, optional
        How it is trained; by default parameter averaging, on the local backend with one worker.
    backend : str, object
        Where `fit` runs; see `strombus.Trainer`. Predictions are computed in this process: for more rows than it
        holds give `network_` to a ``Trainer``.
    epochs : int
        Passes over the data; `partial_fit` makes one.
    callbacks : sequence of Callback
        Early stopping among them.
    warm_start : bool
        Whether another `fit` goes on with the network of the one before.
    random_state : int, RandomState or None
        Of initial values and order; a master's own `rng_seed` stands for the order.
    progress : bool
        Show a bar.

    Attributes
    ----------
    network_ : MultiLayerNetwork
        In the precision of the rows it was fitted to: float32 for float32, else float64.
    classes_ : ndarray, shape (classes,)
    loss_curve_ : list of float
        The training loss at each epoch's end.
    n_iter_, n_features_in_ : int
        Epochs trained; columns of the rows.

    Raises
    ------
    ConfigurationError
        When `module` makes something else, and what `strombus.Trainer.fit` raises.
    ValueError
        As scikit-learn's estimators do, for data that cannot be used.
    """

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train on rows of shape (examples, features) and their classes, numbers or texts.

        `sample_weight`, shape (examples,), says how much each counts; by default all count alike.
        """
        return self._fit(X, y, None, sample_weight, self.epochs, partial=False)

    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, classes: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train one more epoch, on these rows; the first call, like `fit`, makes the network, for `classes`."""
        return self._fit(X, y, classes, sample_weight, 1, partial=True)

    def _fit(
        self, rows: ArrayLike, wanted: ArrayLike, classes: Any, sample_weight: Any, epochs: int, *, partial: bool
    ) -> Self:
        goes_on = self._goes_on(partial)
        features, labels = validate_data(self, rows, wanted, dtype=PRECISIONS, reset=not goes_on)
        check_classification_targets(labels)
        weights = self._weights(sample_weight, features)
        found = np.unique(labels if classes is None else np.asarray(classes))
        if not goes_on:
            self.classes_ = found
            self._begin(len(found), features.dtype, nn.CrossEntropyLoss() if self.loss is None else self.loss)
        elif classes is not None and not np.array_equal(found, self.classes_):
            raise ValueError(f"classes must be those of the first fit, {self.classes_.tolist()}, got {found.tolist()}")
        if unknown := np.setdiff1d(labels, self.classes_).tolist():
            raise ValueError(
                f"y has classes {unknown} that are not among {self.classes_.tolist()}; give `classes` first"
            )
        self._train(self._as_trained(features), np.searchsorted(self.classes_, labels), weights, epochs)
        return self

    def _as_trained(self, features: NDArray[Any]) -> NDArray[Any]:
        return features.astype(np.float32 if self.network_.dtype == torch.float32 else np.float64, copy=False)

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Return the probability of each class, float64, shape (examples, classes)."""
        outputs = torch.from_numpy(self._outputs(X))
        objective = self.network_.objective
        assert objective is not None
        return objective.losses[0].probabilities(outputs).numpy()

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the likeliest class of each row."""
        likely = self.predict_proba(X)
        return self.classes_[likely.argmax(axis=1)]  # type: ignore[no-any-return]


class StrombusRegressor(RegressorMixin, _NetworkEstimator):  # type: ignore[misc]
    """A network that predicts values, as an estimator of scikit-learn; see `StrombusClassifier`.

    Parameters
    ----------
    module : nn.Module or callable, optional
        ``module(features, targets)``, or a module.
    loss : callable, optional
        ``nn.MSELoss()`` by default.
    optimizer, master, backend, epochs, callbacks, warm_start, random_state, progress
        As of `StrombusClassifier`.

    Attributes
    ----------
    network_, loss_curve_, n_iter_, n_features_in_
        As of `StrombusClassifier`.
    """

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train on rows of shape (examples, features) and values of shape (examples,) or (examples, targets).

        `sample_weight`, shape (examples,), says how much each counts; by default all count alike.
        """
        return self._fit(X, y, sample_weight, self.epochs, partial=False)

    def partial_fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train one more epoch, on these rows."""
        return self._fit(X, y, sample_weight, 1, partial=True)

    def _fit(self, rows: ArrayLike, wanted: ArrayLike, sample_weight: Any, epochs: int, *, partial: bool) -> Self:
        goes_on = self._goes_on(partial)
        features, labels = validate_data(
            self, rows, wanted, dtype=PRECISIONS, reset=not goes_on, multi_output=True, y_numeric=True
        )
        weights = self._weights(sample_weight, features)
        self._flat = labels.ndim == 1
        labels = labels.reshape(len(labels), -1)
        if not goes_on:
            self._begin(labels.shape[1], features.dtype, nn.MSELoss() if self.loss is None else self.loss)
        precision = np.float32 if self.network_.dtype == torch.float32 else np.float64
        self._train(features.astype(precision, copy=False), labels.astype(precision, copy=False), weights, epochs)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return values of the shape that `fit` was given, for these rows."""
        outputs = self._outputs(X)
        return outputs[:, 0] if self._flat else outputs
