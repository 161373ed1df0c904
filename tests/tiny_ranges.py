"""A model of ranges with random weights, in the layout of the embedded one, and made-up ranges."""

import csv

import numpy as np
import torch

TAXA = [
    (order, family, genus, species)
    for order, family, genera in (
        ("Carnivora", "Felidae", ("Felidus", "Felimys", "Felella")),
        ("Rodentia", "Muridae", ("Muridus", "Murimys", "Murella")),
    )
    for genus in genera
    for species in ("albus", "major", "minor", "silvestris")
]
"""Of these, the first genus and three of the species are held out by their names."""


def save_range_model(home):
    """Save it with its names."""
    from generation.checkpoint import save_part, save_safetensors
    from generation.encoders.range_encoder import EMBEDDED
    from generation.encoders.range_encoder import TAXA as FILE
    from generation.encoders.ranges import RangeModel
    from generation.encoders.taxonomy import Taxonomy
    from generation.encoders.text import TextEncoder
    from generation.geo.environment import VARIABLES

    torch.manual_seed(0)
    model = RangeModel(variables=list(VARIABLES), degree=3, width=8, blocks=1, dim=8, queries=1)
    folder = home / "ranges-nano"
    save_part(model, folder)
    table = Taxonomy(TAXA, [number % 4 != 3 for number in range(len(TAXA))])
    table.write(folder / FILE)
    with torch.no_grad():
        taxa = model.eval().embed_taxa(*TextEncoder()(table.strings))
    save_safetensors({"taxa": taxa}, folder / EMBEDDED)


def write_ranges(folder):
    """Write ranges of those species as PHYLACINE is packed: each genus in a part of the world."""
    rows, cols, step = 6, 12, 2_900_000.0
    rng = np.random.default_rng(0)
    bits = np.zeros((len(TAXA) + 1, rows * cols), bool)
    for number in range(len(TAXA)):
        first = 12 * (number // 4) % (rows * cols - 12)
        bits[number, first : first + 8] = rng.random(8) < 0.7
        bits[number, first] = True
    names = ["_".join(ranks[2:]) for ranks in TAXA] + ["Nemo_extinctus"]
    np.savez_compressed(
        folder / "ranges.npz",
        bits=np.packbits(bits, axis=1),
        names=np.array(names),
        shape=np.array([rows, cols]),
        transform=np.array([step, 0.0, -17_367_529.0, 0.0, -2_400_000.0, 7_200_000.0]),
    )
    with (folder / "traits.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Binomial.1.2", "Order.1.2", "Family.1.2", "Genus.1.2", "Species.1.2"])
        rows_of = [*TAXA, ("Nullia", "Nemidae", "Nemo", "extinctus")]
        writer.writerows([name, *ranks] for name, ranks in zip(names, rows_of, strict=True))
