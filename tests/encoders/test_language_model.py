"""Strings through a frozen language model, and a model of ranges that is asked with one."""

import numpy as np
import pytest
import torch
from tiny_llama import save_llama
from tiny_ranges import TAXA, write_ranges

from generation.checkpoint import load_part
from generation.encoders.language_model import LanguageModelEncoder, text_encoder
from generation.encoders.range_encoder import RangeEncoder
from generation.encoders.ranges import RangeModel
from generation.encoders.taxonomy import Taxonomy
from generation.errors import InvalidSpecError, MissingFileError, WeightsError
from training.train_ranges import main as train

CATS = ["Carnivora Felidae Panthera leo", "Carnivora Felidae", "Carnivora"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return save_llama(tmp_path_factory.mktemp("llama"))


def test_states_are_those_behind_the_last_layer(llama):
    from transformers import AutoTokenizer, LlamaForCausalLM

    encoder = LanguageModelEncoder(llama)
    states, words = encoder(CATS)
    assert states.shape == (3, 48, 16)
    assert words.sum(1).tolist() == [1 + len(text) for text in CATS]
    model = LlamaForCausalLM.from_pretrained(llama, output_hidden_states=True).eval()
    alone = AutoTokenizer.from_pretrained(llama)(CATS[1], return_tensors="pt")
    with torch.no_grad():
        expected = model(input_ids=alone["input_ids"]).hidden_states[-1][0]
    torch.testing.assert_close(states[1][words[1]], expected, atol=1e-5, rtol=1e-4)
    assert not states[~words].any()
    assert not any(p.requires_grad for p in encoder.model.parameters())


def test_strings_are_read_alone_and_once(llama, monkeypatch):
    encoder = LanguageModelEncoder(llama, max_tokens=12, remembered=2)
    together, _ = encoder(CATS)
    for text, state in zip(CATS, together, strict=True):
        torch.testing.assert_close(encoder([text])[0][0], state, atol=1e-6, rtol=1e-5)
    encoder(CATS[1:])
    monkeypatch.setattr(encoder, "tokenizer", None)
    encoder(CATS[1:])  # both are remembered
    with pytest.raises(TypeError):
        encoder(CATS[:1])


def test_a_model_of_ranges_is_trained_and_asked_with_it(llama, tmp_path):
    write_ranges(tmp_path)
    given = [f"ranges={tmp_path}/ranges.npz", f"traits={tmp_path}/traits.csv"]
    given += [f"out={tmp_path}/run", f"text={llama}", "own=1", "land=8", "elsewhere=2", "degree=3"]
    given += ["width=8", "blocks=1", "dim=8", "queries=1", "loop.steps=2", "loop.batch_size=4"]
    train(["configs/ranges_full.yaml", *given, "loop.mixed_precision=no", "online=false"])
    model = load_part(RangeModel, tmp_path / "run/weights")
    assert (model.config["state_dim"], model.config["text"]) == (16, str(llama))
    table = Taxonomy(TAXA, [True] * len(TAXA))
    encoder = RangeEncoder(model, table, tmp_path / "run/weights")
    places = np.array([[45.0, 7.0], [-30.0, 150.0]], np.float32)
    found = encoder.likely([" ".join(TAXA[0]), TAXA[0][0]], places)
    assert found.shape == (2, 2)
    assert ((found > 0) & (found < 1)).all()


def test_what_reads_no_strings_is_refused(llama, tmp_path):
    assert text_encoder().dim == 384
    assert text_encoder(str(llama)).dim == 16
    with pytest.raises(MissingFileError, match="llama-2"):
        text_encoder("llama-2")
    with pytest.raises(InvalidSpecError, match="reads no strings"):
        text_encoder("ranges-nano")
    with pytest.raises(WeightsError, match="holds no"):
        text_encoder(str(tmp_path))
    cut = tmp_path / "cut"
    save_llama(cut)
    file = sorted(cut.glob("*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(WeightsError, match=file.name):
        text_encoder(str(cut))
    (save_llama(tmp_path / "odd") / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(WeightsError, match="no whole language model"):
        text_encoder(str(tmp_path / "odd"))
