"""A model directory back to PyTorch-named safetensors: behind ``videobooth export``."""

import os
from pathlib import Path

from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

from videobooth_jax.checkpointing import load_model
from videobooth_jax.conversion.convert import to_torch, torch_name
from videobooth_jax.conversion.name_map_files import FILES, table_of


def export_checkpoints(
    model_dir: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write ``unet mapper vae text_encoder vision_encoder`` ``.safetensors`` under PyTorch's names.

    They are what `convert_checkpoints` reads: there and back, every bit is the same.

    Args:
        model_dir: a model directory.
        out_dir: the folder to write to; made if need be.
        dtype: "float32", "bfloat16" or "float16"; as stored if None.
        overwrite: replace files of these names.

    Returns:
        The files.

    Raises:
        ModelDirectoryError: ``model_dir`` is incomplete, damaged or inconsistent.
        FileExistsError: one of the files is there already.
        OSError: ``out_dir`` cannot be written.
    """
    folder = Path(out_dir).expanduser()
    files = {name: folder / f"{name}.safetensors" for name in FILES}
    if not overwrite and (there := [str(file) for file in files.values() if file.exists()]):
        raise FileExistsError(f"{', '.join(there)} exist already; choose another folder")
    config, params = load_model(model_dir, dtype=dtype or "stored")
    flat = flatten_dict(params, sep="/")
    del params
    folder.mkdir(parents=True, exist_ok=True)
    drafts = {name: file.with_suffix(".partial") for name, file in files.items()}
    try:
        for name, draft in drafts.items():
            table = table_of(FILES[name], config.contrastive_dim is not None)
            part = {path: flat.pop(path) for path in list(flat) if torch_name(path, table.rules)}
            tensors = to_torch(unflatten_dict(part, sep="/"), table)
            save_file(tensors, draft, metadata={"format": "pt"})
        for name, file in files.items():
            drafts[name].replace(file)
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)
    return list(files.values())
