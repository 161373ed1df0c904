import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from stand_in_panorama import BAND, noise, sphere

from generation.errors import InvalidSpecError, MissingFileError
from generation.geo.location import Location
from generation.geo.sphere import Band
from generation.media.gpano import jpeg_texts, read_gpano, read_place
from generation.media.image import PNG_MAGIC, decode_photo
from generation.media.panorama import (
    PanoramaFile,
    open_panorama,
    panorama_jpeg,
    panorama_texts,
    placed_view,
    to_band,
)
from generation.spec import ViewSpec

MATTERHORN = Location(45.98, 7.66)


def saved(path, rgb, **options):
    Image.fromarray(rgb).save(path, **options)
    return path


def gpano(**properties):
    told = "".join(f' GPano:{key}="{value}"' for key, value in properties.items())
    return f"<x:xmpmeta><rdf:Description{told}/></x:xmpmeta>".encode()


def cropped(full=(256, 128), size=(256, 64), at=(0, 32), **others):
    names = ("FullPanoWidthPixels", "FullPanoHeightPixels")
    names += ("CroppedAreaImageWidthPixels", "CroppedAreaImageHeightPixels")
    names += ("CroppedAreaLeftPixels", "CroppedAreaTopPixels")
    return gpano(**dict(zip(names, (*full, *size, *at), strict=True)), **others)


def opened(pixels, band):
    return PanoramaFile(pixels, band, None, None, ())


def test_twice_as_wide_as_high_is_the_whole_sphere(tmp_path):
    panorama = open_panorama(saved(tmp_path / "a.png", sphere()))
    assert panorama.band == Band(128, 256, 90.0, -90.0)
    assert (panorama.heading_deg, panorama.place, panorama.notes) == (None, None, ())
    np.testing.assert_array_equal(panorama.pixels, sphere())


@pytest.mark.parametrize(
    "xmp",
    [
        cropped(PoseHeadingDegrees="120.5"),
        cropped(full=(512, 256), size=(512, 128), at=(0, 64), PoseHeadingDegrees="480.5"),
        cropped(PoseHeadingDegrees="120.5", ProjectionType="equirectangular").replace(
            b' GPano:CroppedAreaTopPixels="32"/>',
            b"><GPano:CroppedAreaTopPixels> 32 </GPano:CroppedAreaTopPixels>",
        ),
    ],
)
def test_gpano_tags_tell_the_elevations_and_the_heading(xmp, tmp_path):
    panorama = open_panorama(saved(tmp_path / "a.jpg", noise(0, 64, 256), xmp=xmp))
    assert panorama.band == Band(64, 256, 45.0, -45.0)
    assert panorama.heading_deg == 120.5


@pytest.mark.parametrize("shape", [(100, 130), (64, 256), (128, 200), (256, 128)])
def test_what_is_not_equirectangular_is_refused(shape, tmp_path):
    path = saved(tmp_path / "a.png", np.zeros((*shape, 3), np.uint8))
    with pytest.raises(InvalidSpecError, match=r"a.png has .* px, [\d.]+ times.*not equirect"):
        open_panorama(path)


@pytest.mark.parametrize(
    ("xmp", "said"),
    [
        (gpano(ProjectionType="cylindrical"), "'cylindrical' panorama"),
        (gpano(FullPanoWidthPixels="256"), "without FullPanoHeightPixels, Cropped"),
        (cropped(full=("wide", 128)), "FullPanoWidthPixels='wide', which is no number"),
        (cropped(full=("nan", 128)), "is no number"),
        (cropped(at=(0, 100)), "do not fit together.*256x64 at 0, 100 in 256x128"),
        (cropped(full=(256, 0)), "do not fit together"),
        (cropped(full=(0, 0), size=(0, 0)), "do not fit together"),
        (cropped(full=(512, 256), size=(256, 64)), "covers 180 of 360 degrees of azimuth"),
        (cropped(size=(256, 100), at=(0, 0)), "not equirectangular, where it is 2.56"),
        (gpano(PoseHeadingDegrees="inf"), "PoseHeadingDegrees='inf'"),
    ],
)
def test_gpano_tags_that_tell_another_story_are_refused(xmp, said, tmp_path):
    with pytest.raises(InvalidSpecError, match=said):
        open_panorama(saved(tmp_path / "a.jpg", noise(0, 64, 256), xmp=xmp))


def test_a_hostile_xmp_packet_is_neither_expanded_nor_slow():
    bomb = b'<!DOCTYPE x [<!ENTITY a "' + b"&b;" * 1000 + b'">]><x>&a;</x>'
    assert read_gpano(bomb, "a").heading_deg is None
    assert read_gpano(b"GPano:PoseHeadingDegrees " * 30_000, "a").heading_deg is None
    with pytest.raises(InvalidSpecError, match="bytes of XMP"):
        read_gpano(bytes(1_000_001), "a")


