import pytest
from run_folders import write_run

from nppac_tf.comparison import archive, methods
from nppac_tf.errors import UserError


def grouped(folder):
    return methods.group(archive.read_runs([folder]).runs)


def sizes(folder):
    return {method.name: len(method.runs) for method in grouped(folder)}


def test_runs_that_differ_in_seeds_or_length_alone_are_one_method(tmp_path):
    def write(name, times, seed, prior_seed):
        changes = {"config.prior.prior_seed": prior_seed}
        write_run(tmp_path / name, times, seed, changes=changes)

    write("a", [0.5], 0, 0)
    write("b", [0.5, 0.6], 1, 0)
    assert methods.seed_folders(grouped(tmp_path)[0]) == ("seed0", "seed1")
    write("c", [0.5], 0, 1)
    (found,) = grouped(tmp_path)
    assert (found.name, len(found.runs)) == ("prior=gp", 3)
    assert methods.seed_folders(found)[1:] == ("seed1_prior0", "seed0_prior1")
    assert methods.folder_of(found) is None
    assert methods.differences([found]) == ()


def test_settings_with_the_same_meaning_are_the_same(tmp_path):
    greedy, least = "config.training.num_greedy_environments", "config.agent.num_target_critics"
    base = {"config.training.num_environments": 10, "config.agent.num_critics": 6}
    for seed, changes in enumerate(
        [
            {greedy: 5, least: 6},
            {greedy: "null", least: "null"},
            {greedy: 5, least: 6, "config.training.checkpoint_interval": 2000},
            {greedy: 4, least: 6},
            {greedy: 5, least: 2},
        ]
    ):
        write_run(tmp_path / str(seed), [0.5], seed=seed, changes={**base, **changes})
    assert list(sizes(tmp_path).values()) == [3, 1, 1]


def test_a_setting_that_not_all_runs_record_is_not_compared(tmp_path):
    write_run(tmp_path / "a", [0.5], seed=0, changes={"config.agent.new": 1})
    write_run(tmp_path / "b", [0.5], seed=1, changes={"config.agent.new": 2})
    assert sizes(tmp_path) == {"new=1": 1, "new=2": 1}
    write_run(tmp_path / "c", [0.5], seed=2)
    (found,) = grouped(tmp_path)
    assert len(found.runs) == 3
    assert methods.unshared_settings(found.runs) == ("agent.new",)


def test_methods_are_named_by_the_fewest_settings_that_distinguish_them(tmp_path):
    for number, (prior, epochs, temperature) in enumerate(
        [("exact_gp", 100, 0.1), ("gaussian_network", 50, 0.1), ("gaussian_network", 50, 0.2)]
    ):
        changes = {
            "config.prior.network_epochs": epochs,
            "config.prior.prior": prior,
            "config.agent.temperature": temperature,
        }
        write_run(tmp_path / str(number), [0.5], changes=changes)
    found = grouped(tmp_path)
    assert [method.name for method in found] == [
        "prior=exact_gp, temperature=0.1",
        "prior=gaussian_network, temperature=0.1",
        "prior=gaussian_network, temperature=0.2",
    ]
    assert methods.differences(found) == (
        ("prior.prior", ("exact_gp", "gaussian_network", "gaussian_network")),
        ("prior.network_epochs", ("100", "50", "50")),
        ("agent.temperature", ("0.1", "0.1", "0.2")),
    )


def test_demonstrations_are_compared_by_content(tmp_path):
    for seed, (source, fingerprint) in enumerate(
        [("x/pen.npy", "a"), ("/y/pen.npy", "a"), ("pen.npy", "b")]
    ):
        changes = {"config.demonstrations": source, "demonstrations.fingerprint": fingerprint}
        write_run(tmp_path / str(seed), [0.5], seed=seed, changes=changes)
    assert sizes(tmp_path) == {"fingerprint=a": 2, "fingerprint=b": 1}


def test_folders_of_a_task_name_methods(tmp_path):
    task = tmp_path / "pen-binary"
    for method in ("mine", "cloning_gp"):
        for seed in (0, 1):
            write_run(task / method / f"seed{seed}", [0.5], seed=seed)
    write_run(tmp_path / "elsewhere" / "seed0", [0.5], seed=5)
    found = grouped(tmp_path)
    assert [method.name for method in found] == ["elsewhere", "BC (GP mean)", "mine"]
    assert [methods.folder_of(method) for method in found] == ["elsewhere", "cloning_gp", "mine"]
    write_run(task / "mine/seed2", [0.5], seed=2, changes={"config.prior.prior": "uniform"})
    assert set(sizes(task)) == {"BC (GP mean)", "mine (prior=gp)", "mine (prior=uniform)"}


def test_folders_anywhere_name_methods_if_each_has_its_own(tmp_path):
    uniform = {"config.prior.prior": "uniform"}
    write_run(tmp_path / "mine" / "seed0", [0.5])
    assert sizes(tmp_path) == {"prior=gp": 1}
    write_run(tmp_path / "other" / "seed0", [0.5], changes=uniform)
    write_run(tmp_path / "other" / "seed1", [0.5], seed=1, changes=uniform)
    assert sizes(tmp_path) == {"mine": 1, "other": 2}
    write_run(tmp_path / "mine" / "seed2", [0.5], changes={"config.prior.prior": "dropout"})
    assert set(sizes(tmp_path)) == {"prior=gp", "prior=uniform", "prior=dropout"}


def test_a_repeated_seed_is_refused(tmp_path):
    # A prior_seed of null is the seed of the run.
    for name, prior_seed in (("a", 4), ("b", "null")):
        changes = {"config.prior.prior_seed": prior_seed}
        write_run(tmp_path / name, [0.5], seed=4, changes=changes)
    with pytest.raises(UserError, match=r"got .*a and .*b, both with seed 4 and prior_seed 4"):
        grouped(tmp_path)


def test_a_method_has_one_name_and_color_in_every_comparison(tmp_path):
    names = ("nppac", "awac", "ablation_sparse_gp", "mine")
    for index, name in enumerate(names):
        place = tmp_path / "pen-binary" / name / "seed0"
        write_run(place, [0.5], changes={"config.agent.temperature": 0.1 + index})
    every = methods.group(archive.read_runs([tmp_path]).runs)
    looks = dict(zip([each.name for each in every], methods.styles(every), strict=True))
    assert looks.keys() == {"N-PPAC", "AWAC", "sparse GP", "mine"}
    assert len({color for color, _ in looks.values()}) == 4
    for each in (each for each in every if each.name in ("N-PPAC", "AWAC")):
        assert methods.styles([each]) == [looks[each.name]]
