"""Files of priors: saved, loaded, damaged, of something else."""

import json
import os
import stat

import numpy as np
import pytest
from gaussian_processes import CLASSES, D, P, fitted_examples, made_up, same_to_the_bit

from nppac_tf import priors
from nppac_tf.errors import UserError
from nppac_tf.priors import ExactGPPrior, RescaledPrior, SparseGPPrior, UniformPrior


@pytest.fixture
def fitted():
    return fitted_examples()


@pytest.mark.parametrize("cls", CLASSES)
def test_a_loaded_prior_is_the_saved_one_to_the_bit(cls, fitted, tmp_path):
    path = tmp_path / "folder" / "prior.npz"
    priors.save_prior(fitted[cls], path)
    loaded = priors.load_prior(path)
    assert type(loaded) is cls
    same_to_the_bit(fitted[cls], loaded)
    assert os.listdir(path.parent) == ["prior.npz"]


def test_the_file_of_a_prior_is_for_all_whom_the_umask_lets_read(tmp_path):
    before = os.umask(0o022)
    try:
        priors.save_prior(UniformPrior(D, P), tmp_path / "prior.npz")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "prior.npz").stat().st_mode) == 0o644


def test_a_uniform_prior_can_be_saved(tmp_path):
    priors.save_prior(UniformPrior(D, P), tmp_path / "prior.npz")
    loaded = priors.load_prior(tmp_path / "prior.npz")
    assert isinstance(loaded, UniformPrior)
    assert (loaded.observation_size, loaded.action_size) == (D, P)


def test_a_rescaled_prior_is_not_saved(fitted, tmp_path):
    with pytest.raises(UserError, match="got RescaledPrior"):
        priors.save_prior(RescaledPrior(fitted[ExactGPPrior], 2.0), tmp_path / "prior.npz")
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "prior.npz"
    priors.save_prior(made_up(ExactGPPrior, "rbf"), path)
    before = path.read_bytes()

    def broken(file, **_):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", broken)
    with pytest.raises(OSError, match="no space left"):
        priors.save_prior(made_up(ExactGPPrior, "rbf", seed=1), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["prior.npz"]


def test_a_missing_file_is_a_users_error(tmp_path):
    with pytest.raises(UserError, match="no prior at"):
        priors.load_prior(tmp_path / "prior.npz")


def test_a_damaged_file_is_a_users_error(tmp_path):
    path = tmp_path / "prior.npz"
    priors.save_prior(made_up(ExactGPPrior, "rbf"), path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [b"", b"no prior", whole[: len(whole) // 2], whole[:-10]]
    for position in rng.integers(0, len(whole), 60):
        copy = bytearray(whole)
        copy[position] ^= 1 << rng.integers(8)
        damaged.append(bytes(copy))
    messages = []
    for content in damaged:
        path.write_bytes(content)
        try:
            loaded = priors.load_prior(path)
        except UserError as error:
            messages.append(str(error))
        else:  # What was changed says nothing, such as a member's date.
            same_to_the_bit(loaded, made_up(ExactGPPrior, "rbf"))
    assert len(messages) > 30
    assert all(str(path) in message for message in messages)


@pytest.mark.parametrize("broken", ["centers", "actions", "lengthscales"])
@pytest.mark.parametrize("how", ["missing", "nan", "shape"])
def test_a_file_whose_arrays_do_not_make_a_prior_is_a_users_error(tmp_path, broken, how):
    path = tmp_path / "prior.npz"
    priors.save_prior(made_up(ExactGPPrior, "rbf"), path)
    with np.load(path) as file:
        arrays = dict(file)
    if how == "missing":
        del arrays[broken]
    elif how == "nan":
        arrays[broken] = np.full_like(arrays[broken], np.nan)
    else:
        arrays[broken] = np.zeros(5)
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=r"not a prior|no finite posterior"):
        priors.load_prior(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 0}, "version 0 of the format"),
        ({"class": "neural"}, "not a prior"),
        ({"settings": {"kernel": "cosine", "observation_noise": True}}, "not a prior"),
        ({"settings": {}}, "not a prior"),
        ({"settings": None}, "not a prior"),
    ],
)
def test_a_header_of_something_else_is_a_users_error(tmp_path, change, message):
    path = tmp_path / "prior.npz"
    priors.save_prior(made_up(SparseGPPrior, "rbf"), path)
    with np.load(path) as file:
        arrays = dict(file)
    header = {**json.loads(str(arrays.pop("header"))), **change}
    np.savez(path, header=np.array(json.dumps(header)), **arrays)
    with pytest.raises(UserError, match=message):
        priors.load_prior(path)


class Malicious:
    def __init__(self, witness):
        self.witness = str(witness)

    def __reduce__(self):
        return os.mkdir, (self.witness,)


def test_a_pickle_in_a_file_is_refused_and_not_run(tmp_path):
    path, witness = tmp_path / "prior.npz", tmp_path / "witness"
    priors.save_prior(made_up(ExactGPPrior, "rbf"), path)
    with np.load(path) as file:
        arrays = dict(file)
    arrays["centers"] = np.array([Malicious(witness)], dtype=object)
    np.savez(path, **arrays)
    with pytest.raises(UserError, match="not a prior"):
        priors.load_prior(path)
    path.write_bytes(np.array([Malicious(witness)], dtype=object).dumps())
    with pytest.raises(UserError, match="not a prior"):
        priors.load_prior(path)
    assert not witness.exists()