def test_what_is_too_small_or_too_large_is_refused_before_it_is_decoded(tmp_path):
    with pytest.raises(InvalidSpecError, match="4 px high, 32 to 8192 are allowed"):
        open_panorama(saved(tmp_path / "low.png", np.zeros((4, 8, 3), np.uint8)))
    for width, height in ((50_000, 2), (50_000, 25_000), (16_384, 8_200)):
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
        body = b"".join(
            struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
            for kind, part in chunks
        )
        (tmp_path / "huge.png").write_bytes(PNG_MAGIC + body)
        with pytest.raises(InvalidSpecError, match="smaller one"):
            open_panorama(tmp_path / "huge.png")


def test_empty_cut_off_and_absent_files_are_refused(tmp_path):
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(InvalidSpecError, match=r"empty.jpg is empty: 0 bytes"):
        open_panorama(tmp_path / "empty.jpg")
    whole = saved(tmp_path / "cut.jpg", sphere())
    whole.write_bytes(whole.read_bytes()[:900])
    with pytest.raises(InvalidSpecError, match=r"cut.jpg is no readable image"):
        open_panorama(whole)
    with pytest.raises(MissingFileError, match=r"none.jpg is no file"):
        open_panorama(tmp_path / "none.jpg")


def test_cmyk_is_converted_and_that_is_said(tmp_path):
    Image.fromarray(sphere()).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    panorama = open_panorama(tmp_path / "a.jpg")
    assert panorama.notes == ("its colours were converted from CMYK, without a colour profile",)
    assert np.abs(panorama.pixels.astype(int) - sphere()).mean() < 4


def test_sixteen_bits_are_cut_to_eight_and_that_is_said(tmp_path):
    levels = np.arange(128 * 256, dtype=np.uint16).reshape(128, 256) * 2
    Image.fromarray(levels).save(tmp_path / "grey.png")
    Image.fromarray(levels).save(tmp_path / "grey.tif")
    for name in ("grey.png", "grey.tif"):
        panorama = open_panorama(tmp_path / name)
        assert panorama.notes == ("its 16 bits a colour were cut to 8",)
        np.testing.assert_array_equal(panorama.pixels[..., 1], levels >> 8)


def test_sixteen_bits_in_colour_are_cut_to_eight_and_that_is_said(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 2**16, (64, 128, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in rgb)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 128, 64, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
        for kind, part in chunks
    )
    (tmp_path / "a.png").write_bytes(PNG_MAGIC + body)
    panorama = open_panorama(tmp_path / "a.png")
    assert panorama.notes == ("its 16 bits a colour were cut to 8",)
    np.testing.assert_array_equal(panorama.pixels, (rgb >> 8).astype(np.uint8))


def test_opaque_alpha_is_fine_and_transparency_is_refused(tmp_path):
    rgba = np.dstack([sphere(), np.full((128, 256), 255, np.uint8)])
    np.testing.assert_array_equal(open_panorama(saved(tmp_path / "a.png", rgba)).pixels, sphere())
    rgba[0, 0, 3] = 254
    with pytest.raises(InvalidSpecError, match=r"b.png is transparent in places"):
        open_panorama(saved(tmp_path / "b.png", rgba))
    paletted = Image.fromarray(sphere()).quantize(8)
    paletted.save(tmp_path / "c.png", transparency=0)
    with pytest.raises(InvalidSpecError, match="transparent in places"):
        open_panorama(tmp_path / "c.png")


