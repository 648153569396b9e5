"""The doctor: what it concludes from figures, by hand-made cases, and what it finds on real engines."""

from __future__ import annotations

import functools
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import strombus as sb
from strombus import doctor
from strombus.cli import main
from strombus.executors.spark_concerns import concerns_of
from strombus.types import Finding
from strombus.worker.probing import LinkFigures, Place, StepFigures

GB = 2**30


def place(
    host: str = "a", threads: int = 1, cpus: float = 2.0, free: int = 50 * GB, sees: bool = True, torch: str = "2"
) -> Place:
    return Place(f"{host}:{threads}", {"python": "3.11", "torch": torch}, threads, cpus, free, sees)


def by_topic(findings) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        found.setdefault(finding.topic, []).append(finding)
    return found


def link(rate: float, trip: float = 1e-4, to: int = 1) -> LinkFigures:
    return LinkFigures(to, f"host-{to}:1", trip, rate)


def test_workers_like_the_driver_give_no_advice():
    found = by_topic(doctor.judge_places([place(), place()], place(), "/data"))
    assert {topic: [one.level for one in those] for topic, those in found.items()} == {
        "versions": ["ok"],
        "threads": ["ok"],
        "disk": ["ok"],
    }


def test_a_pair_that_does_not_fit_is_named_once_for_each_host():
    pair = "numba 0.60.0 needs numpy<2.1, here is 2.3.0"
    strange = replace(place("b"), misfits=(pair,))
    found = by_topic(doctor.judge_places([place(), strange, strange], place(), "/data"))["versions"]
    assert [one.level for one in found] == ["ok", "warning"]
    assert found[1].text == f"on b: {pair}"


def test_another_version_on_a_worker_is_named():
    (finding,) = by_topic(doctor.judge_places([place(), place("b", torch="1.9")], place(), "/data"))["versions"]
    assert finding.level == "warning"
    assert "torch 1.9 on b (driver: 2)" in finding.text


@pytest.mark.parametrize(
    ("places", "level", "flag"),
    [
        ([place(threads=4, cpus=4), place(threads=4, cpus=4)], "warning", "--nthreads 2"),
        ([place(threads=1, cpus=16)], "note", "--nthreads 16"),
        ([place(threads=2, cpus=4), place(threads=2, cpus=4)], "ok", ""),
        ([place(threads=3, cpus=4), place("b", threads=3, cpus=4)], "ok", ""),
    ],
)
def test_threads_are_compared_with_the_processors_of_each_host(places, level, flag):
    for finding in by_topic(doctor.judge_places(places, place(), "/data"))["threads"]:
        assert finding.level == level
        assert flag in finding.advice


def test_one_of_a_thing_is_no_plural():
    found = by_topic(doctor.judge_places([place(threads=1, cpus=1)], place(), "/data"))
    assert found["threads"][0].text == "1 worker on a uses 1 thread of 1 processor"
    assert found["versions"][0].text == "the same on the driver and 1 worker"


def test_a_directory_that_a_worker_does_not_see_is_a_problem():
    (finding,) = by_topic(doctor.judge_places([place(), place("b", sees=False)], place(), "/data"))["disk"]
    assert finding.level == "problem"
    assert "/data is not there on b" in finding.text
    assert "exportDirectory" in finding.advice


