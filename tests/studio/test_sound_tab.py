"""Sound in the satellite tab without a browser: a clip or words that steer a picture."""

import asyncio
import shutil
from dataclasses import fields, replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import soundfile
import torch
from stand_in import draw
from tiny import make_pipeline

from generation.checkpoint import model_sha256, save_part
from generation.conditioning import SoundConditioner
from generation.encoders.gallery import Gallery
from generation.encoders.gallery_rows import Entry, Maker
from generation.encoders.heads import Embedding
from generation.encoders.sound_encoder import SoundEncoder
from generation.encoders.sound_space import SoundSpace
from generation.errors import TerrascapeError
from generation.geo.location import Location
from generation.geo.mercator import Window
from generation.media.artifact import read_artifact, read_spec, save_render
from generation.media.geotiff import geotiff_bytes
from generation.spec import RunSpec
from generation.studio.form import SHARED, Form
from generation.studio.recall import restore
from generation.studio.satellite_tab import SatelliteTab, choose_sound, take_sound
from generation.studio.sound_tab import SoundTab
from generation.studio.sounds import why_silent
from generation.studio.worker import Desk

SPEC = RunSpec(lat=45.98, lon=7.66, size=64, steps=1, seed=7, layout="none")
SOMEONE = gr.Request(session_hash="someone")
PLACES = [(45.5, 8.0), (-17.0, 179.9), (64.0, -19.0)]
HOSTILE = '<script>alert("1")</script>'


def make_space():
    torch.manual_seed(3)
    towers = {
        "image": {"image_px": 16, "patch": 8, "dim": 8, "depth": 1, "heads": 2},
        "audio": {"dim": 8, "depth": 1, "heads": 2, "frames": 48},
    }
    metadata = {"layers": 1, "heads": 2}
    return SoundSpace(
        "codebook", "early", 12, 16, towers=towers, metadata=metadata, codebook={"codes": 10}
    )


def entries():
    about = {"licence": "CC0", "author": "NASA", "gsd_m": 600.0, "location_source": "real"}
    tiles = [Entry(kind="tile", title="t", lat=lat, lon=lon, **about) for lat, lon in PLACES]
    web = {"licence": "CC-BY", "author": HOSTILE, "url": "https://example.org/a?b=1&c=2"}
    return [
        *tiles,
        Entry(kind="clip", title=HOSTILE, **web),
        Entry(kind="caption", title="a bell", licence="CC0", author="us"),
    ]


@pytest.fixture(scope="module")
def sound_home(tmp_path_factory):
    """Untrained, tiny models by their names, and in ``gallery`` what can be searched."""
    home = tmp_path_factory.mktemp("home")
    make_pipeline().save_pretrained(home / "satellite-nano")
    save_part(make_space(), home / "sat2sound-nano")
    made_for = {n: model_sha256(home / n) for n in ("satellite-nano", "sat2sound-nano")}
    steering = SoundConditioner({"sat2sound-nano": 12}, 16, 16, made_for=made_for)
    torch.nn.init.normal_(steering.to_vector[1].weight)  # as if it had learnt
    save_part(steering, home / "satellite-nano-sound")
    encoder = SoundEncoder.from_pretrained(home / "sat2sound-nano")
    given = entries()
    rows = torch.randn(len(given), 12, generator=torch.Generator().manual_seed(0))
    Gallery.create(str(home / "gallery"), Maker.of(encoder), given, Embedding(rows))
    return home


@pytest.fixture(scope="module")
def page(sound_home):
    """Both tabs of a page that nobody has opened."""

    async def build():  # in a loop that is closed again
        desk = Desk(Path("unused"), gallery=str(sound_home / "gallery"))
        with gr.Blocks(analytics_enabled=False) as page, gr.Tabs() as tabs:
            with gr.Tab("Satellite", id="satellite"):
                satellite = SatelliteTab(desk)
            with gr.Tab("Sound", id="sound") as tab:
                sound = SoundTab(desk, satellite, tabs, tab)
            satellite.wire(page)
            sound.wire()
        return satellite, sound

    return asyncio.run(build())


@pytest.fixture
def tabs(page, sound_home, tmp_path, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(sound_home))
    satellite, sound = page
    satellite.desk = sound.desk = Desk(tmp_path / "out", gallery=str(sound_home / "gallery"))
    return satellite, sound


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "surf.wav"
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000)
    soundfile.write(path, noise.astype(np.float32), 16_000)
    return path


def event(data):
    return gr.EventData(None, data)


# A sound that steers a picture


def form(**changes):
    values = {name: getattr(SPEC, name) for name in SHARED} | {"seed": str(SPEC.seed)}
    given = {"choice": "none", "file": None, "drawing": None, "online": False}
    given |= {"style_on": False, "habitat_on": False, "climate_on": False}
    return Form(**{**values, **given, "heard": "none", "sound_file": None, **changes})


def test_without_a_sound_a_spec_is_as_of_old(tmp_path):
    said = form(sound_text="surf", sound_guidance=9, sound_model="psm-nano")
    assert said.spec(tmp_path).sha256() == SPEC.sha256()


