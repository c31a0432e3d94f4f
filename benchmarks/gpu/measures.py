"""Steps 1 to 4: pixels on the device against the CPU, images a second, training steps, nnU-Net's training step.

No image is read: weights are drawn (``tests/contracts/golden.py`` makes a stylizer with every read-out), images are
smoothed noise. ``fp32`` means PyTorch's default on the device, which is TF32 for convolutions on CUDA; where the
difference matters it is said.
"""

from __future__ import annotations

import copy
import json
import os
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import golden
import numpy as np
import torch
import training
from book import Book
from sizes import scene

from nnunet_osasis.runtime.compute import autocast, generator_for
from nnunet_osasis.stylizer.names import READOUTS, STUDENT, needs_networks
from nnunet_osasis.stylizer.student import LARGEST, Student
from nnunet_osasis.stylizer.stylizer import OSASISStylizer
from nnunet_osasis.training.adaptation.embedders import SemanticEmbedder
from nnunet_osasis.training.adaptation.recipes import RECIPES, SAMPLER, AdaptConfig
from nnunet_osasis.training.adaptation.steps import Adaptation
from nnunet_osasis.training.distil import DistilConfig
from nnunet_osasis.training.loop import recomputed, recomputes
from nnunet_osasis.training.presets import get_preset

GOALS = {
    "images_per_s": {"map, 256 px": 5000, "student, 256 px": 5000, "networks, 256 px": 100},
    "adaptation_256_px": {"minutes": 5, "peak_gib": 12, "published code on an A100": {"minutes": 30, "gib": 34}},
    "nnunet_step_ratio": {"on_the_fly": 1.02},
}
PRESETS = {64: "tiny", 128: "small", 256: "base"}
LONGEST_CALL_S = 3.0
"""Seconds of a call beyond which larger batches are not tried."""


def specimen(preset: str | None, device: str) -> OSASISStylizer:
    """A stylizer with every read-out, drawn weights, and the networks of a preset; None: 32 px, a few thousand."""
    quick_one = replace(SAMPLER, encode_steps=2, decode_steps=2, spn_steps=2)
    stylizer = golden.golden_stylizer(sampler=SAMPLER if preset else quick_one)
    if preset is not None:
        chosen = get_preset(preset)
        model, spn = training.networks(chosen.model, chosen.spn, "cpu")
        decoder = copy.deepcopy(model.unet)
        with torch.no_grad():
            for parameter in decoder.parameters():
                parameter.mul_(1.05)
        stylizer.autoencoder, stylizer.decoder, stylizer.spn = model.eval(), decoder.eval(), spn.eval()
        shape = (stylizer.in_channels, min(LARGEST, model.config.sample_size), DistilConfig().width, "local_affine")
        stylizer.student = Student(*shape).eval()
    return stylizer.to(device)


# --- 1: the same pixels ---


def pixels(book: Book) -> None:
    """Every read-out on the device against the CPU: largest and mean difference, in gray levels of 255."""
    preset, side, batch = (None, 32, 2) if book.tiny else ("tiny", 96, 4)
    here, there = specimen(preset, "cpu"), specimen(preset, book.device)
    images = scene(batch, 3, side)
    book.entries["settings"] = {"preset": preset, "side": side, "batch": batch, "unit": "gray levels of 255"}

    def difference(readout: str, expected: torch.Tensor, precision: str, tf32: bool) -> dict[str, float]:
        with tf32_set(tf32), autocast(precision, book.device):
            found = there.stylize(images.to(book.device), readout=readout).float().cpu()
        distance = (found - expected).abs() * 127.5
        return {"largest": float(distance.max()), "mean": float(distance.mean())}

    for readout in READOUTS:

        def compare(readout: str = readout) -> dict[str, Any]:
            expected = here.stylize(images, readout=readout)
            found: dict[str, Any] = {
                "fp32, no TF32": difference(readout, expected, "fp32", False),
                "fp32": difference(readout, expected, "fp32", True),
            }
            if needs_networks(readout) or readout == STUDENT:  # maps are computed in fp32 whatever is asked
                found["bf16"] = difference(readout, expected, "bf16", True)
            return found

        book.once(readout, compare)


