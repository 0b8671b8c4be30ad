"""Files of an exported policy: links, names, replacement, folders that are none."""

import json
import os

import numpy as np
import pytest
from serving_agents import A, D, agent_with

from nppac_tf.errors import UserError
from nppac_tf.serving.saved_model import export_policy, load_metadata, load_policy

OBSERVATIONS = np.random.default_rng(0).normal(size=(7, D)).astype(np.float32)


def test_a_link_to_an_export_stays_a_link(tmp_path):
    export_policy(agent_with(), tmp_path / "v1")
    (tmp_path / "current").symlink_to("v1")
    before = load_policy(tmp_path / "current")(OBSERVATIONS)
    export_policy(agent_with("squashed"), tmp_path / "current")
    assert (tmp_path / "current").is_symlink()
    assert not np.allclose(load_policy(tmp_path / "v1")(OBSERVATIONS), before)


def test_a_folder_may_have_any_name(tmp_path):
    folder = tmp_path / "lr[0.1] *?"
    export_policy(agent_with(), folder)
    assert load_policy(folder)(OBSERVATIONS).shape == (len(OBSERVATIONS), A)


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failed_replacement_keeps_the_earlier_export(tmp_path, monkeypatch, failing):
    export_policy(agent_with(), tmp_path / "policy", provenance={"version": "earlier"})
    rename, calls = os.rename, []

    def fail(*paths):
        calls.append(paths)
        if len(calls) == failing:
            raise OSError("disk failure")
        rename(*paths)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="disk failure"):
        export_policy(agent_with(), tmp_path / "policy", provenance={"version": "new"})
    assert load_metadata(tmp_path / "policy")["provenance"] == {"version": "earlier"}
    assert load_policy(tmp_path / "policy")(OBSERVATIONS).shape == (7, A)
    assert os.listdir(tmp_path) == ["policy"]


def test_a_folder_that_is_no_export_is_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="path must be new or an exported policy"):
        export_policy(agent_with(), tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


WHOLE = {"version": 1, "task": None, "reward": None, "updates": 0}
WHOLE |= {"observation_size": D, "action_size": A, "observation_keys": [], "success_key": None}


@pytest.mark.parametrize(
    ("metadata", "complaint"),
    [
        (None, "no exported policy at"),
        ({"version": 0}, "must have version 1 of the format; got version 0: export"),
        *(
            ({k: v for k, v in WHOLE.items() if k != name}, f"has no {name}")
            for name in ("task", "updates", "observation_size")
        ),
        ([], "is not an exported policy"),
        (WHOLE, "not a complete exported policy"),
    ],
)
def test_a_folder_that_is_no_export_is_named(tmp_path, metadata, complaint):
    if metadata is not None:
        (tmp_path / "assets.extra").mkdir()
        (tmp_path / "assets.extra" / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(UserError, match=complaint):
        load_policy(tmp_path)
