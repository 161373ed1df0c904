import json
import struct
import threading
import zlib

import numpy as np
import pytest
from stand_in import draw, names, repaint
from test_folder import largest_file

from generation.errors import InvalidSpecError, MissingFileError, OutputError
from generation.media import artifact
from generation.media.artifact import (
    encode,
    find_done,
    manifest_mistakes,
    read_artifact,
    read_spec,
    save_render,
    stem_of,
)
from generation.media.geotiff import geotiff_tags
from generation.media.image import open_rgb, png_text
from generation.spec import RunSpec


@pytest.fixture
def spec():
    return RunSpec(lat=-45.98, lon=7.66, prompt="snow 🏔️\nand <ice> \x01", seed=7, size=64)


@pytest.fixture
def render(spec):
    return draw(spec)


def test_every_file_carries_the_spec(spec, render, tmp_path):
    png, tif, layout, manifest = save_render(render, tmp_path / "out")
    for path in (png, tif, manifest):
        assert read_spec(path) == spec
        np.testing.assert_array_equal(read_artifact(path).pixels(), render.image)
    np.testing.assert_array_equal(open_rgb(layout), render.layout.rgb())
    assert names(tmp_path / "out") == sorted(path.name for path in (png, tif, layout, manifest))
    assert png.name.startswith("satellite_45.980S_7.660E_")


def test_the_record_names_model_versions_licences_and_that_it_is_synthetic(render, tmp_path):
    png, tif, _, manifest = save_render(render, tmp_path)
    for path in (png, tif, manifest):
        record = read_artifact(path).record
        assert record["synthetic"] is True
        assert record["provenance"]["model_sha256"] == "ab" * 32
        assert record["provenance"]["licences"] == ["Apache-2.0"]
        assert record["layout"]["attribution"] == "© nobody"
        assert "seconds" not in json.dumps(record)
    texts = png_text(png.read_bytes())
    assert texts["Synthetic"] == "true"
    assert "trainedAlgorithmicMedia" in texts["XML:com.adobe.xmp"]
    assert geotiff_tags(tif.read_bytes())["SYNTHETIC"] == "true"
    assert json.loads(manifest.read_text())["synthetic"] is True
    assert json.loads(manifest.read_text())["run"]["seconds"] > 0


def test_timing_does_not_reach_the_pictures(render):
    slower = repaint(render, provenance={**render.provenance, "seconds": 99.0})
    assert encode(render) == encode(slower)


def test_no_layout_no_layout_file(tmp_path):
    spec = RunSpec(lat=1.0, lon=2.0, layout="none", size=64)
    paths = save_render(draw(spec), tmp_path)
    assert [path.name.removeprefix(stem_of(spec)) for path in paths] == [".png", ".tif", ".json"]
    assert read_artifact(paths[0]).record["layout"] is None


def test_saving_again_changes_nothing(render, tmp_path):
    paths = save_render(render, tmp_path)
    before = [path.stat().st_mtime_ns for path in paths]
    slower = repaint(render, provenance={**render.provenance, "seconds": 99.0})
    assert save_render(slower, tmp_path) == paths
    assert [path.stat().st_mtime_ns for path in paths] == before


def test_what_another_version_drew_is_kept_beside_the_new(spec, render, tmp_path):
    first = save_render(render, tmp_path)
    kept = first[0].read_bytes()
    second = save_render(draw(spec, version="2"), tmp_path)
    assert second[0].name == f"{stem_of(spec)}-2.png"
    assert first[0].read_bytes() == kept
    assert save_render(draw(spec, version="2"), tmp_path) == second


def test_half_a_set_is_completed(render, tmp_path):
    paths = save_render(render, tmp_path)
    for path in paths[1:]:
        path.unlink()
    assert save_render(render, tmp_path) == paths
    assert manifest_mistakes(paths[-1]) == []


def test_a_damaged_file_is_not_written_over(spec, render, tmp_path):
    paths = save_render(render, tmp_path)
    paths[0].write_bytes(paths[0].read_bytes()[:500])
    assert save_render(render, tmp_path)[0].name == f"{stem_of(spec)}-2.png"
    assert paths[0].stat().st_size == 500


def test_a_disk_that_fills_up_leaves_nothing(render, tmp_path):
    sizes = {ending: len(data) for ending, data in encode(render).items()}
    limit = max(sizes.values()) - 1  # the PNG or the TIFF is written, the other is not
    with largest_file(limit), pytest.raises(OutputError, match="File too large"):
        save_render(render, tmp_path / "out")
    assert names(tmp_path) == []


