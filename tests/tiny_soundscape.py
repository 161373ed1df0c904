"""A whole pipeline of soundscapes at sizes that cost nothing."""

EMBED = 8


def make_soundscape_pipeline(seed=0, **conditioner_config):
    """Build an untrained pipeline, all of whose inputs matter."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler

    from generation.diffusion.codec import PatchCodec
    from generation.diffusion.soundscape import SoundscapeConditioner
    from generation.diffusion.trunk import build_unet
    from generation.media.audio import mel_signal
    from generation.media.vocoder import Vocoder
    from generation.pipelines.soundscape import SoundscapePipeline

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vocoder = Vocoder(width=16, hidden=16, num_blocks=1)
        sizes = {
            "block_out_channels": (16, 32),
            "attention_head_dim": (1, 2),
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "cross_attention_dim": 16,
            "vector_dim": 16,
        }
        unet = build_unet(latent_channels=8, latent_size=(8, 8), sizes=sizes)
        told = {"embed_dim": EMBED, "token_dim": 16, "vector_dim": 16, "sound_tokens": 2}
        conditioner = SoundscapeConditioner(**told | conditioner_config)
        for null in (conditioner.null_vector, conditioner.null_tokens):
            torch.nn.init.normal_(null)
        codec = PatchCodec(8, 8, 0.5, channels=1)
        codec.adapt([mel_signal(torch.randn(4, 1, 64, 64) - 6)])
    scheduler = FlowMatchEulerDiscreteScheduler()
    return SoundscapePipeline(unet, conditioner, codec, vocoder, scheduler)


def save_soundscape_model(home, seed=0):
    """Save such a pipeline, which listens with the embedded shared space, below a home folder."""
    from generation.encoders.sound_encoder import load_sound_encoder

    encoder = load_sound_encoder("sat2sound-nano")
    pipeline = make_soundscape_pipeline(
        seed,
        embed_dim=encoder.space.config["dim"],
        space=encoder.name,
        space_sha256=encoder.sha256,
    )
    pipeline.save_pretrained(home / "soundscape-nano", half=False)
