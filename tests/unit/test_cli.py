"""The command line as users run it: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import strombus as sb
from strombus import demo
from strombus.cli import main
from strombus.stats import TrainingStats

NETWORK = """
    import torch
    from torch import nn

    from strombus import DataSet

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))

        def forward(self, features):
            assert features.abs().max() <= 1.0, "the transform was not applied"
            return self.layers(features)

    def make():
        return Scaled()

    def scale(batch):
        return DataSet(batch.features / 100.0, batch.labels)

    def fail(batch):
        raise RuntimeError("the disk under the worker is gone")

    def interrupt(batch):
        raise KeyboardInterrupt
"""

CONFIG = """
    network:
      module: {module}:make
      loss: torch.nn:CrossEntropyLoss
      optimizer: {{class: torch.optim:Adam, lr: 0.05}}
    data:
      train: {folder}/train.zarr
      validation: {folder}/test.zarr
      test: {folder}/test.zarr
      transform: {module}:scale
    master: {{numWorkers: 1, batch_size_per_worker: 16, rng_seed: 1}}
    backend: local
    epochs: 8
    output: {folder}/network.safetensors
"""


def write_data(path, rows, seed=0):
    features = np.random.default_rng(seed).uniform(-100, 100, (rows, 4)).astype(np.float32)
    labels = (features[:, 0] > features[:, 1]).astype(np.int64)
    sb.data.export((features, labels), path, progress=False)
    return features, labels


@pytest.fixture
def job(tmp_path):
    """A configuration, a module beside it and data; the module's name is this test's alone."""
    module = f"network_{tmp_path.name.replace('-', '_')}"
    write_data(tmp_path / "train.zarr", 320)
    write_data(tmp_path / "test.zarr", 100, seed=1)
    (tmp_path / f"{module}.py").write_text(textwrap.dedent(NETWORK))
    config = tmp_path / "job.yaml"
    config.write_text(textwrap.dedent(CONFIG).format(module=module, folder=tmp_path))
    yield config
    sys.modules.pop(module, None)
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def change(config, old, new):
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))


def fails(result, code, *words):
    """Check for an exit code and one clear line."""
    assert result.exit_code == code, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in result.output
    for word in words:
        assert word in line
    return line


def test_the_demo_learns_the_digits(capfd):
    pytest.importorskip("sklearn", reason="scikit-learn brings the digits")
    result = run("demo", "--backend", "local")
    assert result.exit_code == 0, result.output
    (accuracy,) = [float(line.split()[1]) for line in result.stdout.splitlines() if line.startswith("accuracy ")]
    assert accuracy > np.mean([plain_accuracy(seed) for seed in range(3)]) - 0.03  # three standard errors of 360 digits
    assert "trained 17,226 parameters on 14,370 examples" in result.stdout
    assert "epoch 10/10" in result.stderr


def plain_accuracy(seed):
    """Train the demo's network by torch alone, on minibatches as large as those of two workers together."""
    (features, labels), (held_out, wanted) = demo.digits()
    module, order = demo.make_network(seed).copy_module(), np.random.default_rng(seed)
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3)
    for _ in range(10):
        for rows in np.array_split(order.permutation(len(features)), len(features) // 32):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(
                module(torch.from_numpy(features[rows])), torch.from_numpy(labels[rows])
            )
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return float(np.mean(module(torch.from_numpy(held_out)).numpy().argmax(axis=1) == wanted))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_shares_updates(job, workers):
    algorithm = "thresholdAlgorithm: {type: target_sparsity, sparsityTarget: 0.05}"
    change(job, "numWorkers: 1", f"type: shared_training, numWorkers: {workers}, {algorithm}")
    result = run("train", job)
    assert result.exit_code == 0, result.output
    assert "trained on 2,560 examples" in result.stdout
    assert next(float(line.split()[1]) for line in result.stdout.splitlines() if line.startswith("accuracy")) > 0.9


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_trains_tests_and_saves_a_network_whose_module_lies_beside_it(job, workers):
    change(job, "numWorkers: 1", f"numWorkers: {workers}")
    result = run("train", job)
    assert result.exit_code == 0, result.output
    assert "trained on 2,560 examples" in result.stdout
    assert "validation accuracy" in result.stderr
    printed = next(float(line.split()[1]) for line in result.stdout.splitlines() if line.startswith("accuracy"))
    assert printed > 0.9
    module = sys.modules[f"network_{job.parent.name.replace('-', '_')}"]
    loaded = sb.MultiLayerNetwork(module.make).load(job.parent / "network.safetensors")
    features, labels = write_data(job.parent / "again.zarr", 100, seed=1)
    assert np.mean(loaded.predict(features / 100).argmax(axis=1) == labels) == pytest.approx(printed, abs=1e-4)
    assert loaded.epoch == 8


