"""What every long training here shares: precision, EMA, a log, and checkpoints that resume to the same weights.

Randomness of iteration ``i`` comes from a generator seeded by ``(seed, i)`` alone, so that a resumed run draws
what an uninterrupted one would have drawn and no generator state has to be stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.distributed import ALONE, Processes
from nnunet_osasis.runtime.storage import atomic_write, sha256_of_tensors


class EMA:
    """Exponential moving average of a module's weights, warmed up: ``min(decay, (1 + i) / (10 + i))``."""

    def __init__(self, module: torch.nn.Module, decay: float, device: str | None = None) -> None:
        """``device``: where the averages are kept, by default where the weights are."""
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
        """The module has the averaged weights inside, its own again after; nothing is copied on one device."""
        held = module.state_dict(keep_vars=True)
        own = {name: value.data for name, value in held.items()}
        try:
            for name, value in held.items():
                value.data = self.weights[name].to(value.device)
            yield
        finally:
            for name, value in held.items():
                value.data = own[name]


class Kept(Protocol):
    """Tensors by name, such as an EMA's, that a checkpoint stores and on resume fills in place."""

    weights: dict[str, torch.Tensor]


class Checkpoint:
    """One safetensors file holding everything a run needs to go on: weights, averages, optimiser, iteration.

    A SHA-256 of all of it stands in the file's metadata; files of earlier versions, which have none, are still read.
    """

    def __init__(self, path: Path, fingerprint: str, group: Processes = ALONE) -> None:
        """``group``: of several processes the main one writes, and all read."""
        self.path, self.fingerprint, self.group = path, fingerprint, group

    def save(
        self,
        iteration: int,
        modules: Mapping[str, torch.nn.Module],
        averages: Mapping[str, Kept],
        optimizers: Mapping[str, torch.optim.Optimizer],
        done: bool,
    ) -> None:
        """Write the state after ``iteration`` steps, atomically."""
        from safetensors.torch import save_file

        if not self.group.is_main:
            return
        tensors: dict[str, torch.Tensor] = {}
        for name, module in modules.items():
            tensors |= {f"module/{name}/{key}": value for key, value in module.state_dict().items()}
        for name, average in averages.items():
            tensors |= {f"ema/{name}/{key}": value for key, value in average.weights.items()}
        for name, optimizer in optimizers.items():
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer/{name}/{index}/{key}": torch.as_tensor(v) for key, v in state.items()}
        whole = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
        metadata = {"fingerprint": self.fingerprint, "iteration": str(iteration), "done": str(int(done))}
        metadata["sha256"] = sha256_of_tensors(whole, metadata)
        atomic_write(self.path, lambda temporary: save_file(whole, str(temporary), metadata=metadata))

    def load(
        self,
        modules: Mapping[str, torch.nn.Module],
        averages: Mapping[str, Kept],
        optimizers: Mapping[str, torch.optim.Optimizer],
    ) -> tuple[int, bool]:
        """Restore the state; returns (iterations done, finished). (0, False) when there is no checkpoint.

        Raises ``OsasisError`` when the file is damaged or belongs to other data or settings, or when not all
        processes see the same one.
        """
        found = self._load(modules, averages, optimizers)
        if self.group.from_main(lambda: found) != found:
            raise OsasisError(
                "All processes must see the same output folder",
                found=f"another state of {self.path} in process {self.group.index}",
                remedy="Choose an --output that all machines share.",
            )
        self.group.wait()  # the main process must not go on to write, or to finish, before all have read
        return found

    def _load(
        self,
        modules: Mapping[str, torch.nn.Module],
        averages: Mapping[str, Kept],
        optimizers: Mapping[str, torch.optim.Optimizer],
    ) -> tuple[int, bool]:
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return 0, False
        try:
            with safe_open(str(self.path), framework="pt") as opened:
                metadata = opened.metadata() or {}
                tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (not a mapping)
        except (SafetensorError, OSError) as error:
            raise OsasisError(
                "The checkpoint must be whole", found=f"{error} in {self.path}", remedy="Delete it to start again."
            ) from error
        digest = metadata.pop("sha256", None)
        if set(metadata) != {"fingerprint", "iteration", "done"} or digest not in (
            None,
            sha256_of_tensors(tensors, metadata),
        ):
            raise OsasisError(
                "The checkpoint must be as it was written",
                found=f"another checksum for {self.path}",
                remedy="It is damaged: delete it to start again.",
            )
        if metadata.get("fingerprint") != self.fingerprint:
            raise OsasisError(
                "A run can only be resumed with the same images and settings",
                found=f"a checkpoint of another run, {self.path}",
                remedy="Repeat the original command with --resume, or start again with --overwrite.",
            )

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}

        for name, module in modules.items():
            module.load_state_dict(part(f"module/{name}/"))
        for name, average in averages.items():
            for key, value in part(f"ema/{name}/").items():
                average.weights[key].copy_(value)
        for name, optimizer in optimizers.items():
            state: dict[int, dict[str, torch.Tensor]] = {}
            trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            for key, value in part(f"optimizer/{name}/").items():
                index, entry = key.split("/")
                like = trained[int(index)]
                if value.shape == like.shape:  # fused optimisers go through both in the order they lie in memory
                    value = torch.empty_like(like, dtype=value.dtype, requires_grad=False).copy_(value)
                state.setdefault(int(index), {})[entry] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        return int(metadata["iteration"]), metadata["done"] == "1"
