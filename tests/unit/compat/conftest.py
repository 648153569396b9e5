"""One context of each engine: what the tests of RDDs say holds on Spark itself, and on Dask."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def dask_context(dask_client):
    from strombus.compat.dl4j import DaskSparkContext

    with DaskSparkContext(dask_client) as context:
        yield context


@pytest.fixture(
    scope="session",
    params=[pytest.param("spark", marks=pytest.mark.spark), pytest.param("dask", marks=pytest.mark.dask)],
)
def sc(request):
    if request.param == "dask":
        return request.getfixturevalue("dask_context")
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    from helpers.spark import spark_context

    return spark_context()