def test_a_full_disk_is_a_warning():
    (finding,) = by_topic(doctor.judge_places([place(free=GB // 2)], place(), "/data"))["disk"]
    assert finding.level == "warning"
    assert "0.5 GiB free" in finding.text


def test_the_update_is_compared_with_the_slowest_link():
    master = sb.SharedTrainingMaster(batch_size_per_worker=32)
    step = StepFigures(step=0.010, encode=0.001, wait=0.0, sent=50_000)
    for rate, level in ((100e6, "ok"), (8e6, "note"), (1e6, "warning")):
        found = by_topic(doctor.judge_steps([step, step], [link(1e9), link(rate)], master, 2))
        (finding,) = found["sharing"]
        assert finding.level == level
    # 50 kB at 1 MB/s are 50 ms, five steps: ten times the minibatch brings that to half a step.
    assert "50.00 ms, 500%" in finding.text
    assert "batchSizePerWorker) to 320" in finding.advice
    assert "10.0 times" in finding.advice


def test_an_uncompressed_update_is_advised_to_be_compressed():
    master = sb.SharedTrainingMaster(encoder="dense")
    found = doctor.judge_steps([StepFigures(0.01, 0.001, 0.0, 7e6)], [link(1e7)], master, 2)
    (finding,) = by_topic(found)["sharing"]
    assert 'encoder "threshold"' in finding.advice


def test_a_synchronous_step_that_waits_for_a_slow_link_is_named():
    step = StepFigures(0.01, 0.001, 0.0, 100)
    far = [link(1e9, trip=0.04)]
    assert len(by_topic(doctor.judge_steps([step], far, sb.SharedTrainingMaster(max_staleness=0), 2))["sharing"]) == 2
    assert len(by_topic(doctor.judge_steps([step], far, sb.SharedTrainingMaster(), 2))["sharing"]) == 1


def test_a_rounds_minibatches_are_compared_with_the_parameters_there_and_back():
    step = StepFigures(step=0.010, encode=0.0, wait=0.0, sent=8e6)  # 16 MB at 100 MB/s: 160 ms
    often = sb.ParameterAveragingTrainingMaster(averaging_frequency=5)
    (finding,) = by_topic(doctor.judge_steps([step], [link(100e6)], often, 2))["averaging"]
    assert finding.level == "warning"
    assert "averagingFrequency) to 32" in finding.advice
    seldom = sb.ParameterAveragingTrainingMaster(averaging_frequency=32)
    (finding,) = by_topic(doctor.judge_steps([step], [link(100e6)], seldom, 2))["averaging"]
    assert finding.level == "ok"


def test_waiting_for_data_is_named():
    found = by_topic(doctor.judge_steps([StepFigures(0.01, 0.0, 0.004, 10)], [], sb.SharedTrainingMaster(), 1))
    assert "4.00 ms" in found["data"][0].text


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"spark.dynamicAllocation.enabled": "true"}, "spark.dynamicAllocation.enabled=false"),
        ({"spark.speculation": "true"}, "spark.speculation=false"),
        ({"spark.python.worker.reuse": "false"}, "spark.python.worker.reuse=true"),
        ({"spark.executor.cores": "5", "spark.task.cpus": "2"}, "spark.task.cpus=1"),
        ({"spark.master": "yarn"}, "spark.executor.memoryOverheadFactor"),
    ],
)
def test_settings_of_spark_that_hinder_are_named_with_the_flag(settings, flag):
    (finding,) = concerns_of(settings, local=False)
    assert flag in finding.advice
    assert concerns_of({"spark.executor.cores": "4", "spark.task.cpus": "2"}, local=False) == []


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A job's folder: 300 rows, a small network, and its file."""
    folder = tmp_path_factory.mktemp("doctor")
    rng = np.random.default_rng(0)
    data = (rng.normal(size=(300, 6)).astype(np.float32), rng.integers(0, 3, 300))
    sb.data.export(data, folder / "rows.zarr", progress=False)
    (folder / "network_of_the_doctor.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Linear(6, 3)\n"
    )
    (folder / "job.yaml").write_text(
        f"network: {{module: 'network_of_the_doctor:make', optimizer: {{class: 'torch.optim:SGD', lr: 0.1}}}}\n"
        f"data: {{train: {folder / 'rows.zarr'}}}\nbackend: local\nmaster: {{numWorkers: 1}}\n"
    )
    yield folder
    sys.modules.pop("network_of_the_doctor", None)
    sys.path[:] = [entry for entry in sys.path if entry != str(folder)]


def make_network() -> sb.MultiLayerNetwork:
    return sb.MultiLayerNetwork(nn.Linear(6, 3), nn.CrossEntropyLoss(), functools.partial(torch.optim.SGD, lr=0.1))


@pytest.mark.dask
def test_a_cluster_is_examined_from_within_and_the_network_stays_as_it_was(dask_client, work):
    network = make_network()
    before = network.state()
    master = sb.SharedTrainingMaster(batch_size_per_worker=16, export_directory=str(work))
    found = by_topic(doctor.examine(dask_client, master, network, str(work / "rows.zarr")))
    assert {one.level for one in found["versions"] + found["disk"] + found["capacity"]} == {"ok"}
    assert "2 workers" in found["versions"][0].text
    assert {"driver", "links", "step", "sharing"} <= found.keys()
    np.testing.assert_array_equal(network.state().parameters, before.parameters)
    assert [path.name for path in work.iterdir() if path.name.startswith(".strombus")] == []


@pytest.mark.dask
def test_more_workers_than_slots_are_a_problem_and_what_is_there_is_still_looked_at(dask_client):
    found = by_topic(doctor.examine(dask_client, workers=3))
    assert found["capacity"][0].level == found["gang"][0].level == "problem"
    assert "workers=2" in found["capacity"][0].advice
    assert found["versions"][0].level == "ok"


def test_the_command_ends_with_3_where_a_backend_cannot_be_used(work):
    result = CliRunner().invoke(main, ["doctor", "--backend", "tcp://127.0.0.1:9"])
    assert result.exit_code == 3, result.output
    assert "problem  backend" in result.output


def test_the_command_tries_a_jobs_steps_and_prints_a_line_for_each_finding(work):
    result = CliRunner().invoke(main, ["doctor", str(work / "job.yaml")])
    assert result.exit_code == 0, result.output
    topics = [line.split()[1] for line in result.output.splitlines() if not line.lstrip().startswith("->")]
    assert topics[:3] == ["driver", "capacity", "versions"]
    assert "a minibatch of 16 takes" in result.output
    assert re.search(
        r"local: (1 slot|[2-9] slots) of (1 thread|\d+ threads) on 1 host \(.+\); 1 worker would", result.output
    )
