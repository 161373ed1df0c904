"""A LLaVA of random weights, as llava-hf/llava-1.5-7b-hf has it, some thousand parameters large."""

import json


def save_llava(folder):
    """Save it, in several files, with a vocabulary of letters."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        PreTrainedTokenizerFast,
    )

    names = ["<pad>", "</s>", "<unk>", "<image>", "\n", *map(chr, range(32, 127))]
    inner = Tokenizer(models.BPE({n: i for i, n in enumerate(names)}, [], unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    small = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    torch.manual_seed(0)
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
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.5)
    model.save_pretrained(folder, max_shard_size="20KB")
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    ).save_pretrained(folder)  # fmt: skip
    pixels = {
        "crop_size": {"height": 28, "width": 28},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "processor_class": "LlavaProcessor",
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": 28},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    processor = {"image_token": "<image>", "patch_size": None, "processor_class": "LlavaProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(processor))