def test_an_animation_and_floating_point_are_refused(tmp_path):
    frames = [Image.fromarray(sphere(seed=seed)) for seed in (0, 1)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(InvalidSpecError, match="holds 2 pictures"):
        open_panorama(tmp_path / "a.png")
    Image.new("F", (256, 128)).save(tmp_path / "a.tif")
    with pytest.raises(InvalidSpecError, match="picture of kind F"):
        open_panorama(tmp_path / "a.tif")


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_photo_is_put_upright_and_that_is_said(turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    buffer = io.BytesIO()
    Image.fromarray(sphere()[:, :100]).save(buffer, "PNG", exif=exif)
    photo = decode_photo(buffer.getvalue(), "a", 10**6, 1000)
    with Image.open(buffer) as image:
        np.testing.assert_array_equal(photo.rgb, np.asarray(ImageOps.exif_transpose(image)))
    assert photo.notes == (() if turn == 1 else ("it was turned upright, as its EXIF says",))


def test_an_odd_width_is_made_even_and_that_is_said(tmp_path):
    panorama = open_panorama(saved(tmp_path / "a.png", np.full((100, 201, 3), 9, np.uint8)))
    assert panorama.band.width == panorama.pixels.shape[1] == 200
    assert "one pixel narrower: 200" in panorama.notes[0]
    assert (panorama.pixels == 9).all()


def test_a_panorama_on_the_grid_comes_back_to_the_bit_and_turns_by_rolling():
    pixels = noise(0, BAND.height, BAND.width)
    np.testing.assert_array_equal(to_band(opened(pixels, BAND), BAND, 0.0), pixels)
    east = to_band(opened(pixels, BAND), BAND, 90.0)  # its middle looks east
    np.testing.assert_array_equal(east, np.roll(pixels, 32, axis=1))


@pytest.mark.parametrize("heading_deg", [0.0, 17.3, 359.9])
def test_what_stands_in_the_north_comes_to_the_middle(heading_deg):
    band = Band(256, 512, 90.0, -90.0)
    azimuth = (heading_deg + (np.arange(512) + 0.5 - 256) * 360 / 512 + 180) % 360 - 180
    light = np.exp(-((azimuth / 20) ** 2)) * 200
    pixels = np.broadcast_to(light[None, :, None], (256, 512, 3)).round().astype(np.uint8)
    seen = to_band(opened(pixels, band), BAND, heading_deg)
    np.testing.assert_allclose(seen, seen[:, ::-1], atol=2)
    assert seen[0].mean(axis=1).argmax() in (63, 64)


def test_rows_keep_their_elevation():
    band = Band(256, 512, 90.0, -90.0)
    level = band.elevations_deg().numpy() + 90
    pixels = np.broadcast_to(level[:, None, None], (256, 512, 3)).round().astype(np.uint8)
    seen = to_band(opened(pixels, band), BAND, 0.0)
    np.testing.assert_allclose(seen[:, 0, 0], BAND.elevations_deg().numpy() + 90, atol=0.8)


def test_shrinking_leaves_no_seam_and_averages():
    rng = np.random.default_rng(0)
    speckled = opened(
        rng.integers(0, 256, (1024, 2048, 3), dtype=np.uint8), Band(1024, 2048, 90.0, -90.0)
    )
    small = Band(64, 128, 90.0, -90.0)
    seen = to_band(speckled, small, 0.0).astype(float)
    assert seen.std() < 12  # 256 pixels to one: 74 / 16, and a bit for the filter
    smooth = np.asarray(Image.fromarray(noise(0, 256, 512)).resize((512, 256)))
    whole = to_band(opened(smooth, Band(256, 512, 90.0, -90.0)), small, 0.0).astype(float)
    turned = to_band(opened(smooth, Band(256, 512, 90.0, -90.0)), small, 180.0).astype(float)
    np.testing.assert_allclose(np.roll(whole, 64, axis=1), turned, atol=1)


def test_elevations_that_are_not_shown_are_named():
    low = opened(noise(0, 64, 256), Band(64, 256, 30.0, -60.0))
    with pytest.raises(InvalidSpecError, match=r"from \+30.0 to -60.0.*so \+45 to \+30.0 are"):
        to_band(low, BAND, 0.0)
    both = opened(noise(0, 64, 256), Band(64, 256, 30.0, -20.0))
    with pytest.raises(InvalidSpecError, match=r"\+30.0 and -20.0 to -45 are missing"):
        to_band(both, BAND, 0.0)


def test_less_than_a_degree_that_lacks_is_taken_from_the_edge():
    pixels = np.zeros((100, 256, 3), np.uint8)
    pixels[0], pixels[-1] = 200, 100
    seen = to_band(opened(pixels, Band(100, 256, 44.2, -44.2)), BAND, 0.0)
    assert seen.shape == (32, 128, 3)
    assert seen[0, 0, 0] > 50
    assert seen[-1, 0, 0] > 25
    assert not seen[5:-5].any()


def test_a_written_panorama_opens_as_what_it_is(tmp_path):
    rgb = noise(0, BAND.height * 4, BAND.width * 4)
    band = Band(128, 512, 45.0, -45.0)
    data = panorama_jpeg(rgb, band, heading_deg=12.25, place=MATTERHORN, texts={"a": "é"})
    (tmp_path / "a.jpg").write_bytes(data)
    panorama = open_panorama(tmp_path / "a.jpg")
    assert (panorama.band, panorama.heading_deg, panorama.notes) == (band, 12.25, ())
    assert panorama.place.lat == pytest.approx(45.98, abs=1e-7)
    assert panorama.place.lon == pytest.approx(7.66, abs=1e-7)
    assert np.abs(panorama.pixels.astype(int) - rgb).mean() < 2
    with Image.open(io.BytesIO(data)) as image:
        assert image.layer[0][1:3] == image.layer[1][1:3] == (1, 1)  # no colour was thinned out
        xmp = image.info["xmp"].decode()
    for told in ('FullPanoHeightPixels="256"', 'CroppedAreaTopPixels="64"', 'UsePanoramaViewer="T'):
        assert f"GPano:{told}" in xmp
    assert "trainedAlgorithmicMedia" in xmp
    assert panorama_texts(data) == {"a": "é"}
    again = panorama_jpeg(rgb, band, heading_deg=12.25, place=MATTERHORN, texts={"a": "é"})
    assert again == data


@pytest.mark.parametrize("place", [Location(-33.9, -70.6), Location(0.0, 180.0)])
def test_the_place_keeps_its_signs(place):
    data = panorama_jpeg(noise(0, 32, 128), BAND, heading_deg=0.0, place=place)
    found = read_place(decode_photo(data, "a", 10**6, 1000).gps)
    assert (found.lat, found.lon) == pytest.approx((place.lat, place.lon), abs=1e-7)


@pytest.mark.parametrize(
    "gps",
    [
        {},
        {1: "N", 2: 5.0, 3: "E", 4: 7.0},
        {1: "N", 2: (95.0, 0.0, 0.0), 3: "E", 4: (7.0, 0.0, 0.0)},
        {1: "N", 2: (float("nan"), 0.0, 0.0), 3: "E", 4: (7.0, 0.0, 0.0)},
    ],
)
def test_gps_tags_that_make_no_sense_are_no_place(gps):
    assert read_place(gps) is None


def test_pixels_and_grids_that_do_not_fit_are_refused():
    with pytest.raises(InvalidSpecError, match="100x32 px on a grid of 128x32"):
        panorama_jpeg(noise(0, 32, 128)[:, :100], BAND, heading_deg=0.0, place=None)
    odd = Band(32, 128, 50.0, -47.0)
    with pytest.raises(InvalidSpecError, match="do not divide the sphere"):
        panorama_jpeg(noise(0, 32, 128), odd, heading_deg=0.0, place=None)


@pytest.mark.parametrize("length", [0, 65_510, 65_533, 400_000])
def test_texts_of_any_length_come_back(length):
    texts = {"record": "x" * length, "spec": '{"a":"\\u0000"}'}
    data = panorama_jpeg(noise(0, 32, 128), BAND, heading_deg=0.0, place=None, texts=texts)
    assert panorama_texts(data) == texts
    plain = panorama_jpeg(noise(0, 32, 128), BAND, heading_deg=0.0, place=None)
    assert panorama_texts(plain) == {}
    with Image.open(io.BytesIO(data)) as a, Image.open(io.BytesIO(plain)) as b:
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_damaged_texts_are_refused():
    texts = {"record": "seed 7" + "x" * 100_000}
    data = panorama_jpeg(noise(0, 32, 128), BAND, heading_deg=0.0, place=None, texts=texts)
    with pytest.raises(InvalidSpecError, match="damaged"):
        jpeg_texts(data.replace(b"seed 7", b"seed 8"))
    second = data.rindex(b"Terrascape\0")
    with pytest.raises(InvalidSpecError, match="damaged"):
        jpeg_texts(data[:second] + b"x" + data[second + 1 :])
    for length in (3, 20, second, len(data) - 1):
        with pytest.raises(InvalidSpecError, match="cut off"):
            jpeg_texts(data[:length])
    with pytest.raises(InvalidSpecError, match="no JPEG"):
        jpeg_texts(b"\x89PNG")


def test_a_view_takes_its_place_and_heading_from_its_file(tmp_path):
    path = tmp_path / "a.jpg"
    rgb, band = noise(0, 64, 256), Band(64, 256, 45.0, -45.0)
    path.write_bytes(panorama_jpeg(rgb, band, heading_deg=12.25, place=MATTERHORN))
    placed = placed_view(ViewSpec(str(path)))
    assert placed.heading == 12.25
    assert (placed.lat, placed.lon) == pytest.approx((45.98, 7.66), abs=1e-7)
    told = ViewSpec("gone.jpg", 1.0, 2.0, 3.0)
    assert placed_view(told) is told


def test_a_view_without_coordinates_anywhere_is_refused_with_the_form(tmp_path):
    plain = ViewSpec(str(saved(tmp_path / "a.png", sphere())))
    with pytest.raises(InvalidSpecError, match=r"GPS\) and where.*give FILE@LAT,LON,HEADING"):
        placed_view(plain)
    path = saved(tmp_path / "b.jpg", sphere(), xmp=gpano(PoseHeadingDegrees="5"))
    with pytest.raises(InvalidSpecError, match=r"does not tell where it was taken \(EXIF GPS\) \("):
        placed_view(ViewSpec(str(path)))
