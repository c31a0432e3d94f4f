"""The one folder shown to nnU-Net (environment variable ``nnUNet_extTrainer``). It holds re-exports only.

nnU-Net puts this folder on ``sys.path`` while it searches and forgets every module found under it afterwards. With
only re-exports here, the classes themselves stay where they are and stay the same objects (so they pickle).

This is the one exception to the order of packages: ``nnunet`` lies below ``trainers``, and this hook imports them,
because the wheel's start-up file names a folder that lies within the package.
"""