def test_a_job_fits_a_normalizer_that_its_network_keeps(job):
    module = f"network_{job.parent.name.replace('-', '_')}"
    change(job, f"  transform: {module}:scale\n", "")
    change(job, "network:\n", "network:\n  normalizer: {type: min_max, min_range: -0.9, max_range: 0.9}\n")
    result = run("train", job)
    assert result.exit_code == 0, result.output
    assert run("evaluate", job).stdout.strip() in result.stdout
    loaded = sb.MultiLayerNetwork(sys.modules[module].make).load(job.parent / "network.safetensors")
    train = write_data(job.parent / "again.zarr", 320)[0]
    assert loaded.normalizer == sb.data.NormalizerMinMaxScaler(-0.9, 0.9).fit(train)
    sb.data.save_normalizer(loaded.normalizer, job.parent / "kept.json")
    change(job, "{type: min_max, min_range: -0.9, max_range: 0.9}", f"{{file: {job.parent}/kept.json}}")
    again = run("train", job)
    assert again.stdout.partition(" s, ")[2] == result.stdout.partition(" s, ")[2] != ""


def test_a_trained_network_is_evaluated_again_and_drawn(job):
    trained = run("train", job)
    assert trained.exit_code == 0, trained.output
    result = run("evaluate", job)
    assert result.exit_code == 0, result.output
    figures = trained.stdout[trained.stdout.index("examples   ") :]
    assert result.stdout == figures
    page, kept = job.parent / "page.html", job.parent / "kept.safetensors"
    (job.parent / "network.safetensors").rename(kept)
    fails(run("evaluate", job), 6, "network.safetensors")
    result = run("evaluate", job, "--model", kept, "--html", page)
    assert result.exit_code == 0, result.output
    assert figures.strip() in result.stdout
    assert all(chart in page.read_text() for chart in ("Confusion matrix", "ROC", "Reliability", "kept.safetensors on"))
    change(
        job, "epochs: 8", "epochs: 8\nmetrics: [evaluation_calibration, {type: roc_multi_class, threshold_steps: 9}]"
    )
    result = run("evaluate", job, "--model", kept)
    assert "ECE" in result.stdout
    assert "9 thresholds" in result.stdout
    change(job, "{type: roc_multi_class", "{type: roc_multi")
    fails(run("evaluate", job, "--model", kept), 2, "no evaluation is called 'roc_multi'", "roc_multi_class")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (r"  test: .*\n", "", ["give data.test in the file"]),
        (r"output: .*", "", ["give --model, or output in the file"]),
        (
            r"CrossEntropyLoss",
            "CosineEmbeddingLoss",
            ["CosineEmbeddingLoss does not say what to evaluate", "metrics: "],
        ),
    ],
)
def test_what_is_missing_for_an_evaluation_is_said(job, old, new, words):
    (job.parent / "network.safetensors").touch()
    text = re.sub(r"  validation: .*\n", "", job.read_text())
    job.write_text(re.sub(old, new, text))
    if "Cosine" in new:
        sys.path.insert(0, str(job.parent))
        module = importlib.import_module(f"network_{job.parent.name.replace('-', '_')}")
        sb.MultiLayerNetwork(module.make).save(job.parent / "network.safetensors")
    fails(run("evaluate", job), 2, *words)


