import numpy as np
import pytest
from stand_in import draw, repaint

from generation.errors import LayoutError
from generation.geo.layout import CLASSES, PALETTE
from generation.media.artifact import read_artifact, save_render
from generation.media.image import open_rgb, png_bytes, png_text
from generation.replay import compare, psnr_db, render_again
from generation.spec import RunSpec


def replay(path, renderer=draw):
    artifact = read_artifact(path)
    return compare(artifact, render_again(artifact, renderer))


@pytest.fixture
def spec():
    return RunSpec(lat=45.98, lon=7.66, seed=7, size=64)


@pytest.fixture
def paths(spec, tmp_path):
    png, tif, layout, manifest = save_render(draw(spec), tmp_path / "out")
    return {"png": png, "tif": tif, "layout": layout, "json": manifest}


@pytest.mark.parametrize("kind", ["png", "tif", "json"])
def test_the_same_model_draws_the_same(paths, kind):
    verdict = replay(paths[kind])
    assert verdict.equal
    assert verdict.text == "equal"
    assert verdict.differences == ()


def test_other_versions_that_draw_the_same_are_equal_and_named(paths):
    verdict = replay(paths["png"], lambda spec, **options: draw(spec, version="2", **options))
    assert verdict.equal
    assert "provenance.versions.torch: 1 -> 2" in verdict.text


def nearly(spec, **options):
    render = draw(spec, model_sha256="cd" * 32, **options)
    return repaint(render, image=render.image ^ 1)


def test_close_is_told_with_psnr_and_the_cause(paths):
    verdict = replay(paths["png"], nearly)
    assert not verdict.equal
    assert verdict.text.startswith("close: PSNR 48.1 dB")
    assert "provenance.model_sha256: abababababab… -> cdcdcdcdcdcd…" in verdict.text
    assert verdict.psnr_db == pytest.approx(48.13, abs=0.01)


def test_another_picture_is_not_equal(paths):
    verdict = replay(
        paths["tif"], lambda spec, **_: repaint(draw(spec), image=255 - draw(spec).image)
    )
    assert verdict.text.startswith("not equal: PSNR")
    assert "rounds differently" in verdict.text


def test_a_painted_over_picture_is_found_out(paths):
    artifact = read_artifact(paths["png"])
    other = repaint(draw(artifact.spec), image=np.zeros((64, 64, 3), np.uint8))
    kept = png_text(paths["png"].read_bytes())
    paths["png"].write_bytes(png_bytes(other.image, kept))
    verdict = replay(paths["png"])
    assert not verdict.equal
    assert "pixels were changed after it was made" in verdict.text


def test_the_same_picture_with_another_record_is_not_equal(paths):
    verdict = replay(paths["png"], lambda spec, **_: draw(spec, model_sha256="cd" * 32))
    assert not verdict.equal
    assert "the picture is the same, but its record is not" in verdict.text


def test_a_file_encoded_anew_is_equal_by_its_pixels(paths):
    texts = png_text(paths["png"].read_bytes())
    paths["png"].write_bytes(png_bytes(open_rgb(paths["png"]), {**texts, "Comment": "nice"}))
    verdict = replay(paths["png"])
    assert verdict.equal
    assert "encoded anew" in verdict.text


def test_a_manifest_whose_files_changed_is_not_equal(paths):
    paths["tif"].write_bytes(b"")
    verdict = replay(paths["json"])
    assert verdict.text == f"not equal: {paths['tif'].name} has changed since it was written"


def test_a_manifest_without_its_picture_says_so(paths):
    paths["png"].unlink()
    assert "png is missing" in replay(paths["json"]).text


def test_another_size_is_told(paths):
    def larger(spec, **_):
        return draw(RunSpec(lat=spec.lat, lon=spec.lon, size=72))

    assert "sizes 64x64 and 72x72" in replay(paths["png"], larger).text


@pytest.fixture
def drawn_layout(tmp_path):
    path = tmp_path / "mine.png"
    path.write_bytes(png_bytes(PALETTE[np.arange(64)[None].repeat(64, 0) % len(CLASSES)]))
    return path


def test_a_layout_file_that_is_gone_is_replaced_by_its_saved_copy(drawn_layout, tmp_path):
    spec = RunSpec(lat=1.0, lon=2.0, size=64, layout=str(drawn_layout)).pinned()
    png, tif, saved, manifest = save_render(draw(spec), tmp_path / "out")
    drawn_layout.write_bytes(png_bytes(PALETTE[np.zeros((64, 64), int)]))  # changed
    assert replay(png).text == "equal"
    drawn_layout.unlink()  # gone
    for path in (png, tif, manifest):
        assert replay(path).text == "equal"
    saved.write_bytes(png.read_bytes())
    with pytest.raises(LayoutError, match=r"cannot be used.*layout.png beside it.*put one"):
        replay(png)


def test_a_layout_from_the_network_is_taken_from_its_saved_copy(spec, tmp_path):
    paths = save_render(draw(spec, online=True), tmp_path)

    def changed_world(spec, **options):
        assert spec.layout_path is not None
        return draw(spec, online=False, **options)

    assert replay(paths[0], changed_world).text == "equal"
    paths[2].unlink()
    with pytest.raises(LayoutError, match="came from the network"):
        replay(paths[0])


def test_psnr_matches_its_definition():
    a = np.zeros((4, 4, 3), np.uint8)
    assert psnr_db(a, a) == float("inf")
    assert psnr_db(a, a + np.uint8(255)) == pytest.approx(0)
    assert psnr_db(a, a + np.uint8(1)) == pytest.approx(48.1308, abs=1e-4)
