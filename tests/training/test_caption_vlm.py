"""The captioner, with a LLaVA of random weights and a vocabulary of letters."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from generation.errors import ConfigError, MissingFileError, NetworkError, OutputError, WeightsError
from training.caption_vlm import (
    already_told,
    caption_all,
    load_captioner,
    main,
    read_requests,
)


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """A folder as llava-hf/llava-1.5-7b-hf has it, some thousand parameters large."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    letters = [chr(code) for code in range(32, 127)]
    names = ["<pad>", "</s>", "<unk>", "<image>", "Ċ", *letters]
    inner = Tokenizer(models.BPE({n: i for i, n in enumerate(names)}, [], unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )
    size = {"height": 28, "width": 28}
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=size),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(
                image_size=28, patch_size=14, num_hidden_layers=2, projection_dim=16, **small
            ),
            text_config=LlamaConfig(
                vocab_size=len(names), num_hidden_layers=1, num_key_value_heads=2,
                pad_token_id=0, bos_token_id=1, eos_token_id=1, **small,
            ),
            image_token_index=names.index("<image>"),
            image_seq_length=4,
        )
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("llava")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def captioner(llava):
    return load_captioner(str(llava))


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("b.png", "a.png"):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder / name)
    return folder


def told(out):
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_a_picture_is_described_in_the_given_number_of_words(captioner):
    rgb = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    text = captioner(rgb, max_new_tokens=5)
    assert text == captioner(rgb, max_new_tokens=5)
    assert 0 < len(text) <= 5 * len("<image>")
    assert "USER" not in text


def test_the_command_describes_a_folder_and_asks_nothing_twice(
    llava, images, tmp_path, monkeypatch
):
    out = tmp_path / "captions.jsonl"
    words = ["--images", str(images), "--out", str(out), "--model", str(llava)]
    assert main([*words, "--limit", "1"]) == 0
    assert [row["image"] for row in told(out)] == ["a.png"]
    assert main(words) == 0
    rows = told(out)
    assert [row["image"] for row in rows] == ["a.png", "b.png"]
    assert all(isinstance(row["prompt"], str) for row in rows)
    monkeypatch.setattr("training.caption_vlm.load_captioner", None)  # not even loaded
    assert main(words) == 0
    assert told(out) == rows


def describe(rgb):
    return f"{rgb.shape[1]}x{rgb.shape[0]}"


def test_a_line_that_a_crash_cut_off_is_told_again(images, tmp_path):
    out = tmp_path / "captions.jsonl"
    whole = json.dumps({"image": "a.png", "prompt": "a harbour"}) + "\n"
    out.write_text(whole + '{"image": "b.png", "pro')
    assert already_told(out) == {"a.png"}
    assert out.read_text() == whole
    assert caption_all(describe, read_requests(images), images, out) == 0
    assert told(out) == [
        {"image": "a.png", "prompt": "a harbour"},
        {"image": "b.png", "prompt": "40x30"},
    ]


def test_a_manifest_keeps_what_it_had(images, tmp_path):
    manifest = images / "pairs.jsonl"
    row = {"image": "b.png", "layout": "map.png", "lat": 1.5, "lon": 2}
    manifest.write_text(json.dumps(row) + "\n")
    out = tmp_path / "out.jsonl"
    caption_all(describe, read_requests(manifest), manifest, out)
    assert told(out) == [{**row, "prompt": "40x30"}]


def test_a_picture_that_cannot_be_read_stops_nothing(images, tmp_path, capsys):
    (images / "a.png").write_bytes(b"no picture")
    out = tmp_path / "out.jsonl"
    assert caption_all(describe, read_requests(images), images, out) == 1
    assert [row["image"] for row in told(out)] == ["b.png"]
    assert "a.png is no readable image" in capsys.readouterr().err


def test_absent_and_damaged_weights_tell_what_to_do(llava, tmp_path, monkeypatch):
    with pytest.raises(MissingFileError, match=r"14 GB.*--model.*--online"):
        load_captioner(str(tmp_path / "nowhere"))
    broken = tmp_path / "broken"
    broken.mkdir()
    whole = (llava / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(whole[:-9])
    with pytest.raises(WeightsError, match="not whole"):
        load_captioner(str(broken))
    (broken / "model.safetensors").write_bytes(whole)
    with pytest.raises(WeightsError, match="no whole LLaVA"):
        load_captioner(str(broken))

    def unreachable(*_, **options):
        assert options["local_files_only"] is False
        raise OSError("no route")

    monkeypatch.setattr("transformers.AutoProcessor.from_pretrained", unreachable)
    with pytest.raises(NetworkError, match="no route"):
        load_captioner("llava-hf/llava-1.5-7b-hf", online=True)


def test_odd_inputs_and_outputs_are_refused(images, tmp_path, capsys):
    with pytest.raises(MissingFileError, match="neither a folder nor a manifest"):
        read_requests(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="has no pictures"):
        read_requests(tmp_path / "empty")
    out = tmp_path / "notes.txt"
    for notes, reason in (("my notes", "ends in no caption"), ("my notes\n", "line 1")):
        out.write_text(notes)
        with pytest.raises(OutputError, match=reason):
            already_told(out)
        assert out.read_text() == notes
    assert main(["--images", str(images), "--out", str(out)]) == 2
    assert "name another file" in capsys.readouterr().err
