"""The page: what real runs draw in a real browser, and that nothing of a run can run as code."""

from __future__ import annotations

import re
import time

import pytest
from helpers.browser import load_page
from helpers.networks import make_data, make_network

import strombus as sb
from strombus.stats import TrainingStats
from strombus.stats.groups import divide
from strombus.stats.report import duration, number, percent, render
from strombus.types import Event


def fit(client, kind, **options):
    master = kind(workers=2, batch_size_per_worker=4, rng_seed=0, collect_training_stats=True, **options)
    trainer = sb.Trainer(make_network(), master, client)
    return trainer.fit(make_data(160), epochs=2, validation=make_data(20), progress=False).stats


def attributes(html, element):
    (found,) = re.findall(rf"<{element}\s([^>]*)>", html)
    return dict(re.findall(r'([\w-]+)="([^"]*)"', found))


def count(html, tag, name):
    return len(re.findall(rf'<{tag} class="{name}"', html))


@pytest.mark.dask
@pytest.mark.parametrize(
    ("kind", "charts"), [(sb.ParameterAveragingTrainingMaster, 2), (sb.SharedTrainingMaster, 5)], ids=["mean", "shared"]
)
def test_a_browser_draws_all_of_a_real_run(dask_client, tmp_path, kind, charts):
    stats = fit(dask_client, kind)
    page = stats.to_html(tmp_path / "new" / "report.html")
    for width in (1400, 700):
        html, console = load_page(page, tmp_path / "profile", width)
        assert console == ""
        root = attributes(html, "html")
        assert root["data-ready"] == "yes"
        assert "data-error" not in root
        canvas = attributes(html, "canvas")
        assert canvas["data-lanes"] == "3"  # the driver and two workers
        assert int(canvas["data-events"]) == len([e for e in stats.events if e.name not in ("train", "epoch")])
        assert count(html, "g", "lane") == 3
        assert count(html, "rect", "bar") > 100
        drawn = [key for key in stats.keys() if key not in ("train", "epoch") and stats.totals(key).count >= 4]  # noqa: SIM118
        assert len(re.findall("<figure", html)) == charts + 2 + 2 * len(drawn)
        assert len(re.findall(r'class="curve" d="M[\d.]+ [\d.]+L', html)) >= charts + 2 + len(drawn)
        assert count(html, "rect", "count") >= len(drawn)


ZOOM = """<script>
const box = document.querySelector("canvas");
const wide = box.dataset.to - box.dataset.from;
const middle = {clientX: innerWidth / 2, clientY: box.getBoundingClientRect().top + 5, bubbles: true};
box.dispatchEvent(new PointerEvent("pointermove", middle));
document.body.dataset.said = document.getElementById("tip").textContent;
box.dispatchEvent(new WheelEvent("wheel", {...middle, deltaY: -600, cancelable: true}));
document.body.dataset.ratio = (box.dataset.to - box.dataset.from) / wide;
</script>"""


def test_lanes_tell_what_is_under_the_pointer_and_zoom(tmp_path):
    stats = TrainingStats([Event("fit", 0, 10.0, 2.0, "h:1"), Event("exchange", 0, 12.0, 1.0, "h:1")])
    page = tmp_path / "page.html"
    page.write_text(render(stats).replace("</body>", ZOOM + "</body>"))
    body = attributes(load_page(page, tmp_path / "profile")[0], "body")
    assert body["data-said"] == "worker 0: fit\n2 s at 0"
    assert float(body["data-ratio"]) == pytest.approx(2.718281828**-2, rel=1e-3)


def test_two_hundred_thousand_events_are_drawn_quickly(tmp_path):
    stats = TrainingStats(keep=200_000)
    for step in range(50_000):
        for rank in range(4):
            stats.record("fit", rank, f"h{rank}:1", step * 0.01, 0.008, {"examples": 32, "loss": 1 / (1 + step)})
    started = time.perf_counter()
    page = stats.to_html(tmp_path / "page.html")
    html, console = load_page(page, tmp_path / "profile")
    assert time.perf_counter() - started < 20  # some 2 s on an idle machine
    assert console == ""
    assert attributes(html, "canvas")["data-events"] == "200000"
    assert page.stat().st_size < 5_000_000


EVIL = '</script><script id="evil">document.documentElement.dataset.evil = 1</script><img src="http://x/" id="evil">'


def test_names_are_text_and_nothing_is_requested(tmp_path):
    stats = TrainingStats()
    stats.about |= {"backend": EVIL, "master": EVIL}
    for step in range(5):
        stats.record("fit", 0, EVIL, float(step), 0.5, {"examples": 1, EVIL: 1.0})
        stats.record("epoch", None, EVIL, float(step), 1.0, {"epoch": step, "score": 1.0, f"validation/{EVIL}": 1.0})
    page = stats.to_html(tmp_path / "page.html")
    html, console = load_page(page, tmp_path / "profile")
    assert console == ""
    assert attributes(html, "html")["data-ready"] == "yes"
    assert "data-evil" not in html
    assert not re.search(r"<(?:img|script)[^>]*evil", html)
    assert not re.findall(r'(?:src|href)="(?!data:)', render(TrainingStats()))


@pytest.mark.parametrize("stats", [TrainingStats(), TrainingStats([Event("export", None, 1.0, 0.0, "h:1")])])
def test_a_page_of_next_to_nothing_is_a_page(tmp_path, stats):
    html, console = load_page(stats.to_html(tmp_path / "page.html"), tmp_path / "profile")
    assert console == ""
    assert attributes(html, "html")["data-ready"] == "yes"
    assert "No worker has timed anything." in html


def test_the_workers_time_divides_as_it_was_spent():
    stats = TrainingStats()
    for rank in (0, 1):
        for step in range(10):
            stats.record("fit", rank, f"h:{rank}", 10.0 * step, 4.0, {})
            stats.record("exchange", rank, f"h:{rank}", 10.0 * step + 4, 3.0, {})
        stats.record("data_wait", rank, f"h:{rank}", 98.0, 2.0, {})
    division = divide(stats)
    assert division.shares == pytest.approx({"computing": 0.4, "exchanging": 0.3, "reading": 0.02, "idle": 0.28})
    assert division.advice.startswith("40% computing, 30% exchanging, 28% idle. Raise batch_size_per_worker")


def test_time_between_two_fits_is_nobodys():
    stats = TrainingStats()
    for start in (0.0, 1000.0):
        stats.record("train", None, "d:1", start, 10.0, {})
        stats.record("fit", 0, "h:1", start + 1, 8.0, {})
    assert divide(stats).shares == {"computing": 1.0, "idle": 0.0}


def test_numbers_read_well():
    assert [number(x) for x in (0, 12, 0.12345, 1234.5, float("nan"))] == ["0", "12", "0.123", "1,234", "none"]
    assert [duration(x) for x in (2e-6, 0.0123, 5.0, 300, 7200)] == ["2 µs", "12.3 ms", "5 s", "5.0 min", "2.0 h"]
    assert [percent(x) for x in (0, 0.0001, 0.0123, 0.5)] == ["0 %", "< 0.1 %", "1.2 %", "50 %"]
