"""Published sound spaces: tiny checkpoints in their layouts become spaces that compute the same."""

import argparse
import json

import numpy as np
import published_sound as published
import pytest
import torch
from torch.nn import functional as F

from generation.checkpoint import load_part
from generation.convert import convert, kinds
from generation.convert.sound_parts import htsat_name
from generation.encoders.metadata import Metadata
from generation.encoders.sound_encoder import SoundEncoder
from generation.encoders.sound_space import SoundSpace
from generation.errors import MissingFileError, WeightsError
from generation.foreign_checkpoint import read_hyper_parameters
from generation.geo.location import Location
from generation.media.audio import Recording

KNOWN = [
    (1, 2, 46.5, 7.25, 5.0, 13.0),
    (None, 0, -33.0, 151.0, None, None),
    (3, None, None, None, 11.0, 4.0),
]
BUILT = {
    "sat2sound": published.sat2sound,
    "sat2sound_nometa": lambda: published.sat2sound(metadata=False),
    "psm": published.psm,
    "psm_points": lambda: published.psm(gaussian=False),
    "psm_nometa": lambda: published.psm(metadata=False),
    "geoclap": published.geoclap,
}
SPREAD = published.SIDE / 300  # of a bing tile's pixel over one of the tower's


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Each checkpoint, its space and the report, made once."""
    made = {}

    def make(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            weights = BUILT[name]()
            path = published.saved(weights, folder / "published.ckpt")
            report = convert(name.split("_")[0], path, folder / "space")
            space = load_part(SoundSpace, folder / "space").eval()
            made[name] = (weights, space, report, folder / "space")
        return made[name]

    return make


def images(count=3):
    return torch.randn(count, 3, published.SIDE, published.SIDE, generator=seeded())


def seeded():
    return torch.Generator().manual_seed(5)


def gsd(count=3, zoom=1):
    """Metres of a pixel of a bing tile at a zoom level, brought to the size of the tower."""
    return torch.full((count,), zoom * 0.6 / SPREAD)


def metadata(known=KNOWN):
    nothing = float("nan")
    rows = [[nothing if value is None else float(value) for value in row] for row in known]
    table = torch.tensor(rows)
    labels = [table[:, i].nan_to_num(-1).long() for i in (0, 1)]
    return Metadata(
        table[:, 2:4], table[:, 4], table[:, 5], {"asource": labels[0], "tsource": labels[1]}
    )


def close(found, wanted):
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)


def mixed_alike(found, wanted):
    """Compare mixtures; shares differ little from each other at a temperature of 1000."""
    vector, shares = wanted
    close(found.vector, vector)
    close(1000 * (found.weights - 1 / published.CODES), 1000 * (shares - 1 / published.CODES))
    assert (shares[0] - shares[1]).abs().max() > 1e-5


@pytest.mark.parametrize("name", BUILT)
def test_every_key_is_converted_or_left_for_a_reason(name, converted):
    weights, space, report, folder = converted(name)
    assert report.mapped.keys() | report.left.keys() == weights.keys()
    assert not report.mapped.keys() & report.left.keys()
    targets = [target for told in report.mapped.values() for target in told.split(", ")]
    assert len(targets) == len(set(targets)), "one tensor is filled twice"
    constants = space.state_dict().keys() - targets
    assert all(c.endswith(("position_index", "position_ids", "type_ids")) for c in constants)
    assert set(targets) <= space.state_dict().keys()
    told = json.loads((folder / "conversion.json").read_text())
    assert told["left"] == report.left
    assert not any("not read" in note for note in told["notes"] if "hyper_parameters" in note)


@torch.no_grad()
def test_sat2sound_gives_the_published_image_embeddings(converted):
    weights, space, *_ = converted("sat2sound")
    tokens = published.blocks_of(
        weights,
        "satmae_backbone.backbone",
        published.patches_of(weights, "satmae_backbone.backbone", images())
        + published.positions_of(3 * 0.6),
    )
    tokens = published.two_layers_of(weights, tokens, "satmae_backbone.projector")
    told, there = published.metadata_of(weights, "sat_encoder.meta_fuser", KNOWN)
    everywhere = torch.cat([torch.ones(3, tokens.shape[1], dtype=torch.bool), there], 1)
    fused = published.joined_of(
        weights, "sat_encoder.meta_fuser", torch.cat([tokens, told], 1), everywhere
    )
    wanted = published.codebook_of(weights, "img", fused)
    found = space.embed_image(images(), gsd(zoom=3), metadata())
    mixed_alike(found, wanted)
    unknown = space.embed_image(images(), gsd(zoom=3))
    assert (found.weights - unknown.weights).abs().max() > 1e-5
    again = space.embed_image(images(), gsd(zoom=3), metadata())
    assert torch.equal(found.vector, again.vector), "metadata must not be dropped"


@torch.no_grad()
def test_sat2sound_gives_the_published_embeddings_of_sounds_and_sentences(converted):
    weights, space, *_ = converted("sat2sound_nometa")
    mels = torch.randn(2, published.BANDS, published.FRAMES, generator=seeded())
    moments = published.moments_of(weights, "audio_encoder.model.audio_enc", mels)
    assert moments.shape == (2, 4 * 8, published.DEEPEST)
    close(space.audio(mels), moments)
    mixed_alike(space.embed_audio(mels), published.codebook_of(weights, "audio", moments))
    states = torch.randn(2, 5, published.STATES, generator=seeded())
    words = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    wanted = published.codebook_of(weights, "txt", states, words)
    mixed_alike(space.embed_text(states, words), wanted)
    patches = published.patches_of(weights, "satmae_backbone.backbone", images())
    tokens = published.blocks_of(
        weights, "satmae_backbone.backbone", patches + published.positions_of(0.6)
    )
    tokens = published.two_layers_of(weights, tokens, "satmae_backbone.projector")
    found = space.embed_image(images(), gsd())
    mixed_alike(found, published.codebook_of(weights, "img", tokens))


@pytest.mark.parametrize("name", ["psm", "psm_points", "psm_nometa"])
@torch.no_grad()
def test_psm_gives_the_published_embeddings(name, converted):
    weights, space, *_ = converted(name)
    encoder, backbone = "sat_encoder.encoder", "sat_encoder.encoder.backbone"
    patches = published.patches_of(weights, backbone, images())
    x = published.blocks_of(weights, backbone, patches + published.positions_of(0.6)).mean(1)
    x = published.norm_of(weights, x, f"{backbone}.fc_norm", 1e-6)
    x = published.two_layers_of(weights, x, f"{encoder}.projector")
    known = None
    if name != "psm_nometa":
        known, fuser = metadata(), f"{encoder}.meta_fuser"
        told, there = published.metadata_of(weights, fuser, KNOWN)
        first = weights[f"{fuser}.cls_token"].expand(3, 1, -1)
        everywhere = torch.cat([torch.ones(3, 2, dtype=torch.bool), there], 1)
        x = torch.cat([first, x[:, None], told], 1)
        x = published.joined_of(weights, fuser, x, everywhere)[:, 0]
    found = space.embed_image(images(), gsd(), known)
    heard = clap_embeds(weights, "audio_encoder.model.model.", "audio")
    read = clap_embeds(weights, "text_encoder.model.model.", "text")
    every = {
        encoder: (x, found),
        "audio_encoder": (heard, space.embed_audio(clap_inputs("audio")["input_features"])),
        "text_encoder": (read, embed_numbers(space)),
    }
    for prefix, (features, embedding) in every.items():
        if name == "psm_points":
            wanted = features
            if prefix != encoder:
                wanted = published.two_layers_of(weights, features, f"{prefix}.head")
            assert embedding.log_variance is None
        else:
            wanted = published.two_layers_of(weights, features, f"{prefix}.mean_head")
            spread = published.two_layers_of(weights, features, f"{prefix}.std_head")
            close(embedding.log_variance, spread)
        close(embedding.vector, F.normalize(wanted, dim=-1))


@torch.no_grad()
def test_geoclap_gives_the_published_embeddings(converted):
    weights, space, *_ = converted("geoclap")
    model = "sat_encoder.model"
    first = weights[f"{model}.cls_token"].expand(3, -1, -1)
    x = torch.cat([first, published.patches_of(weights, model, images())], 1)
    x = published.blocks_of(weights, model, x + weights[f"{model}.pos_embed"])
    x = published.norm_of(weights, x[:, 0], f"{model}.norm", 1e-6)
    x = published.linear_of(weights, x, f"{model}.head").relu()
    wanted = F.normalize(published.linear_of(weights, x, "sat_encoder.fc"), dim=-1)
    close(space.embed_image(images(), gsd()).vector, wanted)
    heard = F.normalize(clap_embeds(weights, "audio_encoder.model.", "audio"), dim=-1)
    close(space.embed_audio(clap_inputs("audio")["input_features"]).vector, heard)
    read = F.normalize(clap_embeds(weights, "text_encoder.model.", "text"), dim=-1)
    close(embed_numbers(space).vector, read)


def clap_inputs(modality):
    if modality == "audio":
        mels = torch.randn(3, 4, published.FRAMES, published.BANDS, generator=seeded())
        return {"input_features": mels, "is_longer": torch.ones(3, 1, dtype=torch.bool)}
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]])
    return {
        "input_ids": torch.tensor([[0, 5, 6, 2], [0, 9, 2, 1], [0, 2, 1, 1]]),
        "attention_mask": mask,
    }


def clap_embeds(weights, prefix, modality):
    """What transformers' own model makes of the published tower."""
    import transformers as t

    if modality == "audio":
        model = t.ClapAudioModelWithProjection(t.ClapAudioConfig(**published.CLAP_AUDIO))
    else:
        model = t.ClapTextModelWithProjection(t.ClapTextConfig(**published.CLAP_TEXT))
    model.load_state_dict(weights.under(prefix))
    found = model.eval()(**clap_inputs(modality))
    return found.audio_embeds if modality == "audio" else found.text_embeds


