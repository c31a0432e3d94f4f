"""A trained nnU-Net as the gate's frozen segmenter answers as nnU-Net's own predictor does."""

import json

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_osasis import OsasisError
from nnunet_osasis.nnunet.segmenter import NnunetSegmenter

from .conftest import RGB, VOLUME


@pytest.mark.parametrize(
    ("dataset", "order"),
    [(RGB, [0, 1, 2]), pytest.param(VOLUME, [2, 0, 1], marks=pytest.mark.slow)],
    ids=["2d", "axes in another order"],
)
def test_the_answer_is_nnunets_own(train, images, dataset, order):
    folder = train("nnUNetTrainerOSASIS", dataset)
    plans = json.loads((folder / "plans.json").read_text())
    plans |= {"transpose_forward": order, "transpose_backward": np.argsort(order).tolist()}
    (folder / "plans.json").write_text(json.dumps(plans))
    own = nnUNetPredictor(use_mirroring=False, perform_everything_on_device=False, device=torch.device("cpu"))
    own.initialize_from_trained_model_folder(str(folder), None, "checkpoint_final.pth")
    data, properties = own.plans_manager.image_reader_writer_class().read_images(images(dataset))
    expected = np.asarray(own.predict_single_npy_array(data, properties)).transpose(order)
    sliced = data.transpose(0, *(axis + 1 for axis in order))
    segmenter = NnunetSegmenter(folder)
    found = segmenter(sliced[:, 0] if dataset == RGB else sliced)
    np.testing.assert_array_equal(found, expected[0] if dataset == RGB else expected)
    assert len(segmenter.fingerprint) == 64
    with pytest.raises(OsasisError, match="channel"):
        segmenter(sliced[:1])
