"""Pictures of a run: curves, confusion matrix, mistakes.

Drawn with matplotlib's Agg canvas, without pyplot, so that neither a display nor global state is
needed. The colours are those of Okabe and Ito, told apart with every kind of colour vision.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stepgraph.checkpoints.files import write_file
from stepgraph.errors import CheckpointError, describe
from stepgraph.runs.scoring import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design", 2008.
BLUE, ORANGE = "#0072B2", "#D55E00"
_INK, _SOFT, _GRID = "#222222", "#6b6b6b", "#e4e4e4"
_DPI = 150
_WRITTEN_CELLS = 25  # up to so many classes the confusion matrix shows its numbers
_SHOWN_MISTAKES = 24


@dataclass(frozen=True)
class Picture:
    """A figure ready to be written."""

    figure: Figure

    def save(self, path: Path) -> None:
        """Writes it as PNG, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        data = io.BytesIO()
        self.figure.savefig(data, format="png", dpi=_DPI, metadata={"Software": "stepgraph"})
        write_file(path, data.getvalue())


def curves(records: Sequence[dict[str, Any]], title: str) -> Picture:
    """Loss and accuracy over the steps, on the batches and on the test set.

    Args:
        records: of ``metrics.jsonl``.
        title: what was trained on what.

    Raises:
        CheckpointError: there are no records.
    """
    if not records:
        raise CheckpointError(describe("plot", "metrics.jsonl holds no step yet"))
    figure = _figure(10, 4.4)
    steps = np.array([r["step"] for r in records])
    ends = [r for r in records if "val_loss" in r]
    at = [r["step"] for r in ends]
    for place, (key, name) in enumerate((("loss", "loss"), ("accuracy", "accuracy"))):
        axes = figure.add_subplot(1, 2, place + 1)
        share = key == "accuracy"
        scale = 100.0 if share else 1.0
        values = scale * np.array([r[key] for r in records], np.float64)
        smooth = _smoothed(values)
        axes.plot(steps, values, color=BLUE, alpha=0.22, linewidth=0.8)
        axes.plot(steps, smooth, color=BLUE, linewidth=1.8, label="training batches")
        if ends:
            tested = [scale * r[f"val_{key}"] for r in ends]
            axes.plot(
                at,
                tested,
                color=ORANGE,
                linewidth=1.8,
                marker="o",
                markersize=4.5,
                label="test set",
            )
            text = f"{tested[-1]:.1f} %" if share else f"{tested[-1]:.3f}"
            _name_last(axes, at[-1], tested[-1], text, below=share)
        _plain(axes)
        axes.set_xlim(0, steps[-1] * 1.02 + 0.5)
        axes.set_xlabel("step")
        axes.set_title(name.capitalize() + (" (%)" if share else " (cross entropy)"), loc="left")
        if share:
            lowest = min([99.0, float(smooth.min()), *(100.0 * r["val_accuracy"] for r in ends)])
            axes.set_ylim(lowest - 2, 101.5)
        else:
            _log_if_wide(axes, smooth)
        axes.legend(frameon=False, loc="lower right" if share else "upper right")
        _epochs(axes, records)
    figure.suptitle(title, x=0.012, ha="left", fontsize=12, fontweight="bold", color=_INK)
    return Picture(figure)


