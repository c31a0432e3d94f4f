from pathlib import Path

import pytest

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.options import OsasisOptions

HERE = Path("/data/Dataset901_TinyRGB")


def read(section):
    return OsasisOptions.from_configuration({"osasis": section}, relative_to=HERE)


def test_a_configuration_without_the_key_gets_the_defaults():
    assert OsasisOptions.from_configuration({"batch_size": 2}, relative_to=HERE) == OsasisOptions()
    assert OsasisOptions().probability == 0.5


def test_every_documented_key_is_read():
    options = read(
        {
            "stylizer": "/s",
            "reference": "ref.png",
            "probability": 1,
            "strength": None,
            "seed": 7,
            "on_the_fly": True,
            "processes": 4,
            "backbone": "resnet34",
            "backbone_weights": "/w/resnet34.safetensors",
        }
    )
    assert options == OsasisOptions(
        stylizer=Path("/s"),
        reference=HERE / "ref.png",
        probability=1,
        strength=None,
        seed=7,
        on_the_fly=True,
        processes=4,
        backbone="resnet34",
        backbone_weights=Path("/w/resnet34.safetensors"),
    )


@pytest.mark.parametrize("name", ["stylizer", "reference", "backbone_weights"])
def test_relative_paths_count_from_the_dataset_folder(name):
    assert getattr(read({name: "mine"}), name) == HERE / "mine"
    assert getattr(read({name: None}), name) is None


def test_several_stylizers_may_be_named_where_one_is_drawn_per_sample():
    found = read({"stylizer": ["/a", "b"], "on_the_fly": True})
    assert found.stylizers == (Path("/a"), HERE / "b")
    assert read({"stylizer": "/a"}).stylizers == (Path("/a"),)
    assert read({}).stylizers == (None,)


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"propability": 0.5}, "propability"),
        ({"probability": 1.5}, "1.5"),
        ({"probability": "0.5"}, "'0.5'"),
        ({"probability": True}, "True"),
        ({"probability": float("nan")}, "nan"),
        ({"strength": -0.1}, "-0.1"),
        ({"seed": -1}, "-1"),
        ({"seed": 1.0}, "1.0"),
        ({"stylizer": 3}, "3"),
        ({"stylizer": ["/a", 3], "on_the_fly": True}, "3"),
        ({"stylizer": [], "on_the_fly": True}, "[]"),
        ({"stylizer": ["/a", "/b"]}, "on_the_fly"),
        ({"on_the_fly": 1}, "on_the_fly must be true or false"),
        ({"processes": 0}, "processes"),
        ({"processes": True}, "processes"),
        ({"processes": 1.5}, "1.5"),
        ({"backbone": 34}, "34"),
        ({"backbone": ""}, "backbone must be the name"),
        ({"backbone_weights": True}, "True"),
        ("stylizer", "stylizer"),
    ],
)
def test_a_wrong_option_is_refused_by_name_before_any_work(section, named):
    with pytest.raises(OsasisError, match='"osasis"') as caught:
        read(section)
    assert named in str(caught.value)
