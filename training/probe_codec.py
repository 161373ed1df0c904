"""Compare ways to hold a tile in latents by what is left of real tiles on the way back.

    python -m training.probe_codec --fit 'DIR/train-00000.parquet' --test 'DIR/test-*.parquet'

The linear codec is fitted with several numbers of channels; the decoder of an embedded model is
asked at several shares of noise. Controls: the tiles themselves, and tiles blurred four times.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from generation.atomic import atomic_path
from generation.diffusion.codec import PatchCodec, to_bytes, to_signal
from generation.errors import OutputError, TerrascapeError
from generation.pipelines.satellite import SatellitePipeline, load_pipeline
from generation.pipelines.scene import Scene
from training.data import list_files, read_rows
from training.evaluate_geosynth import scenes_of
from training.evaluate_tiles import Tiles, read_tiles
from training.metrics import Images, LiteFeatures, blur, gradient_energy, kid, psnr

CHANNELS = (8, 16, 32)
SHARES = (0.0, 0.05, 0.1, 0.15)
GAMMA = 0.5
_BATCH = 16


def ways(
    fit: Images, tiles: Tiles, pipeline: SatellitePipeline
) -> Iterator[tuple[str, Callable[[slice], Images]]]:
    """List names and functions that take some of the tiles there and back."""
    for channels in CHANNELS:
        codec = PatchCodec.fit(fit, latent_channels=channels, gamma=GAMMA)
        yield f"linear, {channels} channels", partial(_back, codec, tiles)
    scenes = scenes_of(tiles, 0)
    for share in SHARES:
        pipeline.decoder.hand_over = share
        yield f"decoder, {share:g} of noise", partial(_through, pipeline, tiles, scenes)


def _through(
    pipeline: SatellitePipeline, tiles: Tiles, scenes: Sequence[Scene], rows: slice
) -> Images:
    return pipeline.reconstruct(scenes[rows], tiles.images[rows])


def _back(codec: PatchCodec, tiles: Tiles, rows: slice) -> Images:
    return to_bytes(codec.decode(codec.encode(to_signal(tiles.images[rows]))))


def score(images: Images, tiles: Tiles, ruler: LiteFeatures) -> dict[str, float]:
    """Return lite-KID, gradient energy over that of the tiles, and PSNR."""
    apart = kid(
        ruler(images), ruler(tiles.images), subset_size=min(200, len(tiles) // 2), paired=True
    )
    energy = gradient_energy(images).mean() / gradient_energy(tiles.images).mean()
    decibel = np.minimum(psnr(images, tiles.images), 60.0).mean()
    return {
        "lite_kid": round(apart.mean, 4),
        "gradient_energy": round(float(energy), 3),
        "psnr_db": round(float(decibel), 1),
    }


def main(argv: list[str] | None = None) -> None:
    """Fit, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fit", required=True, help="pattern of Parquet files to fit codecs on")
    parser.add_argument("--test", required=True, help="pattern of Parquet files to measure on")
    parser.add_argument("--limit", type=int, default=128, help="tiles to measure")
    parser.add_argument("--model", default="satellite-nano")
    parser.add_argument("--out", type=Path, help="also write the table here, a new .json file")
    args = parser.parse_args(argv)
    try:
        if args.out is not None and args.out.exists():
            raise OutputError(f"{args.out} exists and is not overwritten (choose another)")
        tiles = read_tiles(list_files(args.test), limit=args.limit)
        fit = np.stack([row.image for row in read_rows(list_files(args.fit))][:1000])
        ruler = LiteFeatures()
        table = {
            "real tiles": score(tiles.images, tiles, ruler),
            "blurred 4x": score(blur(tiles.images), tiles, ruler),
        }
        for name, back in ways(fit, tiles, load_pipeline(args.model)):
            steps = range(0, len(tiles), _BATCH)
            images = np.concatenate([back(slice(at, at + _BATCH)) for at in steps])
            table[name] = score(images, tiles, ruler)
            sys.stderr.write(f"{name}: {table[name]}\n")
        text = json.dumps(table, indent=2)
        if args.out is not None:
            with atomic_path(args.out) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")
    except TerrascapeError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
    print(text)


if __name__ == "__main__":
    main()
