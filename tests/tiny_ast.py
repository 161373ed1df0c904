"""A tagger of random weights, in the layout of MIT/ast-finetuned-audioset-10-10-0.4593."""

LABELS = ("Ocean", "Rain", "Dog", "Helicopter")


def save_ast(folder):
    """Save it."""
    import torch
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    config = ASTConfig(
        num_hidden_layers=1, max_length=64, num_mel_bins=32, patch_size=8, time_stride=8,
        frequency_stride=8, num_labels=len(LABELS), id2label=dict(enumerate(LABELS)),
        label2id={name: row for row, name in enumerate(LABELS)}, **sizes,
    )  # fmt: skip
    ASTForAudioClassification(config).save_pretrained(folder)
    ASTFeatureExtractor(max_length=64, num_mel_bins=32).save_pretrained(folder)
