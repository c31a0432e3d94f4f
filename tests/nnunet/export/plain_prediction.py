"""What a machine with nnU-Net alone does with a model folder; also run as a script, with our package shut out.

``python plain_prediction.py MODEL_FOLDER OUTPUT.npz IMAGE...`` (one file per channel of one case).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

OURS = ("nnunet_osasis", "monai_transforms")


class ShutOut:
    """An import finder that says of our packages that they are not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.split(".")[0] in OURS:
            raise ModuleNotFoundError(f"No module named {name!r} (shut out)", name=name)


def logits_and_labels(folder: Path, images: list[str], network: Path | None = None) -> dict[str, np.ndarray]:
    """nnU-Net's own predictor, every fold of the folder: logits of the preprocessed image, labels of the original.

    With ``network``, a TorchScript file, that takes the place of the network the trainer's name would lead to.
    """
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    torch.set_num_threads(1)
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    if network is None:
        predictor.initialize_from_trained_model_folder(str(folder), None, "checkpoint_final.pth")
    else:
        adopt(predictor, folder, network)
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    data, properties = plans.image_reader_writer_class().read_images(images)
    preprocessor = configuration.preprocessor_class()
    given, _, _ = preprocessor.run_case_npy(data, None, properties, plans, configuration, predictor.dataset_json)
    logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(given))
    return {"logits": logits.numpy(), "labels": predictor.predict_single_npy_array(data, properties)}


def adopt(predictor, folder: Path, network: Path) -> None:
    """Give nnU-Net's predictor a TorchScript network and the settings beside it: what docs/deployment.md shows."""
    import json

    import torch
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    settings = {
        name: json.loads((folder / f"{name}.json").read_text()) for name in ("plans", "dataset", "preprocessing")
    }
    plans, configuration = PlansManager(settings["plans"]), folder.name.split("__")[2]
    loaded = torch.jit.load(str(network), map_location="cpu")
    predictor.manual_initialization(
        loaded,
        plans,
        plans.get_configuration(configuration),
        [loaded.state_dict()],
        settings["dataset"],
        "nnUNetTrainer",
        settings["preprocessing"]["mirroring_axes"],
    )


if __name__ == "__main__":
    sys.meta_path.insert(0, ShutOut())
    os.environ.pop("nnUNet_extTrainer", None)  # our start-up file has set it, if the package is installed here
    model, output, *rest = sys.argv[1:]
    script = Path(rest.pop(0)) if rest[0].endswith(".pt") else None
    np.savez(output, **logits_and_labels(Path(model), rest, script))
    assert not [name for name in sys.modules if name.split(".")[0] in OURS]
