"""The command line: what it makes, what it says when it cannot, and what it leaves behind."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny_model import TOKENIZER_FILE, picture, random_params, tiny_config

from videobooth_jax import cli, pipeline
from videobooth_jax.checkpointing import save_model
from videobooth_jax.config_files import read_config
from videobooth_jax.precompute.writing import PrecomputeConfig
from videobooth_jax.segmentation import segment

CONFIG = """
from ml_collections import ConfigDict

def get_config(name="plain"):
    optimizer = ConfigDict({"learning_rate": 1e-4, "schedule": "constant"})
    return ConfigDict({"name": name, "steps": 10, "trainable": ("a",), "optimizer": optimizer})
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    config = tiny_config(exemplar_timestep="zero", exemplar_mode="single")
    save_model(path, config, random_params(config), tokenizer_file=TOKENIZER_FILE)
    return path


@pytest.fixture
def generate(model, tmp_path, monkeypatch):
    """Run ``generate`` with good arguments unless told otherwise; None leaves one away."""
    monkeypatch.setenv("VIDEOBOOTH_CACHE", "off")
    image = tmp_path / "panda.png"
    Image.fromarray(picture()).save(image)

    def run(**changes):
        arguments = {
            "model": model,
            "image": image,
            "subject": "panda",
            "prompt": "a panda moving left over a meadow",
            "out": tmp_path / "out" / "panda.gif",
        }
        words = ["generate"]
        for name, value in (arguments | changes).items():
            if value is True:
                words.append(f"--{name}")
            elif value is not None:
                values = value if isinstance(value, tuple) else (value,)
                words += [f"--{name}", ",".join(map(str, values))]
        (tmp_path / "out").mkdir(exist_ok=True)
        return cli.main(words)

    return run


def test_generate(generate, tmp_path, capsys):
    assert generate(count=2) == 0
    said = capsys.readouterr()
    assert re.match(r"2 videos of 3 frames, 16x16 px, in [\d.]+ s:\n", said.out)
    files = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in files] == ["panda_0.gif", "panda_1.gif"]
    assert said.out.split("\n")[1:3] == [str(file) for file in files]
    with Image.open(files[0]) as image:
        assert (image.n_frames, image.size) == (3, (256, 256))
    assert "3/3" in said.err

    before = files[0].read_bytes()
    assert generate(count=2) == 2
    assert "already exists" in capsys.readouterr().err
    assert generate(count=2, overwrite=True) == 0
    assert files[0].read_bytes() == before


MISTAKES = {
    "subject": ({"subject": "tiger"}, "does not occur in the prompt"),
    "picture": ({"image": "nowhere.png"}, "nowhere.png"),
    "mask": ({"mask": "nowhere.png"}, "nowhere.png"),
    "box": ({"box": (1, 1, 99, 99)}, "box"),
    "point": ({"point": (30, 2)}, "the point [30.0, 2.0] does not lie inside the picture"),
    "method": ({"segment": "magic"}, "unknown method 'magic'; choose one of auto, mask, alpha"),
    "no transparency": ({"segment": "alpha"}, "no transparent parts"),
    "sampler": ({"sampler": "euler"}, "unknown sampler"),
    "frames": ({"frames": 99}, "num_frames must be between"),
    "seed": ({"seed": -4}, "seed must be between"),
    "model": ({"model": "nowhere"}, "there is no model"),
    "format": ({"out": "panda.avi"}, "the file's ending chooses the format"),
    "folder": ({"out": "no/such/folder/panda.mp4"}, "there is no folder"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_and_leave_nothing(generate, tmp_path, capsys, monkeypatch, name):
    """And are told before the weights are read."""
    monkeypatch.setattr(pipeline.VideoBoothPipeline, "from_pretrained", lambda model: 1 / 0)
    changes, message = MISTAKES[name]
    assert generate(**changes) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("videobooth: error: ")
    assert message in said.err
    assert said.err.count("\n") == 1
    assert not list((tmp_path / "out").iterdir())


def test_a_photo_gives_the_prompt_that_its_hints_say(generate, tmp_path, monkeypatch):
    asked = {}

    class Pipeline:
        def __call__(self, prompt, image, subject, *, segment, box, **_):
            asked.update(picture=image, method=segment, box=box)
            raise ValueError("enough")

    monkeypatch.setattr(pipeline.VideoBoothPipeline, "from_pretrained", lambda model: Pipeline())
    mask = np.zeros(picture().shape[:2], np.uint8)
    mask[5:12, 6:20] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert generate(mask=tmp_path / "mask.png", box="2,2,22,23") == 2
    wanted = segment(picture(), mask=tmp_path / "mask.png", box=(2, 2, 22, 23)).square()
    assert np.array_equal(segment(**asked).square(), wanted)


def test_debugging_shows_where(generate, monkeypatch):
    monkeypatch.setenv("VIDEOBOOTH_DEBUG", "1")
    with pytest.raises(ValueError, match="does not occur"):
        generate(subject="tiger")


def test_damaged_models_are_refused(generate, model, tmp_path, capsys):
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", model, copy], check=True)
    config = copy / "config.json"
    config.write_text(config.read_text().replace('"num_frames"', '"number_of_frames"'))
    assert generate(model=copy) == 2
    assert "number_of_frames" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["nothing"], ["generate"], ["generate", "--imag", "x"], []])
