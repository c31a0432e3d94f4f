"""``nnUNetv2_train 501 2d 0 -tr nnUNetTrainerUNetPlusPlus``: UNet++ within nnU-Net, plain or with stylized images."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_osasis.nnunet.trainer import NetworkTraining, StylizedTraining
from nnunet_osasis.trainers.lengths import with_lengths


class nnUNetTrainerUNetPlusPlus(NetworkTraining, nnUNetTrainer):
    """UNet++ of the widths that the plans give nnU-Net's own network, with its loss and optimizer. 2D and 3D."""

    @staticmethod
    def build_network_architecture(
        plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision=True
    ):
        """Make UNet++ with random weights (nnU-Net's hook, also for predictions)."""
        from nnunet_osasis.networks import UNetPlusPlus

        dimensions = len(configuration_manager.patch_size)
        max_features = 512 if dimensions == 2 else 320  # the planner's own limits
        features = list(configuration_manager.network_arch_init_kwargs["features_per_stage"][:5])
        while len(features) < 5:
            features.append(max(features[-1], min(2 * features[-1], max_features)))
        return UNetPlusPlus(
            num_input_channels,
            num_output_channels,
            spatial_dims=dimensions,
            features=(*features, features[0]),
            deep_supervision=enable_deep_supervision,
        )


class nnUNetTrainerOSASISUNetPlusPlus(StylizedTraining, nnUNetTrainerUNetPlusPlus):
    """UNet++, a training case stylized with probability p."""


(
    nnUNetTrainerUNetPlusPlus_5epochs,
    nnUNetTrainerUNetPlusPlus_20epochs,
    nnUNetTrainerUNetPlusPlus_100epochs,
) = with_lengths(nnUNetTrainerUNetPlusPlus, 5, 20, 100)
(
    nnUNetTrainerOSASISUNetPlusPlus_5epochs,
    nnUNetTrainerOSASISUNetPlusPlus_20epochs,
    nnUNetTrainerOSASISUNetPlusPlus_100epochs,
) = with_lengths(nnUNetTrainerOSASISUNetPlusPlus, 5, 20, 100)
