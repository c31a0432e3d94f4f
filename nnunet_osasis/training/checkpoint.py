"""Weight averages, and checkpoints that resume to the same weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.distributed import ALONE, Processes
from nnunet_osasis.runtime.storage import atomic_write, sha256_of_tensors


class EMA:
    """Exponential moving average of a module's weights, warmed up: ``min(decay, (1 + i) / (10 + i))``."""

    def __init__(self, module: torch.nn.Module, decay: float, device: str | None = None) -> None:
        """Start from the weights as they are.

        Args:
            module: the module to follow.
            decay: upper bound of the decay.
            device: where the averages are kept; None keeps them where the weights are.
        """
        self.decay = decay
        self.weights = {
            name: value.detach().to(device=device or value.device, copy=True)
            for name, value in module.state_dict().items()
        }

    @torch.no_grad()
    def update(self, module: torch.nn.Module, iteration: int) -> None:
        """Move the average one step towards the module's present weights."""
        decay = min(self.decay, (1 + iteration) / (10 + iteration))
        averages, values = [], []
        for name, value in module.state_dict().items():
            average = self.weights[name]
            if value.dtype.is_floating_point:
                averages.append(average)
                values.append(value.to(average.device))
            else:
                average.copy_(value)
        torch._foreach_lerp_(averages, values, 1 - decay)

    @contextmanager
    def lent_to(self, module: torch.nn.Module) -> Iterator[None]:
        """Put the averages into the module, and its own weights back on exit; on one device nothing is copied."""
        held = module.state_dict(keep_vars=True)
        own = {name: value.data for name, value in held.items()}
        try:
            for name, value in held.items():
                value.data = self.weights[name].to(value.device)
            yield
        finally:
            for name, value in held.items():
                value.data = own[name]


class TensorStore(Protocol):
    """Tensors by name, such as an EMA's, that a checkpoint stores and fills in place on resume."""

    weights: dict[str, torch.Tensor]


@dataclass(frozen=True)
class TrainingState:
    """Everything a training needs to go on, changed in place by its steps.

    Attributes:
        identity: SHA-256 (hex) of the data and settings that decide the result; no other run may resume from it.
        modules: networks in training.
        averages: EMAs and other tensors to keep.
        optimizers: their optimizers.
    """

    identity: str
    modules: Mapping[str, torch.nn.Module] = field(default_factory=dict)
    averages: Mapping[str, TensorStore] = field(default_factory=dict)
    optimizers: Mapping[str, torch.optim.Optimizer] = field(default_factory=dict)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors by unique names, as contiguous copies on the CPU."""
        found: dict[str, torch.Tensor] = {}
        for name, module in self.modules.items():
            found |= {f"module/{name}/{key}": value for key, value in module.state_dict().items()}
        for name, average in self.averages.items():
            found |= {f"ema/{name}/{key}": value for key, value in average.weights.items()}
        for name, optimizer in self.optimizers.items():
            for index, entries in optimizer.state_dict()["state"].items():
                found |= {f"optimizer/{name}/{index}/{key}": torch.as_tensor(v) for key, v in entries.items()}
        return {key: value.detach().cpu().contiguous().clone() for key, value in found.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Fill modules, averages and optimizers with what ``tensors`` returned."""

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}

        for name, module in self.modules.items():
            module.load_state_dict(part(f"module/{name}/"))
        for name, average in self.averages.items():
            for key, value in part(f"ema/{name}/").items():
                average.weights[key].copy_(value)
        for name, optimizer in self.optimizers.items():
            trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            state: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in part(f"optimizer/{name}/").items():
                index, entry = key.split("/")
                like = trained[int(index)]
                if value.shape == like.shape:  # fused optimizers go through both in the order they lie in memory
                    value = torch.empty_like(like, dtype=value.dtype, requires_grad=False).copy_(value)
                state.setdefault(int(index), {})[entry] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


class Checkpoint:
    """One safetensors file with a training's state, its iteration, and a SHA-256 of all of it.

    Args:
        path: the file.
        state: what is stored.
        group: processes that train together: the main one writes, all read.
    """

    def __init__(self, path: Path, state: TrainingState, group: Processes = ALONE) -> None:
        self.path, self.state, self.group = path, state, group

    def save(self, iteration: int, *, done: bool) -> None:
        """Write the state after ``iteration`` steps, atomically."""
        if not self.group.is_main:
            return
        tensors = self.state.tensors()
        metadata = {"fingerprint": self.state.identity, "iteration": str(iteration), "done": str(int(done))}
        metadata["sha256"] = sha256_of_tensors(tensors, metadata)
        atomic_write(self.path, lambda temporary: save_file(tensors, str(temporary), metadata=metadata))

    def load(self) -> tuple[int, bool]:
        """Restore the state.

        Returns:
            Iterations done, and whether the training is finished; ``(0, False)`` when there is no file.

        Raises:
            OsasisError: a damaged file, one of other data or settings, or processes that see different files.
        """
        reached = self._load()
        if self.group.from_main(lambda: reached) != reached:
            raise OsasisError(
                "All processes must see the same output folder",
                found=f"another state of {self.path} in process {self.group.index}",
                remedy="Choose an --output that all machines share.",
            )
        self.group.wait()  # the main process must not go on to write, or to finish, before all have read
        return reached

    def _load(self) -> tuple[int, bool]:
        if not self.path.exists():
            return 0, False
        try:
            with safe_open(str(self.path), framework="pt") as opened:
                metadata: dict[str, Any] = opened.metadata() or {}
                tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (not a mapping)
        except (SafetensorError, OSError) as error:
            raise OsasisError(
                "The checkpoint must be whole", found=f"{error} in {self.path}", remedy="Delete it to start again."
            ) from error
        digest = metadata.pop("sha256", None)
        complete = set(metadata) == {"fingerprint", "iteration", "done"}
        if not complete or digest != sha256_of_tensors(tensors, metadata):
            raise OsasisError(
                "The checkpoint must be as it was written",
                found=f"another checksum for {self.path}",
                remedy="It is damaged: delete it to start again.",
            )
        if metadata["fingerprint"] != self.state.identity:
            raise OsasisError(
                "A run can only be resumed with the same images and settings",
                found=f"a checkpoint of another run, {self.path}",
                remedy="Repeat the original command with --resume, or start again with --overwrite.",
            )
        self.state.restore(tensors)
        return int(metadata["iteration"]), metadata["done"] == "1"
