"""The subject found by its word: GroundingDINO boxes it, SAM outlines it, both from transformers.

This is how the published data was prepared (Grounded-SAM). Weights are read from safetensors files
only and nothing that comes with them is executed.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from videobooth_jax.segmentation.cleaning import clean

DETECTOR, SEGMENTER = "IDEA-Research/grounding-dino-tiny", "facebook/sam-vit-base"
THRESHOLD = 0.25
"""Least score of a box that is believed."""
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
OTHER_WAYS = "Without them: give a box (--box), a click (--point) or a mask (--mask)"
SAFE: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False}


@dataclasses.dataclass(frozen=True)
class WordSegmenter:
    """Both models, loaded once for many pictures.

    Attributes:
        detector, detector_processor: GroundingDINO and what prepares its inputs.
        outliner, outliner_processor: SAM and what prepares its inputs.
        device: where they run, in torch's words.
    """

    detector: Any
    detector_processor: Any
    outliner: Any
    outliner_processor: Any
    device: str

    @classmethod
    def load(
        cls, detector: str | Path = DETECTOR, segmenter: str | Path = SEGMENTER
    ) -> "WordSegmenter":
        """Read both models, each from a folder as transformers writes it or by its hub id.

        They run on a GPU if torch sees one.

        Raises:
            ImportError: transformers, torch or OpenCV is not installed.
            ValueError: there is no such folder, or it does not hold such a model in safetensors; or
                the hub does not have it or cannot be reached.
        """
        with _libraries():
            import cv2  # noqa: F401  masks are cleaned with it: missing, it is said now
            import torch
            from transformers import (
                AutoTokenizer,
                GroundingDinoForObjectDetection,
                GroundingDinoProcessor,
                SamModel,
                SamProcessor,
            )
            from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
                GroundingDinoImageProcessorPil,
            )
            from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with _reading("detector", detector) as where:
            detector_processor = GroundingDinoProcessor(
                GroundingDinoImageProcessorPil.from_pretrained(**where),
                AutoTokenizer.from_pretrained(**where, trust_remote_code=False),
            )
            boxes = GroundingDinoForObjectDetection.from_pretrained(**where, **SAFE)
        with _reading("segmenter", segmenter) as where:
            outliner_processor = SamProcessor(SamImageProcessorPil.from_pretrained(**where))
            masks = SamModel.from_pretrained(**where, **SAFE)
        return cls(
            boxes.eval().to(device), detector_processor,
            masks.eval().to(device), outliner_processor, device,
        )  # fmt: skip

    def find(self, pixels: np.ndarray, subject: str) -> tuple[np.ndarray, float]:
        """The best match of a word as a mask, bool (h, w), and the detector's score of it, 0..1.

        ``pixels`` is uint8 (h, w, 3). Raises ValueError when nothing is found: no box scores above
        `THRESHOLD`, or the box shows nothing.
        """
        query = " ".join(subject.lower().replace(".", " ").split())
        if not query:
            raise ValueError("a subject is needed to look for: give its word")
        box, score = self._best_box(pixels, query)
        if score < THRESHOLD:
            raise ValueError(
                f"no {query!r} was found in the picture: the best match scores {score:.2f} and "
                f"{THRESHOLD} is needed; try another word, or give a box (--box) or a mask (--mask)"
            )
        shown = clean(self._outline(pixels, box))
        if not shown.any():
            raise ValueError(
                f"a {query!r} was found at {[round(x) for x in box]} (score {score:.2f}) but no "
                "outline of it: give a mask (--mask), or that box (--box)"
            )
        return shown, score

    def _best_box(self, pixels: np.ndarray, query: str) -> tuple[list[float], float]:
        """The box (x1, y1, x2, y2) in px with the highest score, and that score."""
        import torch

        inputs = self.detector_processor(images=pixels, text=f"{query}.", return_tensors="pt")
        inputs = inputs.to(self.device)
        with torch.inference_mode():
            outputs = self.detector(**inputs)
        (found,) = self.detector_processor.post_process_grounded_object_detection(
            outputs, inputs["input_ids"], threshold=-1, target_sizes=[pixels.shape[:2]]
        )
        best = int(found["scores"].argmax())
        height, width = pixels.shape[:2]
        box = found["boxes"][best].cpu().numpy().clip(0, [width, height, width, height])
        return box.tolist(), float(found["scores"][best])

    def _outline(self, pixels: np.ndarray, box: list[float]) -> np.ndarray:
        """What SAM sees in a box as a mask, bool (h, w)."""
        import torch

        inputs = self.outliner_processor(images=pixels, input_boxes=[[box]], return_tensors="pt")
        sizes = [inputs.pop(name) for name in ("original_sizes", "reshaped_input_sizes")]
        inputs = {name: value.to(self.device, torch.float32) for name, value in inputs.items()}
        with torch.inference_mode():
            outputs = self.outliner(**inputs, multimask_output=False)
        (masks,) = self.outliner_processor.post_process_masks(outputs.pred_masks.cpu(), *sizes)
        return masks[0, 0].numpy()


@contextlib.contextmanager
def _libraries() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ImportError(
            "finding the subject by its word needs GroundingDINO and SAM: pip install "
            f"'videobooth_jax[segment]' ({error}). {OTHER_WAYS}"
        ) from error


@contextlib.contextmanager
def _reading(role: str, source: str | Path) -> Iterator[dict[str, Any]]:
    """Where a model lies, as `from_pretrained` wants it; what goes wrong there as a sentence."""
    folder = Path(source).expanduser()
    if not folder.is_dir() and not HUB_NAME.fullmatch(str(source)):
        raise ValueError(f"there is no folder {source}, and it is no hub id such as {DETECTOR}")
    where = str(folder) if folder.is_dir() else str(source)
    try:
        yield {"pretrained_model_name_or_path": where, "local_files_only": folder.is_dir()}
    except Exception as error:  # files of any kind, and a network
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"the {role} {source} cannot be read: {reason[0]}. Give a folder with config.json, the "
            "processor's files and model.safetensors, or a hub id and a network to fetch it by. "
            f"{OTHER_WAYS}"
        ) from error
