"""Jobs read from YAML: what is built, and what is refused."""

from __future__ import annotations

import functools
import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import cloudpickle
import pytest
import torch
from torch import nn

import strombus as sb
from strombus.errors import ConfigurationError
from strombus.jobs import Job, import_object, read_job

OPTIONS = {
    "network": {
        "module": "torch.nn:Identity",
        "loss": "torch.nn.functional:mse_loss",
        "optimizer": {"class": "torch.optim:SGD", "lr": 0.5, "momentum": 0.9},
    },
    "data": {"train": "train.zarr"},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [path.stem for path in tmp_path.glob("*.py")]:
        sys.modules.pop(name, None)


def test_a_job_makes_network_and_master(folder):
    (folder / "networks_of_job.py").write_text(
        "from torch import nn\ndef make(): return nn.Linear(3, 2)\nready = nn.Linear(3, 2)\n"
    )
    schedule = {"class": "torch.optim.lr_scheduler:StepLR", "step_size": 3}
    for kind in ("MultiLayerNetwork", "ComputationGraph"):
        for name in ("make", "ready"):
            options = {**OPTIONS["network"], "module": f"networks_of_job:{name}", "kind": kind, "schedule": schedule}
            network = Job.model_validate({**OPTIONS, "network": {**options, "l2": 0.25}}).make_network()
            assert type(network) is getattr(sb, kind)
            optimizer, made = network.make_optimizer([nn.Parameter(torch.ones(1))])
            assert isinstance(optimizer, torch.optim.SGD)
            assert (optimizer.defaults["lr"], optimizer.defaults["momentum"], network.l2) == (0.5, 0.9, 0.25)
            assert (made.step_size, network.num_params()) == (3, 8)


def test_the_masters_seed_decides_the_first_values_and_leaves_the_callers_random_numbers_alone():
    def values(master):
        network = {**OPTIONS["network"], "module": "torch.nn:Linear"}
        module = {"in_features": 3, "out_features": 2}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nn, "Linear", functools.partial(nn.Linear, **module))
            made = Job.model_validate({**OPTIONS, "network": network, "master": master}).make_network()
        return made.module.weight.detach().clone()

    torch.manual_seed(7)
    expected = nn.Linear(3, 2).weight.detach().clone()
    before = torch.get_rng_state()
    assert torch.equal(values({"rng_seed": 7}), expected)
    assert torch.equal(values({"type": "shared_training", "rngSeed": 7}), expected)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(values({"rng_seed": 8}), expected)
    assert not torch.equal(values({}), values({}))


def test_every_option_of_epochs_reaches_the_fit():
    options = Job.model_validate({**OPTIONS, "steps_per_epoch": 3, "validation_mode": "async"}).run_options()
    assert (options["steps_per_epoch"], options["validation_mode"]) == (3, "async")
    assert options.keys() <= inspect.signature(sb.Trainer.fit).parameters.keys()


def test_the_masters_options_go_under_both_of_their_names():
    for name in ("averagingFrequency", "averaging_frequency"):
        job = Job.model_validate({**OPTIONS, "master": {"type": "parameter_averaging", name: 7}})
        assert job.make_master() == sb.ParameterAveragingTrainingMaster(averaging_frequency=7)
    shared = {"type": "shared_training", "encoder": "dense", "maxStaleness": None}
    assert Job.model_validate({**OPTIONS, "master": shared}).make_master() == sb.SharedTrainingMaster(
        encoder="dense", max_staleness=None
    )
    assert Job.model_validate(OPTIONS).make_master() == sb.ParameterAveragingTrainingMaster()
    with pytest.raises(
        ConfigurationError, match="no training master is called 'sharing'; known: parameter_averaging, shared_training"
    ):
        Job.model_validate({**OPTIONS, "master": {"type": "sharing"}}).make_master()


