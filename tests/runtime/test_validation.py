"""Settings of nested dataclasses: a refusal names the key, the value, and what is allowed there."""

from typing import Annotated

import pytest
from pydantic import AfterValidator, Field, StrictBool, StrictInt
from pydantic.dataclasses import dataclass

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.validation import STRICT_KEYS, validated


def _even(value: int) -> int:
    if value % 2:
        raise OsasisError("sides are even", found=value, remedy="Add a pixel.")
    return value


@dataclass(frozen=True, config=STRICT_KEYS)
class Camera:
    side: Annotated[StrictInt, Field(ge=2, description="a whole number of pixels"), AfterValidator(_even)]
    mirrored: StrictBool = False


@dataclass(frozen=True, config=STRICT_KEYS)
class Targets:
    cameras: tuple[Camera, ...]
    spare: Annotated[Camera | str | None, Field(alias="set")] = None


def read(values):
    return validated(Targets, values, what="The file", remedy="Look at the example.")


def test_plain_values_become_dataclasses():
    assert read({"cameras": [{"side": 4}], "set": {"side": 2}}) == Targets((Camera(4),), set=Camera(2))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"cameras": [{"side": 4}, {"side": 1}]}, "cameras.1.side must be a whole number of pixels; got 1. Look"),
        ({"cameras": [{"side": 3}]}, "The file: sides are even; got 3. Add a pixel."),
        ({"cameras": [{"side": 4, "mirrored": "yes"}]}, "cameras.0.mirrored must be true or false; got 'yes'"),
        ({"cameras": [{"size": 4, "side": 2}]}, "the keys of cameras.0 must be among side, mirrored; got 'size'"),
        ({"cameras": [{}]}, "cameras.0.side must be given"),
        ({"cameras": [3]}, "cameras.0 must be an object; got 3"),
        ({"cameras": [], "spare": None}, "the keys must be among cameras, set; got 'spare'"),
        ({"cameras": [], "set": {"side": "x"}}, "set.side must be a whole number of pixels; got 'x'"),
        ({"cameras": 10**5000}, "cameras must be a valid tuple; got a value of type int, too large to print"),
        ([], "The file: the value must be an object; got []"),
    ],
)
def test_a_refusal_names_the_key_the_value_and_what_is_allowed(values, words):
    with pytest.raises(OsasisError) as caught:
        read(values)
    assert words in str(caught.value)
