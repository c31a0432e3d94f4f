"""Names and numbers of labels in nnU-Net's dataset.json."""

from __future__ import annotations

import pytest

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.prepare.labels import LabelRule, parse_classes


def test_labels_are_named_in_the_order_of_the_classes():
    classes = parse_classes(["background=0", "disc=128", "cup=255"])
    assert classes == {"background": 0, "disc": 128, "cup": 255}
    assert LabelRule(classes=classes).names() == {"background": 0, "disc": 1, "cup": 2}


@pytest.mark.parametrize("items", [["disc=1"], ["background=0"], ["background=0", "a=x"], ["background=0", "a=0"], []])
def test_wrong_classes_are_refused(items):
    with pytest.raises(OsasisError, match="--labels"):
        parse_classes(items)
