"""The list of packages: two folders at the top of the tree install below ``nnunet_osasis``.

``scripts`` and ``trainers`` are kept at the top for whoever browses the repository, but as top-level import
names they would claim words that belong to everybody, so the mapping gives them a home of their own. Everything
else about the project is in pyproject.toml.
"""

from setuptools import find_packages, setup

FOLDERS_ELSEWHERE = {"nnunet_osasis.scripts": "scripts", "nnunet_osasis.trainers": "trainers"}

setup(
    packages=[*find_packages(include=["nnunet_osasis*", "monai_transforms*"]), *FOLDERS_ELSEWHERE],
    package_dir=FOLDERS_ELSEWHERE,
)
