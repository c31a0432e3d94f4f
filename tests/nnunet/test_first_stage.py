"""A stylizer without networks trains nnU-Net, and the command line that does so is the one that is printed."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from nnunet_osasis import OSASISStylizer
from nnunet_osasis.nnunet.configuration import default_stylizer_folder
from nnunet_osasis.scripts import pretrain_stylizer

from .conftest import RGB, make_trainer


def test_after_the_maps_the_printed_command_trains(nnunet, tmp_path, capsys: pytest.CaptureFixture) -> None:
    rng = np.random.default_rng(3)
    Image.fromarray(rng.integers(20, 200, (64, 56, 3)).astype(np.uint8)).save(tmp_path / "style.png")
    short = ["--calibrator-iterations", "2", "--stop-after", "maps", "-device", "cpu"]
    pretrain_stylizer.main(["-d", "901", "-c", "2d", "--style", str(tmp_path / "style.png"), *short])
    assert "nnUNetv2_train 901 2d FOLD -tr nnUNetTrainerOSASIS\n" in capsys.readouterr().out
    stylizer = OSASISStylizer.from_pretrained(default_stylizer_folder(901, "2d"))
    assert not stylizer.has_networks
    trainer = make_trainer(nnunet, RGB, "2d")
    trainer.run_training()
    assert np.isfinite(trainer.logger.get_value("train_losses", None)).all()
