"""The one folder shown to nnU-Net (environment variable ``nnUNet_extTrainer``). It holds re-exports only.

nnU-Net puts this folder on ``sys.path`` while it searches and forgets every module found under it afterwards. With
only re-exports here, the classes themselves stay where they are and stay the same objects (so they pickle).
"""
