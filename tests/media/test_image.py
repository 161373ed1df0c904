import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from generation.errors import InvalidSpecError, MissingFileError
from generation.media.image import PNG_MAGIC, open_rgb, png_bytes, png_text, read_bytes


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_pixels_and_texts_come_back(rgb, tmp_path):
    texts = {"RunSpec": '{"prompt":"\\u0000"}', "Comment": "Zürich 🏔️\nline two"}
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(rgb, texts))
    np.testing.assert_array_equal(open_rgb(path), rgb)
    assert png_text(path.read_bytes()) == texts


def test_equal_input_gives_equal_bytes(rgb):
    texts = {"a": "1", "b": "2"}
    assert png_bytes(rgb, texts) == png_bytes(rgb[::-1][::-1], dict(texts))


def test_a_png_cut_off_anywhere_is_refused(rgb, tmp_path):
    data, path = png_bytes(rgb, {"a": "1"}), tmp_path / "cut.png"
    for length in (9, 30, 60, len(data) // 2, len(data) - 1):
        with pytest.raises(InvalidSpecError, match="cut off or damaged"):
            png_text(data[:length])
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InvalidSpecError, match=r"cut\.png is no readable image"):
        open_rgb(path)


def test_a_changed_byte_is_noticed(rgb):
    data = bytearray(png_bytes(rgb, {"RunSpec": "seed 7"}))
    at = data.index(b"seed 7")
    data[at + 5] = ord("8")
    with pytest.raises(InvalidSpecError, match="damaged"):
        png_text(bytes(data))


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(10_000))
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(
        PNG_MAGIC + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )
    with pytest.raises(InvalidSpecError, match="pixels"):
        open_rgb(bomb)


def test_an_image_over_the_callers_limit_is_refused(rgb, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(rgb))
    with pytest.raises(InvalidSpecError, match="32x24 pixels, 100 are allowed"):
        open_rgb(path, max_pixels=100)


def test_compressed_texts_are_never_unpacked():
    body = b"RunSpec\0\1\0\0\0" + zlib.compress(bytes(10_000_000))
    assert png_text(PNG_MAGIC + chunk(b"iTXt", body) + chunk(b"IEND", b"")) == {}


@pytest.mark.parametrize("body", [b"key\0\0\0", b"key\0\0\0\0\0\xff\xfe"])
def test_a_malformed_text_is_refused(body):
    with pytest.raises(InvalidSpecError, match="text inside the PNG is damaged"):
        png_text(PNG_MAGIC + chunk(b"iTXt", body) + chunk(b"IEND", b""))


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"%PDF-1.7", b"II*\0", b"<svg/>"])
def test_what_is_no_image_is_refused(data, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(InvalidSpecError, match="no readable image"):
        open_rgb(path)
    with pytest.raises(InvalidSpecError, match="no PNG"):
        png_text(data)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (Image.new("I;16", (8, 8)), "kind I;16"),
        (Image.new("RGBA", (8, 8), (1, 2, 3, 128)), "transparent in places"),
    ],
)
def test_pixels_that_are_no_plain_rgb_are_refused(image, said, tmp_path):
    image.save(tmp_path / "a.png")
    with pytest.raises(InvalidSpecError, match=said):
        open_rgb(tmp_path / "a.png")


def test_an_animation_is_refused(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(InvalidSpecError, match="2 picture"):
        open_rgb(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_other_plain_pictures_are_read_as_rgb(mode, tmp_path):
    Image.new("RGB", (8, 8), "white").convert(mode).save(tmp_path / "a.png")
    assert (open_rgb(tmp_path / "a.png") == 255).all()


def test_a_photo_is_turned_upright(tmp_path):
    image, exif = Image.new("RGB", (8, 4)), Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "a.jpg", exif=exif)
    assert open_rgb(tmp_path / "a.jpg").shape == (8, 4, 3)


def test_an_absent_or_huge_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"none.png is no file"):
        open_rgb(tmp_path / "none.png")
    with pytest.raises(MissingFileError, match="is no file"):
        open_rgb(tmp_path)
    (tmp_path / "big").write_bytes(bytes(11))
    with pytest.raises(InvalidSpecError, match="11 bytes, 10 are allowed"):
        read_bytes(tmp_path / "big", max_bytes=10)
