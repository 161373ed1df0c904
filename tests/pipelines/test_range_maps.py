"""Maps of ranges and species of places, from the command line to the files."""

import json

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from tiny_ranges import TAXA, save_range_model

from generation.checkpoint import save_safetensors
from generation.cli import main
from generation.encoders.range_encoder import EMBEDDED, load_range_encoder
from generation.errors import InvalidSpecError, WeightsError
from generation.geo.location import Region
from generation.pipelines.range_maps import DegreeGrid, range_map, ranked_species


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    save_range_model(home)
    return home


@pytest.fixture(autouse=True)
def at_home(home, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(home))


def run(*words):
    return main([str(word) for word in words])


def test_a_map_has_a_probability_for_every_cell(tmp_path, capsys):
    out = tmp_path / "maps" / "cats.tif"
    assert run("map", "range", "--taxon", "Felidae", "--cell", 3, "--out", out) == 0
    assert capsys.readouterr().out.split() == [str(out), str(out.with_suffix(".png"))]
    with rasterio.open(out) as file:
        assert (file.width, file.height, file.crs.to_epsg()) == (120, 60, 4326)
        assert file.bounds[:] == pytest.approx((-180, -90, 180, 90))
        likely, tags = file.read(1), file.tags()
    assert ((likely > 0) & (likely < 1)).all()
    assert tags["TAXON"] == "Carnivora Felidae"
    assert json.loads(tags["TERRASCAPE_MAP"])["known"] is True
    with Image.open(out.with_suffix(".png")) as picture:
        assert np.asarray(picture).std() > 5
    assert run("map", "range", "--taxon", "Felidae", "--cell", 3, "--out", out) == 2
    assert "not overwritten" in capsys.readouterr().err


def test_cells_are_what_the_model_says_of_their_middles():
    encoder = load_range_encoder()
    taxon = encoder.taxonomy.resolve("Muridae")
    grid = DegreeGrid(Region(170.0, -10.0, -170.0, 10.0), 5.0)
    assert (grid.rows, grid.cols) == (4, 4)
    found = range_map(encoder, taxon, grid)
    place = np.array([[7.5, -177.5]], np.float32)  # over the date line
    alone = encoder.likely([taxon.string], place)
    assert found.likely[0, 2] == pytest.approx(alone[0, 0], abs=1e-6)
    warmer = range_map(encoder, taxon, grid, warmer_c=5.0)
    assert not np.array_equal(warmer.likely, found.likely)


def test_who_lives_here_is_ranked_and_agrees_with_the_map(capsys):
    assert run("species", "--lat", "46.5", "--lon", "7", "--top", 5, "--json") == 0
    told = json.loads(capsys.readouterr().out)["species"]
    assert len(told) == 5
    scores = [each["likely"] for each in told]
    assert scores == sorted(scores, reverse=True)
    encoder = load_range_encoder()
    place = np.array([[46.5, 7.0]], np.float32)
    assert encoder.likely([told[0]["taxon"]], place)[0, 0] == pytest.approx(scores[0], abs=1e-3)
    assert run("species", "--lat", "46.5", "--lon", "7", "--top", 2) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    found = ranked_species(encoder, (46.5, 7.0), len(TAXA), unlearnt=True)
    assert len(found.species) == len(TAXA)
    learnt = [each for each in found.species if each["learnt"]]
    assert 0 < len(learnt) < len(TAXA)
    known = ranked_species(encoder, (46.5, 7.0), len(learnt))
    assert known.species == learnt
    assert "did not learn from are left out" in known.notes[-1]
    with pytest.raises(InvalidSpecError, match=f"give 1 to {len(learnt)}"):
        ranked_species(encoder, (46.5, 7.0), len(TAXA))
    assert found.gained == found.lost == []
    assert all(each["likely"] == each["likely_today"] for each in found.species)


def test_a_changed_climate_says_who_comes_and_who_goes(capsys):
    place = (46.5, 7.0)
    encoder = load_range_encoder()
    today, found = (
        ranked_species(encoder, place, len(TAXA), warmer_c=warmer, unlearnt=True)
        for warmer in (0.0, 6.0)
    )
    before = {str(each["taxon"]): float(str(each["likely"])) for each in today.species}
    after = {str(each["taxon"]): float(str(each["likely"])) for each in found.species}
    assert {str(e["taxon"]): float(str(e["likely_today"])) for e in found.species} == before
    assert set(found.gained) == {n for n in before if after[n] >= 0.5 > before[n]}
    assert set(found.lost) == {n for n in before if before[n] >= 0.5 > after[n]}
    assert found.lost == sorted(found.lost, key=lambda name: -before[name])
    assert run("species", "--lat", "-3", "--lon", "-60", "--warmer", "5", "--top", 1) == 0
    told = capsys.readouterr()
    assert "this climate is new" in told.err
    assert ("lost: " in told.out) == bool(found_at(encoder, (-3.0, -60.0)).lost)