def embed_numbers(space):
    given = clap_inputs("text")
    return space.embed_text(given["input_ids"], given["attention_mask"].bool())


def test_each_parameter_of_an_htsat_has_one_published_name():
    from transformers import ClapAudioConfig, ClapAudioModel

    sizes = {**published.CLAP_AUDIO, "enable_fusion": False}
    names = [
        n.partition(".")[2] for n, _ in ClapAudioModel(ClapAudioConfig(**sizes)).named_parameters()
    ]
    weights = published.Weights()
    published.htsat(weights, "a")
    theirs = [htsat_name(name) for name in names]
    assert len(theirs) == len(set(theirs)) == len(names)
    assert {f"a.{name}" for name, _ in theirs} <= weights.keys()
    assert sum(third is not None for _, third in theirs) == 3 * 2 * sum(published.DEPTHS)


def test_missing_and_unknown_keys_are_listed(tmp_path):
    weights = published.sat2sound()
    del weights["satmae_backbone.backbone.blocks.0.norm1.weight"]
    weights["fdt.txt_query_model.q_map.7.bias"] = torch.ones(2)
    with pytest.raises(
        WeightsError, match=r"blocks\.0\.norm1\.weight missing, .*q_map\.7\.bias un"
    ):
        convert("sat2sound", published.saved(weights, tmp_path / "a.ckpt"), tmp_path / "out")
    del weights["fdt.space_dict"]
    with pytest.raises(WeightsError, match=r"fdt\.space_dict is missing, from which sizes"):
        convert("sat2sound", published.saved(weights, tmp_path / "b.ckpt"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_shape_is_refused(tmp_path):
    weights = published.geoclap()
    weights["sat_encoder.model.blocks.1.mlp.fc2.bias"] = torch.ones(3)
    with pytest.raises(WeightsError, match=r"mlp\.fc2\.bias has shape \(3,\) and not \(8,\)"):
        convert("geoclap", published.saved(weights, tmp_path / "a.ckpt"), tmp_path / "out")


def test_variants_without_a_place_here_are_named(tmp_path):
    located = published.geoclap()
    located.linear("sat_encoder.metamodel.fc1", 16, 3)
    partial = published.psm(metadata=False)
    partial.tensor("sat_encoder.encoder.meta_fuser.cls_token", 1, 1, published.WIDTH)
    published.fuser(partial, "sat_encoder.encoder.meta_fuser", ("latlong", "month"))
    silent = {n: v for n, v in published.geoclap().items() if not n.startswith("text_encoder.")}
    cases = [
        ("geoclap", located, {}, "metadata_type=lat_long"),
        ("geoclap", silent, {}, "no text tower inside"),
        ("psm", partial, {}, "a metadata_type without hour is not converted"),
        ("psm", published.psm(), {"sat_type": "worldview"}, "sat_type='worldview'"),
        ("sat2sound", published.psm(), {}, r"fdt\.space_dict is missing"),
    ]
    for row, (kind, weights, told, hint) in enumerate(cases):
        path = published.saved(weights, tmp_path / f"{row}.ckpt", **told)
        with pytest.raises(WeightsError, match=hint):
            convert(kind, path, tmp_path / "out")


def test_settings_are_read_from_placeholders_and_nothing_runs(tmp_path):
    told = argparse.Namespace(sat_type="sentinel", sat_input_size=16, paths=["a"], rate=0.5)
    torch.save({"hyper_parameters": told, "state_dict": {}}, tmp_path / "a.ckpt")
    found = read_hyper_parameters(tmp_path / "a.ckpt")
    assert found == {"sat_type": "sentinel", "sat_input_size": 16, "rate": 0.5}
    torch.save({"state_dict": {}}, tmp_path / "b.ckpt")
    assert read_hyper_parameters(tmp_path / "b.ckpt") == {}
    torch.save({"hyper_parameters": pytest.approx, "state_dict": {}}, tmp_path / "c.ckpt")
    with pytest.raises(WeightsError, match="can run code"):
        read_hyper_parameters(tmp_path / "c.ckpt")
    with pytest.raises(MissingFileError):
        read_hyper_parameters(tmp_path / "d.ckpt")


@pytest.mark.parametrize("name", ["sat2sound", "psm", "geoclap"])
def test_a_converted_folder_embeds_places_and_recordings(name, converted):
    encoder = SoundEncoder.from_pretrained(converted(name)[3])
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 40, 40, 3), np.uint8)
    known = encoder.known([Location(46.5, 7.2), None], month=5, hour=13.0)
    seen = encoder.image(pictures, np.array([0.6, 0.6]), known)
    noise = (0.1 * rng.standard_normal(40_000)).astype(np.float32)
    heard = encoder.audio([Recording(noise, 16_000), Recording(noise[:9_000], 44_100)])
    again = encoder.audio([Recording(noise[:9_000], 44_100)])
    for embedding in (seen, heard):
        assert embedding.vector.shape == (2, published.WIDTH)
        assert embedding.vector.isfinite().all()
    close(again.vector[0], heard.vector[1])
    assert (heard.vector[0] - heard.vector[1]).abs().max() > 1e-6
    assert encoder.takes_metadata == (name != "geoclap")
    with pytest.raises(
        MissingFileError, match=r"tokenizer of its text tower is not in .*tokenizer"
    ):
        encoder.text(["waves"])


def test_the_three_systems_are_kinds():
    assert {"geoclap", "psm", "sat2sound"} <= set(kinds())