def test_options_of_the_command_stand_above_the_file(job):
    change(job, "backend: local", "backend: nowhere")
    result = run("train", job, "--backend", "local", "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert "trained on 320 examples" in result.stdout


def test_a_job_is_tried_without_a_trace(job):
    change(job, "epochs: 8", f"epochs: 8\nname: first\nstorage_path: {job.parent}/runs")
    before = sorted(job.parent.rglob("*"))
    result = run("train", job, "--fast-dev-run")
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    assert line.startswith("dry run on local: 1 worker trained 2 minibatches, 32 rows in all, ")
    assert {path for path in job.parent.rglob("*") if path.suffix != ".pyc"} - {job.parent / "__pycache__"} == set(
        before
    )
    change(job, "numWorkers: 1", "numWorkers: 1, averaging_frequency: 0")
    fails(run("train", job, "--fast-dev-run"), 2, "averaging_frequency")


def test_a_run_that_has_ended_is_not_trained_again_and_says_so(job):
    runs = job.parent / "runs"
    change(job, "epochs: 8", f"epochs: 2\nname: first\nstorage_path: {runs}")
    assert run("train", job).stdout.startswith("trained on 640 examples in ")
    saved = (job.parent / "network.safetensors").read_bytes()
    for arguments in ([], ["--epochs", 3, "--accept-changes"]):
        again = run("train", job, *arguments)
        assert again.exit_code == 0, again.output
        first, second, *_ = again.stdout.splitlines()
        assert first == f"nothing was trained: the run in {runs}/first has ended before, and this is its result"
        assert second.startswith("trained on 640 examples in ")
        assert (job.parent / "network.safetensors").read_bytes() == saved
    line = fails(run("train", job, "--epochs", 3), 7, "epochs was 2, is 3 now", "with --accept-changes")
    assert "accept_changes" not in line


def test_datasets_are_written_shown_and_checked(tmp_path):
    features = np.arange(60, dtype=np.float32).reshape(20, 3)
    np.savez(tmp_path / "rows.npz", features=features, labels=np.arange(20), labels_mask=np.ones(20, np.uint8))
    target = tmp_path / "rows.zarr"
    assert "wrote 20 examples in 1 part to" in run("data", "export", tmp_path / "rows.npz", target).stdout
    fails(run("data", "export", tmp_path / "rows.npz", target), 6, "overwrite", str(target))
    assert run("data", "export", tmp_path / "rows.npz", target, "--overwrite").exit_code == 0
    shown = run("data", "inspect", target).stdout
    assert "DataSet of 20 examples in 1 part\n" in shown
    assert [line.split()[:2] for line in shown.splitlines()[1:]] == [
        ["features", "float32"],
        ["labels", "int64"],
        ["labels_mask", "uint8"],
    ]
    assert run("data", "validate", target).exit_code == 0
    (shard,) = target.glob("part-*/features/c/0/0")
    shard.write_bytes(shard.read_bytes()[:-20])
    assert run("data", "validate", target).exit_code == 6
    assert run("data", "export", tmp_path / "none.npz", tmp_path / "odd.zarr").exit_code == 6
    np.savez(tmp_path / "odd.npz", pixels=features, y=np.arange(20))
    wrong = "odd.npz has pixels, y; wanted features and, if there are any, labels, features_mask, labels_mask, weights"
    fails(run("data", "export", tmp_path / "odd.npz", tmp_path / "odd.zarr"), 6, wrong)
    assert not (tmp_path / "odd.zarr").exists()
    np.savez(tmp_path / "weighed.npz", features=features, labels=np.arange(20), weights=np.linspace(0, 1, 20))
    assert run("data", "export", tmp_path / "weighed.npz", tmp_path / "weighed.zarr").exit_code == 0
    stored = sb.data.open_dataset(tmp_path / "weighed.zarr")
    np.testing.assert_array_equal(stored.read(stored.blocks()[0])["labels_mask"][:, 0], np.linspace(0, 1, 20))


@pytest.mark.parametrize(
    ("command", "file", "words"),
    [
        (("data", "inspect"), "models/mlp_adam.zip", "mlp_adam.zip is a file, and no dataset"),
        (("model", "import-dl4j"), "normalizers/min_max.bin", "min_max.bin is a normalizer of DL4J's, not a model"),
        (("model", "import-dl4j"), "datasets/float16.bin", "DocumentError: 'it is no text'"),
    ],
)
def test_another_kind_of_file_is_called_what_it_is(tmp_path, command, file, words):
    path = Path(__file__).parents[1] / "golden/dl4j" / file
    target = [tmp_path / "target"] if command[0] == "model" else []
    assert "codec" not in fails(run(*command, path, *target), 6, words)


def test_parquet_is_exported_and_trained_from_by_its_columns(job):
    pd = pytest.importorskip("pandas", reason="pandas is not installed (pip install strombus[tables])")
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (pip install strombus[tables])")
    for name, rows, seed in (("train", 320, 0), ("test", 100, 1)):
        features, labels = write_data(job.parent / f"{name}-again.zarr", rows, seed)
        pd.DataFrame(features, columns=list("abcd")).assign(y=labels).to_parquet(job.parent / f"{name}.parquet")
        change(job, f"{name}.zarr", f"{name}.parquet")
    file, target = job.parent / "test.parquet", job.parent / "exported.zarr"
    assert "wrote 100 examples" in run("data", "export", file, target, "--features", "a,b,c,d", "--label", "y").stdout
    stored = sb.data.open_dataset(target)
    found = stored.read(stored.blocks()[0])
    assert np.array_equal(found["features"], features)
    assert np.array_equal(found["labels"], labels)
    fails(run("data", "export", file, target, "--overwrite"), 6, "no column features, it has a, b, c, d, y")
    fails(run("data", "export", "rows.npz", target, "--key", "y"), 2, "--key is for Parquet files")
    change(job, "transform:", "columns: {features: [a, b, c, d], label: y}\n  transform:")
    result = run("train", job)
    assert result.exit_code == 0, result.output
    assert "trained on 2,560 examples" in result.stdout
    change(job, "label: y", "labels: y")
    fails(run("train", job), 2, "data.columns.labels is no option; known: features, label, weight, key, dtype")


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("epochs: 8", "epochs: 0", 2, ["epochs", "greater than or equal to 1"]),
        ("epochs: 8", "epoch: 8", 2, ["epoch is no option", "known: network, data, master"]),
        ("batch_size_per_worker", "batch_size", 2, ["no option 'batch_size'", "batch_size_per_worker"]),
        (":make", ":made", 2, ["has no 'made'"]),
        ("class: torch.optim:Adam", "class: torch.optim:Adan", 2, ["has no 'Adan'"]),
        ("lr: 0.05", "rate: 0.05", 2, ["optimizer cannot be made", "rate"]),
        ("loss: torch.nn:CrossEntropyLoss", "loss: torch", 2, ["package.module:name"]),
        ("backend: local", "backend: sparc", 2, ["backend must be", "'sparc'"]),
        ("backend: local", "backend: tcp://127.0.0.1:9", 3, ["no Dask scheduler answered at tcp://127.0.0.1:9"]),
        (":scale", ":fail", 4, ["part ", "the disk under the worker is gone"]),
        ("/train.zarr", "/nothing.zarr", 6, ["no data at", "nothing.zarr"]),
        ("/network.safetensors", "", 2, ["output", "is a directory"]),
        ("network:", "network: [", 2, ["is not YAML"]),
    ],
)
def test_each_kind_of_error_is_one_line_and_an_exit_code(job, monkeypatch, old, new, code, words):
    monkeypatch.setattr("strombus.executors.dask_cluster.PATIENCE", 0.5)
    change(job, old, new)
    fails(run("train", job), code, *words)
    assert not (job.parent / "network.safetensors").exists()


