"""GIN inside nnU-Net: training patches alone, images alone, a new draw each time."""

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.nnunet.seg_to_onehot import MoveSegAsOneHotToDataTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.trainer import GINTransform

from .conftest import RGB, VOLUME, make_trainer

NAME = "nnUNetTrainerGIN"


def transforms_of(trainer, **options):
    """As ``get_dataloaders`` asks for them."""
    rotation, dummy_2d, _, mirror = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    patch = trainer.configuration_manager.patch_size
    scales = trainer._get_deep_supervision_scales()
    return trainer.get_training_transforms(patch, rotation, scales, mirror, dummy_2d, **options)


def is_gin(transform):
    return isinstance(transform, RandomTransform) and isinstance(transform.transform, GINTransform)


@pytest.mark.parametrize(("dataset", "configuration"), [(RGB, "2d"), (VOLUME, "3d_fullres")])
def test_gin_comes_after_the_spatial_transforms_and_before_masks_and_previous_stages(nnunet, dataset, configuration):
    trainer = make_trainer(nnunet, dataset, configuration, NAME)
    extra = {"use_mask_for_norm": [True], "is_cascaded": True, "foreground_labels": [1]}
    found = transforms_of(trainer, **extra).transforms
    where = [i for i, transform in enumerate(found) if is_gin(transform)]
    assert len(where) == 1 and found[where[0]].apply_probability == 0.5
    names = [type(transform).__name__ for transform in found]
    assert names.index("SpatialTransform") < where[0]
    for later in (MirrorTransform, MaskImageTransform, MoveSegAsOneHotToDataTransform):
        assert where[0] < next(i for i, transform in enumerate(found) if isinstance(transform, later))
    stock = transforms_of(make_trainer(nnunet, dataset, configuration, "nnUNetTrainer"), **extra).transforms
    assert [n for i, n in enumerate(names) if i != where[0]] == [type(transform).__name__ for transform in stock]


def test_validation_transforms_and_datasets_are_nnunets_own(nnunet):
    trainer = make_trainer(nnunet, RGB, "2d", NAME)
    assert trainer.get_validation_transforms is nnUNetTrainer.get_validation_transforms
    assert type(trainer).get_tr_and_val_datasets is nnUNetTrainer.get_tr_and_val_datasets


@pytest.mark.parametrize("shape", [(3, 24, 20), (2, 6, 24, 20)])
def test_patches_change_afresh_and_segmentations_never(shape):
    image, label = torch.randn(shape), torch.randint(0, 2, (1, *shape[1:]))
    np.random.seed(0)
    first, second = (GINTransform()(image=image.clone(), segmentation=label.clone()) for _ in range(2))
    assert torch.equal(first["segmentation"], label)
    assert first["image"].shape == image.shape and first["image"].dtype == image.dtype
    assert not torch.equal(first["image"], image) and not torch.equal(first["image"], second["image"])
    np.random.seed(0)
    assert torch.equal(GINTransform()(image=image.clone())["image"], first["image"])
    torch.testing.assert_close(GINTransform(0.0)(image=image.clone())["image"], image)


def test_options_of_the_plans_are_obeyed(nnunet):
    trainer = make_trainer(nnunet, RGB, "2d", NAME, probability=0.25, strength=0.5)
    gin = next(filter(is_gin, transforms_of(trainer).transforms))
    assert gin.apply_probability == 0.25 and gin.transform.strength == 0.5
    with pytest.raises(OsasisError, match="probability"):
        transforms_of(make_trainer(nnunet, RGB, "2d", NAME, probability=2))
