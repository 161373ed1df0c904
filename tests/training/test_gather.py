"""Negatives of other processes, and batches in parts: the gradient is that of one whole batch."""

import os
import socket
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from generation.encoders.sound_space import AUDIO, IMAGE, TEXT, SoundSpace
from training.gather import gathered, in_parts
from training.train_binding import BindingConfig, BindingModel, SpaceConfig, embed, new_space

COUNT = 6


def tiny(kind):
    torch.manual_seed(0)
    joined = {"pooled": "none", "gaussian": "late", "codebook": "early"}[kind]
    cfg = SpaceConfig(
        kind=kind, joined=joined, dim=8, width=8, image_px=16, tower_dim=8, tower_depth=1,
        tower_heads=2, codes=6,
    )  # fmt: skip
    return BindingModel(new_space(cfg, frames=48), BindingConfig(space=cfg))


def batch():
    torch.manual_seed(1)
    return {
        "image": torch.randn(COUNT, 3, 16, 16),
        "gsd_m": torch.full((COUNT,), 600.0),
        "mel": torch.randn(COUNT, 64, 48),
        "states": torch.randn(COUNT, 4, 384),
        "words": torch.ones(COUNT, 4, dtype=torch.bool),
        "latlon": torch.rand(COUNT, 2) * 80,
        "month": torch.full((COUNT,), 5.0),
        "hour": torch.full((COUNT,), 6.0),
    }


def gradients(model):
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["pooled", "gaussian", "codebook"])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(kind):
    model = tiny(kind).eval()  # without dropout, whose numbers a part draws in another order
    found = []
    for size in (0, 4):  # six samples in parts of four: the last is smaller
        wanted = (IMAGE, AUDIO, TEXT)
        parts = in_parts(partial(embed, model.space, wanted), batch(), size)
        loss = model.loss(parts)
        model.zero_grad()
        loss.backward()
        found.append((loss.detach(), gradients(model)))
    (whole, theirs), (cut, ours) = found
    torch.testing.assert_close(cut, whole)
    assert ours.keys() == theirs.keys()
    assert len(ours) > 20
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=1e-3)


def test_parts_repeat_their_random_numbers_when_the_gradient_comes_back():
    model = tiny("gaussian").train()  # with dropout, and with metadata left out at random
    torch.manual_seed(5)
    parts = in_parts(partial(embed, model.space, (IMAGE, AUDIO, TEXT)), batch(), 3)
    loss = model.loss(parts)
    loss.backward()
    once = gradients(model)
    model.zero_grad()
    torch.manual_seed(5)
    parts = in_parts(partial(embed, model.space, (IMAGE, AUDIO, TEXT)), batch(), 3)
    model.loss(parts).backward()
    for name, value in gradients(model).items():
        torch.testing.assert_close(value, once[name])


def test_alone_nothing_is_gathered():
    model = tiny("pooled").eval()
    parts = embed(model.space, (IMAGE,), batch())
    assert gathered(parts[IMAGE]) is parts[IMAGE]
    assert isinstance(model.space, SoundSpace)


def test_two_processes_have_the_gradient_of_one_batch(tmp_path):
    model = tiny("gaussian").eval()
    model.loss(embed(model.space, (IMAGE, AUDIO, TEXT), batch())).backward()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(one_of_two, args=(port, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    theirs = gradients(model)
    assert first.keys() == theirs.keys()
    for name, whole in theirs.items():
        mean = (first[name] + second[name]) / 2  # what distributed training makes of them
        torch.testing.assert_close(mean, whole, atol=1e-5, rtol=1e-3)


def one_of_two(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    try:
        model = tiny("gaussian").eval()
        own = {k: v[rank * 3 : rank * 3 + 3] for k, v in batch().items()}
        parts = embed(model.space, (IMAGE, AUDIO, TEXT), own)
        model.loss({name: gathered(part) for name, part in parts.items()}).backward()
        torch.save(gradients(model), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()
