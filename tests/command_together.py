"""What each of several processes runs in test_processes.py: the whole ``osasis-pretrain-stylizer``, tiny."""

from __future__ import annotations

import torch
from specimens import tiny_preset

from nnunet_osasis.scripts import pretrain_stylizer
from nnunet_osasis.training import presets

if __name__ == "__main__":
    torch.set_num_threads(1)
    presets.PRESETS["tiny"] = tiny_preset()
    pretrain_stylizer.entry()
