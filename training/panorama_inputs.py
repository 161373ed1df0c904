"""What the recipes of panoramas share: inputs that are left out, and panels of fixed places."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from generation.diffusion.surroundings import Surroundings
from training.panorama_data import PanoramaDataset, surroundings

PANEL_VIEWS = (0, 1, 3)
"""How many panoramas the drawn columns of a panel were given."""
Draw = Callable[[Surroundings, list[int]], UInt8[np.ndarray, "batch height width 3"]]


def leave_out(around: Surroundings, *, drop_satellite: float, keep_depth: float) -> Surroundings:
    """Leave out some of what is there: none to all panoramas, the satellite image, depths.

    Args:
        around: All that is there.
        drop_satellite: Probability that a place is told no satellite image.
        keep_depth: Probability that it is told its depths.
    """
    count, slots = around.valid.shape
    device = around.valid.device
    most = torch.randint(0, slots + 1, (count, 1), device=device)
    valid = around.valid & (torch.arange(slots, device=device) < most)
    keep = torch.rand(count, device=device) >= drop_satellite
    told = torch.rand(count, device=device) < keep_depth
    return replace(
        around,
        valid=valid,
        has_satellite=around.has_satellite & keep,
        has_depth=around.has_depth & told,
    )


def save_panel(path: Path, dataset: PanoramaDataset, rows: int, draw: Draw) -> None:
    """Save a sheet of fixed places: nearest panorama, drawn with 0, 1 and 3 of them, real.

    Args:
        path: The PNG file.
        dataset: Where the places are from, evenly spread.
        rows: How many.
        draw: Gives panoramas for surroundings and seeds.
    """
    count = min(rows, len(dataset))
    chosen = np.linspace(0, len(dataset) - 1, count).astype(int).tolist()
    batch = torch.utils.data.default_collate([dataset[index, 0] for index in chosen])
    around = surroundings(batch)
    around = replace(around, has_depth=torch.zeros_like(around.has_depth))
    slots = torch.arange(around.valid.shape[1])
    drawn = [
        draw(replace(around, valid=around.valid & (slots < views)), chosen) for views in PANEL_VIEWS
    ]
    columns = [batch["panoramas"][:, 0].numpy(), *drawn, batch["image"].numpy()]
    sheet = np.concatenate([np.concatenate(list(column)) for column in columns], axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path)
