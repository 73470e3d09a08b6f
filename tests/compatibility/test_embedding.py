"""add_embedding: the files of the PROJECTOR tab, as TensorBoard's own plugin reads them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.plugins.projector.projector_plugin import _read_tensor_tsv_file
from tensorboardX.embedding import make_sprite

from harness import World, wait_for
from tbxd.encode.embedding import Embedding, sprite_of
from tbxd.encode.rejections import Refused
from tbxd.runs import projector
from tbxd.tfevents import schema
from tbxd.tfevents.folder import open_folder
from tbxd_client.values import embedding

SCRIPT = """
import numpy as np
{0}
rng = np.random.default_rng(3)
with SummaryWriter("logs/{1}") as writer:
    mat = rng.normal(size=(10, 4)).astype("f4")
    writer.add_embedding(mat, [f"label {{n}}" for n in range(10)], rng.random((10, 3, 8, 8)), 3)
    writer.add_embedding(mat * 2, tag="second")
    rows = [[str(n), str(n * n)] for n in range(10)]
    writer.add_embedding(mat, rows, None, 5, "table", ["number", "square"])
"""


def config_of(folder: Path) -> Any:
    return text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())


def test_the_tab_reads_the_same_as_from_tensorboardx(place: World) -> None:
    for flavour, package in (("ours", "tbxd_client"), ("theirs", "tensorboardX")):
        result = place.run(SCRIPT.format(f"from {package} import SummaryWriter", flavour))
        assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journal to be drained")
    ours, theirs = place.logdir / "ours", place.logdir / "theirs"
    assert config_of(ours) == config_of(theirs)
    for info in config_of(ours).embeddings:
        np.testing.assert_allclose(
            _read_tensor_tsv_file(str(ours / info.tensor_path)), _read_tensor_tsv_file(str(theirs / info.tensor_path))
        )
        if info.metadata_path:
            assert (ours / info.metadata_path).read_text() == (theirs / info.metadata_path).read_text()
        if info.sprite.image_path:
            pictures = [np.asarray(Image.open(folder / info.sprite.image_path)) for folder in (ours, theirs)]
            used = np.s_[:24]  # tensorboardX leaves whatever was in memory below
            assert pictures[0].shape == pictures[1].shape and (pictures[0][used] == pictures[1][used]).all()


def test_strings_are_escaped_and_the_same_again_replaces(place: World) -> None:
    result = place.run(
        r"""
        import numpy as np
        from tbxd_client import SummaryWriter
        mat = np.eye(2)
        with SummaryWriter("logs/a") as writer:
            for count in range(3):
                writer.add_embedding(mat * count, ['a\tb\nc', ''], tag='a "quote" \\ ../../out')
            writer.add_embedding(mat, ["x", "y"], global_step=-7, tag="..")
            writer.add_embedding(mat, tag="long" * 250)
        """
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journal to be drained")
    folder = place.logdir / "a"
    first, second, third = config_of(folder).embeddings
    assert first.tensor_name == 'a "quote" \\ ../../out:00000'
    assert (folder / first.metadata_path).read_text() == "a b c\n \n"
    assert _read_tensor_tsv_file(str(folder / first.tensor_path)).tolist() == [[2.0, 0.0], [0.0, 2.0]]
    assert second.tensor_name == "..:-0007" and third.tensor_name.startswith("longlong")
    for info in (first, second, third):
        assert folder in (folder / info.tensor_path).resolve().parents
    assert not list(folder.rglob("*.new"))
    status = place.status()
    assert status is not None and status["totals"]["written"] == 5


@pytest.mark.parametrize("points", [1, 2, 4, 5, 9, 10])
def test_a_sprite_is_tensorboardxs_and_black_where_there_is_no_picture(points: int, tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((points, 3, 6, 6)).astype("f4")
    make_sprite(images, str(tmp_path))
    theirs = np.asarray(Image.open(tmp_path / "sprite.png"))
    ours = sprite_of(images)
    columns = embedding.columns_of(points)
    rows = -(-points // columns)
    assert ours.shape == theirs.shape == (columns * 6, columns * 6, 3)
    assert (ours[: rows * 6] == theirs[: rows * 6]).all()
    assert not ours[rows * 6 :].any()


def made(name: str) -> Embedding:
    info = schema.EmbeddingInfo(tensor_name=name, tensor_path="00000/a/tensors.tsv")
    return Embedding("00000/a", {"tensors.tsv": b"1\n"}, info)


def write(folder: Path, embedding: Embedding) -> None:
    fd = open_folder(folder)
    try:
        projector.write(fd, embedding)
    finally:
        os.close(fd)


def test_a_configuration_of_others_is_kept_and_an_unreadable_one_put_aside(tmp_path: Path) -> None:
    path = tmp_path / projector.CONFIG
    path.write_text('model_checkpoint_path: "x"\nembeddings { tensor_name: "theirs" unknown_field: 3 }\n')
    write(tmp_path, made("ours"))
    config = config_of(tmp_path)
    assert config.model_checkpoint_path == "x"
    assert [info.tensor_name for info in config.embeddings] == ["theirs", "ours"]
    path.write_bytes(b"\xff embeddings {{{")
    write(tmp_path, made("ours"))
    assert [info.tensor_name for info in config_of(tmp_path).embeddings] == ["ours"]
    assert path.with_suffix(".unreadable").read_bytes() == b"\xff embeddings {{{"


def test_a_link_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "outside"
    run.mkdir()
    outside.mkdir()
    (run / "00000").symlink_to(outside)
    with pytest.raises(Refused):
        write(run, made("ours"))
    (run / "00000").unlink()
    secret = outside / "secret"
    secret.write_text('model_checkpoint_path: "secret"')
    (run / projector.CONFIG).symlink_to(secret)
    write(run, made("ours"))
    assert config_of(run).model_checkpoint_path == "" and secret.read_text() == 'model_checkpoint_path: "secret"'
    assert [path.name for path in outside.iterdir()] == ["secret"]
    held = len(os.listdir("/proc/self/fd"))
    write(run, made("ours"))
    assert len(os.listdir("/proc/self/fd")) == held


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ((np.zeros(3), None, None, None), ValueError, "mat of shape"),
        ((np.zeros((2, 0)), None, None, None), ValueError, "mat of shape"),
        ((np.zeros((2, 3)), ["a"], None, None), ValueError, "1 labels for 2 points"),
        ((np.zeros((2, 3)), "ab", None, None), TypeError, "a list is expected"),
        ((np.zeros((2, 3)), [["a"], ["b"]], None, ["x", "y"]), ValueError, "2 names"),
        ((np.zeros((2, 3)), None, np.zeros((2, 3, 4, 0)), None), ValueError, "height, width"),
        ((np.zeros((2, 3)), None, np.zeros((3, 3, 4, 4)), None), ValueError, "for 2 points"),
        ((np.zeros((4, 1)), None, np.zeros((4, 1, 5000, 5000), "u1"), None), ValueError, "8,192"),
        ((np.zeros((2, 3), complex), None, None, None), TypeError, "complex"),
    ],
)
def test_wrong_arguments_raise_and_say_why(arguments: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        embedding.arrays_of(*arguments)


def test_pictures_without_colour_become_grey() -> None:
    sprite = sprite_of(np.full((1, 1, 2, 2), 0.5))
    assert sprite.tolist() == [[[127] * 3] * 2] * 2
