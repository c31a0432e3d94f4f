"""The structure gate in nnU-Net's cache: a training never sees a case whose structure was lost."""

from pathlib import Path

import blosc2
import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from PIL import Image

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate import StructureGate, calibrate_gate
from nnunet_osasis.gate.audit import read_audit
from nnunet_osasis.gate.thresholds import CALIBRATED
from nnunet_osasis.gate.thresholds import GateThresholds
from nnunet_osasis.images.intensity import IntensityRange, to_unit
from nnunet_osasis.images.slices import best_slice
from nnunet_osasis.nnunet.cache import StylizedCache
from nnunet_osasis.nnunet.cases import open_cases
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.nnunet.on_the_fly.measurements import Measurements
from nnunet_osasis.nnunet.on_the_fly.transfer import OnePassTransfer
from nnunet_osasis.nnunet.options import OsasisOptions
from nnunet_osasis.nnunet.segmenter import NnunetSegmenter

from .conftest import RGB, VOLUME, Warmer, tiny_stylizer

KEYS = ["case_0", "case_2", "case_5"]


class Mover(Warmer):
    """Moves everything by four pixels, turns it upside down and quadruples its contrast."""

    @property
    def fingerprint(self):
        return f"mover {super().fingerprint}"

    def stylize_array(self, array, *, strength=None):
        moved = np.flip(np.roll(super().stylize_array(array, strength=strength), 4, axis=-1), axis=-2)
        return moved + 3 * (moved - moved.mean())


def gate_for(setup, intensity):
    cases = open_cases(setup)
    units = []
    for key in cases.keys:
        image = best_slice(cases.unnormalized(key))
        units.append(to_unit(image, intensity.bounds(image)))
    return StructureGate(calibrate_gate(units), intensity)


@pytest.fixture
def rgb(home):
    return NnunetConfiguration.load(RGB, "2d")


@pytest.fixture
def gate(rgb):
    return gate_for(rgb, IntensityRange("fixed", 0, 255))


def stored(cache, key):
    return blosc2.open(str(cache.image_path(key)))[:]


def test_a_harmless_transfer_gives_what_it_gives_without_a_gate(rgb, gate):
    plain, gated = StylizedCache(rgb, Warmer(3), None), StylizedCache(rgb, Warmer(3), None, gate)
    plain.build(KEYS)
    gated.build(KEYS)
    assert plain.folder != gated.folder
    for key in KEYS:
        np.testing.assert_array_equal(stored(plain, key), stored(gated, key))
    rows = read_audit(gated.audit)
    assert [(row["case"], row["decision"]) for row in rows] == [(key, "full") for key in KEYS]
    assert rows[0]["sources"]
    assert not plain.audit.exists()


def test_a_case_whose_structure_is_lost_stays_as_nnunet_preprocessed_it(home, rgb, gate):
    cache = StylizedCache(rgb, Mover(3), None, gate)
    cache.build(KEYS)
    folder = str(home.preprocessed(RGB) / "nnUNetPlans_2d")
    for key in KEYS:
        original = infer_dataset_class(folder)(folder, [key]).load_case(key)[0][:]
        np.testing.assert_array_equal(stored(cache, key), original)
    assert {row["decision"] for row in read_audit(cache.audit)} == {"original"}
    assert (cache.records / "worst.png").stat().st_size > 1000


def test_volumes_are_gated_as_a_whole(home):
    setup = NnunetConfiguration.load(VOLUME, "3d_fullres")
    gate = gate_for(setup, IntensityRange("channel_percentile", 0.5, 99.5))
    StylizedCache(setup, Warmer(2), None, gate).build(["case_0"])
    cache = StylizedCache(setup, Mover(2), None, gate)
    cache.build(["case_0"])
    assert read_audit(cache.audit)[0]["decision"] == "original"


def test_a_changed_label_is_looked_at_again(home, rgb, gate):
    cache = StylizedCache(rgb, Warmer(3), None, gate)
    cache.build(KEYS)
    path = home.raw(RGB) / "labelsTr" / "case_2.png"
    labels = np.array(Image.open(path))
    Image.fromarray(np.flipud(labels).copy()).save(path)
    assert cache.build(KEYS) == ["case_2"]


def test_a_case_without_its_line_in_the_audit_is_made_again(rgb, gate):
    cache = StylizedCache(rgb, Warmer(3), None, gate)
    cache.build(KEYS)
    assert cache.build(KEYS) == []
    cache.audit.unlink()
    assert cache.build(KEYS) == KEYS


def test_options_of_the_gate_are_checked():
    read = OsasisOptions.from_configuration
    assert read({}, relative_to=Path()).gate is True
    assert read({"osasis": {"gate": False}}, relative_to=Path()).gate is False
    for bad in ({"gate": 1}, {"gate": "no"}, {"gate": False, "segmenter": "model"}):
        with pytest.raises(OsasisError, match="gate"):
            read({"osasis": bad}, relative_to=Path())


def test_a_segmenter_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(OsasisError, match="model folder"):
        NnunetSegmenter(tmp_path)
    (tmp_path / "plans.json").write_text("{}")
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_0" / "checkpoint_final.pth").write_bytes(b"no checkpoint")
    with pytest.raises(OsasisError, match="whole nnU-Net model"):
        NnunetSegmenter(tmp_path)(np.zeros((3, 8, 8), np.float32))


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("level", [0, 7])
def test_a_constant_image_is_named_and_kept_as_it_is(home, rgb, level, gated, caplog):
    """Stock nnU-Net trains on it; one of hundreds must not end a training without its name."""
    path = next((home.raw(RGB) / "imagesTr").glob("case_2_0000.*"))
    Image.fromarray(np.full_like(np.array(Image.open(path)), level)).save(path)
    intensity = IntensityRange("percentile", 0.5, 99.5)
    stylizer = tiny_stylizer().configured(intensity=intensity)
    gate = StructureGate(GateThresholds(dict.fromkeys(CALIBRATED, 0.0)), intensity) if gated else None
    cache = StylizedCache(rgb, stylizer, None, gate, processes=1)
    cache.build(KEYS)
    assert "Case case_2 is kept as it is: it is constant" in caplog.text
    np.testing.assert_array_equal(stored(cache, "case_2"), open_cases(rgb).preprocessed("case_2"))
    assert gated == (cache.audit.is_file() and read_audit(cache.audit)[1]["decision"] == "original")
    measured, _ = Measurements(rgb, OnePassTransfer(stylizer), 1.0, gate).build(KEYS)
    assert measured["case_2"].strength == 0 and measured["case_0"].strength > 0