def test_ctrl_c_before_the_manifest_leaves_nothing(render, tmp_path, monkeypatch):
    write = artifact.atomic_write

    def interrupted(path, data):
        if path.suffix == ".json":
            raise KeyboardInterrupt
        return write(path, data)

    monkeypatch.setattr(artifact, "atomic_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_render(render, tmp_path / "out")
    assert names(tmp_path) == []


def overtaken_before(ending, other, out, monkeypatch):
    """Let another process save a render while this one is about to write a file."""
    write, saved = artifact.atomic_write, []

    def slow(path, data):
        if path.name.endswith(ending) and not saved:
            saved.append(path)
            saved.extend(save_render(other, out))
        return write(path, data)

    monkeypatch.setattr(artifact, "atomic_write", slow)
    return saved


@pytest.mark.parametrize("ending", [".png", ".tif", ".json"])
def test_a_render_that_another_process_saved_meanwhile_is_done(
    ending, render, tmp_path, monkeypatch
):
    slower = repaint(render, provenance={**render.provenance, "seconds": 99.0})
    saved = overtaken_before(ending, slower, tmp_path, monkeypatch)
    assert save_render(render, tmp_path) == saved[1:]
    assert manifest_mistakes(saved[-1]) == []
    assert json.loads(saved[-1].read_text())["run"]["seconds"] == 99.0  # the first one stays
    assert names(tmp_path) == sorted(path.name for path in saved[1:])


@pytest.mark.parametrize("ending", [".png", ".json"])
def test_another_picture_that_took_the_name_meanwhile_is_kept_beside_ours(
    ending, spec, render, tmp_path, monkeypatch
):
    saved = overtaken_before(ending, draw(spec, version="2"), tmp_path, monkeypatch)
    ours = save_render(render, tmp_path)
    assert {path.name.split(".png")[0] for path in (ours[0], saved[1])} == {
        stem_of(spec),
        f"{stem_of(spec)}-2",
    }
    assert manifest_mistakes(ours[-1]) == manifest_mistakes(saved[-1]) == []
    assert len(names(tmp_path)) == 8


def test_many_writers_of_one_render_agree(render, tmp_path):
    start, told = threading.Barrier(4), []

    def save(seconds):
        mine = repaint(render, provenance={**render.provenance, "seconds": seconds})
        start.wait()
        told.append(save_render(mine, tmp_path))

    threads = [threading.Thread(target=save, args=(float(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 4
    assert all(paths == told[0] for paths in told)
    assert manifest_mistakes(told[0][-1]) == []
    assert names(tmp_path) == sorted(path.name for path in told[0])


def test_a_save_that_fails_takes_away_only_what_it_wrote(render, tmp_path, monkeypatch):
    kept = save_render(render, tmp_path)
    for path in (kept[1], kept[-1]):
        path.unlink()

    write = artifact.atomic_write

    def interrupted(path, data):
        if path.suffix == ".json":
            raise KeyboardInterrupt
        return write(path, data)

    monkeypatch.setattr(artifact, "atomic_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_render(render, tmp_path)
    assert names(tmp_path) == sorted([kept[0].name, kept[2].name])


def test_a_save_that_fails_spares_what_another_process_finished_with(render, tmp_path, monkeypatch):
    slower = repaint(render, provenance={**render.provenance, "seconds": 99.0})
    write, saved = artifact.atomic_write, []

    def interrupted(path, data):
        if path.suffix == ".json" and not saved:  # our pictures lie there, the other one's too
            saved.append(path)
            saved.extend(save_render(slower, tmp_path))
            raise KeyboardInterrupt
        return write(path, data)

    monkeypatch.setattr(artifact, "atomic_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_render(render, tmp_path)
    assert manifest_mistakes(saved[-1]) == []


def test_what_a_failing_process_took_away_again_is_written_anew(render, tmp_path, monkeypatch):
    write, taken = artifact.atomic_write, []

    def bereft(path, data):
        if path.suffix == ".json" and not taken:
            taken.append(path.with_suffix(".tif"))
            taken[0].unlink()
        return write(path, data)

    monkeypatch.setattr(artifact, "atomic_write", bereft)
    assert manifest_mistakes(save_render(render, tmp_path)[-1]) == []


def look(out, spec, *, model_sha256="ab" * 32, online=False):
    return find_done(out, spec, model_sha256=lambda _: model_sha256, online=online)


def test_done_means_all_files_are_whole(spec, render, tmp_path):
    assert look(tmp_path, spec) == (None, [])
    paths = save_render(render, tmp_path)
    assert look(tmp_path, spec) == (paths[-1], [])
    other = RunSpec.from_json(spec.to_json().replace('"seed":7', '"seed":8'))
    assert look(tmp_path, other) == (None, [])
    paths[1].write_bytes(b"")
    changed = f"{paths[1].name} has changed since it was written"
    assert manifest_mistakes(paths[-1]) == [changed]
    assert look(tmp_path, spec) == (None, [f"{paths[-1].name}: {changed}"])
    paths[1].unlink()
    assert manifest_mistakes(paths[-1]) == [f"{paths[1].name} is missing"]
    paths[-1].write_text("{")
    assert look(tmp_path, spec) == (None, [f"{paths[-1].name}: its manifest cannot be read"])


def test_what_other_weights_drew_is_not_done(spec, render, tmp_path):
    old = save_render(render, tmp_path)
    assert look(tmp_path, spec, model_sha256="cd" * 32) == (
        None,
        [f"{old[-1].name}: other weights drew it"],
    )
    new = save_render(draw(spec, model_sha256="cd" * 32), tmp_path)
    assert new[-1].stem == f"{stem_of(spec)}-2"
    assert look(tmp_path, spec, model_sha256="cd" * 32) == (new[-1], [])
    assert look(tmp_path, spec) == (old[-1], [])


@pytest.mark.parametrize(("then", "said"), [(True, "with"), (False, "without")])
def test_what_was_drawn_with_another_use_of_the_network_is_not_done(spec, then, said, tmp_path):
    manifest = save_render(draw(spec, online=then), tmp_path)[-1]
    assert look(tmp_path, spec, online=then) == (manifest, [])
    found, others = look(tmp_path, spec, online=not then)
    assert found is None
    assert others == [f"{manifest.name}: it was drawn {said} the network"]


@pytest.mark.parametrize("ending", [".png", ".tif", ".layout.png"])
def test_a_manifest_that_does_not_list_every_file_is_not_done(ending, spec, render, tmp_path):
    manifest = save_render(render, tmp_path)[-1]
    content = json.loads(manifest.read_text())
    del content["files"][f"{stem_of(spec)}{ending}"]
    manifest.write_text(json.dumps(content))
    assert manifest_mistakes(manifest) == [f"{stem_of(spec)}{ending} is not listed"]
    assert look(tmp_path, spec)[0] is None
    assert save_render(render, tmp_path)[-1].stem == f"{stem_of(spec)}-2"


def test_the_weights_are_asked_for_only_where_something_is_there(spec, render, tmp_path):
    asked = []

    def fingerprint(name):
        asked.append(name)
        return "ab" * 32

    assert find_done(tmp_path, spec, model_sha256=fingerprint, online=False) == (None, [])
    assert asked == []
    save_render(render, tmp_path)
    assert find_done(tmp_path, spec, model_sha256=fingerprint, online=False)[0] is not None
    assert asked == ["satellite-nano"]


def test_a_manifest_cannot_point_outside_its_folder(render, tmp_path):
    manifest = save_render(render, tmp_path / "out")[-1]
    content = json.loads(manifest.read_text())
    content["files"] = {"../secret": {"sha256": "0" * 64, "bytes": 1}}
    (tmp_path / "secret").touch()
    manifest.write_text(json.dumps(content))
    assert "secret is missing" in manifest_mistakes(manifest)


def test_a_cut_off_file_is_refused_whatever_its_kind(render, tmp_path):
    for path in save_render(render, tmp_path)[:2]:
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(InvalidSpecError, match=rf"{path.name}.*cut off"):
            read_artifact(path).pixels()


def retext(data, old, new):
    """Change a text inside a PNG and mend the checksums, as an editor of metadata would."""
    out, at = data[:8], 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if kind == b"iTXt" and body.startswith(b"RunSpec"):
            body = body.replace(old, new)
        crc = struct.pack(">I", zlib.crc32(kind + body))
        out += struct.pack(">I", len(body)) + kind + body + crc
        at += 12 + length
    return out


def test_a_spec_edited_without_its_record_is_noticed(render, tmp_path):
    png = save_render(render, tmp_path)[0]
    png.write_bytes(retext(png.read_bytes(), b'"seed":7', b'"seed":8'))
    with pytest.raises(InvalidSpecError, match="disagree"):
        read_spec(png)


def test_an_invalid_spec_inside_is_refused_by_its_field(render, tmp_path):
    png = save_render(render, tmp_path)[0]
    png.write_bytes(retext(png.read_bytes(), b'"steps":10', b'"steps":0'))
    with pytest.raises(InvalidSpecError, match="steps=0"):
        read_spec(png)


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"[]", b"{}", b'{"record": {}}', b'{"record": 3}', b"{" * 100_000, b"\xff\xfe"],
)
def test_what_terrascape_did_not_write_is_refused(data, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(
        InvalidSpecError, match=r"a\.json.*give one that|a\.json carries no RunSpec"
    ):
        read_spec(path)


def test_a_picture_without_a_spec_and_no_picture_at_all(render, tmp_path):
    layout = save_render(render, tmp_path)[2]
    with pytest.raises(InvalidSpecError, match="carries no RunSpec"):
        read_spec(layout)
    with pytest.raises(MissingFileError, match="is no file"):
        read_spec(tmp_path / "none.png")


def test_a_record_of_a_later_form_is_refused(render, tmp_path):
    manifest = save_render(render, tmp_path)[-1]
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(InvalidSpecError, match="form 2, this version reads 1"):
        read_spec(manifest)


def test_kind_is_told_by_content_not_by_name(spec, render, tmp_path):
    png = save_render(render, tmp_path)[0]
    assert read_spec(png.rename(tmp_path / "holiday.tif")) == spec


def test_the_saved_layout_is_found_only_while_it_is_the_recorded_one(render, tmp_path):
    png, tif, layout, _ = save_render(render, tmp_path)
    assert read_artifact(png).layout_file() == layout
    assert read_artifact(tif).layout_file() == layout
    layout.write_bytes(png.read_bytes())
    assert read_artifact(png).layout_file() is None
    layout.unlink()
    assert read_artifact(png).layout_file() is None
