"""Towers and readers of shared spaces: the embedded as they were, the published by part."""

import hashlib
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from generation.encoders.image import SatMae, ScaleVit
from generation.encoders.sound_encoder import SoundEncoder
from generation.encoders.sound_readers import (
    DecibelReader,
    FusedReader,
    MelReader,
    Pixels,
    text_reader,
)
from generation.encoders.sound_space import SoundSpace
from generation.encoders.sound_towers import new_tower, tower_settings
from generation.errors import AudioError, ConfigError, MissingFileError
from generation.media.audio import Recording
from training.train_binding import SpaceConfig, new_space

EMBEDDED = {
    ("pooled", "none"): (
        "65e727115358ec7b3d8447fbbf0f3fec3fe3403280b1e9a140347821e26d12e0",
        [(0.06597677, 0.07620241), (0.06021996, -0.08760427), (0.09253353, 0.05261282)],
    ),
    ("gaussian", "late"): (
        "07b5c72dc4ea8991b34d15a655b2efdc28d3943ab4a6f198e7da397c67da85d5",
        [(0.08693747, -0.00890361), (-0.01155894, 0.02132422), (0.04297374, -0.09809402)],
    ),
    ("codebook", "early"): (
        "1fa21289bb25eaf34a76e7caa386d0c836a9de926aa670f7eb56bad0402b1a7f",
        [(0.19486117, -0.15272194), (-0.82329106, -0.17761423), (-0.53063804, 0.47396937)],
    ),
}
"""Names and shapes of the embedded spaces as one hash, and the beginnings of three embeddings."""
HTSAT = {
    "num_mel_bins": 16,
    "spec_size": 64,
    "patch_embeds_hidden_size": 8,
    "depths": [1, 1],
    "num_attention_heads": [1, 2],
    "num_hidden_layers": 2,
    "window_size": 4,
    "hidden_size": 16,
}


@pytest.mark.parametrize(("kind", "joined"), EMBEDDED)
@torch.no_grad()
def test_embedded_spaces_are_what_they_were_trained_as(kind, joined):
    wanted, beginnings = EMBEDDED[kind, joined]
    torch.manual_seed(0)
    space = new_space(SpaceConfig(kind=kind, joined=joined, temperature=1.0), frames=512).eval()
    told = "\n".join(f"{name} {tuple(v.shape)}" for name, v in space.state_dict().items())
    assert hashlib.sha256(told.encode()).hexdigest() == wanted
    torch.manual_seed(1)
    images, mels, states = (torch.randn(2, *s) for s in ((3, 64, 64), (64, 512), (5, 384)))
    found = [
        space.embed_image(images, torch.full((2,), 600.0)),
        space.embed_audio(mels),
        space.embed_text(states, torch.ones(2, 5, dtype=torch.bool)),
    ]
    for embedding, beginning in zip(found, beginnings, strict=True):
        torch.testing.assert_close(
            embedding.vector[0, :2], torch.tensor(beginning), atol=1e-4, rtol=1e-3
        )


def test_a_tower_that_there_is_not_is_refused():
    with pytest.raises(ConfigError, match=r"towers\.audio\.kind='beats' is no tower \(one of ast,"):
        SoundSpace(towers={"audio": {"kind": "beats"}})
    with pytest.raises(
        ConfigError, match=r"towers\.text\.mapped=false leaves 192 features in a sp"
    ):
        SoundSpace(dim=8, towers={"text": {"mapped": False}})


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_full_towers_have_the_sizes_of_the_published_ones():
    kinds = [("image", "satmae"), ("audio", "clap"), ("audio", "htsat"), ("text", "clap")]
    with torch.device("meta"):
        image, heard, moments, read = (
            new_tower(modality, tower_settings(modality, {"kind": kind}))
            for modality, kind in kinds
        )
    assert count(image) == 86_567_656  # timm's vit_base_patch16_224, with its thousand classes
    assert (image.dim, heard.dim, moments.dim, read.dim) == (1000, 512, 768, 512)
    assert (heard.frames, moments.frames) == (1001, 1001)
    roberta = 124_645_632  # with its pooling layer
    assert count(read) == roberta + (768 + 1) * 512 + (512 + 1) * 512


