"""Arrays as the golden JSON files hold them, and as bytes that say what they should not."""

from __future__ import annotations

import struct

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
    "UINT16": "u2",
    "UINT64": "u8",
    "UBYTE": "u1",
    "BOOL": "?",
}


def array_of(record):
    """Make the array of ``{"dtype", "shape", "values"}``; None stays None."""
    if record is None:
        return None
    values = [float(value) if isinstance(value, str) else value for value in record["values"]]
    return np.array(values, DTYPES[record["dtype"]]).reshape(record["shape"])


RATE = 0.05


def record(rule, **settings):
    """Return an updater's JSON as DL4J writes it; settings replace or add to the usual ones."""
    epsilon = {"epsilon": 1e-3}
    moments = {"learningRate": RATE, "beta1": 0.8, "beta2": 0.95, **epsilon}
    usual = {
        "NoOp": {},
        "Sgd": {"learningRate": RATE},
        "Nesterovs": {"learningRate": RATE, "momentum": 0.7},
        "AdaGrad": {"learningRate": RATE, **epsilon},
        "RmsProp": {"learningRate": RATE, "rmsDecay": 0.9, **epsilon},
        "AdaDelta": {"rho": 0.9, **epsilon},
    }
    return {"@class": f"org.nd4j.linalg.learning.config.{rule}", **usual.get(rule, moments), **settings}


def schedule(kind, **values):
    """Return a schedule's JSON."""
    return {"@class": f"org.nd4j.linalg.schedule.{kind}Schedule", **values}


def penalty(kind, value, **more):
    """Return the JSON of L1Regularization, L2Regularization or WeightDecay."""
    name = {"L1Regularization": "l1", "L2Regularization": "l2", "WeightDecay": "coeff"}[kind]
    coefficient = {name: schedule("Fixed", value=value)}
    return {"@class": f"org.nd4j.linalg.learning.regularization.{kind}", **coefficient, **more}


def trainings_of(*layers):
    """Return how the parameters W and b of each layer are trained, by the layers' JSON."""
    from strombus.interchange.dl4j.records import ParameterRecord
    from strombus.interchange.dl4j.updaters import read_trainings

    records = [
        ParameterRecord(str(n), variable, f"{n}.{variable}", (1,), "f", 0, 1, role, one)
        for n, one in enumerate(layers)
        for variable, role in {"W": "weight", "b": "bias"}.items()
    ]
    return read_trainings(records, "model.zip")


FLAG = 0x2000
"""That an array is of type FLOAT."""


def shaped(numbers, count, kind="FLOAT", mode="MIXED_DATA_TYPES", data=b""):
    """Return an array with the shape information `numbers` and a length of `count`, followed by `data`."""

    def head(length, name):
        return (
            struct.pack(">H", len(mode))
            + mode.encode()
            + struct.pack(">q", length)
            + struct.pack(">H", len(name))
            + name.encode()
        )

    return head(len(numbers), "LONG") + struct.pack(f">{len(numbers)}q", *numbers) + head(count, kind) + data
