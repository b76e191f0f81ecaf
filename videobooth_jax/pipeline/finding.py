"""Where a model directory lies."""

import os
from pathlib import Path

SHIPPED = Path(__file__).parents[1] / "assets" / "models"
"""Model directories inside the package, by name."""


def find_model(model: str | os.PathLike[str]) -> Path:
    """The folder of a model inside the package, by name, or the model directory itself.

    Raises:
        ValueError: there is neither.
    """
    shipped = {path.name: path for path in SHIPPED.glob("*")}
    folder = shipped.get(str(model), Path(model).expanduser())
    if not folder.is_dir():
        raise ValueError(
            f"there is no model {str(model)!r}: give the path of a model directory, or the name of "
            f"one inside the package ({', '.join(sorted(shipped)) or 'none here'})"
        )
    return folder
