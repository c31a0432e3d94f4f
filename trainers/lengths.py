"""Our trainers in nnU-Net's own training lengths: ``-tr nnUNetTrainerOSASIS_250epochs`` and so on."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.training_length import nnUNetTrainer_Xepochs


def with_lengths(trainer: type[nnUNetTrainer], *epochs: int) -> list[type[nnUNetTrainer]]:
    """Make one subclass for each number of epochs, which comes before nnU-Net's trainer of that length.

    Args:
        trainer: the trainer; the classes belong to its module and are assigned to their own names there, so that they
            pickle.
        epochs: numbers for which nnU-Net has a trainer ``nnUNetTrainer_<N>epochs``.
    """
    classes = []
    for number in epochs:
        length = "1epoch" if number == 1 else f"{number}epochs"
        stock = getattr(nnUNetTrainer_Xepochs, f"nnUNetTrainer_{length}")
        classes.append(type(f"{trainer.__name__}_{length}", (trainer, stock), {"__module__": trainer.__module__}))
    return classes
