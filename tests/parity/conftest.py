"""One `backend` for each way to run."""

from __future__ import annotations

import pytest
from helpers.networks import BACKENDS


@pytest.fixture(scope="session")
def spark_session():
    pytest.importorskip("pyspark", reason="pyspark is not installed: the extra 'spark' brings it")
    from helpers.spark import spark_session

    return spark_session()


@pytest.fixture(params=BACKENDS)
def backend(request):
    if request.param.startswith("local"):
        return request.getfixturevalue("local_executors")[int(request.param[-1])]
    return request.getfixturevalue({"dask": "dask_client", "spark": "spark_session"}[request.param])