def test_a_loss_that_is_not_finite_ends_with_its_own_code(job):
    features = np.full((16, 4), np.nan, np.float32)
    sb.data.export((features, np.zeros(16, np.int64)), job.parent / "train.zarr", overwrite=True, progress=False)
    (job.parent / f"network_{job.parent.name.replace('-', '_')}.py").write_text(
        "from torch import nn\ndef make(): return nn.Linear(4, 2)\ndef scale(batch): return batch\n"
    )
    fails(run("train", job), 5, "part 0", "features 64", "NaN")


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ("numWorkers: 2, encoder: {type: dense, bits: 3}", 2, ["DenseEncoder has no option 'bits'", "dtype"]),
        ("numWorkers: 2, averagingFrequency: 3", 2, ["averagingFrequency", "SharedTrainingMaster has not"]),
        ("numWorkers: 2, thresholdAlgorithm: {type: fixed, threshold: 1.0e+39}", 2, ["outside the range of float32"]),
    ],
)
def test_errors_of_shared_training_have_their_exit_codes_too(job, options, code, words):
    change(job, "numWorkers: 1", f"type: shared_training, {options}")
    fails(run("train", job), code, *words)


def test_a_module_that_breaks_when_imported_is_named(job):
    (module,) = job.parent.glob("*.py")
    module.write_text("layers = [1, 2\n")
    fails(run("train", job), 2, "cannot import", "SyntaxError")


