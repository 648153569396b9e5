"""Checkpoints are whole or they do not count: damage, hostile manifests, full disks, what is kept."""

from __future__ import annotations

import json
import logging
import os
from itertools import count

import fsspec
import pytest
from helpers.disks import small_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strombus.errors import ConfigurationError, DataError, RunError
from strombus.runs import CheckpointConfig, CheckpointStore, digest

FILES = {"model.safetensors": b"the parameters" * 9, "member-0.state": b""}
numbers = count()


@pytest.fixture(params=["local", "memory"])
def path(request, tmp_path):
    """A run directory, as a path and as a URI."""
    return str(tmp_path / "run") if request.param == "local" else f"memory://checkpoints-{next(numbers)}"


def write(store, step, state=None):
    draft = store.begin(step)
    for name, data in FILES.items():
        draft.write(name, data)
    draft.finish({"step": step} if state is None else state)


def steps_of(store):
    return [checkpoint.step for checkpoint in store.whole()]


# -- whole ones ----------------------------------------------------------------------------------


def test_what_was_written_is_read(path):
    store = CheckpointStore(path)
    assert store.steps() == steps_of(store) == []
    for step in (7, 30, 200):
        write(store, step)
    assert store.steps() == [7, 30, 200]
    latest = next(store.whole())
    assert (latest.step, latest.state) == (200, {"step": 200})
    assert {name: latest.read(name) for name in FILES} == FILES
    assert latest.files.keys() == {*FILES, "state.json"}
    with pytest.raises(DataError, match=r"has no file other; it has member-0.state, model.safetensors, state.json"):
        latest.file("other")
    store.remove(200)
    store.remove(200)
    assert (store.steps(), steps_of(store)) == ([7, 30], [30, 7])


def test_the_manifest_comes_last_and_goes_first(path):
    store = CheckpointStore(path)
    write(store, 1)
    draft = store.begin(2)
    for name, data in FILES.items():
        draft.write(name, data)
        assert steps_of(store) == [1]
    draft.add("elsewhere.state", digest(b"written by another process"))
    fsspec.core.url_to_fs(path)[0].pipe_file(
        fsspec.core.url_to_fs(f"{path}/step-2/elsewhere.state")[1], b"written by another process"
    )
    draft.finish({})
    assert steps_of(store) == [2, 1]
    store.begin(2)  # begun anew: the old one does not pass for it
    assert steps_of(store) == [1]


def test_other_things_in_the_directory_are_no_checkpoints(tmp_path):
    store = CheckpointStore(str(tmp_path))
    write(store, 3)
    for name in ("step-", "step-x", "step--1", "steps", "step-1.old", "step-" + "9" * 30, ".step-4"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-8").write_text("a file")
    assert store.steps() == [3, 8]
    assert steps_of(store) == [3]
    store.remove(8)
    assert not (tmp_path / "step-8").exists()


# -- damage --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A store with two checkpoints, of which tests damage the later one."""
    folder = tmp_path_factory.mktemp("pair")
    store = CheckpointStore(str(folder))
    write(store, 1)
    write(store, 2)
    return store, folder / "step-2"


def damaged(pair, name, data, caplog):
    """Say what is found while one file has other bytes."""
    store, folder = pair
    before = (folder / name).read_bytes()
    try:
        (folder / name).write_bytes(data)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "strombus"):
            found = steps_of(store)
        assert ("step 2 is passed over" in caplog.text) == (found == [1])
        return found
    finally:
        (folder / name).write_bytes(before)


