"""How much memory one adaptation step of a preset needs at its peak, counted without a device that has so much.

    python benchmarks/speed/memory.py

The step runs on tensors that have shapes and no values (torch's FakeTensorMode); every storage that is made is counted
until it is dropped. What a device adds is not in it: its context, workspaces of convolutions, and fragmentation.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from typing import Any
from unittest import mock

import torch
from timing import parser_of, write
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
from nnunet_osasis.runtime.compute import generator_for
from nnunet_osasis.training.adaptation import steps as adaptation
from nnunet_osasis.training.adaptation.embedders import SemanticEmbedder
from nnunet_osasis.training.adaptation.recipes import AdaptConfig
from nnunet_osasis.training.loop import recomputed
from nnunet_osasis.training.presets import get_preset


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages alive that were shown to it or made inside it; ``peak`` is their most."""

    def __init__(self, already: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.live, self.peak = dict[int, Any](), 0
        self.now = 0
        for tensor in already:
            self.see(tensor)

    def see(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage, once."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.live:
            self.live[key] = weakref.ref(storage, lambda _: self._gone(key, size))
            self.now += size
            self.peak = max(self.peak, self.now)

    def _gone(self, key: int, size: int) -> None:
        self.now -= size
        del self.live[key]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, torch.Tensor):
                self.see(one)
        return made


def adaptation_peak(name: str, *, contents: int, precision: str, recompute: bool) -> dict[str, float]:
    """MiB of one adaptation step after the first: at its peak, and what is there before it begins."""
    preset = get_preset(name)
    size = preset.model["sample_size"]
    config = AdaptConfig(precision=precision, select_every=0, contents=contents)
    config = replace(config, sampler=replace(config.sampler, encode_steps=1, decode_steps=1))
    with FakeTensorMode():
        model = DiffusionAutoencoder(in_channels=3, **preset.model).eval().requires_grad_(False)
        spn = StructurePreservingNetwork(in_channels=3, **preset.spn)
        contents_, style = torch.rand(contents, 3, size, size), torch.rand(1, 3, size, size)
        embed = SemanticEmbedder(model.semantic_encoder, contents_)
        with (
            mock.patch.object(adaptation.copy, "deepcopy", return_value=model.make_unet()),  # of fakes there is no copy
            mock.patch.object(adaptation, "lay_out", return_value=None),
        ):
            run = adaptation.Adaptation(model, spn, embed, contents_, style, style, config)
        run.averages = {}  # they are on the CPU
        rows, generator = run.encode(contents_), generator_for(0, 0)
        run.reverse_step(rows, rows.noise, 300, 0, generator)  # the optimisers' state is there from now on
        for optimizer in run.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        held = [*model.state_dict().values(), *run.decoder.state_dict().values(), *spn.state_dict().values()]
        held += [v for o in run.optimizers.values() for s in o.state.values() for v in s.values()]
        held += [rows.whole, rows.clean, rows.noise, *run.anchors.features_b]
        counted = LiveBytes(held)
        before = counted.now
        with recomputed([run.decoder, spn, model.semantic_encoder], on=recompute), counted:
            run.reverse_step(rows, rows.noise, 300, 0, generator)
    return {"before_mib": round(before / 2**20), "peak_mib": round(counted.peak / 2**20)}


def main() -> None:
    """The base preset at 256 px: the default's 3 content images, and the reference's 8."""
    args = parser_of(__doc__, "memory.json").parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for contents, precision, recompute in product((3, 8), ("fp32", "bf16"), (False, True)):
        settings = {"contents": contents, "precision": precision, "recompute": recompute}
        rows.append({"preset": "base", **settings, **adaptation_peak("base", **settings)})
        print(rows[-1], flush=True)
    write(args.output, {"counted": rows}, "python memory.py")


if __name__ == "__main__":
    main()
