"""What the hostile tests share: a way to say how an input ended, and one small stylizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .harness import Bad, meet


@pytest.fixture
def ends_well(record_property: Callable[[str, object], None], tmp_path: Path) -> Callable[[str, Bad], None]:
    """Meets one input and records its area and its end, for ``benchmarks/hostile/count.py``."""

    def met(area: str, case: Bad) -> None:
        record_property("hostile", f"{area}:{meet(case, tmp_path)}")

    return met