@pytest.mark.parametrize("name", [*FILES, "state.json", "manifest.json"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_cut_off_or_changed_anywhere_is_noticed(pair, caplog, name, data):
    before = (pair[1] / name).read_bytes()
    place = data.draw(st.integers(0, max(0, len(before) - 1)))
    how = data.draw(st.sampled_from(["cut", "changed", "longer"]))
    if how == "cut" and before:
        after = before[:place]
    elif how == "changed" and before:
        after = before[:place] + bytes([before[place] ^ data.draw(st.integers(1, 255))]) + before[place + 1 :]
    else:
        after = before + b"\0"
    if name == "manifest.json" and as_json(after) == as_json(before):
        return  # white space
    assert damaged(pair, name, after, caplog) == [1]


def as_json(data):
    try:
        return json.loads(data)
    except ValueError:
        return data


@pytest.mark.parametrize("name", [*FILES, "state.json", "manifest.json"])
def test_a_missing_file_is_noticed(path, name):
    store = CheckpointStore(path)
    write(store, 1)
    write(store, 2)
    files, target = fsspec.core.url_to_fs(f"{path}/step-2/{name}")
    files.rm(target)
    assert steps_of(store) == [1]
    with pytest.raises(DataError, match=rf"there is no .*{name}"):
        store.open(2)


HOSTILE = {
    "a step that is not its own": lambda m: m | {"step": 1},
    "another format": lambda m: m | {"format": 2},
    "no files": lambda m: m | {"files": {}},
    "files as a list": lambda m: m | {"files": list(m["files"])},
    "a name that leads out": lambda m: m | {"files": m["files"] | {"../../secret": digest(b"")}},
    "an absolute name": lambda m: m | {"files": m["files"] | {"/etc/passwd": digest(b"")}},
    "a name in a folder": lambda m: m | {"files": m["files"] | {"a/b": digest(b"")}},
    "a hidden name": lambda m: m | {"files": m["files"] | {".model": digest(b"")}},
    "a name with a null": lambda m: m | {"files": m["files"] | {"a\0": digest(b"")}},
    "a name too long": lambda m: m | {"files": m["files"] | {"a" * 300: digest(b"")}},
    "itself": lambda m: m | {"files": m["files"] | {"manifest.json": digest(b"")}},
    "a huge size": lambda m: m | {"files": m["files"] | {"member-0.state": {"bytes": 10**18, "sha256": "0"}}},
    "a size below zero": lambda m: m | {"files": m["files"] | {"member-0.state": {"bytes": -1, "sha256": "0"}}},
    "a size that is true": lambda m: m | {"files": m["files"] | {"member-0.state": {"bytes": True, "sha256": "0"}}},
    "a size in words": lambda m: m | {"files": m["files"] | {"member-0.state": {"bytes": "0", "sha256": "0"}}},
    "no hash": lambda m: m | {"files": m["files"] | {"member-0.state": {"bytes": 0}}},
    "an entry that is none": lambda m: m | {"files": m["files"] | {"member-0.state": None}},
    "a list": lambda m: [m],
    "null": lambda m: None,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_manifest_that_lies_is_refused(pair, case, caplog):
    manifest = json.loads((pair[1] / "manifest.json").read_bytes())
    assert damaged(pair, "manifest.json", json.dumps(HOSTILE[case](manifest)).encode(), caplog) == [1]


def test_a_manifest_of_endless_depth_or_size_is_refused(pair, caplog):
    assert damaged(pair, "manifest.json", b"[" * 200_000, caplog) == [1]
    assert damaged(pair, "manifest.json", b" " * (1 << 26) + b"{}", caplog) == [1]


@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json"])
@pytest.mark.parametrize("kind", ["folder", "fifo", "endless", "nowhere"])
def test_what_is_no_file_is_not_read(tmp_path, name, kind):
    store = CheckpointStore(str(tmp_path))
    write(store, 1)
    write(store, 2)
    target = tmp_path / "step-2" / name
    target.unlink()
    if kind == "folder":
        target.mkdir()
    elif kind == "fifo":
        os.mkfifo(target)
    else:
        target.symlink_to({"endless": "/dev/zero", "nowhere": "nothing"}[kind])
    assert steps_of(store) == [1]


def test_storage_that_does_not_answer_is_no_damage(tmp_path, monkeypatch):
    store = CheckpointStore(str(tmp_path))
    write(store, 1)
    write(store, 2)
    local = type(fsspec.filesystem("file"))
    real = local.info

    def fails(files, target, **options):
        if isinstance(target, str) and "step-2" in target:  # an older fsspec lists with it too
            raise OSError(5, "Input/output error")
        return real(files, target, **options)

    monkeypatch.setattr(local, "info", fails)
    found = store.whole()
    assert next(found).step == 1
    with pytest.raises(RunError, match=r"cannot be read: .*Input/output error; try again"):
        next(found)


# -- writing -------------------------------------------------------------------------------------


def test_a_full_disk_leaves_what_was_there(tmp_path):
    with small_disk(tmp_path / "disk", 64) as disk:
        store = CheckpointStore(str(disk))
        write(store, 1)
        draft = store.begin(2)
        with pytest.raises(OSError, match="No space left"):
            draft.write("model.safetensors", b"x" * 100_000)
        assert list((disk / "step-2").iterdir()) == []
        assert steps_of(store) == [1]


# -- the options ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "interval"),
    [
        ("1epoch", (1, "epochs")),
        ("2 epochs", (2, "epochs")),
        ("200steps", (200, "steps")),
        ("1step", (1, "steps")),
        ("30s", (30, "seconds")),
        (" 5min ", (300, "seconds")),
        ("1h", (3600, "seconds")),
    ],
)
def test_intervals(every, interval):
    found = CheckpointConfig(every=every).interval
    assert (found.count, found.unit) == interval


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *[
            ({"every": wrong}, r'every = .*: wanted a number and a unit, such as "1epoch"')
            for wrong in ("", "0steps", "steps", "5", "5 days", "-1epoch", "1.5h", "1epoch 2steps", "9" * 12 + "s")
        ],
        ({"every": 5}, "every = 5: "),
        ({"keep": 0}, "keep = 0: "),
        ({"best": "f1"}, "best = 'f1': "),
        ({"max_share": 0}, "max_share = 0: "),
        ({"max_share": 1.5}, "max_share = 1.5: "),
        ({"on_error": "ignore"}, "on_error = 'ignore': "),
        ({"evry": "1epoch"}, "no option 'evry'; known: every, keep, best, max_share, on_error"),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(ConfigurationError, match=message):
        CheckpointConfig(**options)