def found_at(encoder, place):
    return ranked_species(encoder, place, 1, warmer_c=5.0)


def test_another_taxon_of_the_same_map_reads_no_places_again(monkeypatch, tmp_path):
    encoder = load_range_encoder()
    monkeypatch.setattr("generation.pipelines.maps_cache.cache_folder", lambda: tmp_path / "kept")
    grid = DegreeGrid(cell_deg=2.0)
    first, other = (encoder.taxonomy.resolve(name) for name in ("Felidae", "Carnivora"))
    one = range_map(encoder, first, grid).likely
    embed = encoder.model.embed_places
    monkeypatch.setattr(encoder.model, "embed_places", lambda *_: pytest.fail("read again"))
    assert not np.array_equal(range_map(encoder, other, grid).likely, one)
    np.testing.assert_array_equal(range_map(encoder, first, grid).likely, one)
    with pytest.raises(pytest.fail.Exception):
        range_map(encoder, first, grid, warmer_c=1.0)
    (kept,) = (tmp_path / "maps").glob("*/*.npz")
    kept.write_bytes(kept.read_bytes()[:-100])  # what is damaged is computed again
    monkeypatch.setattr(encoder.model, "embed_places", embed)
    np.testing.assert_array_equal(range_map(encoder, first, grid).likely, one)


def test_a_map_says_how_much_of_its_land_has_a_new_climate():
    encoder = load_range_encoder()
    taxon, grid = encoder.taxonomy.resolve("Felidae"), DegreeGrid(cell_deg=5.0)
    assert range_map(encoder, taxon, grid).about["new_climate_share_of_land"] is None
    hotter = range_map(encoder, taxon, grid, warmer_c=8.0).about
    assert 0.05 < float(str(hotter["new_climate_share_of_land"])) < 0.6
    assert any("no land has today" in note for note in hotter["notes"])
    sea = DegreeGrid(Region(-40.0, 30.0, -30.0, 40.0), 5.0)
    found = range_map(encoder, taxon, sea, warmer_c=8.0).about
    assert found["new_climate_share_of_land"] is None


def test_what_nobody_learnt_is_said(tmp_path, capsys):
    out = tmp_path / "new.tif"
    assert run("map", "range", "--taxon", "Felella novus", "--cell", 10, "--out", out) == 0
    err = capsys.readouterr().err
    assert "'novus' is not known" in err
    out = tmp_path / "held.tif"
    assert run("map", "range", "--taxon", "Felimys silvestris", "--cell", 10, "--out", out) == 0
    assert "learnt from no species of it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["map", "range", "--taxon", "", "--out", "x.tif"], "names nothing"),
        (["map", "range", "--taxon", "Felida", "--out", "x.tif"], "close to it: Felidae"),
        (["map", "range", "--taxon", "Felidae", "--cell", "0", "--out", "x.tif"], "cell=0 degrees"),
        (["map", "range", "--taxon", "Felidae", "--cell", "0.1", "--out", "x.tif"], "too large"),
        (["map", "range", "--taxon", "Felidae", "--out", "x.png"], "let it end in .tif"),
        (["map", "range", "--taxon", "Felidae", "--warmer", "99", "--out", "x.tif"], "warmer_c=99"),
        (
            ["map", "range", "--taxon", "Felidae", "--model", "psm-nano", "--out", "x.tif"],
            "no range",
        ),
        (["species", "--lat", "100", "--lon", "5"], "lat=100"),
        (["species", "--lat", "5", "--lon", "5", "--top", "0"], "top=0"),
        (["species", "--lat", "5", "--lon", "5", "--top", "3", "--rain", "-200"], "rain_share=-2"),
    ],
)
def test_each_mistake_is_one_sentence_and_leaves_nothing(
    words, told, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_names_and_embeddings_belong_together(home, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(home, tmp_path / "other")
    monkeypatch.setenv("TERRASCAPE_HOME", str(tmp_path / "other"))
    folder = tmp_path / "other/ranges-nano"
    save_safetensors({"taxa": torch.zeros(3, 9)}, folder / EMBEDDED)
    with pytest.raises(WeightsError, match="3 embeddings of 24 species"):
        ranked_species(load_range_encoder(), (0.0, 0.0), 1)
    config = json.loads((folder / "config.json").read_text())
    config["variables"] = config["variables"][::-1]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="reads other variables"):
        load_range_encoder()
    with pytest.raises(InvalidSpecError, match="knows no ranges"):
        load_range_encoder("soundscape-nano")
