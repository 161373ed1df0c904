"""Tiny models of sounds with random weights, in the layouts of the published folders."""

import json

import torch
from diffusers import (
    AudioLDM2ProjectionModel,
    AudioLDM2UNet2DConditionModel,
    AutoencoderKL,
    AutoencoderOobleck,
    DDIMScheduler,
    StableAudioDiTModel,
    StableAudioProjectionModel,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapTextModelWithProjection,
    GPT2Config,
    GPT2Model,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
    T5Config,
    T5EncoderModel,
)

DIM = 16
BANDS = 16
LETTERS = "abcdefghijklmnopqrstuvwxyz "
COSINE = {
    "_class_name": "CosineDPMSolverMultistepScheduler",
    "_diffusers_version": "0.30.0.dev0",
    "euler_at_final": False,
    "final_sigmas_type": "zero",
    "lower_order_final": True,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "rho": 7.0,
    "sigma_data": 1.0,
    "sigma_max": 500,
    "sigma_min": 0.3,
    "sigma_schedule": "exponential",
    "solver_order": 2,
    "solver_type": "midpoint",
}


def clap_config():
    return ClapConfig(
        text_config={
            "vocab_size": 40, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1,
            "intermediate_size": 32, "max_position_embeddings": 66,
        },
        audio_config={
            "num_mel_bins": BANDS, "spec_size": 4 * BANDS, "patch_embeds_hidden_size": 8,
            "depths": [2, 2], "num_attention_heads": [2, 4], "num_hidden_layers": 2,
            "window_size": 4, "hidden_size": 16,
        },
        projection_dim=DIM,
    )  # fmt: skip


def clap():
    return loud(ClapModel(clap_config()))