def test_ctrl_c_is_no_traceback(job):
    change(job, ":scale", ":interrupt")
    assert fails(run("train", job), 130) == "Error: interrupted"


@pytest.mark.parametrize("before", [True, False])
def test_verbose_shows_the_workers_traceback_wherever_it_stands(job, before):
    change(job, ":scale", ":fail")
    arguments = ["--verbose", "train", job] if before else ["train", job, "--verbose"]
    result = run(*arguments)
    assert result.exit_code == 4
    assert "Traceback (most recent call last)" in result.stderr
    assert "in fail" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: part ")


def test_wrong_usage_ends_with_2(tmp_path):
    for arguments in (["train"], ["train", "--epochs", "0", "x"], ["no-such-command"], ["demo", "--workers", "x"]):
        assert run(*arguments).exit_code == 2
    fails(run("train", tmp_path / "none.yaml"), 2, "no configuration file at")


def test_the_installed_program_helps_without_waiting_for_torch():
    program = str(Path(sys.executable).with_name("strombus"))
    done = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert all(command in done.stdout for command in ("data", "demo", "evaluate", "train", "Exit codes"))
    code = (
        "import sys, time; start = time.process_time(); import strombus.cli; spent = time.process_time() - start\n"
        "heavy = {'torch', 'numpy', 'dask', 'distributed', 'zarr', 'pyspark', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert spent < 0.5, spent"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    missing = subprocess.run(
        [program, "data", "inspect", "none.zarr"], capture_output=True, text=True, timeout=60, check=False
    )
    assert missing.returncode == 6
    assert missing.stderr.splitlines() == [missing.stderr.strip()]
    assert missing.stderr.startswith("Error: no data at ")


def test_a_network_of_dl4j_is_imported(tmp_path):
    source, target = Path(__file__).parents[1] / "golden/dl4j/models/mlp_adam.zip", tmp_path / "network"
    result = run("model", "import-dl4j", source, target)
    assert result.exit_code == 0, result.output
    assert "layer1.weight" in result.output
    assert "wrote MultiLayerNetwork after 3 iterations and 0 epochs" in result.output
    features = np.ones((2, 4), np.float32)
    assert (sb.load_dl4j(target).predict(features) == sb.load_dl4j(source).predict(features)).all()
    fails(run("model", "import-dl4j", source, target), 2, "is there already", "--overwrite")
    assert run("model", "import-dl4j", source, target, "--overwrite").exit_code == 0
    fails(run("model", "import-dl4j", tmp_path / "none.zip", tmp_path / "other"), 6, "there is no model at")
    assert not (tmp_path / "other").exists()


def test_a_network_of_dl4j_goes_back_with_and_without_its_updaters(tmp_path):
    source = Path(__file__).parents[1] / "golden/dl4j/models/mlp_adam.zip"
    with zipfile.ZipFile(source) as archive:
        before = {name: archive.read(name) for name in archive.namelist()}
    for options, lost in (([], False), (["--predict-only"], True)):
        kept, back = tmp_path / f"{lost}.safetensors", tmp_path / f"{lost}.zip"
        assert run("model", "import-dl4j", source, kept, *options).exit_code == 0
        assert (sb.load_dl4j(kept).optimizer is None) is lost
        result = run("model", "export-dl4j", kept, back)
        assert result.exit_code == 0, result.output
        assert ("imported with --predict-only" in result.output) is lost
        with zipfile.ZipFile(back) as archive:
            found = {name: archive.read(name) for name in archive.namelist()}
        assert found == {name: data for name, data in before.items() if name != "updaterState.bin" or not lost}
    fails(run("model", "export-dl4j", kept, back), 2, "is there already", "--overwrite")
    sb.MultiLayerNetwork(torch.nn.Linear(2, 2)).save(tmp_path / "own")
    fails(run("model", "export-dl4j", tmp_path / "own", tmp_path / "own.zip"), 6, "own is neither a model zip")


def test_a_job_goes_from_a_zip_to_a_zip_with_a_master_of_its_own_file(tmp_path):
    source = Path(__file__).parents[1] / "golden/dl4j/models/mlp_adam.zip"
    features = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    sb.data.export((features, np.eye(3, dtype=np.float32)[features[:, :3].argmax(1)]), tmp_path / "d", progress=False)
    master = sb.ParameterAveragingTrainingMaster(workers=1, batch_size_per_worker=16)
    (tmp_path / "master.json").write_text(master.to_json())
    config = tmp_path / "job.yaml"
    config.write_text(
        f"network: {{dl4j: {source}}}\ndata: {{train: {tmp_path}/d, test: {tmp_path}/d}}\n"
        f"master: {tmp_path}/master.json\nbackend: local\nepochs: 2\noutput: {tmp_path}/out.zip\n"
    )
    result = run("train", config)
    assert result.exit_code == 0, result.output
    back = sb.load_dl4j(tmp_path / "out.zip")
    assert (back.iteration, back.epoch) == (3 + 2 * 4, 2)
    assert "updaterState.bin" in zipfile.ZipFile(tmp_path / "out.zip").namelist()
    assert run("evaluate", config).stdout.strip() in result.stdout
    change(config, "network: {", "network: {optimizer: {class: 'torch.optim:SGD', lr: 0.1}, ")
    assert run("train", config, "--epochs", 1).exit_code == 0
    assert "updaterState.bin" not in zipfile.ZipFile(tmp_path / "out.zip").namelist()
    change(config, "network: {", "network: {normalizer: {type: standardize, axis: -1}, ")
    fails(run("train", config), 2, "features lie along axis 1", f"the trained network is in {tmp_path}/out.safetensors")
    assert sb.load_dl4j(tmp_path / "out.safetensors", optimizer=torch.optim.SGD).normalizer.axis == -1


def test_a_zip_is_written_of_dl4js_networks_alone(job):
    change(job, "network.safetensors", "network.zip")
    fails(run("train", job), 2, "network.zip would be a model zip of DL4J's", "such as", "network.safetensors")


def test_report_draws_what_a_run_has_saved(tmp_path):
    stats = TrainingStats()
    stats.record("fit", 0, "host:1", 1.0, 2.0, {"examples": 8, "loss": 0.5})
    stats.save(tmp_path / "run")
    for extra, page in [([], tmp_path / "run" / "report.html"), (["--output", f"{tmp_path}/a"], tmp_path / "a")]:
        result = CliRunner().invoke(main, ["report", str(tmp_path / "run"), *extra])
        assert (result.exit_code, result.output) == (0, f"wrote {page}\n")
        assert "100% computing" in page.read_text()
    missing = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert missing.exit_code == 6
    assert "holds no stats.jsonl" in missing.output