def test_words_and_files_reach_the_spec(tmp_path, clip):
    spec = form(heard="words", sound_text="surf", sound_guidance=3).spec(tmp_path)
    assert (spec.sound, spec.sound_text, spec.sound_guidance) == ("none", "surf", 3)
    spec = form(heard="file", sound_text="surf", sound_file=str(clip)).spec(tmp_path)
    assert spec.sound_text == ""
    assert spec.sound_path.parent == tmp_path / "sounds"
    assert spec.sound_path.read_bytes() == clip.read_bytes()
    assert spec.sound_sha256
    again = form(heard="file", sound_file=spec.sound).spec(tmp_path)
    assert again == spec
    assert len(list((tmp_path / "sounds").iterdir())) == 1


@pytest.mark.parametrize(("change", "told"), [
    ({"heard": "words", "sound_text": " "}, "nothing is said of what is heard there"),
    ({"heard": "words", "sound_text": "x" * 2001}, "sound_text has 2001 characters"),
    ({"heard": "file"}, "no sound is chosen"),
    ({"heard": "file", "sound_file": "nowhere.wav"}, "nowhere.wav is no file"),
    ({"heard": "file", "sound_file": __file__}, "is no readable sound"),
    ({"heard": "words", "sound_text": "surf", "sound_guidance": 21}, "sound_guidance=21"),
    ({"heard": "words", "sound_text": "surf", "sound_model": None}, "sound_model=''"),
])  # fmt: skip
def test_a_wrong_sound_is_told_and_nothing_is_written(change, told, tmp_path):
    with pytest.raises(TerrascapeError, match=told):
        form(**change).spec(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_dropped_file_is_taken_only_if_it_can_be_read(clip, tmp_path):
    assert take_sound(str(clip)) == (
        str(clip),
        '<p class="ts-caption" role="status">Taken: a recording of 1.0 s.</p>',
    )
    tile = tmp_path / "tile.tif"
    pixels = np.zeros((64, 64, 3), np.uint8)
    tile.write_bytes(geotiff_bytes(pixels, Window.around(Location(45.98, 7.66), 8, 64), {}))
    path, told = take_sound(str(tile))
    assert path == str(tile)
    assert "the image of a place, 45.98, 7.6" in told
    long = tmp_path / "long.wav"
    soundfile.write(long, np.zeros(301 * 4000, np.float32), 4000)
    path, told = take_sound(str(long))
    assert path is None
    assert "long.wav lasts 301 s, 300 s are allowed" in told


def test_only_what_the_chosen_sound_needs_is_shown():
    seen = {heard: [each["visible"] for each in choose_sound(heard)]
            for heard in ("none", "words", "file")}  # fmt: skip
    assert seen == {
        "none": [False, False, False],
        "words": [True, False, True],
        "file": [False, True, True],
    }


def test_a_steered_render_is_told_of_and_brought_back(tabs, clip):
    satellite, _ = tabs
    ui, out = satellite.ui, satellite.desk.out
    steered = form(heard="file", sound_file=str(clip), sound_guidance=3.5)
    values = [getattr(steered, field.name) for field in fields(Form)]
    page = {}
    for changes in satellite.render(SOMEONE, *values, True):
        page |= changes
    (manifest,) = out.glob("*.json")
    spec = read_spec(manifest)
    assert "location_source=simulated" in page[ui.stage]
    assert "surf.wav (guidance 3.5, understood by sat2sound-nano)" in page[ui.stage]
    back = satellite.bring_back(event({"pick": manifest.stem}))
    assert back[ui.heard] == "file"
    assert back[ui.sound_file] == back[ui.sound_upload] == spec.sound
    assert back[ui.sound_guidance] == 3.5
    assert restore(read_artifact(manifest), out).form.spec(out) == spec


def saved(spec, out):
    return read_artifact(save_render(draw(spec), out)[-1])


def test_words_come_back_and_the_prompt_is_its_own(tabs):
    out = tabs[0].desk.out
    back = restore(saved(replace(SPEC, prompt="a valley", sound_text="surf"), out), out)
    assert (back.form.heard, back.form.sound_text, back.form.prompt) == (
        "words",
        "surf",
        "a valley",
    )
    assert back.note == ""


def test_a_sound_outside_of_the_results_or_changed_is_not_opened(tabs, clip):
    out = tabs[0].desk.out
    back = restore(saved(replace(SPEC, sound=str(clip)).pinned(), out), out)
    assert (back.form.heard, back.form.sound_file) == ("file", None)
    assert "'surf.wav' is not among the results: choose it again" in back.note
    (out / "sounds").mkdir()
    kept = shutil.copy(clip, out / "sounds/surf.wav")
    spec = replace(SPEC, seed=8, sound=str(kept)).pinned()
    assert restore(saved(spec, out), out).form.sound_file == str(kept)
    kept.write_bytes(b"other")
    assert restore(saved(spec, out), out).form.sound_file is None


def built(desk):
    """Give the controls of a satellite tab that is made now."""

    async def build():
        with gr.Blocks(analytics_enabled=False):
            return SatelliteTab(desk).ui

    return asyncio.run(build())


def test_where_nothing_can_be_steered_it_is_said_and_a_sound_is_left_out(tabs, monkeypatch):
    desk = tabs[0].desk
    assert why_silent() == ""
    assert built(desk).heard.interactive is True
    artifact = saved(replace(SPEC, sound_text="surf"), desk.out)
    monkeypatch.delenv("TERRASCAPE_HOME")
    monkeypatch.setattr("generation.registry.ASSETS", desk.out)
    assert built(desk).heard.interactive is False
    assert "the weights of satellite-nano-sound are missing" in why_silent()
    back = restore(artifact, desk.out)
    assert back.form.heard == "none"
    assert "its sound is left out" in back.note
