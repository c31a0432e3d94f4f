"""``nnUNetv2_train 501 2d 0 -tr nnUNetTrainerPraNet``: PraNet within nnU-Net, plain or with stylized images."""

from functools import partial
from pathlib import Path

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.options import OsasisOptions
from nnunet_osasis.nnunet.trainer import NetworkTraining, StylizedTraining
from nnunet_osasis.trainers.lengths import with_lengths


class nnUNetTrainerPraNet(NetworkTraining, nnUNetTrainer):
    """PraNet, its structure loss, and Adam at 1e-4; for 2D configurations.

    nnU-Net's decay of the learning rate is kept, and so is its clipping of the gradient's norm at 12 (the authors clip
    every entry at 0.5). Options: ``"osasis": {"backbone": timm's name, "backbone_weights": file}``; without the file,
    ImageNet weights are searched in the caches of Hugging Face and torch.
    """

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008  nnU-Net's own signature, which it inspects
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.initial_lr, self.weight_decay = 1e-4, 0.0
        self.starts_from_imagenet = True

    @staticmethod
    def build_network_architecture(
        plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision=True
    ):
        """Make PraNet with random weights (nnU-Net's hook, also for predictions).

        Raises:
            OsasisError: for a 3D configuration.
        """
        if len(configuration_manager.patch_size) != 2:
            raise OsasisError(
                "PraNet is a 2D network",
                found=f"patches of {' x '.join(map(str, configuration_manager.patch_size))}",
                remedy="Use a 2d configuration, or nnUNetTrainerUNetPlusPlus.",
            )
        from nnunet_osasis.networks import PraNet

        options = OsasisOptions.from_configuration(configuration_manager.configuration, relative_to=Path())
        network = PraNet if options.backbone is None else partial(PraNet, backbone=options.backbone)
        return network(num_input_channels, num_output_channels, deep_supervision=enable_deep_supervision)

    def initialize(self) -> None:
        super().initialize()
        self._set_exclusive()
        if self.starts_from_imagenet:
            self._load_imagenet_weights()

    def on_train_start(self) -> None:
        super().on_train_start()
        self._set_exclusive()  # -pretrained_weights may come from a model with the other kind of labels

    def _set_exclusive(self) -> None:
        self.bare_network.set_exclusive(not self.label_manager.has_regions)

    def load_checkpoint(self, filename_or_checkpoint) -> None:
        self.starts_from_imagenet = False  # continuing and validating need no file of ImageNet weights
        super().load_checkpoint(filename_or_checkpoint)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def _build_loss(self):
        from nnunet_osasis.networks import StructureLoss

        labels = self.label_manager
        return self.over_all_maps(StructureLoss(regions=labels.has_regions, ignore_label=labels.ignore_label))

    def _load_imagenet_weights(self) -> None:
        from nnunet_osasis.networks.imagenet import load_imagenet_weights

        name = self.bare_network.backbone
        path = load_imagenet_weights(self.bare_network, self.options.backbone_weights)
        if path is not None:
            self.print_to_log_file(f"ImageNet weights of {name}: {path}.")
            return
        self.print_to_log_file(
            f"No ImageNet weights of {name} on this machine: PraNet starts from random ones. For ImageNet's, run "
            f'timm.create_model("{name}", pretrained=True) once where there is a network, or name a file of them in '
            'the plans\' configuration: "osasis": {"backbone_weights": "/data/weights.safetensors"}.'
        )


class nnUNetTrainerOSASISPraNet(StylizedTraining, nnUNetTrainerPraNet):
    """PraNet, a training case stylized with probability p; the options of both."""


(
    nnUNetTrainerPraNet_5epochs,
    nnUNetTrainerPraNet_20epochs,
    nnUNetTrainerPraNet_100epochs,
) = with_lengths(nnUNetTrainerPraNet, 5, 20, 100)
(
    nnUNetTrainerOSASISPraNet_5epochs,
    nnUNetTrainerOSASISPraNet_20epochs,
    nnUNetTrainerOSASISPraNet_100epochs,
) = with_lengths(nnUNetTrainerOSASISPraNet, 5, 20, 100)
