"""GroundingDINO and SAM as small as their parts allow, with random weights, in folders as
transformers writes them."""

from pathlib import Path

DIM, SIDE = 32, 64
SPECIAL = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 1012: ".", 1029: "?"}
"""GroundingDINO knows these tokens by BERT's ids."""
WORDS = {200: "cat", 201: "red", 202: "panda"}


def save_detector(folder: Path) -> Path:
    import torch
    from transformers import (
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
    )
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
        GroundingDinoImageProcessorPil,
    )

    torch.manual_seed(0)
    words = SPECIAL | WORDS
    vocabulary = [words.get(i, f"[unused{i}]") for i in range(1030)]
    backbone = {
        "model_type": "swin",
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "window_size": 2,
        "image_size": SIDE,
        "out_indices": [2, 3, 4],
    }
    text = {
        "model_type": "bert",
        "vocab_size": len(vocabulary),
        "hidden_size": DIM,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": DIM,
    }
    layers = {"encoder_layers": 1, "decoder_layers": 2, "num_queries": 12, "d_model": DIM}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 2}
    widths = {"encoder_ffn_dim": DIM, "decoder_ffn_dim": DIM}
    config = GroundingDinoConfig(
        backbone_config=backbone, text_config=text, **layers, **heads, **widths
    )
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    BertTokenizer(vocab={word: i for i, word in enumerate(vocabulary)}).save_pretrained(folder)
    size = {"shortest_edge": SIDE, "longest_edge": 2 * SIDE}
    GroundingDinoImageProcessorPil(size=size).save_pretrained(folder)
    return folder


def save_outliner(folder: Path) -> Path:
    import torch
    from transformers import SamConfig, SamModel
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    torch.manual_seed(0)
    patches = {"image_size": SIDE, "patch_size": 8}
    vision = {
        "hidden_size": DIM,
        "output_channels": DIM,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "window_size": 2,
        "global_attn_indexes": [0],
        "num_pos_feats": DIM // 2,
        **patches,
    }
    prompts = {"hidden_size": DIM, "mask_input_channels": 4, **patches}
    decoder = {"hidden_size": DIM, "mlp_dim": DIM, "num_hidden_layers": 1, "num_attention_heads": 2}
    decoder |= {"iou_head_hidden_dim": DIM}
    config = SamConfig(
        vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder
    )
    SamModel(config).save_pretrained(folder)
    sides = {"height": SIDE, "width": SIDE}
    SamImageProcessorPil(
        size={"longest_edge": SIDE}, pad_size=sides, mask_size={"longest_edge": SIDE // 4}
    ).save_pretrained(folder)
    return folder