def test_a_master_in_a_file_of_its_own(tmp_path):
    golden = Path(__file__).parents[1] / "golden/masters"
    for kind in ("json", "yaml"):
        read = Job.model_validate({**OPTIONS, "master": str(golden / f"shared_default.{kind}")}).make_master()
        assert read == getattr(sb.SharedTrainingMaster, f"from_{kind}")((golden / f"shared_default.{kind}").read_text())
    file = tmp_path / "master.json"
    for text, message in (
        (
            '{"type": "shared_training", "averagingFrequency": 3}',
            "ParameterAveragingTrainingMaster has averagingFrequency, ",
        ),
        ("[1]", r"master\.json must hold a mapping of options, got \[1\]"),
        ("{", "master.json cannot be read as JSON or YAML"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigurationError, match=message):
            Job.model_validate({**OPTIONS, "master": str(file)}).make_master()
    with pytest.raises(ConfigurationError, match=r"none\.json cannot be read"):
        Job.model_validate({**OPTIONS, "master": str(tmp_path / "none.json")}).make_master()


def test_reading_lists_every_problem_at_once(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("network: {modul: a, l1: much}\ndata: {train: x, test: 3}\nepochs: 0\n")
    with pytest.raises(ConfigurationError) as caught:
        read_job(file)
    for words in (
        "network.module: Field required",
        "network.modul is no option; known: module, loss",
        "network.l1",
        "data.test",
        "epochs",
    ):
        assert words in str(caught.value)


def test_a_network_of_dl4j():
    path = str(Path(__file__).parents[1] / "golden/dl4j/models/mlp_sgd.zip")
    network = {"dl4j": path, "optimizer": {"class": "torch.optim:SGD", "lr": 0.5}, "accumulate": 2}
    made = Job.model_validate({**OPTIONS, "network": network}).make_network()
    assert (made.iteration, made.accumulate, made.num_params()) == (3, 2, 43)
    assert made.make_optimizer(list(made.module.parameters()))[0].defaults["lr"] == 0.5


def test_options_of_a_network_of_dl4j_are_its_own(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("network: {dl4j: a.zip, l2: 0.1}\ndata: {train: x}\n")
    with pytest.raises(ConfigurationError, match=r"network\.l2 is no option; known: dl4j, optimizer"):
        read_job(file)


@pytest.mark.parametrize(("text", "got"), [("", "None"), ("- 1\n", r"\[1\]"), ("words alone", "'words alone'")])
def test_a_file_of_another_form_is_refused(tmp_path, text, got):
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=rf"job\.yaml must hold a mapping with network and data, got {got}$"):
        read_job(tmp_path / "job.yaml")


def test_a_binary_file_is_refused(tmp_path):
    (tmp_path / "job.yaml").write_bytes(b"\xff\xfe\x00\x9c")
    with pytest.raises(ConfigurationError, match="is not YAML"):
        read_job(tmp_path / "job.yaml")


def test_an_optimizer_without_a_class_is_refused():
    options = {**OPTIONS["network"], "optimizer": {"lr": 0.1}}
    with pytest.raises(ConfigurationError, match=r"network\.optimizer needs 'class'"):
        Job.model_validate({**OPTIONS, "network": options}).make_network()


@pytest.mark.parametrize("path", ["torch.nn.Linear", ":Linear", "torch.nn:", ""])
def test_an_import_path_has_a_colon(path):
    with pytest.raises(ConfigurationError, match=r"written 'package\.module:name'"):
        import_object(path)


def test_what_is_not_installed_travels_by_value(folder):
    for name in ("torch_like", "strombus_like"):
        (folder / f"{name}.py").write_text("def double(value): return 2 * value\n")
        (folder / "blob").write_bytes(cloudpickle.dumps(import_object(f"{name}:double")))
        code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb'))(21))"
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder / "blob")], capture_output=True, text=True, check=True, cwd="/"
        )
        assert done.stdout == "42\n"
    assert pickle.loads(cloudpickle.dumps(import_object("json:dumps"))).__module__ == "json"
    assert len(cloudpickle.dumps(import_object("json:dumps"))) < 200
    assert len(cloudpickle.dumps(import_object("torch.nn:Linear"))) < 200
