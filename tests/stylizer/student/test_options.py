"""The command's options of distilling: contradictions are refused before any image is read."""

from __future__ import annotations

import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.scripts import pretrain_stylizer
from nnunet_osasis.scripts.pretrain_options import settings_for
from nnunet_osasis.training.distil import DistilConfig

NOWHERE = ["--images", "nowhere", "--style", "none.png", "--output", "out"]


@pytest.mark.parametrize(
    ("options", "teacher"),
    [
        ([], None),
        (["--readout", "local_affine"], "local_affine"),
        (["--readout", "raw", "--no-distil"], None),
        (["--readout", "raw", "--distil-iterations", "0"], None),
        (["--distil", "frequency"], "frequency"),
        (["--readout", "raw", "--distil"], "raw"),
        (["--distil"], "local_affine"),
        (["--readout", "student", "--distil", "difference"], "difference"),
    ],
)
def test_a_student_is_trained_where_one_is_needed_or_asked_for(options: list[str], teacher: str | None) -> None:
    args = pretrain_stylizer.make_parser().parse_args([*NOWHERE, *options])
    assert DistilConfig(**settings_for(args, "distil")).teacher(args.readout) == teacher


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--distil", "combined"], "any other read-out is one pass by itself"),
        (["--readout", "student"], "needs a read-out to be distilled"),
        (["--readout", "student", "--no-distil"], "needs a read-out to be distilled"),
    ],
)
def test_what_cannot_be_distilled_is_refused(options: list[str], message: str) -> None:
    with pytest.raises(OsasisError, match=message):
        pretrain_stylizer.main([*NOWHERE, *options])


def test_distil_and_no_distil_contradict_each_other() -> None:
    with pytest.raises(SystemExit):
        pretrain_stylizer.main([*NOWHERE, "--distil", "raw", "--no-distil"])
