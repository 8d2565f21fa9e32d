"""What can be chosen before training: tables, and what becomes of a choice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stepgraph
from stepgraph.applications import APPLICATIONS
from stepgraph.checkpoints.files import write_file

BATCHES = (8, 16, 32, 64, 128, 256)
EPOCHS = (1, 2, 5, 10, 20, 30)
TEXT_SIZES: dict[str, float] = {"normal": 1.0, "large": 1.25, "larger": 1.5}

# Title to (name for `stepgraph.datasets.load`, None where a folder is chosen; what it is).
DATASETS: dict[str, tuple[str | None, str]] = {
    "Handwritten digits": ("digits", "1,797 pictures that come with the app"),
    "Fashion-MNIST": ("fashion-mnist", "70,000 pictures of clothes, from a folder or archive"),
    "CIFAR-10": ("cifar10", "60,000 pictures of ten things, from a folder or archive"),
    "Own photos": (None, "a folder with a folder of pictures for each class"),
}

# Title to name in `APPLICATIONS`.
NETWORKS: dict[str, str] = {
    "ResNet-50": "resnet50",
    "ResNet-18": "resnet18",
    "MobileNetV2": "mobilenet_v2",
    "Vision transformer": "vit",
    "MLP": "mlp",
    "LeNet-5": "lenet5",
    "Small CNN": "cnn",
}


@dataclass(frozen=True)
class Choices:
    """What was chosen; the defaults are the talk's network on pictures that come with the app.

    Attributes:
        dataset: a title in `DATASETS`.
        place: folder or archive of a data set that does not come with the app.
        network: a title in `NETWORKS`.
        device: a name in `stepgraph.devices`.
        batch: pictures a step.
        epochs: passes over the training set.
        text: a name in `TEXT_SIZES`.
    """

    dataset: str = "Handwritten digits"
    place: str = ""
    network: str = "ResNet-50"
    device: str = ""
    batch: int = 32
    epochs: int = 10
    text: str = "normal"

    def settings(self) -> dict[str, Any]:
        """As `stepgraph.runs.beginning.settle_new` takes them."""
        name, _ = DATASETS[self.dataset]
        found: dict[str, Any] = {
            "model": NETWORKS[self.network],
            "device": self.device or usable_devices()[0],
            "batch_size": self.batch,
            "epochs": self.epochs,
        }
        if name is None:
            return {**found, "dataset": self.place}
        return {**found, "dataset": name, **({"data": self.place} if self.place else {})}

    def lacks(self) -> str:
        """What has to be chosen yet; "" for nothing."""
        if self.dataset == "Own photos" and not self.place:
            return "Choose the folder with your photos first."
        return ""


def usable_devices() -> list[str]:
    """Devices that can be used here, the best first: a GPU where there is one."""
    found = [n for n, about in stepgraph.devices().items() if not about.startswith("not available")]
    return sorted(found, key=lambda name: ["mps", "cpu", "reference"].index(name))


def network_title(name: str) -> str:
    """The title of a network."""
    return next((title for title, known in NETWORKS.items() if known == name), name)


def size_of(title: str) -> str:
    """How many weights a network has."""
    count = APPLICATIONS[NETWORKS[title]].parameters
    return f"{count / 1e6:.1f} million weights" if count >= 1e6 else f"{count:,} weights"


def load(path: Path) -> Choices:
    """What was chosen last time; the defaults where that cannot be read."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        made = Choices(**values)
    except (OSError, ValueError, TypeError):
        return Choices()
    tables: Mapping[str, Any] = {"dataset": DATASETS, "network": NETWORKS, "text": TEXT_SIZES}
    fits = all(getattr(made, name) in table for name, table in tables.items())
    fits = fits and made.batch in BATCHES and made.epochs in EPOCHS
    return made if fits and made.device in ("", *usable_devices()) else Choices()


def save(path: Path, choices: Choices) -> None:
    """Keeps a choice for the next start; that it cannot be kept is no reason to stop anything."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, json.dumps(vars(choices), indent=2).encode())
    except OSError:
        return
