"""One place from above, all around and to be heard, on one page."""

import re

import pytest
from tiny_soundscape import save_soundscape_model

from generation.errors import InvalidSpecError
from generation.media.artifact import manifest_mistakes, read_artifact
from generation.media.image import open_rgb
from generation.pipelines.postcard import make_postcard, part_of

FIELDS = {
    "lat": 43.7,
    "lon": 7.27,
    "steps": 1,
    "seconds": 0.5,
    "hour": 6.5,
    "month": 5,
    "heading": 90.0,
    "prompt": "a coast",
    "seed": 4,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    save_soundscape_model(home)
    return home


def test_all_three_show_one_ground_and_the_page_needs_nothing_else(home, tmp_path, monkeypatch):
    monkeypatch.setenv("TERRASCAPE_HOME", str(home))
    told = []
    made = make_postcard(FIELDS, tmp_path, on_step=lambda *step: told.append(step[:2]))
    assert told == [(1, 1)] * 3
    manifests = [
        path for path in made.files if path.name.count(".json") and "layers" not in path.name
    ]
    assert [read_artifact(path).spec.kind for path in manifests] == [
        "satellite",
        "panorama",
        "soundscape",
    ]
    assert not any(manifest_mistakes(path) for path in manifests)
    grounds = [open_rgb(path) for path in made.files if path.name.endswith(".satellite.png")]
    assert len(grounds) == 2
    assert (grounds[0] == grounds[1]).all()
    page = made.page.read_text()
    assert "Synthetic: nothing on this card was photographed or recorded there." in page
    assert "May, 6:30" in page
    assert set(re.findall(r'src="(.*?),', page)) == {
        "data:image/jpeg;base64",
        "data:image/png;base64",
        "data:audio/flac;base64",
    }
    assert "http" not in page
    assert any("location_source=simulated" in note for note in made.notes)
    again = make_postcard(FIELDS, tmp_path)
    assert again.page == made.page


def test_each_part_takes_the_fields_that_it_has():
    fields = {**FIELDS, "sound_text": "surf", "layout": "auto"}
    above, around, heard = (part_of(fields, k) for k in ("satellite", "panorama", "soundscape"))
    assert (above.prompt, above.sound_text, above.size) == ("a coast", "", 320)
    assert (around.heading, around.sound_text, around.prompt) == (90.0, "", "")
    assert (heard.hour, heard.month, heard.sound_text) == (6.5, 5, "surf")
    assert {above.seed, around.seed, heard.seed} == {4}


def test_a_mistake_of_any_part_is_told_before_anything_is_drawn(tmp_path):
    with pytest.raises(InvalidSpecError, match="hour=25"):
        make_postcard({**FIELDS, "hour": 25}, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_a_person_wrote_cannot_become_markup():
    from generation.media.postcard_page import Card, card_page

    card = Card(
        title="a place",
        when="",
        above=b"",
        around=b"",
        spectrogram=b"",
        sound=b"",
        loop=True,
        heard=["<script>alert(1)</script>"],
        notes=['"quoted" & more', "twice", "twice"],
        made=[("a.flac", "model")],
    )
    page = card_page(card).decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert page.count("twice") == 1
    assert "controls loop" in page