def loud(model, std=0.3):
    """Spread random weights wide, so that what is told makes a difference."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=std)
    return model


def write_roberta(folder, words=64):
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *LETTERS.replace(" ", "Ġ")]
    vocabulary = {name: number for number, name in enumerate(names)}
    RobertaTokenizer(vocab=vocabulary, merges=[], model_max_length=words).save_pretrained(folder)


def write_t5(folder, words=32):
    pieces = ["<pad>", "</s>", "<unk>", "▁", *LETTERS.strip()]
    inner = Tokenizer(models.Unigram([(piece, -2.0) for piece in pieces], unk_id=2))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_max_length=words, extra_ids=0,
    ).save_pretrained(folder)  # fmt: skip
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": "T5Tokenizer"}))


def vocoder():
    return loud(
        SpeechT5HifiGan(
            SpeechT5HifiGanConfig(
                model_in_dim=BANDS,
                sampling_rate=16_000,
                upsample_initial_channel=32,
                upsample_rates=[5, 4, 2, 2, 2],
                upsample_kernel_sizes=[16, 16, 8, 4, 4],
                resblock_kernel_sizes=[3],
                resblock_dilation_sizes=[[1, 3, 5]],
                normalize_before=False,
            )
        ),
        std=0.15,
    )


def vae():
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        layers_per_block=1,
        scaling_factor=0.9,
        sample_size=512,
    )


def unet():
    return UNet2DConditionModel(
        sample_size=128,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=(32, 64),
        attention_head_dim=(1, 2),
        class_embed_type="simple_projection",
        projection_class_embeddings_input_dim=DIM,
        class_embeddings_concat=True,
    )


def write_ddim(folder):
    DDIMScheduler(
        beta_start=0.0015,
        beta_end=0.0195,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    ).save_pretrained(folder)


def write_index(folder, name, **parts):
    index = {"_class_name": name, "_diffusers_version": "0.20.0.dev0", **parts}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))


def write_audioldm(folder, *, whole=False, seed=0):
    """As cvssp/audioldm-s-full-v2 has it; with a whole CLAP it hears."""
    torch.manual_seed(seed)
    parts = {"unet": unet(), "vae": vae(), "vocoder": vocoder(), "text_encoder": clap()}
    if not whole:
        side = ClapTextModelWithProjection(clap_config().text_config)
        kept = parts["text_encoder"].state_dict()
        side.load_state_dict({name: kept[name] for name in side.state_dict()})
        parts["text_encoder"] = side
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    write_ddim(folder / "scheduler")
    write_roberta(folder / "tokenizer")
    write_index(
        folder,
        "AudioLDMPipeline",
        scheduler=["diffusers", "DDIMScheduler"],
        text_encoder=["transformers", "ClapModel" if whole else "ClapTextModelWithProjection"],
        tokenizer=["transformers", "RobertaTokenizerFast"],
        unet=["diffusers", "UNet2DConditionModel"],
        vae=["diffusers", "AutoencoderKL"],
        vocoder=["transformers", "SpeechT5HifiGan"],
    )
    return parts


def write_audioldm2(folder, seed=0):
    """As cvssp/audioldm2 has it, with the class of its language model that has lost its use."""
    torch.manual_seed(seed)
    states = 24
    parts = {
        "vae": vae(),
        "vocoder": vocoder(),
        "text_encoder": clap(),
        "text_encoder_2": loud(
            T5EncoderModel(
                T5Config(vocab_size=40, d_model=states, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
            )
        ),
        "projection_model": AudioLDM2ProjectionModel(
            text_encoder_dim=DIM, text_encoder_1_dim=states, langauge_model_dim=32
        ),
        "language_model": loud(
            GPT2Model(
                GPT2Config(
                    vocab_size=40,
                    n_positions=128,
                    n_embd=32,
                    n_layer=1,
                    n_head=2,
                    bos_token_id=1,
                    eos_token_id=1,
                )
            )
        ),
        "unet": AudioLDM2UNet2DConditionModel(
            sample_size=128,
            in_channels=4,
            out_channels=4,
            block_out_channels=(32, 64),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=((None, 32, states), (None, 32, states)),
            attention_head_dim=2,
        ),
    }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    settings = folder / "language_model" / "config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "max_new_tokens": 4}))
    ClapFeatureExtractor(feature_size=BANDS).save_pretrained(folder / "feature_extractor")
    write_ddim(folder / "scheduler")
    write_roberta(folder / "tokenizer")
    write_t5(folder / "tokenizer_2")
    write_index(
        folder,
        "AudioLDM2Pipeline",
        feature_extractor=["transformers", "ClapFeatureExtractor"],
        language_model=["transformers", "GPT2Model"],
        projection_model=["audioldm2", "AudioLDM2ProjectionModel"],
        scheduler=["diffusers", "DDIMScheduler"],
        text_encoder=["transformers", "ClapModel"],
        text_encoder_2=["transformers", "T5EncoderModel"],
        tokenizer=["transformers", "RobertaTokenizerFast"],
        tokenizer_2=["transformers", "T5TokenizerFast"],
        unet=["audioldm2", "AudioLDM2UNet2DConditionModel"],
        vae=["diffusers", "AutoencoderKL"],
        vocoder=["transformers", "SpeechT5HifiGan"],
    )


def write_stable_audio(folder, seed=0):
    """As stabilityai/stable-audio-open-1.0 has it: two seconds at most."""
    torch.manual_seed(seed)
    parts = {
        "vae": AutoencoderOobleck(
            encoder_hidden_size=8,
            downsampling_ratios=[2, 4, 8],
            channel_multiples=[1, 2, 4],
            decoder_channels=8,
            decoder_input_channels=8,
            sampling_rate=4_000,
        ),
        "text_encoder": loud(
            T5EncoderModel(
                T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
            )
        ),
        "projection_model": StableAudioProjectionModel(
            text_encoder_dim=16, conditioning_dim=16, min_value=0, max_value=512
        ),
        "transformer": StableAudioDiTModel(
            sample_size=125,
            in_channels=8,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            num_key_value_attention_heads=2,
            out_channels=8,
            cross_attention_dim=16,
            time_proj_dim=16,
            global_states_input_dim=32,
            cross_attention_input_dim=16,
        ),
    }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(COSINE))
    write_t5(folder / "tokenizer")
    write_index(
        folder,
        "StableAudioPipeline",
        projection_model=["stable_audio", "StableAudioProjectionModel"],
        scheduler=["diffusers", "CosineDPMSolverMultistepScheduler"],
        text_encoder=["transformers", "T5EncoderModel"],
        tokenizer=["transformers", "T5TokenizerFast"],
        transformer=["diffusers", "StableAudioDiTModel"],
        vae=["diffusers", "AutoencoderOobleck"],
    )
