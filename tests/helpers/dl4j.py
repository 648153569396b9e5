"""Arrays as the golden JSON files hold them."""

from __future__ import annotations

import numpy as np

DTYPES = {
    "DOUBLE": "f8",
    "FLOAT": "f4",
    "HALF": "f2",
    "BFLOAT16": "f4",
    "LONG": "i8",
    "INT": "i4",
    "SHORT": "i2",
    "BYTE": "i1",
    "UINT32": "u4",
    "UBYTE": "u1",
    "BOOL": "?",
}


def array_of(record):
    """Make the array of ``{"dtype", "shape", "values"}``; None stays None."""
    if record is None:
        return None
    values = [float(value) if isinstance(value, str) else value for value in record["values"]]
    return np.array(values, DTYPES[record["dtype"]]).reshape(record["shape"])
