"""Processes that start fast: they are forked from one that has the imports done."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.context import ForkServerContext

import pytest


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """A context whose processes need no imports of their own."""
    if os.name != "posix":
        pytest.skip("needs fork and SIGKILL")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["nnunet_osasis.stylizer.archive.run", "nnunet_osasis.stylizer.serialization", "matplotlib.figure"]
    )
    return context