def test_wrong_arguments_exit_with_2(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2
    assert "usage: videobooth" in capsys.readouterr().err


def test_arguments_that_mean_nothing_are_refused(generate, capsys):
    with pytest.raises(SystemExit):
        generate(speed=3)
    assert "unrecognized arguments: --speed 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["generate", "train", "precompute", "evaluate", "convert", "export"]
)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    assert f"usage: videobooth {command}" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_config_overrides(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    words = ["--config.steps=5", "--config.optimizer.learning_rate", "3e-4"]
    config = read_config(str(path), [*words, "--config.trainable=('x','y')"])
    assert (config.name, config.steps, config.trainable) == ("plain", 5, ("x", "y"))
    assert config.optimizer.learning_rate == 3e-4
    assert read_config(f"{path}:other", []).name == "other"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config.optimizer.lr=1"], "no field 'lr' here; there is learning_rate, schedule"),
        (["--config.step=1"], "no field 'step' here; there is name, optimizer, steps, trainable"),
        (["--config.steps=many"], "many"),
        (["--steps=3"], "steps"),
        (["more"], "unrecognized arguments: more"),
    ],
)
def test_config_mistakes(tmp_path, words, message, capsys):
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    assert cli.main(["train", f"--config={path}", f"--workdir={tmp_path / 'work'}", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("videobooth: error: ")
    assert message in said
    assert not (tmp_path / "work").exists()


def test_a_config_file_that_is_not_there(capsys):
    assert cli.main(["train", "--config=nowhere.py", "--workdir=x"]) == 2
    assert "there is no config file nowhere.py" in capsys.readouterr().err


def test_train_and_evaluate_and_convert_hand_everything_on(monkeypatch, tmp_path, capsys):
    """The commands themselves are tested where they live; here, that each flag arrives."""
    from videobooth_jax.conversion import convert_model
    from videobooth_jax.evaluation import suite

    calls = {}

    class Report:
        path = "there"

        def summary(self):
            return "all good"

        def __str__(self):
            return "converted"

    def recorder(name):
        return lambda *args, **kwargs: calls.update({name: (args, kwargs)}) or Report()

    monkeypatch.setattr(convert_model, "convert_checkpoints", recorder("convert"))
    monkeypatch.setattr(suite, "run_sprites_suite", recorder("evaluate"))
    monkeypatch.setattr(
        "videobooth_jax.pipeline.VideoBoothPipeline.from_pretrained", lambda m, mesh: m
    )
    monkeypatch.setenv("VIDEOBOOTH_CACHE", "off")
    assert cli.main(["convert", "--text-encoder=t", "--vae=v", "--out=o", "--dtype=bfloat16"]) == 0
    (out,), options = calls["convert"]
    assert (out, options["text_encoder"], options["vae"], options["unet"]) == ("o", "t", "v", None)
    assert (options["dtype"], options["size"], options["overwrite"]) == ("bfloat16", "sd14", False)
    words = ["evaluate", "--suite=sprites", "--videos=4", "--injection=coarse", "--steps=7"]
    assert cli.main([*words, f"--out={tmp_path}"]) == 0
    (pipeline,), options = calls["evaluate"]
    assert (pipeline, options["videos"], options["injection"]) == ("sprites", 4, "coarse")
    assert (options["num_inference_steps"], options["out"]) == (7, str(tmp_path))
    assert "all good" in capsys.readouterr().out


def test_precompute_hands_everything_on(monkeypatch, capsys):
    monkeypatch.setenv("VIDEOBOOTH_CACHE", "off")
    calls = []

    def precompute(*given):
        calls.append(given)
        return 3

    monkeypatch.setattr("videobooth_jax.precompute.writing.precompute", precompute)
    words = "precompute --model m --out o --clips c --split train[:9] --frames 4 --window 9 "
    words += "--augment fine --variants 2 --count 5 --seed 1 --vision-features --shard-size 6 "
    assert cli.main([*words.split(), "--batch-size", "3", "--workers", "7", "--part", "2/8"]) == 0
    asked = PrecomputeConfig("clips", "c", "train[:9]", 4, 9, "fine", 2, 5, 1, True, 6, 3, 7)
    assert calls == [("m", "o", asked, (2, 8))]
    assert "3 shards are missing: run the other parts" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["precompute", "--model", "m", "--out", "o", "--part", "two"])
    assert "give I/N, such as 2/8" in capsys.readouterr().err


@pytest.mark.slow
def test_the_second_run_finds_its_programs_and_an_interrupt_is_clean(model, tmp_path):
    Image.fromarray(picture()).save(tmp_path / "panda.png")
    command = [sys.executable, "-m", "videobooth_jax.cli", "generate", f"--model={model}"]
    command += ["--image=panda.png", "--subject=panda", "--prompt=a panda"]
    environment = {k: v for k, v in os.environ.items() if k != "VIDEOBOOTH_CACHE"}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")

    def run(out):
        words = [*command, f"--out={out}"]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stderr

    programs = tmp_path / "cache" / "videobooth_jax" / "programs"
    run("first.gif")
    kept = {file.name for file in programs.glob("*-cache")}
    assert len(kept) > 3
    traced = {file.name: file.stat().st_mtime_ns for file in (programs / "traced").iterdir()}
    assert len(traced) == 4
    assert "Traceback" not in run("second.gif")
    assert {file.name for file in programs.glob("*-cache")} == kept
    again = {file.name: file.stat().st_mtime_ns for file in (programs / "traced").iterdir()}
    assert again == traced
    assert (tmp_path / "first.gif").read_bytes() == (tmp_path / "second.gif").read_bytes()

    words = [*command, "--out=third.gif", "--steps=1000"]
    with subprocess.Popen(
        words,
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in background
    ) as process:
        while b"step" not in process.stderr.read1():
            pass
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert b"videobooth: interrupted" in said
    assert b"Traceback" not in said
    assert not list(tmp_path.glob("*third*"))
