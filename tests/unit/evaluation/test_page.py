"""Pictures hold what the metrics counted, pages stand alone, and what is missing is said."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest

from strombus.errors import ConfigurationError, DataError
from strombus.evaluation import (
    ROC,
    Evaluation,
    EvaluationCalibration,
    Metric,
    RegressionEvaluation,
    ROCMultiClass,
    export_evaluation_html,
)
from strombus.evaluation.pictures import draw_svg

RNG = np.random.default_rng(0)
LABELS, OUTPUT = RNG.integers(0, 3, 60), RNG.dirichlet([1, 1, 1], 60)


def filled(metric, labels=LABELS, output=OUTPUT):
    metric.add(labels, output)
    return metric


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter("text")]


class Page(HTMLParser):
    """Tags that were opened and closed, and what the page would fetch."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.links = [], [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(path):
    page = Page()
    page.feed(path.read_text())
    assert page.open == []
    assert page.links == []
    return page


def test_a_confusion_matrix_shows_every_count_and_its_labels():
    names = ["a<b", 'say "c"', "a name that is much too long"]
    evaluation = filled(Evaluation(labels=names))
    svg = draw_svg(evaluation.charts()[0])
    shown = texts(svg)
    assert [int(text) for text in shown if text.isdigit()] == evaluation.confusion_matrix.ravel().tolist()
    assert {"a<b", 'say "c"', "a name that i…", "actual", "predicted"} <= set(shown)
    cells = list(ElementTree.fromstring(svg).iter("rect"))
    shares = evaluation.confusion_matrix / evaluation.confusion_matrix.sum(axis=1, keepdims=True)
    assert [float(cell.get("fill-opacity")) for cell in cells] == pytest.approx(0.04 + 0.96 * shares.ravel(), abs=1e-3)
    assert f"a<b as a<b: {evaluation.confusion_matrix[0, 0]} (" in cells[0].find("title").text


def test_a_curve_runs_from_corner_to_corner():
    svg = draw_svg(filled(ROC(), LABELS > 0, OUTPUT[:, 0]).charts()[0])
    (line,) = ElementTree.fromstring(svg).iter("polyline")
    points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
    assert (points[0], points[-1]) == ((62.0, 332.0), (382.0, 12.0))
    assert all(a[0] <= b[0] and a[1] >= b[1] for a, b in pairwise(points))


def test_a_histogram_has_a_bar_for_each_bin():
    calibration = filled(EvaluationCalibration(histogram_num_bins=8))
    bars = list(ElementTree.fromstring(draw_svg(calibration.charts()[1])).iter("rect"))
    counts = calibration.get_residual_plot_all_classes().counts
    heights = np.array([float(bar.get("height")) for bar in bars])
    assert heights / heights.max() == pytest.approx(counts / counts.max(), abs=1e-3)


def test_of_many_classes_the_worst_curves_are_shown_and_a_large_matrix_has_no_numbers():
    labels, output = RNG.integers(0, 30, 400), RNG.dirichlet(np.ones(30), 400)
    roc = filled(ROCMultiClass(), labels, output)
    chart = roc.charts()[0]
    areas = sorted((roc.calculate_auc(label), label) for label in range(30))
    assert chart.title == "ROC: 8 smallest of 30 areas"
    wanted = [f"{label}: {area:.4f}" for area, label in sorted(areas[:8], key=lambda row: row[1])]
    assert [line.name for line in chart.lines] == wanted
    assert set(texts(draw_svg(filled(Evaluation(), labels, output).charts()[0]))) <= {
        *map(str, range(30)),
        "actual",
        "predicted",
    }
    assert filled(Evaluation(), [0], np.eye(101)[:1]).charts() == []


def test_a_page_holds_all_metrics_and_needs_nothing_beside_it(tmp_path):
    class Own(Metric):
        def add(self, labels, output, mask=None): ...
        def merge(self, other): ...
        def fresh(self): ...
        def stats(self):
            return "own <figure> 7"

    metrics = [filled(Evaluation()), filled(EvaluationCalibration()), filled(ROCMultiClass(3)), Own(), ROC()]
    metrics.append(filled(RegressionEvaluation(), OUTPUT, OUTPUT[::-1]))
    path = tmp_path / "page.html"
    export_evaluation_html(metrics, path, title="Digits & letters")
    page, text = read(path), path.read_text()
    assert page.seen.count("svg") == 1 + 3 + 2
    assert page.seen.count("h2") == len(metrics)
    for shown in (
        "<title>Digits &amp; letters</title>",
        "own &lt;figure&gt; 7",
        "No data.",
        "prefers-color-scheme: dark",
    ):
        assert shown in text
    assert f"<dd>{metrics[0].accuracy():.4g}</dd>" in text
    metrics[0].to_html(path)
    assert read(path).seen.count("h2") == 0
    assert "<h1>Evaluation</h1>" in path.read_text()


def test_matplotlib_draws_the_same():
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from matplotlib.figure import Figure

    evaluation = filled(Evaluation(labels=["a", "b", "c"]))
    axes = Figure().subplots()
    assert evaluation.plot(axes) is axes.figure
    assert [int(text.get_text()) for text in axes.texts] == evaluation.confusion_matrix.ravel().tolist()
    figure = filled(EvaluationCalibration()).plot()
    assert [ax.get_title() for ax in figure.axes] == [
        "Reliability",
        "Residuals: all classes",
        "Probabilities: all classes",
    ]
    roc = filled(ROC(), LABELS > 0, OUTPUT[:, 0])
    curve = roc.plot().axes[0].get_lines()[-1]
    np.testing.assert_array_equal(curve.get_xdata(), roc.get_roc_curve().fpr)


def test_what_cannot_be_drawn_is_said(monkeypatch):
    for metric in (ROC(), Evaluation(), filled(RegressionEvaluation(), OUTPUT)):
        with pytest.raises(DataError, match="nothing to draw"):
            metric.plot()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigurationError, match="pip install matplotlib"):
        filled(Evaluation()).plot()
