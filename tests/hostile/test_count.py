"""The suite is as large as it says."""

from __future__ import annotations

from . import test_command_lines, test_configurations, test_masks, test_pictures

from . import test_stylizer_folders, test_transforms, test_volume_files  # isort: skip

MODULES = test_configurations, test_masks, test_pictures, test_stylizer_folders, test_transforms, test_volume_files


def test_at_least_five_hundred_bad_inputs_are_tried_over_every_command_transform_and_loader() -> None:
    inputs = {(module.__name__, case.name) for module in MODULES for case in module.CASES}
    lines = {*test_command_lines.OPTIONS, *((name, *map(str, line)) for name, line in test_command_lines.ALONE)}
    assert len(inputs) >= 500
    assert len(lines) >= 200
    assert {line[0] for line in lines} == set(test_command_lines.MAINS)
