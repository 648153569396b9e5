"""Files of NumPy's arrays: read, or refused before they fill memory."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner

from strombus.cli import main
from strombus.data.npz import read_npz
from strombus.errors import DataError


def written(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file


def header(shape, descr="<f8"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


def archive(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(f"{name}.npy", data)
    return file


def test_what_numpy_wrote_is_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", features=np.ones((1000, 900), "float32"), labels=np.zeros(1000))
    found = read_npz(str(tmp_path / "a.npz"), "a.npz")
    assert (found["features"] == 1).all()
    assert found["labels"].shape == (1000,)
    assert read_npz(written(x=np.arange(3)), "x")["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (lambda: archive(features=bytes(2**28)), "not credible"),
        (lambda: archive(features=header((2**60,)) + bytes(80)), "damaged"),
        (lambda: archive(features=header((2**45,)) + bytes(80)), "damaged"),
        (lambda: archive(features=header((-1,)) + bytes(80)), "damaged|no"),
        (lambda: archive(features=header((2,), "|O") + bytes(80)), "damaged"),
        (lambda: archive(features=b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 2**16), "damaged"),
        (lambda: written(features=np.array([{}], object)), "damaged"),
        (lambda: io.BytesIO(b"PK no zip"), "no .npz"),
        (lambda: io.BytesIO(written(x=np.arange(99)).getvalue()[:-60]), "no .npz"),
    ],
)
def test_others_are_refused(tmp_path, file, reason):
    data = file()
    with pytest.raises(DataError, match=f"some.npz.*({reason})"):
        read_npz(data, "some.npz")
    (tmp_path / "some.npz").write_bytes(data.getvalue())
    done = CliRunner().invoke(main, ["data", "export", str(tmp_path / "some.npz"), str(tmp_path / "d.zarr")])
    assert done.exit_code == 6, done.output