def test_a_mean_of_patches_is_taken_before_the_norm():
    torch.manual_seed(0)
    sizes = {"image_px": 16, "patch": 8, "dim": 8, "depth": 1, "heads": 2}
    pooled = ScaleVit(**sizes, pooled=True)
    every = ScaleVit(**sizes, final_norm=False)
    every.load_state_dict(pooled.state_dict(), strict=False)
    images, gsd = torch.randn(2, 3, 16, 16), torch.ones(2)
    mean = every(images, gsd).mean(1)
    wanted = F.layer_norm(mean, (8,), pooled.norm.weight, pooled.norm.bias, 1e-6)
    torch.testing.assert_close(pooled(images, gsd)[:, 0], wanted)


def test_a_class_token_gives_one_token_that_is_never_negative():
    torch.manual_seed(0)
    tower = SatMae(image_px=16, patch=8, dim=8, depth=1, heads=2, classes=30)
    images = torch.randn(2, 3, 16, 16)
    tokens = tower(images, torch.ones(2))
    assert tokens.shape == (2, 1, 30)
    assert (tokens >= 0).all()
    assert (tokens > 0).any()
    torch.testing.assert_close(tower(images, torch.full((2,), 9.0)), tokens)


def test_moments_follow_time():
    torch.manual_seed(0)
    tower = new_tower("audio", tower_settings("audio", {"kind": "htsat", "net": HTSAT})).eval()
    mels = torch.randn(1, 16, 256)
    later = mels.clone()
    later[..., 200:] += 3.0
    with torch.no_grad():
        apart = (tower(later) - tower(mels)).abs().amax(-1)[0]
    assert apart.shape == (32,)  # 256 columns; a moment is 8 of them
    assert apart[-6:].min() > 1e-4
    assert apart[:16].max() == 0  # windows are far apart in time


def noise(count, rate):
    return Recording(
        (0.1 * np.random.default_rng(0).standard_normal(count)).astype(np.float32), rate
    )


@pytest.mark.parametrize("samples", [70_000, 480_000, 480_200, 700_000])
def test_clap_hears_what_the_published_reader_makes(samples):
    from transformers import ClapFeatureExtractor

    recording = noise(samples, 48_000)
    found = FusedReader(64, 1001)(recording)
    wanted = ClapFeatureExtractor()(recording.samples, sampling_rate=48_000, return_tensors="pt")[
        "input_features"
    ]
    assert found.shape == wanted.shape == (1, 4, 1001, 64)
    torch.testing.assert_close(found[:, 0], wanted[:, 0].float(), atol=2e-3, rtol=1e-4)
    same = (found[:, 1:] - found[:, :1]).abs().amax((0, 2, 3))
    assert (same == 0).all() if samples < 480_480 else (same > 1).all()
    torch.testing.assert_close(FusedReader(64, 1001)(recording), found)


def test_mga_clap_hears_decibels_and_then_silence():
    reader = DecibelReader(64, 1001)
    seconds = np.arange(64_000) / 32_000
    tone = (0.5 * np.sin(2 * math.pi * 1000.0 * seconds)).astype(np.float32)
    mels = reader(Recording(tone, 32_000))
    assert mels.shape == (1, 64, 1001)
    assert mels[0, :, 300:].max() == -100.0
    assert mels.min() == -100.0
    band = int(mels[0, :, 100].argmax())
    # a tone of amplitude a under a Hann window of n: power (a n / 4)^2 at its frequency
    power = (0.5 * 1024 / 4) ** 2
    share = reader.filters[32, band].item()  # bin 32 of 31.25 Hz each
    neighbours = reader.filters[[31, 33], band].sum().item() / 4
    assert mels[0, band, 100].item() == pytest.approx(
        10 * math.log10(power * (share + neighbours)), abs=0.01
    )
    assert DecibelReader(64, 1001)(noise(32_000 * 25, 32_000)).shape == (2, 64, 1001)


def test_the_embedded_model_hears_as_before():
    mels = MelReader(512)(noise(200_000, 16_000))
    assert mels.shape == (2, 64, 512)
    assert MelReader(512)(noise(3_000, 16_000)).shape == (1, 64, 512)


@pytest.mark.parametrize("reader", [FusedReader(16, 256), DecibelReader(16, 256), MelReader(64)])
def test_a_recording_without_samples_is_refused(reader):
    with pytest.raises(AudioError, match="without samples"):
        reader(noise(0, 48_000))


