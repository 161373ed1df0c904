import json

import numpy as np
import pytest
import torch
from PIL import Image

from generation.errors import ConfigError, InvalidSpecError, MissingFileError
from generation.media.edges import canny_edges
from training.pairs import PairDataset, edge_detector, read_manifest
from training.tiny_sd import EMBED_DIM, write_pairs


@pytest.fixture
def folder(tmp_path):
    write_pairs(tmp_path, count=4)
    return tmp_path


def lines(folder, *rows):
    path = folder / "other.jsonl"
    path.write_text(
        "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    )
    return path


def test_a_manifest_of_lines_gives_typed_samples(folder):
    dataset = PairDataset(folder / "pairs.jsonl", size_px=64)
    sample = dataset[2, 99]
    assert len(dataset) == 4
    assert sample["image"].shape == sample["hint"].shape == (64, 64, 3)
    assert sample["image"].dtype == sample["hint"].dtype == torch.uint8
    row = json.loads((folder / "pairs.jsonl").read_text().splitlines()[2])
    assert sample["prompt"] == row["prompt"]
    assert sample["latlon"].tolist() == [row["lat"], row["lon"]]
    assert len(sample["embedding"]) == 0
    wanted = np.asarray(Image.open(folder / "map_2.png"))
    assert np.array_equal(sample["hint"].numpy(), wanted)


def test_the_published_list_gives_the_same_pairs_with_their_embeddings(folder):
    ours = PairDataset(folder / "pairs.jsonl", size_px=64)
    theirs = PairDataset(
        folder / "prompt.json", size_px=64, embeddings=folder / "location_embeds.npy"
    )
    array = np.load(folder / "location_embeds.npy")
    for index in range(4):
        one, other = ours[index, 0], theirs[index, 0]
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["hint"], other["hint"])
        assert one["prompt"] == other["prompt"]
        assert other["latlon"].isnan().all()
        assert other["embedding"].shape == (EMBED_DIM,)
        np.testing.assert_array_equal(other["embedding"], array[index].astype(np.float32))


def test_edges_are_found_in_the_picture_itself(folder):
    path = lines(folder, {"image": "image_0.png", "prompt": ""})
    sample = PairDataset(path, size_px=64, hint="edges")[0, 0]
    assert torch.equal(sample["hint"], torch.from_numpy(canny_edges(sample["image"].numpy())))
    assert 0 < (sample["hint"] > 0).float().mean() < 1
    with pytest.raises(ConfigError, match="1 of 1 pairs have no layout"):
        PairDataset(path, size_px=64)


def test_an_installed_controlnet_aux_finds_the_edges(monkeypatch, tmp_path):
    assert edge_detector() is canny_edges
    (tmp_path / "controlnet_aux.py").write_text(
        "class CannyDetector:\n"
        "    def __call__(self, rgb, detect_resolution, image_resolution, output_type):\n"
        "        assert detect_resolution == image_resolution == 16 and output_type == 'np'\n"
        "        return rgb + 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert (edge_detector()(np.zeros((16, 20, 3), np.uint8)) == 1).all()


def test_all_mistakes_of_a_manifest_are_told_at_once(folder):
    path = lines(
        folder,
        {"image": "image_0.png", "prompt": 3},
        "{",
        {"image": "image_0.png", "prompt": "", "lat": 95, "lon": 1},
        {"image": "image_0.png", "prompt": "", "lat": 5},
        {"prompt": ""},
    )
    with pytest.raises(ConfigError) as caught:
        read_manifest(path)
    told = str(caught.value)
    for part in ("line 1: prompt is no text", "line 2: no JSON object", "line 3: no such place",
                 "line 4: lat=5, lon=None", "line 5: image is no text"):  # fmt: skip
        assert part in told


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{}", "holds a dict"), ("[", "no JSON"), ("[]", "lists nothing"), ("[3]", "entry 0")],
)
def test_a_list_that_is_none_is_refused(folder, content, reason):
    path = folder / "bad.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=reason):
        read_manifest(path)
    path.write_text(json.dumps([{"source": "map_0.png", "target": "image_0.png", "prompt": ""}]))
    with pytest.raises(ConfigError, match="class=None"):
        read_manifest(path)


def test_absent_files_are_named_before_training_starts(folder):
    (folder / "map_1.png").unlink()
    with pytest.raises(MissingFileError, match=r"names 8 files and 1 are absent: .*map_1\.png"):
        PairDataset(folder / "pairs.jsonl", size_px=64)
    with pytest.raises(MissingFileError, match="no manifest"):
        read_manifest(folder / "nothing.jsonl")


def test_another_size_and_a_damaged_picture_are_refused(folder):
    with pytest.raises(ConfigError, match="64x64 pixels, 512x512 are needed"):
        PairDataset(folder / "pairs.jsonl")[0, 0]
    (folder / "image_1.png").write_bytes(b"no picture")
    with pytest.raises(InvalidSpecError, match=r"image_1\.png is no readable image"):
        PairDataset(folder / "pairs.jsonl", size_px=64)[1, 0]


def test_an_array_of_embeddings_must_have_the_rows(folder):
    np.save(folder / "short.npy", np.zeros((2, 8)))
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    for name, reason in (("short", "4 rows at least"), ("objects", "no array of numbers")):
        with pytest.raises(ConfigError, match=reason):
            PairDataset(folder / "prompt.json", size_px=64, embeddings=folder / f"{name}.npy")
    with pytest.raises(MissingFileError, match="no embeddings"):
        PairDataset(folder / "prompt.json", size_px=64, embeddings=folder / "absent.npy")
