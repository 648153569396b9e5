"""Storage that is not there, or that this machine cannot speak to, is named with what it needs."""

from __future__ import annotations

import sys

import pytest

import strombus as sb
from strombus.compat.dl4j.files import find_files
from strombus.errors import ConfigurationError
from strombus.files import open_storage
from strombus.runs import CheckpointStore
from strombus.stats import TrainingStats


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://key:secret@bucket/data", r"s3://.*bucket/data cannot be opened \(.*\); s3:// needs the package s3fs"),
        ("floppy://a/data", r"floppy://a/data cannot be opened \(Protocol not known: floppy"),
    ],
)
def test_what_a_file_system_needs_is_said(uri, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    calls = (
        open_storage,
        sb.data.open_dataset,
        sb.load_dl4j,
        TrainingStats().save,
        TrainingStats.load,
        lambda uri: CheckpointStore(uri).steps(),
        find_files,
    )
    for call in calls:
        with pytest.raises(ConfigurationError, match=message) as caught:
            call(uri)
        assert "secret" not in str(caught.value)


def test_hadoops_client_is_named(monkeypatch):
    def refuse(*_, **__):
        raise OSError("Unable to load libjvm")

    monkeypatch.setattr("fsspec.core.url_to_fs", refuse)
    with pytest.raises(ConfigurationError, match=r"Unable to load libjvm\); hdfs:// needs Hadoop's client: .*webhdfs"):
        open_storage("hdfs://namenode/data")
