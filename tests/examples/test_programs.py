"""The driver programs, in DL4J's names and in Strombus's own: what they learn, alike on Dask and on Spark."""

from __future__ import annotations

import contextlib
import functools
import gzip
import importlib.util
import io
import math
import re
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import cloudpickle
import numpy as np
import pytest
import torch
from torch.nn import functional

pytest.importorskip("sklearn", reason="the programs' digits come with scikit-learn")

EXAMPLES = Path(__file__).parents[2] / "examples"
FACES = ("plain", "dl4j")
ENGINES = [pytest.param("dask", marks=pytest.mark.dask), pytest.param("spark", marks=pytest.mark.spark)]
OPTIONS = {
    "mnist_mlp": {"averaging-frequency": 10},
    "char_lstm": {"num-epochs": 3, "max-staleness": 0, "network-mask": "127.0.0.0/8"},
    "two_outputs": {"num-epochs": 3, "averaging-frequency": 9},
    "training_stats": {"num-epochs": 2, "batch-size-per-worker": 64},
}


@functools.cache
def load_program(face, name):
    """Import a program, and have its functions travel with the tasks, as those of a ``__main__`` do."""
    path = EXAMPLES / ("dl4j" if face == "dl4j" else ".") / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{face}_program_{name}", path)
    program = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = program
    spec.loader.exec_module(program)
    cloudpickle.register_pickle_by_value(program)
    if importlib.util.find_spec("pyspark"):
        import pyspark.cloudpickle

        pyspark.cloudpickle.register_pickle_by_value(program)
    return program


def flags(face, options):
    """Write options as each face does: ``--num-epochs 2``, ``-numEpochs 2``."""
    for option, value in options.items():
        first, *others = option.split("-")
        yield f"--{option}" if face == "plain" else "-" + first + "".join(map(str.capitalize, others))
        yield str(value)


class Run(NamedTuple):
    """What a program returned and printed, and where its files are."""

    returned: Any
    printed: str
    folder: Path

    @property
    def parameters(self):
        return self.returned.state().parameters


class Runs:
    """Runs each program once for each face and engine, on clusters that other tests use too."""

    def __init__(self, request, tmp_path_factory):
        self._request, self._tmp = request, tmp_path_factory
        self._done = {}

    def __call__(self, name, face, engine):
        key = name, face, engine
        if key not in self._done:
            folder = self._tmp.mktemp(name)
            options = dict(OPTIONS[name])
            if name == "mnist_mlp":
                options["output-path"] = folder
            if name == "training_stats":
                options["output-path"] = folder / "page.html"
            if name == "char_lstm" and face == "plain":  # the very lines that the other face makes itself
                (folder / "lines.txt").write_text("\n".join(load_program(face, name).make_lines()))
                options["text-path"] = folder / "lines.txt"
            self._done[key] = Run(*self.start(name, face, engine, options), folder)
        return self._done[key]

    def start(self, name, face, engine, options):
        """Run a program in this process; return what its `main` returned, and what it printed."""
        program = load_program(face, name)
        with contextlib.ExitStack() as stack:
            printed = stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            where = stack.enter_context(self._context(face, engine))
            return program.main([*where, *flags(face, options)]), printed.getvalue()

    @contextlib.contextmanager
    def _context(self, face, engine):
        """Give the flags that choose the engine; Spark's context stays for the tests that come after."""
        if engine == "dask":
            yield [
                "-dask" if face == "dl4j" else "--backend",
                self._request.getfixturevalue("dask_cluster").scheduler_address,
            ]
            return
        pytest.importorskip("pyspark", reason="pyspark is not installed")
        from helpers.spark import spark_context

        with mock.patch.object(type(spark_context()), "stop"):
            yield [] if face == "dl4j" else ["--backend", "spark"]


@pytest.fixture(scope="module")
def runs(request, tmp_path_factory):
    return Runs(request, tmp_path_factory)


def train_alone(module, columns, loss, rows, epochs):
    """Train with nothing but torch, on minibatches of as many rows as two workers take together."""
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2 if hasattr(module, "memory") else 5e-3)
    columns = [torch.from_numpy(column) for column in columns]
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for taken in torch.randperm(len(columns[0]), generator=generator).split(rows):
            optimizer.zero_grad()
            loss(module, *(column[taken] for column in columns)).backward()
            optimizer.step()


def accuracy_of(logits, labels):
    return float(np.mean(np.asarray(logits).argmax(axis=1) == labels))


def figure(name, printed):
    return float(re.search(rf"^{name} +([\d.]+)", printed, re.MULTILINE)[1])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", OPTIONS)
def test_both_faces_train_the_same_network(runs, name, engine):
    plain, dl4j = (runs(name, face, engine) for face in FACES)
    np.testing.assert_allclose(dl4j.parameters, plain.parameters, rtol=0, atol=1e-6)


