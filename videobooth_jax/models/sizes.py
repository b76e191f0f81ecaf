"""Named model sizes."""

from videobooth_jax.models.autoencoder_kl import AutoencoderKLConfig
from videobooth_jax.models.clip import CLIPTextConfig, CLIPVisionConfig
from videobooth_jax.models.image_projector import ImageProjectorConfig
from videobooth_jax.models.unet_config import UNet3DConfig
from videobooth_jax.models.videobooth_config import DiffusionSettings, VideoBoothConfig

SD14 = VideoBoothConfig(
    name="sd14",
    unet=UNet3DConfig(),
    vae=AutoencoderKLConfig(),
    text_encoder=CLIPTextConfig(),
    vision_encoder=CLIPVisionConfig(),
    projector=ImageProjectorConfig(),
    diffusion=DiffusionSettings(placeholder="sdksd"),
)
"""The released model: Stable Diffusion 1.4 inflated to video, CLIP ViT-L/14, watermark tail."""

SPRITES = VideoBoothConfig(
    name="sprites",
    unet=UNet3DConfig(
        in_channels=16,
        out_channels=16,
        block_out_channels=(64, 128),
        layers_per_block=1,
        cross_attention_levels=(True, True),
        num_heads=2,
        cross_attention_dim=96,
        norm_num_groups=16,
        injection_levels=(True, True),
        watermark_channels=None,
    ),
    vae=AutoencoderKLConfig(
        latent_channels=16,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        scaling_factor=1.0,
    ),
    text_encoder=CLIPTextConfig(
        vocab_size=1024,
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=32,
    ),
    vision_encoder=CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=5,
        num_attention_heads=4,
        image_size=32,
        patch_size=4,
    ),
    projector=ImageProjectorConfig(input_dim=96, hidden_dim=192, output_dim=96, num_words=5),
    diffusion=DiffusionSettings(
        prediction_type="v",
        zero_terminal_snr=True,
        exemplar_timestep="zero",
        exemplar_mode="single",
        guided_channels=None,
        sampler="dpmpp_2m",
        num_inference_steps=25,
    ),
    vision_layers=(-1, 1, 2, 3, 4),
    contrastive_dim=64,
    num_frames=8,
    height=32,
    width=32,
    subject_share=20 / 32,
)
"""The same modules, small enough to train on two cores."""

SIZES: dict[str, VideoBoothConfig] = {size.name: size for size in (SD14, SPRITES)}
