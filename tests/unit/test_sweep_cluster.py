import pathlib

import pytest

import nppac_tf
from nppac_tf.runs.sweep import cluster


@pytest.mark.parametrize("cores", [1, 2, 8])
def test_a_worker_has_the_threads_of_its_cores_and_the_modules_of_the_sweep(cores, monkeypatch):
    package = str(pathlib.Path(nppac_tf.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", "/of/the/user:/and/more")
    variables = cluster.environment(cores)
    threads = {"OMP_NUM_THREADS", "TF_NUM_INTEROP_THREADS"}
    assert {variables[name] for name in threads} == {str(cores)}
    assert int(variables["TF_NUM_INTRAOP_THREADS"]) <= cores
    assert variables["PYTHONPATH"] == f"{package}:/of/the/user:/and/more"
