"""Style that the claims' figures share."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Label and color of each prior class, in the order of tables and legends: Okabe and Ito's palette,
# safe for color blindness. "exact_gp" is in runs of earlier versions.
CLASSES: Mapping[str, tuple[str, str]] = {
    "gp": ("GP", "#0072B2"),
    "sparse_gp": ("sparse GP", "#56B4E9"),
    "exact_gp": ("exact GP", "#0072B2"),
    "gaussian_network": ("maximum-likelihood net", "#D55E00"),
    "ensemble": ("ensemble", "#E69F00"),
    "bayesian_network": ("Bayesian network", "#CC79A7"),
    "dropout": ("dropout", "#7F7F7F"),
}


def new_figure(size: tuple[float, float], title: str) -> Figure:
    """An empty figure of `size` inches with a title."""
    drawing = Figure(figsize=size, layout="constrained")
    drawing.suptitle(title, fontsize="medium", fontweight="bold")
    return drawing


def finish(drawing: Figure, legend_of: Axes | None = None, columns: int = 3) -> Figure:
    """Adds grids, removes frames, and puts one legend below all panels.

    Args:
        drawing: Changed in place.
        legend_of: Panel whose labels the legend shows; no legend if None.
        columns: Columns of the legend.
    """
    if legend_of is not None:
        drawing.legend(
            *legend_of.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=columns,
            fontsize="small",
            frameon=False,
        )
    for axis in drawing.axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return drawing


def signed(text: str) -> str:
    """Writes minus signs as minus signs, not hyphens."""
    return text.replace("-", "−")
