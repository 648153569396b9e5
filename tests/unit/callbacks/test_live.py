"""In a notebook a fit is a table that is kept up to date; IPython is played by what keeps all that it gets."""

from __future__ import annotations

import sys
import types

import pytest
from helpers.networks import make_data, make_network

import strombus as sb
from strombus.callbacks import EpochRecord, LiveTable, ProgressBar, show_progress
from strombus.callbacks.tables import Link, epoch_table, fact_table


class Handle:
    def __init__(self, shown):
        self.shown = shown

    def update(self, value):
        self.shown.append(value._repr_html_())


@pytest.fixture
def notebook(monkeypatch):
    """Play IPython in a kernel; return what it was given to show."""
    shown = []

    def display(value, display_id):
        assert display_id is True
        shown.append(value._repr_html_())
        return Handle(shown)

    shell = types.SimpleNamespace(kernel=object())
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: shell
    ipython.display = types.ModuleType("IPython.display")
    ipython.display.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    return shown


def test_a_fit_in_a_notebook_is_a_live_table(notebook, local_executors, capsys):
    master = sb.ParameterAveragingTrainingMaster(workers=1, batch_size_per_worker=5, rng_seed=1)
    with sb.Trainer(make_network(), master, local_executors[1]) as trainer:
        result = trainer.fit(make_data(40), epochs=3, validation=make_data(20))
    assert capsys.readouterr().err == ""  # in place of the bar
    assert "training on local, 1 worker, 40 rows, 3 epochs" in notebook[0]
    assert '<progress value="0" max="120"' in notebook[0]
    assert '<progress value="120" max="120"' in notebook[-1]
    assert "ended after" in notebook[-1]
    for record in result.epochs:
        assert f">{record.score:.4f}</td>" in notebook[-1]
        assert f">{record.validation['accuracy']:.4f}</td>" in notebook[-1]
    assert "validation accuracy" in notebook[-1]
    assert len(notebook) <= 2 + 3 + 2 * result.seconds  # the start, the epochs, the end, and now and then between


def test_a_running_epoch_is_shown_and_an_error_ends_the_table(notebook, local_executors, monkeypatch):
    monkeypatch.setattr("strombus.callbacks.live._EVERY", 0.0)

    class Breaking(sb.Callback):
        def on_round(self, progress):
            if progress.round == 3:
                raise RuntimeError("<b>broken</b>")

    master = sb.ParameterAveragingTrainingMaster(workers=1, batch_size_per_worker=5, averaging_frequency=1, rng_seed=1)
    with sb.Trainer(make_network(), master, local_executors[1]) as trainer, pytest.raises(RuntimeError):
        trainer.fit(make_data(40), callbacks=[Breaking()])
    assert any('<progress value="15" max="40"' in shown for shown in notebook)
    assert "ended by RuntimeError after" in notebook[-1]
    assert notebook[-1].count("<tr>") == 1 + 1  # heads, and the epoch that did not end


def test_elsewhere_it_is_a_bar(monkeypatch):
    assert isinstance(show_progress(), ProgressBar)
    terminal = types.ModuleType("IPython")
    terminal.get_ipython = types.SimpleNamespace  # IPython in a terminal has no kernel
    monkeypatch.setitem(sys.modules, "IPython", terminal)
    assert isinstance(show_progress(), ProgressBar)
    terminal.get_ipython = lambda: None
    assert isinstance(show_progress(), ProgressBar)


def test_a_table_of_many_epochs_shows_the_last():
    records = [EpochRecord(number, number, 10, 1, 0.5, 0.0) for number in range(1, 31)]
    page = epoch_table(records)
    assert "10 epochs before these" in page
    assert page.count("<tr>") == 1 + 20
    assert ">11</td>" in page
    assert ">10</td>" not in page


def test_everything_is_escaped_and_links_lead_to_pages_alone():
    page = fact_table("<t>", [("<n>", "<v> & s3://key:secret@bucket\nnext"), ("l", Link("<x>", 'http://h/"?a=1'))])
    assert "<strong>&lt;t&gt;</strong>" in page
    assert "&lt;n&gt;" in page
    assert "&lt;v&gt; &amp; s3://***@bucket<br>next" in page
    assert '<a href="http://h/&quot;?a=1"' in page
    assert ">&lt;x&gt;</a>" in page
    assert "<a" not in fact_table("t", [("l", Link("x", "javascript:alert(1)"))])
    record = EpochRecord(1, 1, 10, 1, float("nan"), 1.0, {"<m>": 0.5}, skipped=2)
    page = epoch_table([record])
    assert "validation &lt;m&gt;" in page
    assert ">nan</td>" in page
    assert "left out" in page


def test_a_trainer_and_a_result_show_themselves(local_executors):
    master = sb.ParameterAveragingTrainingMaster(workers=1, rng_seed=1, export_directory="s3://key:secret@bucket/<x>")
    network = make_network()
    fresh = sb.Trainer(network, master, backend="local")
    page = fresh._repr_html_()
    assert "&#x27;local&#x27;, which is opened when it is first needed" in page
    assert fresh._executor is None  # a look opens nothing
    with sb.Trainer(network, master, local_executors[1]) as trainer:
        result = trainer.fit(make_data(40), epochs=2, progress=False)
        page = trainer._repr_html_()
    assert "MultiLayerNetwork(Sequential, 83 parameters), SGD, device auto; 2 epochs" in page
    assert "rng_seed=1)" in page
    assert "s3://***@bucket/&lt;x&gt;" in page
    assert "batch_size_per_worker" not in page  # a default
    assert f"score {result.score:.4f}" in page
    shown = result._repr_html_()
    assert f">{result.epochs[0].score:.4f}</td>" in shown
    assert "2 epochs, 80 rows in all, in " in shown
    assert "none: for scoring" in sb.Trainer(network)._repr_html_()


def test_a_live_table_outside_a_fit_says_so():
    assert repr(LiveTable()) == "a fit that has not begun: 0 epochs ended"