@contextmanager
def tf32_set(allowed: bool) -> Any:
    """Allow TF32 for convolutions on CUDA, or not; PyTorch's default is that they may."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


# --- 2: images a second ---


def speed(book: Book) -> None:
    """Map, student, networks: sizes and batches, eager in fp32 and bf16, and compiled where there is time."""
    sizes = {32: None} if book.tiny else PRESETS
    batches = (1, 2) if book.tiny else (1, 4, 16, 64, 256)
    stylizers = {side: specimen(preset, book.device) for side, preset in sizes.items()}
    first = stylizers[max(sizes)]
    passes = {"map": first.as_module(), "student": first.as_module(readout=STUDENT)}
    for name, module in passes.items():
        for side in sizes:
            ladder(book, f"{name}, {side} px, fp32", one_pass(module, book.device), side, batches)
    for side, stylizer in reversed(stylizers.items()):
        for precision in ("bf16", "fp32"):
            ladder(book, f"networks, {side} px, {precision}", networks(stylizer, book.device, precision), side, batches)
    # Compiling takes a minute or more for the networks, so it comes last: one batch size each.
    side, largest = max(sizes), batches[-1]
    backend = "eager" if book.tiny else "inductor"
    for name, module in passes.items():
        compiled = torch.compile(copy.deepcopy(module), dynamic=False, backend=backend)
        point(book, f"{name}, {side} px, fp32, compiled", one_pass(compiled, book.device), side, largest, needs=20)
    for side, batch in reversed([*zip(sizes, (64, 32, 16), strict=False)]):
        stylizer = stylizers[side].configured(readout="raw").compile(backend=backend)
        name = f"networks, {side} px, bf16, compiled"
        point(book, name, networks(stylizer, book.device, "bf16"), side, min(batch, largest), needs=90)


def one_pass(module: torch.nn.Module, device: str) -> Callable[[torch.Tensor], object]:
    """A call of a one-pass module at full strength."""
    return lambda images: module(images, torch.ones(len(images), device=device))


def networks(stylizer: OSASISStylizer, device: str, precision: str) -> Callable[[torch.Tensor], object]:
    """A call of the networks' own picture: encode, decode, no carrying."""
    readout = stylizer.readout("raw")

    def run(images: torch.Tensor) -> object:
        with autocast(precision, device):
            return readout(images)

    return run


def ladder(book: Book, name: str, run: Callable[[torch.Tensor], object], side: int, batches: tuple[int, ...]) -> None:
    """Larger and larger batches, until a call takes too long or memory ends."""
    for batch in batches:
        found = point(book, name, run, side, batch)
        if found is None or found["seconds"] > LONGEST_CALL_S:
            return


def point(
    book: Book, name: str, run: Callable[[torch.Tensor], object], side: int, batch: int, *, needs: float = 2.0
) -> dict[str, Any] | None:
    """Images a second and peak memory of one batch size."""

    def make() -> dict[str, Any]:
        images = scene(batch, 3, side).to(book.device)
        book.release()
        seconds = timed(lambda: torch.inference_mode()(run)(images), book.device, 0.05 if book.tiny else 0.5)
        return {"seconds": seconds, "images_per_s": float(f"{batch / seconds:.4g}")} | peak(book.device)

    return book.once(f"{name}, batch {batch}", make, needs=0 if book.tiny else needs)


def timed(task: Callable[[], object], device: str, least: float, *, warm_ups: int = 2) -> float:
    """Median seconds of calls that together take ``least`` seconds, at least 2 and at most 20 of them."""
    seconds: list[float] = []
    for turn in range(warm_ups + 20):
        began = time.perf_counter()
        task()
        wait(device)
        if turn >= warm_ups:
            seconds.append(time.perf_counter() - began)
        if len(seconds) >= 2 and sum(seconds) > least:
            break
    return float(f"{statistics.median(seconds):.5g}")


