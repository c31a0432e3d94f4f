"""What a trainer with another network does differently from the stock one, as a mixin that goes before it."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunet_osasis.nnunet.options import OsasisOptions, options_of

_MAPS = 4  # of PraNet and of UNet++ alike


class NetworkTraining:
    """Mixin for networks whose four maps are all of full size, the best first, weighed alike as in both papers.

    The network has an attribute ``deep_supervision``. nnU-Net's loss is kept; a trainer with a loss of its own
    overrides :meth:`_build_loss` and passes it through :meth:`over_all_maps`.
    """

    # Set by nnU-Net's trainer, which follows this class in the order of inheritance.
    network: Any
    configuration_manager: Any
    enable_deep_supervision: bool

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """nnU-Net's hook: a list of maps while training, one tensor for predictions."""
        self.bare_network.deep_supervision = enabled

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        """nnU-Net's hook: one target per map, none of them reduced."""
        if not self.enable_deep_supervision:
            return None
        return [[1.0] * len(self.configuration_manager.patch_size)] * _MAPS

    def _build_loss(self) -> nn.Module:
        """nnU-Net's hook: its own loss, each map given the same weight."""
        loss = super()._build_loss()  # type: ignore[misc]
        if self.enable_deep_supervision:
            loss.weight_factors = (1 / _MAPS,) * _MAPS
        return loss

    def over_all_maps(self, loss: nn.Module) -> nn.Module:
        """``loss`` of one map, made the mean over the four where there are four."""
        from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

        return DeepSupervisionWrapper(loss, (1 / _MAPS,) * _MAPS) if self.enable_deep_supervision else loss

    @property
    def bare_network(self) -> Any:
        """The network without the wrappers of DDP and torch.compile."""
        network = self.network
        if isinstance(network, DistributedDataParallel):
            network = network.module
        return network._orig_mod if isinstance(network, OptimizedModule) else network

    @property
    def options(self) -> OsasisOptions:
        """What the plans say to this trainer."""
        return options_of(self)