@pytest.mark.dask
@pytest.mark.spark
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("name", OPTIONS)
def test_both_engines_train_the_same_network(runs, name, face):
    dask, spark = (runs(name, face, engine) for engine in ("dask", "spark"))
    np.testing.assert_allclose(spark.parameters, dask.parameters, rtol=0, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("face", FACES)
def test_the_perceptron_learns_what_a_plain_loop_learns(runs, face, engine):
    program, run = load_program(face, "mnist_mlp"), runs("mnist_mlp", face, engine)
    train, test = program.load(None)
    reached = accuracy_of(run.returned.predict(test.features), test.labels)
    assert figure("accuracy", run.printed) == pytest.approx(reached, abs=1e-4)

    module = program.make_network(64).module
    train_alone(module, (train.features, train.labels), lambda m, x, y: functional.cross_entropy(m(x), y), 32, 2)
    with torch.no_grad():
        alone = accuracy_of(module(torch.from_numpy(test.features)), test.labels)
    assert reached > alone - 0.03 > 0.8


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("face", FACES)
def test_both_outputs_learn_what_a_plain_loop_learns(runs, face, engine):
    program, run = load_program(face, "two_outputs"), runs("two_outputs", face, engine)
    train, test = program.load()
    digit, ink = run.returned.predict(test.features)
    reached = accuracy_of(digit, test.labels[0])
    off = float(np.abs(ink - test.labels[1]).mean())
    assert figure("accuracy", run.printed) == pytest.approx(reached, abs=1e-4)
    if face == "dl4j":
        assert figure("mean error of the ink", run.printed) == pytest.approx(off, abs=1e-4)
    else:
        table = run.printed[run.printed.rindex("column ") :].splitlines()
        assert float(dict(zip(table[0].split(), table[1].split(), strict=True))["MAE"]) == pytest.approx(off, rel=1e-4)

    def loss(module, pixels, labels, inked):
        logits, ink = module(pixels)
        return functional.cross_entropy(logits, labels) + 10 * functional.mse_loss(ink, inked)

    module = program.make_graph().module
    train_alone(module, (*train.features, *train.labels), loss, 32, 3)
    with torch.no_grad():
        digit, ink = module(torch.from_numpy(test.features[0]))
    assert reached > accuracy_of(digit, test.labels[0]) - 0.03 > 0.8
    assert off < 1.5 * float(np.abs(ink.numpy() - test.labels[1]).mean()) < 0.06


def line_losses(module, characters, lines):
    """Return the loss of every character that follows another one, line by line and so without any padding."""
    for line in lines:
        numbers = torch.tensor([characters.index(character) for character in f"\n{line}\n"])
        with torch.no_grad():
            yield from functional.cross_entropy(module(numbers[None, :-1])[0].T, numbers[1:], reduction="none").tolist()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("face", FACES)
def test_the_lstm_learns_what_a_plain_loop_learns(runs, face, engine):
    program, run = load_program(face, "char_lstm"), runs("char_lstm", face, engine)
    lines = program.make_lines()
    characters = "".join(sorted({"\n", *"".join(lines)}))
    reached = float(np.mean(list(line_losses(run.returned.module, characters, lines))))
    assert figure("mean loss of a character", run.printed) == pytest.approx(reached, abs=1e-4)

    def loss(module, steps, following, mask):
        terms = functional.cross_entropy(module(steps), following, reduction="none")
        return (terms * mask).sum() / mask.sum()

    examples = [program.encode(characters, max(map(len, lines)), line) for line in lines]
    columns = [np.concatenate([getattr(e, name) for e in examples]) for name in ("features", "labels", "labels_mask")]
    module = program.make_network(len(characters)).module
    train_alone(module, columns, loss, 16, 3)
    alone = float(np.mean(list(line_losses(module, characters, lines))))
    assert reached < 1.5 * alone < 1.5


@pytest.mark.parametrize("face", FACES)
def test_a_sample_follows_what_the_network_says(face):
    line = "one and one is two"
    characters = "".join(sorted({"\n", *line}))

    def predict(steps):
        following = characters.index(f"{line}\n"[len(steps[0]) - 1])
        return np.where(np.arange(len(characters)) == following, 50.0, 0.0)[None, :, None]

    sample = functools.partial(load_program(face, "char_lstm").sample, SimpleNamespace(predict=predict), characters)
    assert sample(len(line), np.random.default_rng(0)) == line
    assert sample(7, np.random.default_rng(0)) == "one and"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("face", FACES)
def test_statistics_are_printed_and_drawn(runs, face, engine):
    run = runs("training_stats", face, engine)
    minibatches = 2 * (math.ceil(899 / 64) + math.ceil(898 / 64))  # of two epochs, two workers
    name = "ParameterAveragingWorkerFitTimesMs:" if face == "dl4j" else "fit"
    assert figure(name, run.printed) == minibatches
    page = (run.folder / "page.html").read_text()
    assert "</html>" in page
    assert not [phase for phase in ("export", "broadcast", "round", "aggregate", "fit") if f'"{phase}"' not in page]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("face", FACES)
def test_a_saved_network_is_evaluated_as_it_was_when_it_was_trained(runs, face, engine):
    trained = runs("mnist_mlp", face, engine)
    options = {"model-path": trained.folder / "network.safetensors", "data-path": trained.folder / "test.zarr"}
    evaluation, printed = runs.start("evaluate_only", face, engine, options)
    assert evaluation.stats() in printed
    assert evaluation.stats() in trained.printed
    assert 0.98 < figure("mean area under the curves", printed) < 1


@pytest.mark.parametrize("face", FACES)
def test_files_of_mnist_are_read(face, tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (7, 4, 5), np.uint8), rng.integers(0, 10, 7, np.uint8)
    for part, rows in (("train", slice(0, 4)), ("t10k", slice(4, 7))):
        for name, values in (("images-idx3", images[rows]), ("labels-idx1", labels[rows])):
            data = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()
            if part == "train":
                (tmp_path / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(data))
            else:
                (tmp_path / f"{part}-{name}-ubyte").write_bytes(data)
    train, test = load_program(face, "mnist_mlp").load(tmp_path)
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), labels)
    np.testing.assert_allclose(np.concatenate([train.features, test.features]), images.reshape(7, 20) / 255, atol=1e-7)
    assert (len(train), len(test)) == (4, 3)
