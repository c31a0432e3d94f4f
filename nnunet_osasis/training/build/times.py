"""How long the stages of a build take here: one pretraining step is timed, the other stages are counted in its units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.command import duration
from nnunet_osasis.stylizer.names import needs_networks
from nnunet_osasis.training.build.settings import NETWORKS, BuildConfig
from nnunet_osasis.training.pretrain import seconds_per_step
from nnunet_osasis.training.read_out import FIT_IMAGES

if TYPE_CHECKING:
    from nnunet_osasis.training.build.stages import StylizerBuild

STEP = 3.0
"""Forward passes of the UNet, per image, that a training step costs as much as."""

ADAPTATION_STEP = 5.0
"""The same of an adaptation step, which also embeds what it decodes."""

GATE_IMAGES = 40
"""Round trips of the networks that calibrating the gate takes where a read-out runs them."""

STUDENT_STEP = 8.0
"""Forward passes that a step of the student's training costs as much as."""

RESERVE = 0.9
"""Share of the time that is planned with; the rest is for loading, pictures and saving."""


@dataclass(frozen=True)
class StageTimes:
    """Estimated seconds of the second stage of a build.

    Attributes:
        step: of one pretraining step.
        pretraining: of all its steps; 0 for a lent autoencoder.
        rest: of what follows: style pairs, adaptation, decoder's maps, student.
    """

    step: float
    pretraining: float
    rest: float

    def steps_within(self, seconds: float) -> int:
        """Return how many pretraining steps leave time for the rest; with a lent autoencoder, which needs none, 0.

        Raises ``OsasisError`` when the time is too short.
        """
        needed = 1 if self.pretraining else 0
        steps = int((RESERVE * seconds - self.rest) // self.step)
        if steps < needed:
            least = (self.rest + needed * self.step) / RESERVE / 60
            raise OsasisError(
                "--minutes must leave time for the networks: it bounds the whole command",
                found=f"{seconds / 60:.1f} minutes left, and the other stages of the networks take about {least:.1f}",
                remedy=f"Go on with --resume and --minutes {least + 1:.0f} or more, or lower --adapt-iterations. The "
                "stylizer's maps are saved and can be used.",
            )
        return steps if needed else 0


def stage_times(config: BuildConfig, *, channels: int, sources: int, references: int, lent: bool) -> StageTimes:
    """Time a pretraining step and estimate the second stage; all processes call this together.

    Args:
        config: settings of the build.
        channels: of the images.
        sources: number of source images.
        references: number of reference images.
        lent: whether the autoencoder comes from another stylizer.
    """
    step = seconds_per_step(config.preset, channels=channels, device=config.device)
    forward = step / (STEP * config.preset.pretrain.batch_size)  # of one image
    adapt, sampler, pair = config.adapt, config.adapt.sampler, config.adapt.pair
    round_trip = sampler.encode_steps + max(sampler.decode_steps, sampler.encode_steps)
    passes = 1.0 * references * pair.samples * (pair.steps + 2)
    of_content = sampler.encode_steps * adapt.contents
    passes += adapt.iterations * (of_content + ADAPTATION_STEP * sampler.decode_steps * (adapt.contents + 1))
    passes += (min(sources, FIT_IMAGES) + 15) * round_trip  # the decoder's maps, and the pictures of the last grid
    if needs_networks(config.readout):
        passes += GATE_IMAGES * round_trip
    if config.distil.teacher(config.readout) is not None:
        passes += min(sources, config.distil.images) * round_trip + STUDENT_STEP * config.distil.iterations
    pretraining = 0.0 if lent else step * config.preset.pretrain.iterations
    return StageTimes(step, pretraining, forward * passes)


def stage_plan(build: StylizerBuild, *, stop_after: str = NETWORKS, times: StageTimes | None = None) -> list[str]:
    """Return one line for each stage of a build, with its time.

    Args:
        build: what is planned.
        stop_after: last stage that is run.
        times: measured for this machine; None gives the preset's rough time.
    """
    config = build.config
    maps = ["moments", "combined", "structure gate"]
    if build.lent_calibrator is None and config.calibrator.iterations:
        maps.insert(0, f"calibrator ({config.calibrator.iterations} steps)")
    lines = [
        f"Plan for {len(build.sources)} source images and {len(build.references)} of the new site:",
        f"  1. maps: {', '.join(maps)}. Takes about a minute; then the stylizer can be used.",
    ]
    if stop_after == NETWORKS:
        networks = ["style pair", f"adaptation ({config.adapt.iterations} iterations)", "decoder's maps"]
        if config.distil.teacher(config.readout) is not None:
            networks.append(f"student ({config.distil.iterations} steps)")
        rest = "minutes" if times is None else f"about {duration(times.rest)}"
        if build.lent_autoencoder is None:
            training = config.preset.pretrain
            time = config.preset.rough_time if times is None else f"about {duration(times.pretraining)} here"
            lines.append(f"  2. pretraining ({training.iterations} steps of {training.batch_size} images): {time}.")
        lines.append(f"  {len(lines)}. {', '.join(networks)}: {rest}.")
    return lines
