"""From source images and one reference to a stylizer folder, in two stages: maps, then networks."""

from nnunet_osasis.training.build.settings import (
    MAPS,
    NETWORKS,
    STAGES,
    BuildConfig,
    build_card,
    check_possible,
    one_pass_card,
)
from nnunet_osasis.training.build.stages import WORK, StylizerBuild, lent_calibrator, saved_stage
from nnunet_osasis.training.build.times import StageTimes, stage_plan, stage_times

__all__ = [
    "MAPS",
    "NETWORKS",
    "STAGES",
    "WORK",
    "BuildConfig",
    "StageTimes",
    "StylizerBuild",
    "build_card",
    "check_possible",
    "lent_calibrator",
    "one_pass_card",
    "saved_stage",
    "stage_plan",
    "stage_times",
]
