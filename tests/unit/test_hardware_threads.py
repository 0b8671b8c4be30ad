import pytest

from nppac_tf import hardware


@pytest.mark.parametrize(("cores", "split"), [(1, 1), (2, 1), (4, 1), (8, 2), (16, 4)])
def test_operations_run_in_parallel_before_they_are_split(cores, split):
    assert hardware.variables(cores, {"PATH": "/bin"}) == {
        "TF_NUM_INTRAOP_THREADS": str(split),
        "TF_NUM_INTEROP_THREADS": str(cores),
    }


@pytest.mark.parametrize("name", ["TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"])
def test_the_users_setting_is_kept(name):
    assert hardware.variables(8, {name: "3"}) == {}