def test_pixels_are_read_as_weights_were_trained():
    image = np.full((1, 40, 40, 3), 255, np.uint8)
    image[:, :, :, 2] = 0
    seen = Pixels(16, "imagenet", resized_px=20)(image)
    assert seen.shape == (1, 3, 16, 16)
    wanted = torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, -0.406 / 0.225])
    torch.testing.assert_close(seen[0, :, 3, 5], wanted)
    assert Pixels(16)(image)[0, :, 0, 0].tolist() == [1.0, 1.0, -1.0]


def test_the_middle_is_cut_out_of_what_is_resized():
    rows = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None], (40, 40, 3))[None]
    whole = Pixels(20, "imagenet")(rows.copy())
    middle = Pixels(16, "imagenet", resized_px=20)(rows.copy())
    torch.testing.assert_close(middle, whole[:, :, 2:18, 2:18])
    rough = Pixels(20, "imagenet", antialias=False)(rows.copy())
    assert (rough - whole).abs().max() > 0


@pytest.fixture
def t5_folder(tmp_path):
    """A tiny FLAN-T5 and its tokenizer, as they lie beside the weights of a space."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    words = ["<pad>", "</s>", "<unk>", "rain", "on", "a", "roof", "birds"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(tmp_path / "tokenizer")
    torch.manual_seed(0)
    sizes = {"d_model": 12, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    T5EncoderModel(T5Config(vocab_size=8, **sizes)).save_pretrained(tmp_path / "text_encoder")
    return tmp_path


def test_words_of_flan_t5_do_not_depend_on_their_neighbours(t5_folder):
    torch.manual_seed(0)
    tiny = {"image_px": 16, "patch": 8, "dim": 8, "depth": 1, "heads": 2}
    audio = {"kind": "htsat", "net": HTSAT, "projected": False}
    text = {"kind": "t5", "dim": 12, "max_tokens": 6, "projected": False}
    space = SoundSpace(
        kind="codebook",
        dim=8,
        width=8,
        towers={"image": tiny, "audio": audio, "text": text},
        codebook={"codes": 6},
        compat="mvrl",
    )
    encoder = SoundEncoder(space, folder=t5_folder)
    both = encoder.text(["rain on a roof", "birds"])
    alone = encoder.text(["birds"])
    assert torch.equal(both.vector[1], alone.vector[0])
    assert (both.vector[0] - both.vector[1]).abs().max() > 1e-4
    longer = encoder.text(["rain on a roof birds birds rain on a roof"])
    torch.testing.assert_close(
        longer.vector, encoder.text(["rain on a roof birds birds on on"]).vector
    )


def test_a_text_encoder_that_is_not_there_or_does_not_fit_is_refused(t5_folder):
    settings = tower_settings("text", {"kind": "t5", "dim": 16, "max_tokens": 6})
    tower = new_tower("text", settings)
    with pytest.raises(
        ConfigError, match="gives states of 12 features, the space was trained on 16"
    ):
        text_reader(settings, tower, t5_folder)
    (t5_folder / "text_encoder" / "model.safetensors").unlink()
    with pytest.raises(
        MissingFileError, match=r"FLAN-T5\) is not in .*text_encoder, where model\.s"
    ):
        text_reader(settings, tower, t5_folder)
    with pytest.raises(ConfigError, match="reads sentences only where its tokenizer lies"):
        text_reader(settings, tower, None)


def test_numbers_for_clap_are_filled_up_and_cut(t5_folder):
    settings = {"kind": "clap"}
    tower = new_tower(
        "text",
        tower_settings(
            "text",
            {
                "kind": "clap",
                "max_tokens": 3,
                "net": {
                    "vocab_size": 8,
                    "hidden_size": 8,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 1,
                    "intermediate_size": 8,
                    "max_position_embeddings": 16,
                    "projection_dim": 6,
                },
            },
        ),
    ).eval()
    [(numbers, words)] = text_reader(settings, tower, t5_folder)(["rain on a roof", "birds"])
    assert numbers.shape == (2, 3)
    assert words.tolist() == [[True] * 3, [True, False, False]]
    with torch.no_grad():
        tokens, there = tower(numbers, words)
    assert tokens.shape == (2, 1, 6)
    assert there.tolist() == [[True], [True]]
