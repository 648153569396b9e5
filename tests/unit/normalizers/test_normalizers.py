"""Normalizers against scikit-learn and NumPy: any grouping of the rows, masks, types, several arrays, files."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import strombus as sb
from strombus.errors import ConfigurationError, DataError, EmptyDataError
from strombus.normalizers import normalizers
from strombus.registry import Registry

Standardize, MinMax = sb.data.NormalizerStandardize, sb.data.NormalizerMinMaxScaler
Image = sb.data.ImagePreProcessingScaler
PEERS = {Standardize: StandardScaler, MinMax: MinMaxScaler}


@pytest.mark.parametrize("kind", PEERS)
def test_equal_to_scikit_learn(kind):
    features = np.random.default_rng(0).normal(size=(500, 7)) * 10.0 ** np.arange(-3, 4)
    features[:, 2] = 0.1  # constant, and no sum of it is exact
    ours, theirs = kind().fit((features, np.zeros(500))), PEERS[kind]().fit(features)
    rest = features[:50] + 0.5  # rows that were not fitted to
    np.testing.assert_allclose(ours(sb.DataSet(rest)).features, theirs.transform(rest), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(ours.revert(ours(sb.DataSet(rest))).features, rest, rtol=1e-12, atol=1e-12)


def test_no_digits_are_lost_far_from_0():
    features = np.random.default_rng(0).normal(size=(500, 4)) * 10.0 ** np.arange(-3, 1) + 1e8
    wide = features.astype(np.longdouble)
    pieces = [sb.DataSet(piece) for piece in np.split(features, [1, 7, 300])]
    values = Standardize().fit(pieces).fitted["features_0"]
    np.testing.assert_allclose(values["std"], wide.std(axis=0).astype(float), rtol=1e-13)
    np.testing.assert_allclose(values["mean"], wide.mean(axis=0).astype(float), rtol=3e-16)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(PEERS)), st.lists(st.integers(0, 60), min_size=0, max_size=5), st.integers(0, 10**6))
def test_merged_in_any_grouping_equals_one_pass(kind, cuts, seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(rng.uniform(-1e6, 1e6, 3), rng.uniform(1e-3, 1e3, 3), (60, 3))
    parts = np.split(features, sorted(cuts))
    gathered = [kind().gather(sb.DataSet(part)) for part in parts]
    order = rng.permutation(len(parts))
    total: dict = {}
    for number in order:
        total = kind.merge(total, gathered[number])
    whole, merged = kind(), kind()
    whole.finish(whole.gather(sb.DataSet(features)))
    merged.finish(total)
    for field, value in whole.fitted["features_0"].items():
        np.testing.assert_allclose(merged.fitted["features_0"][field], value, rtol=1e-11)


@pytest.mark.parametrize("axis", [1, -1])
def test_masked_steps_do_not_count_and_become_0(axis):
    rng = np.random.default_rng(0)
    series = rng.normal(3, 2, (20, 4, 6))
    mask = (np.arange(6) < rng.integers(1, 7, (20, 1))).astype(np.float32)
    kept = series.transpose(0, 2, 1)[mask == 1]
    assert len(kept) < 120
    given_in = series if axis == 1 else series.transpose(0, 2, 1)
    data = sb.DataSet(given_in, given_in, mask, mask)
    normalizer = Standardize(axis=axis, fit_labels=True).fit(data)
    wanted = StandardScaler().fit(kept)
    np.testing.assert_allclose(normalizer.fitted["features_0"]["mean"], wanted.mean_, rtol=1e-12)
    np.testing.assert_allclose(normalizer.fitted["labels_0"]["std"], wanted.scale_, rtol=1e-12)
    made = normalizer(data)
    steps = made.features if axis == -1 else made.features.transpose(0, 2, 1)
    np.testing.assert_allclose(steps[mask == 1], wanted.transform(kept), rtol=1e-12, atol=1e-12)
    assert not steps[mask == 0].any()
    assert made.features_mask is data.features_mask
    assert np.array_equal(data.features, given_in)  # the rows that were given are as they were


def test_channels_of_images_and_single_numbers():
    rng = np.random.default_rng(0)
    images, numbers = rng.integers(0, 256, (10, 3, 4, 5), dtype=np.uint8), rng.normal(5, 3, 10)
    normalizer = Standardize(fit_labels=True).fit((images, numbers))
    np.testing.assert_allclose(normalizer.fitted["features_0"]["mean"], images.mean(axis=(0, 2, 3)), rtol=1e-12)
    made = normalizer(sb.DataSet(images, numbers))
    assert made.features.dtype == np.float32
    np.testing.assert_allclose(made.features.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(made.labels, (numbers - numbers.mean()) / numbers.std(), rtol=1e-12)


@pytest.mark.parametrize(("dtype", "wanted"), [("u1", "f4"), ("?", "f4"), ("i4", "f8"), ("f2", "f4"), (">f8", "f8")])
def test_types_that_are_wide_enough(dtype, wanted):
    features = np.array([[0, 1], [1, 0], [1, 1]], dtype)
    assert MinMax().fit(features)(sb.DataSet(features)).features.dtype == wanted
    assert MinMax().fit(features)(sb.DataSet(features), np.float64).features.dtype == np.float64


def test_pixels_need_no_fitting():
    pixels = np.array([[0, 51, 255]], np.uint8)
    np.testing.assert_allclose(Image(-1, 1)(sb.DataSet(pixels)).features, [[-1, -0.6, 1]], rtol=1e-6)
    sixteen = Image(max_bits=16, fit_labels=True)
    made = sixteen(sb.DataSet(pixels.astype(np.uint16), np.array([[65535]], np.uint16)))
    np.testing.assert_allclose(made.labels, [[1]])
    np.testing.assert_allclose(sixteen.revert(made).features, pixels)
    assert Image().fit("nothing is read") == Image()


def test_chosen_inputs_and_outputs():
    rng = np.random.default_rng(0)
    data = sb.MultiDataSet(
        [rng.normal(size=(8, 2)), np.arange(8)[:, None]], [np.arange(8) % 3, rng.normal(2, 3, (8, 1))]
    )
    normalizer = Standardize(fit_labels=True, inputs=[0], outputs=[1]).fit(data)
    assert set(normalizer.fitted) == {"features_0", "labels_1"}
    made = normalizer(data)
    assert made.features[1] is data.features[1]
    assert made.labels[0] is data.labels[0]
    assert abs(made.labels[1].mean()) < 1e-12


@pytest.mark.parametrize("kind", [Standardize, MinMax, Image])
def test_written_and_read_back(kind, tmp_path):
    options = {"fit_labels": True, "outputs": [0]} | ({} if kind is Standardize else {"min_range": -0.5})
    normalizer = kind(**options).fit((np.random.default_rng(0).normal(size=(9, 3)), np.arange(9.0)))
    sb.data.save_normalizer(normalizer, tmp_path / "normalizer.json")
    read = sb.data.load_normalizer(tmp_path / "normalizer.json")
    assert read == normalizer == pickle.loads(pickle.dumps(normalizer))
    assert type(read) is kind
    assert read.options() == normalizer.options()
    assert repr(read) == repr(normalizer)


def test_what_was_fitted_is_shown():
    rows = np.array([[1.0, 10.0, 7.0], [3.0, 30.0, 7.0]])
    scaled, ranged = Standardize().fit((rows, rows)), MinMax(-1, 1, fit_labels=True).fit((rows, rows[:, :1]))
    assert (scaled.mean.tolist(), scaled.std.tolist()) == ([2, 20, 7], [1, 10, 0])
    assert (ranged.min.tolist(), ranged.max.tolist()) == ([1, 10, 7], [3, 30, 7])
    assert repr(scaled) == "NormalizerStandardize(), features_0: mean [ 2. 20.  7.], std [ 1. 10.  0.]"
    assert "max_range" not in repr(ranged)
    assert repr(ranged).endswith(", labels_0: low [1.], high [3.]")
    assert len(repr(Standardize().fit((np.eye(1000), rows[:1].repeat(1000, 0))))) < 120
    assert repr(Standardize()) == "NormalizerStandardize() (not fitted)"
    with pytest.raises(ConfigurationError, match="the NormalizerStandardize was not fitted"):
        Standardize().mean  # noqa: B018
    two = MinMax().fit(sb.MultiDataSet([rows, rows], [rows]))
    with pytest.raises(ConfigurationError, match=r"was fitted to features_0, features_1; take fitted\[name\]"):
        two.max  # noqa: B018


RECORD = {"type": "standardize", "fitted": {"features_0": {"mean": [0.0], "std": [1.0]}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "scaler"}, "known: image, min_max, standardize"),
        ({"options": {"axes": 1}}, "no option .*axes.*known: fit_labels, axis, inputs, outputs"),
        ({"options": [1]}, "has no option"),
        ({"options": {"axis": 0}}, "axis must be"),
        ({"fitted": {"features": {}}}, "called features_0"),
        ({"fitted": {"features_0": {"mean": [0.0]}}}, "holds mean, std"),
        ({"fitted": {"features_0": {"mean": [0.0], "std": [-1.0]}}}, "never negative"),
        ({"fitted": {"features_0": {"mean": [0.0, 1.0], "std": [1.0]}}}, "one value for each feature"),
        ({"fitted": {"features_0": {"mean": ["a"], "std": [1.0]}}}, "must be numbers"),
        ({"fitted": {"features_0": {"mean": [0.0], "std": [float("inf")]}}}, "must be finite"),
        ({"fitted": 3}, "are a mapping"),
        ({"more": 3}, "a mapping of type, options and fitted"),
    ],
)
def test_a_record_that_is_none_is_refused(change, message):
    assert sb.data.Normalizer.from_dict(RECORD).ready
    with pytest.raises((ConfigurationError, DataError), match=message):
        sb.data.Normalizer.from_dict(RECORD | change)


def test_data_that_cannot_be_fitted_to_or_scaled():
    with pytest.raises(EmptyDataError, match="there are none"):
        Standardize().fit((np.zeros((0, 3)), np.zeros(0)))
    with pytest.raises(DataError, match="features_0 contains NaN"):
        Standardize().fit(np.array([[1.0], [np.nan], [np.inf]]))
    with pytest.raises(DataError, match="features_0 contains NaN"):
        MinMax().fit(np.array([[1.0], [np.inf]]))
    with pytest.raises(DataError, match=r"steps \(2, 4\), its mask is of shape \(2, 3\); .* axis=-1 is for"):
        Standardize().fit(sb.DataSet(np.ones((2, 3, 4)), None, np.ones((2, 3))))
    with pytest.raises(DataError, match="needs labels"):
        Standardize(fit_labels=True).fit(np.ones((3, 2)))
    with pytest.raises(DataError, match="3 features in one part of the data and 2 in another"):
        Standardize().fit([sb.DataSet(np.ones((1, 3))), sb.DataSet(np.ones((1, 2)))])
    with pytest.raises(DataError, match="along axis 2, it has 2 axes"):
        Standardize(axis=2).fit(np.ones((3, 2)))
    with pytest.raises(ConfigurationError, match="was not fitted"):
        Standardize()(sb.DataSet(np.ones((3, 2))))
    fitted = Standardize().fit(np.ones((3, 2)))
    with pytest.raises(DataError, match=r"2 features of features_0, got an array of shape \(1, 3\)"):
        fitted(sb.DataSet(np.ones((1, 3))))
    with pytest.raises(DataError, match="there is no features_1"):
        fitted(sb.MultiDataSet([np.ones((1, 2)), np.ones((1, 2))]))
    for wrong in ({"min_range": 1.0}, {"max_range": float("nan")}, {"min_range": "0"}):
        with pytest.raises(ConfigurationError, match="min_range must be a finite number below max_range"):
            MinMax(**wrong)
    with pytest.raises(ConfigurationError, match="inputs must be numbers of arrays"):
        MinMax(inputs=[-1])


def test_a_row_of_the_table_for_each_class():
    assert isinstance(normalizers, Registry)
    assert {normalizers[name].name for name in normalizers} == set(normalizers)
