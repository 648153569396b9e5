"""The normalizers that Deeplearning4j 1.0.0-M2 wrote: read, applied, fitted again, written byte for byte."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strombus as sb
from strombus.errors import ConfigurationError, DataError, MissingDataError
from strombus.interchange.dl4j.normalizers import read_normalizer, write_normalizer

GOLDEN = Path(__file__).parents[3] / "golden/dl4j/normalizers"
KINDS = {
    "image_0_1": sb.data.ImagePreProcessingScaler(),
    "min_max": sb.data.NormalizerMinMaxScaler(-1, 1),
    "standardize_with_labels": sb.data.NormalizerStandardize(fit_labels=True),
}
FILES = {name: (GOLDEN / f"{name}.bin").read_bytes() for name in KINDS}


def golden(name):
    record = json.loads((GOLDEN / f"{name}.json").read_text())
    return {key: np.array(one["values"], np.float32).reshape(one["shape"]) for key, one in record.items()}


def rows_of(arrays, state):
    return sb.DataSet(arrays[f"{state}_features"], arrays.get(f"{state}_labels"))


def test_every_file_of_the_folder_is_named_here():
    assert {path.stem for path in GOLDEN.iterdir()} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_options_are_read_and_the_same_bytes_written(name):
    read = read_normalizer(FILES[name])
    assert type(read) is type(KINDS[name])
    assert read.options() == KINDS[name].options()
    assert write_normalizer(read) == FILES[name]


@pytest.mark.parametrize("name", ["min_max", "standardize_with_labels"])
def test_statistics_and_scaled_arrays_are_dl4js(name):
    arrays, read = golden(name), read_normalizer(FILES[name])
    names = {"features_0": {"mean": "mean", "std": "std", "low": "min", "high": "max"}}
    names["labels_0"] = {"mean": "label_mean", "std": "label_std"}
    for array, values in read.fitted.items():
        for field, value in values.items():
            assert value.tolist() == arrays[names[array][field]][0].tolist()
    raw, wanted = rows_of(arrays, "raw"), rows_of(arrays, "normalized")
    made = read(raw)
    for column, array in wanted.columns().items():
        assert np.array_equal(made.columns()[column], array)
        np.testing.assert_allclose(read.revert(made).columns()[column], raw.columns()[column], rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["min_max", "standardize_with_labels"])
def test_fitting_the_same_rows_gives_dl4js_statistics(name):
    read, ours = read_normalizer(FILES[name]), type(KINDS[name])(**KINDS[name].options())
    ours.fit(rows_of(golden(name), "raw"))
    assert ours.fitted.keys() == read.fitted.keys()
    for array, values in ours.fitted.items():
        for field, value in values.items():  # DL4J sums in float32
            np.testing.assert_allclose(value, read.fitted[array][field], rtol=3e-7, atol=3e-7)


def test_a_file_alone_or_in_a_models_zip(tmp_path):
    normalizer = sb.data.load_normalizer(GOLDEN / "standardize_with_labels.bin")
    sb.data.save_normalizer(normalizer, tmp_path / "one.bin", dl4j=True)
    assert (tmp_path / "one.bin").read_bytes() == FILES["standardize_with_labels"]
    for name, entry in (("with", "normalizer.bin"), ("without", "configuration.json")):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(entry, FILES["standardize_with_labels"])
    assert sb.data.load_normalizer(tmp_path / "with.zip") == normalizer
    with pytest.raises(MissingDataError, match=r"no normalizer\.bin in"):
        sb.data.load_normalizer(tmp_path / "without.zip")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "with.zip").read_bytes()[:-30])
    with pytest.raises(DataError, match="is no zip file"):
        sb.data.load_normalizer(tmp_path / "cut.zip")


def test_a_model_comes_with_the_normalizer_in_its_zip(tmp_path):
    shutil.copy(GOLDEN.parent / "models/mlp_float64.zip", tmp_path / "model.zip")
    plain = sb.load_dl4j(tmp_path / "model.zip")
    assert plain.normalizer is None
    normalizer = sb.data.NormalizerMinMaxScaler(-1, 1)
    features = np.random.default_rng(0).normal(5, 3, (7, plain.module.state_dict()["layer0.weight"].shape[1]))
    normalizer.fit(features.astype(np.float32))
    with zipfile.ZipFile(tmp_path / "model.zip", "a") as archive:
        archive.writestr("normalizer.bin", write_normalizer(normalizer))
    network = sb.load_dl4j(tmp_path / "model.zip")
    assert network.normalizer == normalizer
    scaled = normalizer(sb.DataSet(features)).features
    np.testing.assert_allclose(network.predict(features), plain.predict(scaled), rtol=1e-12)
    network.save(tmp_path / "saved.safetensors")
    assert sb.load_dl4j(tmp_path / "saved.safetensors").normalizer == normalizer
    for other in (sb.data.ImagePreProcessingScaler(), None):
        network.normalizer = other
        sb.save_dl4j(network, tmp_path / "back.zip")
        assert sb.load_dl4j(tmp_path / "back.zip").normalizer == other


@pytest.mark.parametrize("kind", [sb.data.NormalizerStandardize, sb.data.NormalizerMinMaxScaler])
@pytest.mark.parametrize("labels", [False, True])
def test_several_inputs_and_outputs_come_back(kind, labels):
    rng = np.random.default_rng(0)
    data = sb.MultiDataSet([rng.normal(size=(9, 3)), rng.normal(size=(9, 2, 4))], [rng.normal(size=(9, 2))] * 2)
    normalizer = kind(fit_labels=labels).fit(data)
    back = read_normalizer(write_normalizer(normalizer, np.float64))
    assert back == normalizer
    single = read_normalizer(write_normalizer(normalizer))
    for name, values in normalizer.fitted.items():
        for field, value in values.items():
            assert single.fitted[name][field].tolist() == value.astype(np.float32).tolist()


def test_a_constant_feature_is_scaled_by_1_in_the_jvm_too():
    data = sb.DataSet(np.full((5, 1), 3.0))
    assert read_normalizer(write_normalizer(sb.data.NormalizerStandardize().fit(data))).fitted["features_0"]["std"] == 1
    assert (
        read_normalizer(write_normalizer(sb.data.NormalizerMinMaxScaler().fit(data))).fitted["features_0"]["high"] == 4
    )


@pytest.mark.parametrize(
    ("normalizer", "message"),
    [
        (sb.data.NormalizerStandardize(), "was not fitted"),
        (sb.data.NormalizerStandardize(axis=-1).fit(np.ones((2, 3))), "along axis 1, this normalizer's along axis -1"),
        (sb.data.NormalizerMinMaxScaler(inputs=[0]).fit(np.ones((2, 3))), "only some"),
        (sb.data.ImagePreProcessingScaler(fit_labels=True), "labels are images too"),
    ],
)
def test_what_dl4j_cannot_hold_is_not_written(normalizer, message):
    with pytest.raises(ConfigurationError, match=message):
        write_normalizer(normalizer)


def test_kinds_without_a_counterpart_are_named():
    head = FILES["min_max"][:16]
    for kind, advice in (("MULTI_HYBRID", "inputs="), ("IMAGE_VGG16", "mean pixel"), ("CUSTOM", "Java")):
        with pytest.raises(ConfigurationError, match=f"kind {kind}, which is not read: .*{advice}"):
            read_normalizer(head + len(kind).to_bytes(2, "big") + kind.encode())


@pytest.mark.parametrize("name", KINDS)
def test_a_file_cut_at_any_byte_is_refused(name):
    data = FILES[name]
    for length in range(len(data)):
        with pytest.raises(DataError, match="byte"):
            read_normalizer(data[:length])
    with pytest.raises(DataError, match="1 bytes follow"):
        read_normalizer(data + b"\0")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_a_mutated_file_is_refused_or_a_valid_normalizer(name, data):
    damaged = bytearray(FILES[name])
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = read_normalizer(bytes(damaged))
    except (DataError, ConfigurationError):
        return
    assert read.ready
    assert sb.data.Normalizer.from_dict(read.to_dict()) == read
