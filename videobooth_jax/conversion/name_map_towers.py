"""PyTorch names and Flax paths of all networks but the UNet: data only.

Read `name_map` first: it explains the tables. Here two spellings of one checkpoint become one by
aliases:

* the autoencoder's attention: ``query key value proj_attn`` (diffusers up to 0.17, canonical here)
  and ``to_q to_k to_v to_out.0`` (later);
* the CLIP towers: with ``text_model.`` / ``vision_model.`` in front (transformers' files, canonical
  here) and without.
"""

from videobooth_jax.conversion.name_map import Rule, Table, dense, kernel, norm, under

VAE_RESNET = (
    *norm("norm1"),
    *dense("conv1", layout="conv"),
    *norm("norm2"),
    *dense("conv2", layout="conv"),
    *dense("conv_shortcut", layout="pointwise"),
)

VAE_ATTENTION = (
    *norm("group_norm"),
    *dense("query"),
    *dense("key"),
    *dense("value"),
    *dense("proj_attn"),
)

VAE_BLOCK = (
    *under("resnets.{j}", "resnets_{j}", VAE_RESNET),
    *under("attentions.{j}", "attentions_{j}", VAE_ATTENTION),
    *dense("downsamplers.0.conv", "downsamplers_0/conv", "conv"),
    *dense("upsamplers.0.conv", "upsamplers_0/conv", "conv"),
)

VAE_HALF = (
    *dense("conv_in", layout="conv"),
    *under("down_blocks.{i}", "down_blocks_{i}", VAE_BLOCK),
    *under("mid_block", "mid_block", VAE_BLOCK),
    *under("up_blocks.{i}", "up_blocks_{i}", VAE_BLOCK),
    *norm("conv_norm_out"),
    *dense("conv_out", layout="conv"),
)

NEW_ATTENTION_WORDS = (
    ("to_q", "query"),
    ("to_k", "key"),
    ("to_v", "value"),
    ("to_out.0", "proj_attn"),
)

VAE = Table(
    rules=(
        *under("encoder", "encoder", VAE_HALF),
        *under("decoder", "decoder", VAE_HALF),
        *dense("quant_conv", layout="pointwise"),
        *dense("post_quant_conv", layout="pointwise"),
    ),
    aliases=tuple(
        (
            f"{half}.mid_block.attentions.{{j}}.{given}.{leaf}",
            f"{half}.mid_block.attentions.{{j}}.{canonical}.{leaf}",
        )
        for half in ("encoder", "decoder")
        for given, canonical in NEW_ATTENTION_WORDS
        for leaf in ("weight", "bias")
    ),
)

CLIP_LAYER = (
    *norm("layer_norm1"),
    *dense("self_attn.q_proj", "self_attn/q_proj"),
    *dense("self_attn.k_proj", "self_attn/k_proj"),
    *dense("self_attn.v_proj", "self_attn/v_proj"),
    *dense("self_attn.out_proj", "self_attn/out_proj"),
    *norm("layer_norm2"),
    *dense("mlp.fc1", "mlp/fc1"),
    *dense("mlp.fc2", "mlp/fc2"),
)

CLIP_LAYERS = under("encoder.layers.{i}", "encoder/layers_{i}", CLIP_LAYER)


def _embedding(name: str) -> Rule:
    return Rule(f"embeddings.{name}.weight", f"embeddings/{name}/embedding", "same")


TEXT_RULES = (
    _embedding("token_embedding"),
    _embedding("position_embedding"),
    *CLIP_LAYERS,
    *norm("final_layer_norm"),
)

VISION_RULES = (
    Rule("embeddings.class_embedding", "embeddings/class_embedding", "same"),
    *kernel("embeddings.patch_embedding", "embeddings/patch_embedding", "conv"),
    _embedding("position_embedding"),
    *norm("pre_layrnorm"),
    *CLIP_LAYERS,
    *norm("post_layernorm"),
)


def _clip_tower(prefix: str, rules: tuple[Rule, ...]) -> Table:
    return Table(
        rules=under(prefix, "", rules),
        aliases=tuple((rule.torch, f"{prefix}.{rule.torch}") for rule in rules),
        ignored=("embeddings.position_ids", f"{prefix}.embeddings.position_ids"),
    )


CLIP_TEXT = _clip_tower("text_model", TEXT_RULES)
CLIP_VISION = _clip_tower("vision_model", VISION_RULES)

CONTRASTIVE_HEAD = Table(
    rules=(
        *kernel("text_projection"),
        *kernel("visual_projection"),
        Rule("logit_scale", "logit_scale", "same"),
    )
)

# One template cannot say that 0, 3 and 6 are linear and 1 and 4 are norms: they are spelled out.
MAPPING = (*dense("0"), *norm("1"), *dense("3"), *norm("4"), *dense("6"))

PROJECTOR = Table(
    rules=(
        *under("mapping_{i}", "mapping_{i}", MAPPING),
        *under("mapping_patch_{i}", "mapping_patch_{i}", MAPPING),
    )
)
