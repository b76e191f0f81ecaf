"""What a run would stumble over on its machines, found before they are rented."""

from launch.runs import ROOT, Run, phases


def check_configs(run: Run, devices: int) -> None:
    """Read both phases' configs as the trainer will.

    Args:
        run: what is trained.
        devices: chips or GPUs that train it.

    Raises:
        ValueError: a field does not exist or does not fit its type, the mesh does not fit the
            devices, a batch cannot be split, or the data's folder is missing or not used.
    """
    from videobooth_jax.config_files import read_config
    from videobooth_jax.sharding.mesh import mesh_shape
    from videobooth_jax.training.config import from_config_dict

    for phase in phases(run):
        config = from_config_dict(read_config(str(ROOT / phase.config), phase.overrides))
        batch, source = config.data.batch_size, config.data.source
        data, fsdp, *_ = mesh_shape(config.mesh, devices)
        parts = data * fsdp
        if batch % parts:
            raise ValueError(
                f"{phase.name}: a batch of {batch} cannot be split evenly over {parts} devices; "
                f"rent fewer, or give --config.data.batch_size={-(-batch // parts) * parts}"
            )
        if source == "latents" and not run.data:
            raise ValueError(f"{phase.name}: data.source is 'latents'; say where with --data")
        if source == "sprites" and run.data:
            raise ValueError(
                f"{phase.name}: data.source is 'sprites', which reads no --data; leave it out, or "
                "give --config.data.source=latents"
            )
