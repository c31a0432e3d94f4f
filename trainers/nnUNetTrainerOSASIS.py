"""``nnUNetv2_train 501 2d 0 -tr nnUNetTrainerOSASIS``: nnU-Net, with one-shot diffusion-stylized training images."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_osasis.nnunet.trainer import StylizedTraining


class nnUNetTrainerOSASIS(StylizedTraining, nnUNetTrainer):
    """The stock trainer; a training case comes stylized with probability p, validation cases never do.

    Options: ``"osasis": {"stylizer": folder, "probability": 0.5, "strength": null, "seed": 0}`` in the
    configuration's part of the plans file; all of them may be left out. Stylized copies are made before training, by
    ``"processes"`` side by side; with ``"on_the_fly": true`` batches are restyled in the training step instead.
    """