def confusion(table: NDArray[np.int64], names: Sequence[str], accuracy: float) -> Picture:
    """What is taken for what: rows are true classes, columns predictions.

    Colour shows the share of a row, so that rare classes are seen as well as frequent ones.

    Args:
        table: counts.
        names: of the classes.
        accuracy: for the title.
    """
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    classes = len(names)
    size = float(np.clip(0.52 * classes + 2.2, 5.5, 13.0))
    figure = _figure(size + 0.9, size)
    axes = figure.add_subplot()
    there = np.maximum(table.sum(axis=1, keepdims=True), 1)
    share = 100.0 * table / there
    # A root scale: a few mistakes among hundreds are what one looks for.
    image = axes.imshow(
        share,
        cmap=LinearSegmentedColormap.from_list("shares", ["#ffffff", "#7fb8d8", BLUE, "#00304d"]),
        norm=PowerNorm(0.5, 0, 100),
        interpolation="nearest",
    )
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, ticks=[0, 5, 25, 50, 75, 100])
    bar.set_label("share of the true class (%)", color=_SOFT)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, colors=_SOFT)
    ticks = range(classes) if classes <= 40 else range(0, classes, max(classes // 20, 1))
    longest = max(map(len, names))
    axes.set_xticks(
        ticks,
        [names[i] for i in ticks],
        rotation=0 if longest <= 3 else 45,
        ha="center" if longest <= 3 else "right",
        rotation_mode="anchor" if longest > 3 else "default",
    )
    axes.set_yticks(ticks, [names[i] for i in ticks])
    axes.tick_params(length=0, colors=_INK)
    if classes <= _WRITTEN_CELLS:
        for row, column in np.argwhere(table > 0):
            axes.text(
                column,
                row,
                f"{table[row, column]}",
                ha="center",
                va="center",
                fontsize=9 if classes <= 15 else 7,
                color="white" if share[row, column] > 30 else _INK,
            )
    for edge in axes.spines.values():
        edge.set_visible(False)
    if classes <= 40:
        axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
        axes.grid(which="minor", color=_GRID, linewidth=0.8)
        axes.tick_params(which="minor", length=0)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    wrong = int(table.sum() - np.trace(table))
    axes.set_title(
        f"{100 * accuracy:.1f} % right, {wrong:,} of {int(table.sum()):,} mistaken",
        loc="left",
        pad=12,
        fontweight="bold",
    )
    return Picture(figure)


def mistakes(images: NDArray[Any], scores: Scores, names: Sequence[str]) -> Picture:
    """The pictures that the network is most wrongly sure about.

    Args:
        images: ``(N, H, W, C)``, uint8, or float of any range.
        scores: predictions on them.
        names: of the classes.
    """
    predicted = scores.predicted
    chosen = scores.worst(_SHOWN_MISTAKES)
    columns = min(8, max(len(chosen), 1))
    rows = max(-(-len(chosen) // columns), 1)
    figure = _figure(max(1.45 * columns, 5.5), 1.85 * rows + 0.75)
    total = len(scores.labels)
    if len(chosen) == 0:
        axes = figure.add_subplot()
        axes.axis("off")
        axes.text(
            0.5, 0.5, f"no mistakes in {total:,} pictures", ha="center", va="center", fontsize=14
        )
        return Picture(figure)
    for place, index in enumerate(chosen):
        axes = figure.add_subplot(rows, columns, place + 1)
        picture = _shown(images[index])
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        for edge in axes.spines.values():
            edge.set_color(_GRID)
        chance = 100 * scores.probabilities[index, predicted[index]]
        axes.set_title(
            f"{_short(names[predicted[index]])} ({chance:.0f} %)", fontsize=9, color=ORANGE, pad=4
        )
        axes.set_xlabel(
            f"is {_short(names[scores.labels[index]])}", fontsize=9, color=BLUE, labelpad=3
        )
    wrong = int((predicted != scores.labels).sum())
    shown = "all" if len(chosen) == wrong else f"the {len(chosen)} surest"
    figure.suptitle(
        f"Mistakes: {shown} of {wrong:,} in {total:,} pictures\n"
        "above each what the network says, below what it is",
        x=0.012,
        ha="left",
        fontsize=12,
        fontweight="bold",
        color=_INK,
    )
    return Picture(figure)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _plain(axes: Axes) -> None:
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_SOFT)
    axes.tick_params(colors=_SOFT, length=0)
    axes.title.set_color(_INK)
    axes.xaxis.label.set_color(_SOFT)


def _name_last(axes: Axes, x: float, y: float, text: str, below: bool) -> None:
    axes.annotate(
        text,
        (x, y),
        xytext=(-4, -18 if below else 9),
        textcoords="offset points",
        ha="right",
        color=ORANGE,
        fontweight="bold",
    )


def _epochs(axes: Axes, records: Sequence[dict[str, Any]]) -> None:
    """A second scale above that counts epochs, if there are several."""
    first = [i for i, r in enumerate(records) if i == 0 or r["epoch"] != records[i - 1]["epoch"]]
    if len(first) < 2:
        return
    from matplotlib.ticker import MaxNLocator

    per_epoch = records[first[1]]["step"] - records[first[0]]["step"]
    scale = axes.secondary_xaxis(
        "top", functions=(lambda s: s / per_epoch, lambda e: e * per_epoch)
    )
    scale.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    scale.set_xlabel("epoch", color=_SOFT)
    scale.tick_params(colors=_SOFT, length=0)
    scale.spines["top"].set_visible(False)


def _smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A centred mean over about a fortieth of the run."""
    half = len(values) // 80
    if half == 0:
        return values
    total = np.cumsum(np.concatenate([[0.0], values]))
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    smooth: NDArray[np.float64] = (total[high] - total[low]) / (high - low)
    return smooth


def _log_if_wide(axes: Axes, smooth: NDArray[np.float64]) -> None:
    positive = smooth[smooth > 0]
    if len(positive) and positive.max() > 30 * positive.min():
        from matplotlib.ticker import FuncFormatter, NullFormatter

        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)


def _shown(image: NDArray[Any]) -> NDArray[np.float64]:
    picture = image.astype(np.float64)
    if image.dtype == np.uint8:
        picture /= 255
    else:
        low, high = picture.min(), picture.max()
        picture = (picture - low) / (high - low or 1.0)
    return picture[..., 0] if picture.shape[-1] == 1 else picture[..., :3]


def _short(name: str) -> str:
    return name if len(name) <= 12 else name[:11] + "…"