def wait(device: str) -> None:
    """Wait for the device."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def peak(device: str) -> dict[str, float]:
    """Peak of allocated memory since ``Book.release``; nothing on a CPU."""
    if torch.device(device).type != "cuda":
        return {}
    return {"peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 3)}


# --- 3: training ---


def train(book: Book) -> None:
    """Adaptation at 256 px, extrapolated from a few iterations; then steps of every preset."""
    book.entries["goal"] = GOALS["adaptation_256_px"]
    for recipe in ("default",) if book.tiny else ("default", "osasis"):
        book.once(f"adaptation, {recipe}", lambda recipe=recipe: adaptation(book, recipe), needs=0 if book.tiny else 10)
    # images of a pretraining step (the presets' own), content images of an adaptation step, rounds
    training.MEASURED = {"tiny": (16, 3, 20), "small": (32, 3, 20), "base": (64, 3, 5)}
    if book.tiny:
        training.MEASURED = {"tiny": (2, 1, 1)}
    precisions = ("fp32",) if book.tiny else ("bf16", "fp32")
    for precision in precisions:
        for preset in training.MEASURED:
            for stage in ("pretrain", "adapt"):

                def one(preset: str = preset, stage: str = stage, precision: str = precision) -> dict[str, Any]:
                    book.release()
                    return training.one(preset, stage, precision, book.device) | peak(book.device)

                book.once(f"{preset}, {stage}, {precision}", one, needs=0 if book.tiny else 5)


def adaptation(book: Book, recipe: str) -> dict[str, Any]:
    """A few iterations of ``base`` (256 px) as ``adapt`` runs them, without its files; the whole from their mean."""
    preset = get_preset("tiny" if book.tiny else "base")
    config, measured = RECIPES[recipe], 1 if book.tiny else 5
    if book.tiny:
        config = quick(config)
    model, spn = training.networks(preset.model, preset.spn, book.device)
    model.eval().requires_grad_(False)
    sources = training.images(16, model.config.sample_size, book.device)
    embed = SemanticEmbedder(model.semantic_encoder, sources)
    book.release()
    began = time.perf_counter()
    run = Adaptation(model, spn, embed, sources, sources[:1], sources[1:2], config)
    seconds: list[float] = []
    with recomputed([run.decoder, spn, model.semantic_encoder], on=recomputes("auto", sources.shape[-1])):
        for iteration in range(measured + 1):
            wait(book.device)
            if iteration <= 1:  # the first one also chooses kernels
                set_up = time.perf_counter() - began if iteration else 0.0
                started = time.perf_counter()
            chosen = torch.randint(len(sources), (config.contents,), generator=generator_for(0, iteration, 3))
            run.iterate(sources[chosen.to(sources.device)], iteration)
            run.end_iteration(iteration)
            wait(book.device)
        seconds.append((time.perf_counter() - started) / measured)
    whole = set_up + seconds[0] * (config.iterations - 1)
    return {
        "preset": "tiny" if book.tiny else "base", "side": int(sources.shape[-1]), "recipe": recipe,
        "iterations_measured": measured, "seconds_per_iteration": float(f"{seconds[0]:.4g}"),
        "seconds_first_iteration_and_set_up": round(set_up, 2), "iterations": config.iterations,
        "minutes_extrapolated": round(whole / 60, 3),
        "extrapolated": "first iteration and set-up, then the mean of the others; style pair and checkpoints not in it",
        "contents": config.contents, "precision": config.precision,
    } | peak(book.device)  # fmt: skip


def quick(config: AdaptConfig) -> AdaptConfig:
    """The recipe on a grid of two steps with one content image."""
    return replace(config, contents=1, select_every=0, sampler=replace(config.sampler, encode_steps=2, decode_steps=2))


# --- 4: nnU-Net's training step ---

PATCHES = {"2d": ((512, 512), 12, 3), "3d_fullres": ((128, 128, 128), 2, 1)}
"""Patch, batch size and channels of plans as nnU-Net writes them for 8 to 10 GB: its default."""


def nnunet(book: Book) -> None:
    """Steps of the stock trainer, of the cache and on the fly, in turn; the cache's step is the stock one's.

    The cache acts where cases are loaded, so that its ratio shows how far equal steps differ by chance here.
    """
    book.entries["goal"] = GOALS["nnunet_step_ratio"]
    for configuration, (patch, batch, channels) in PATCHES.items():
        if book.tiny:
            patch, batch = (32,) * len(patch), 2

        def measure(configuration: str = configuration, shape: tuple = (batch, channels, *patch)) -> dict[str, Any]:
            book.release()
            return nnunet_steps(book, configuration, shape)

        book.once(configuration, measure, needs=0 if book.tiny else 8)


def nnunet_steps(book: Book, configuration: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """Median seconds of a training step of each kind on one synthetic batch, one after the other in every round."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    import nnunet_osasis.trainers
    from nnunet_osasis.nnunet.on_the_fly.batches import BatchStyle
    from nnunet_osasis.nnunet.on_the_fly.measurements import MeasuredCase
    from nnunet_osasis.nnunet.on_the_fly.renormalize import CaseNumbers, ChannelRules
    from nnunet_osasis.nnunet.on_the_fly.transfer import OnePassTransfer

    batch, channels = shape[:2]
    plans, dataset = plans_for(configuration, shape)
    kinds: dict[str, type] = {
        "stock": nnUNetTrainer,
        "cached": nnunet_osasis.trainers.nnUNetTrainerOSASIS,
        "on_the_fly": nnunet_osasis.trainers.nnUNetTrainerOSASIS,
        "on_the_fly, student": nnunet_osasis.trainers.nnUNetTrainerOSASIS,
    }
    keys, tasks = [f"case_{i}" for i in range(batch)], {}
    data = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    pinned = torch.device(book.device).type == "cuda"
    for name, kind in kinds.items():
        torch.manual_seed(0)
        trainer = kind({**plans, "continue_training": False}, configuration, 0, dataset, torch.device(book.device))
        trainer.initialize()
        scales = trainer._get_deep_supervision_scales()
        label = (data[:, :1] > 0.5).float()
        target = [torch.nn.functional.interpolate(label, scale_factor=scale) for scale in scales]
        step = {"data": data.pin_memory() if pinned else data, "target": target, "keys": keys}
        if name.startswith("on_the_fly"):
            stylizer = golden.golden_stylizer(channels)
            if name.endswith("student"):
                stylizer = stylizer.configured(readout=STUDENT)
            white = 255.0 if channels == 3 else 4.0  # pictures divided by 255, or a z-score
            row = (0.0, white, 0.0, 255.0 if channels == 3 else 1.0, 0.0, 1.0, 1.0)
            numbers = CaseNumbers(*((value,) * channels for value in row))
            cases = {key: MeasuredCase({}, numbers, 1.0) for key in keys}
            rules = ChannelRules.of(trainer.setup)
            trainer._batch_style = BatchStyle(
                [OnePassTransfer(stylizer).to(book.device)], [cases], rules,
                probability=0.5, seed=(0, 0), device=trainer.device,
            )  # fmt: skip
        tasks[name] = lambda trainer=trainer, step=step: trainer.train_step(step)
    from timing import measure

    rounds, warm_ups = (2, 1) if book.tiny else (30, 5)
    times = measure(tasks, rounds=rounds, warm_ups=warm_ups, device=book.device)
    stock = times["stock"]["median"]
    return {
        "patch": list(shape[2:]), "batch_size": batch, "channels": channels, "seconds": times,
        "ratio_to_stock": {name: round(one["median"] / stock, 4) for name, one in times.items()},
        "network_compiled": False, "drawn_with_probability": 0.5,
    } | peak(book.device)  # fmt: skip


