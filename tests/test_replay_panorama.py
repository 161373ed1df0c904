import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image
from stand_in_panorama import draw_panorama

from generation.errors import InvalidSpecError, LayoutError, MissingFileError
from generation.geo.layout import PALETTE
from generation.media.artifact import read_artifact, save_render
from generation.media.gpano import jpeg_texts
from generation.media.image import png_bytes
from generation.media.panorama import panorama_jpeg
from generation.replay import compare, render_again
from generation.spec import RunSpec


def replay(path, renderer=draw_panorama):
    artifact = read_artifact(path)
    return compare(artifact, render_again(artifact, renderer))


@pytest.fixture
def views(tmp_path):
    paths = [tmp_path / name for name in ("a.jpg", "b.jpg")]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]))
    return paths


@pytest.fixture
def spec(views):
    return RunSpec.from_dict(
        {
            "kind": "panorama", "lat": 45.98, "lon": 7.66, "heading": 90, "size": 64, "seed": 7,
            "views": [f"{path}@45.9,7.7,120" for path in views],
        }
    ).pinned()  # fmt: skip


@pytest.fixture
def paths(spec, tmp_path):
    return save_render(draw_panorama(spec), tmp_path / "out")


def test_the_same_model_draws_the_same_panorama(paths):
    for path in (paths[0], paths[-1]):
        verdict = replay(path)
        assert verdict.equal
        assert verdict.text == "equal"


def test_a_panorama_that_is_nearly_the_same_is_close(paths):
    def nearly(spec, **_):
        render = draw_panorama(spec, model_sha256="cd" * 32)
        return dataclasses.replace(render, image=render.image // 8 * 8)

    verdict = replay(paths[0], nearly)
    assert not verdict.equal
    assert verdict.text.startswith("close: PSNR 3")
    assert "provenance.model_sha256: abababababab… -> cdcdcdcdcdcd…" in verdict.text


def test_another_panorama_is_not_equal(paths):
    def other(spec, **_):
        return dataclasses.replace(draw_panorama(spec), image=255 - draw_panorama(spec).image)

    assert replay(paths[0], other).text.startswith("not equal: PSNR")


def test_a_panorama_painted_over_is_found_out(paths, spec):
    kept, render = jpeg_texts(paths[0].read_bytes()), draw_panorama(spec)
    black = np.zeros_like(render.image)
    place = {"heading_deg": 90.0, "place": render.place}
    paths[0].write_bytes(panorama_jpeg(black, render.band, texts=kept, **place))
    assert "pixels were changed after it was made" in replay(paths[0]).text


def test_a_panorama_encoded_anew_without_its_record_carries_nothing(paths):
    with Image.open(paths[0]) as image:
        image.load()
    image.save(paths[0], quality=95)
    with pytest.raises(InvalidSpecError, match="carries no RunSpec"):
        replay(paths[0])


@pytest.mark.parametrize("ending", [".front.jpg", ".overlay.png", ".satellite.png"])
def test_a_crop_or_an_overlay_that_was_changed_is_told_from_the_manifest(ending, paths):
    file = next(path for path in paths if path.name.endswith(ending))
    file.write_bytes(file.read_bytes() + b"x")
    assert replay(paths[-1]).text == f"not equal: {file.name} has changed since it was written"
    assert replay(paths[0]).equal


def test_a_view_that_is_gone_or_changed_is_named_with_its_fingerprint(paths, views, spec):
    views[0].write_bytes(b"other")
    with pytest.raises(InvalidSpecError, match=r"view='.*a\.jpg' has changed since"):
        replay(paths[0])
    views[0].unlink()
    with pytest.raises(MissingFileError, match=rf"a\.jpg' is no file.*{spec.views[0].sha256}"):
        replay(paths[-1])


def test_views_that_moved_along_with_the_panorama_are_found(paths, views, spec, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(paths[0].parent, moved)
    views[0].rename(moved / "a.jpg")
    (moved / views[1].parent.name).mkdir()  # as deep as it lay
    views[1].rename(moved / views[1].parent.name / "b.jpg")
    assert replay(moved / paths[0].name).text == "equal"
    (moved / "a.jpg").write_bytes(b"another")
    with pytest.raises(MissingFileError, match=r"a\.jpg' is no file whose.*nor does it lie beside"):
        replay(moved / paths[0].name)
    views[0].write_bytes(b"changed")
    with pytest.raises(InvalidSpecError, match=r"view='.*a\.jpg' has changed since"):
        replay(moved / paths[0].name)


def test_a_layout_that_is_gone_is_replaced_for_panoramas_too(tmp_path):
    layout = tmp_path / "mine.png"
    layout.write_bytes(png_bytes(PALETTE[np.arange(64)[None].repeat(64, 0) % 4]))
    spec = RunSpec(kind="panorama", lat=1.0, lon=2.0, size=64, layout=str(layout)).pinned()
    paths = save_render(draw_panorama(spec), tmp_path / "out")
    layout.unlink()
    assert replay(paths[0]).text == "equal"
    next(path for path in paths if path.name.endswith(".layout.png")).unlink()
    with pytest.raises(LayoutError, match=r"cannot be used.*layout.png beside it"):
        replay(paths[0])


def test_no_map_is_missed_where_none_was_drawn(tmp_path):
    spec = RunSpec(kind="panorama", lat=1.0, lon=2.0, size=64, satellite="none")
    path = save_render(draw_panorama(spec, online=True), tmp_path)[0]
    assert replay(path, lambda spec, **_: draw_panorama(spec, online=True)).text == "equal"
