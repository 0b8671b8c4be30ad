"""docs/tutorial.md: its commands run in order, as printed, on small budgets."""

import pathlib
import re
import runpy
import shlex

from launching import Launchers

PAGE = pathlib.Path(__file__).parents[2] / "docs/tutorial.md"
COMMAND = re.compile(r"^    python CLONE/launch/(\w+)\.py (.*)$", re.MULTILINE)
BLOCK = re.compile(r"<!-- \w+: (\S+) -->\n```python\n(.*?)\n```\n", re.DOTALL)
BUDGETS = {
    "collect_demonstrations": ("--num_episodes=5",),
    "fit_prior": ("--num_episodes=2",),
    "train": (
        *("--prior_cache=none", "--num_environments=2", "--steps_per_epoch=20"),
        *("--num_env_steps=60", "--critic_warmup_steps=20", "--eval_interval=20"),
        *("--eval_episodes=2", "--checkpoint_interval=60", "--batch_size=16"),
        *("--actor_layers=16", "--critic_layers=16", "--num_critics=2"),
    ),
    "evaluate": ("--num_episodes=4",),
}
ORDER = ("collect_demonstrations", "inspect_demonstrations", "fit_prior", "train", "evaluate")


def test_the_tutorial(tmp_path, monkeypatch, capsys):
    text = PAGE.read_text(encoding="utf-8")
    blocks = dict(BLOCK.findall(text))
    (tmp_path / "cart.py").write_text(blocks["cart.py"] + "\n")
    launchers = Launchers(tmp_path)
    commands = COMMAND.findall(text)
    assert [name for name, _ in commands] == [*ORDER, "export"]
    for name, arguments in commands:
        outcome = launchers.run(name, *shlex.split(arguments), *BUDGETS.get(name, ()))
        assert outcome.code == 0, f"{name}: {outcome.errors}\n{outcome.output}"
    assert (tmp_path / "doctor.png").exists()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program.py").write_text(blocks["served_cart"])
    served = runpy.run_path("program.py")["served"]
    assert served["action"].shape == (1, 2)
    assert "novelty:" in capsys.readouterr().out
