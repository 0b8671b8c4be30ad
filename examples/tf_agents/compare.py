"""The pendulum with `NppacAgent` and with `SacAgent`: trains by actor_learner.py, and draws.

    python examples/tf_agents/compare.py                # Draws the figure from the table.
    python examples/tf_agents/compare.py --num_seeds=3  # Trains before, about 2 minutes a run.

Runs that are in the table already are not repeated.
"""

import argparse
import csv
import itertools
import pathlib
import tempfile

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

FOLDER = pathlib.Path(__file__).parents[2] / "results/tf_agents"
SOLVED = -200.0
NAMES = {"nppac": "NppacAgent, Gaussian-process prior", "sac": "SacAgent"}
COLORS = {"nppac": "tab:blue", "sac": "tab:gray"}
Curves = dict[str, np.ndarray]


def train(num_seeds: int, table: pathlib.Path) -> None:
    """Trains both agents from seed 1 on; adds the runs that are not in the table to it."""
    import actor_learner

    table.parent.mkdir(parents=True, exist_ok=True)
    if not table.exists():
        table.write_text("agent,seed,steps,return\n")
    for seed, agent in itertools.product(range(1, num_seeds + 1), NAMES):
        if f"\n{agent},{seed}," in table.read_text():
            continue
        print(f"{NAMES[agent]}, seed {seed}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            curve = actor_learner.main(
                [f"--agent={agent}", f"--seed={seed}", f"--root_dir={folder}"]
            )
        with table.open("a") as file:
            file.writelines(f"{agent},{seed},{steps},{mean:.1f}\n" for steps, mean in curve)


def read(table: pathlib.Path) -> tuple[np.ndarray, Curves]:
    """Steps [N], and for each agent its returns [seeds, N]."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = sorted({int(row["steps"]) for row in rows})
    curves = {
        agent: np.array([float(row["return"]) for row in rows if row["agent"] == agent])
        for agent in NAMES
    }
    return np.array(steps), {agent: each.reshape(-1, len(steps)) for agent, each in curves.items()}


def steps_to_solve(steps: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """For each seed [S] of returns [S, N], the first step from which on all stay solved.

    Infinite where the last is not.
    """
    stays = np.logical_and.accumulate((returns >= SOLVED)[:, ::-1], axis=1)[:, ::-1]
    return np.where(stays.any(axis=1), steps[stays.argmax(axis=1)], np.inf)


def draw(steps: np.ndarray, curves: Curves, path: pathlib.Path) -> None:
    """One line for each seed, the mean over seeds, and in the title what came out."""
    figure, axes = plt.subplots(figsize=(7.6, 4.4), dpi=100, layout="constrained")
    first = {}
    for agent, returns in curves.items():
        mean = returns.mean(axis=0)
        axes.plot(steps, returns.T, color=COLORS[agent], linewidth=0.8, alpha=0.4)
        axes.plot(steps, mean, color=COLORS[agent], linewidth=2.5, label=NAMES[agent])
        solved = np.flatnonzero(mean >= SOLVED)
        first[agent] = f"{steps[solved[0]]:,}" if solved.size else "more than these"
    axes.axhline(SOLVED, color="black", linestyle=":", linewidth=1)
    axes.text(steps[-1], SOLVED - 20, "solved: -200", ha="right", va="top")
    axes.set_xlabel("environment steps (of which the first 1,000 at random)")
    axes.set_ylabel("return, mean of 10 episodes")
    axes.set_title(
        "Pendulum: environment steps until the mean return is -200\n"
        f"N-PPAC: {first['nppac']}   SAC: {first['sac']}"
    )
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


def main(argv: list[str] | None = None) -> None:
    """Trains where asked to, draws, and prints the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_seeds", type=int, default=0, help="To train; 0 draws only.")
    parser.add_argument("--folder", type=pathlib.Path, default=FOLDER, help="Of table and figure.")
    options = parser.parse_args(argv)
    table = options.folder / "pendulum.csv"
    if options.num_seeds:
        train(options.num_seeds, table)
    steps, curves = read(table)
    draw(steps, curves, options.folder / "pendulum.png")
    for agent, returns in curves.items():
        print(f"{NAMES[agent]}: solved for good after {steps_to_solve(steps, returns)} steps")
        print(f"  at the end {returns[:, -1].mean():.0f}, over all steps {returns.mean():.0f}")


if __name__ == "__main__":
    main()