def plans_for(configuration: str, shape: tuple[int, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Plans of nnU-Net's default network for a batch, and the dataset file; folders that its trainer looks at."""
    axes, channels = len(shape) - 2, shape[1]
    widest, first = (512 if axes == 2 else 320), (32 if max(shape[2:]) > 32 else 4)
    stages = max(3, min(8 if axes == 2 else 6, int(np.log2(min(shape[2:]))) - 1))
    name = f"Dataset99{axes}_Synthetic"
    normalization = "RGBTo01Normalization" if channels == 3 else "ZScoreNormalization"
    arguments = {
        "n_stages": stages, "features_per_stage": [min(widest, first * 2**i) for i in range(stages)],
        "conv_op": f"torch.nn.modules.conv.Conv{axes}d", "kernel_sizes": [[3] * axes] * stages,
        "strides": [[1] * axes] + [[2] * axes] * (stages - 1), "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1), "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None, "dropout_op_kwargs": None, "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }  # fmt: skip
    settings = {
        "data_identifier": f"nnUNetPlans_{configuration}", "preprocessor_name": "DefaultPreprocessor",
        "batch_size": shape[0], "patch_size": list(shape[2:]), "spacing": [1.0] * axes,
        "median_image_size_in_voxels": list(shape[2:]), "batch_dice": True,
        "normalization_schemes": [normalization] * channels, "use_mask_for_norm": [False] * channels,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": arguments, "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }  # fmt: skip
    for resampled in ("data", "seg", "probabilities"):
        settings[f"resampling_fn_{resampled}"] = "resample_data_or_seg_to_shape"
        settings[f"resampling_fn_{resampled}_kwargs"] = {"is_seg": resampled == "seg", "order": 1, "order_z": 0}
    plans = {
        "dataset_name": name, "plans_name": "nnUNetPlans", "configurations": {configuration: settings},
        "image_reader_writer": "SimpleITKIO", "label_manager": "LabelManager",
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {},
    }  # fmt: skip
    dataset = {
        "channel_names": {str(i): "rgb_to_0_1" if channels == 3 else "MR" for i in range(channels)},
        "labels": {"background": 0, "lesion": 1}, "numTraining": 1, "file_ending": ".nii.gz",
    }  # fmt: skip
    folder = Path(os.environ["nnUNet_preprocessed"]) / name / settings["data_identifier"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "case_0.b2nd").touch()  # the trainer tells its class of files by their names
    (folder.parent / "dataset.json").write_text(json.dumps(dataset))
    return plans, dataset
