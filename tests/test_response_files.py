from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from asi_watch.errors import ResponseFileError
from asi_watch.response_files import (
    curve_of_array,
    examine_curve,
    load_curve,
    read_response_file,
    response_bytes,
)

CURVE = np.linspace(-4, 2, 256, dtype=np.float32)[:, None] + np.array(
    [0.0, 0.1, 0.2], dtype=np.float32
)


def write_original(path: Path) -> None:
    """A file as asi_core writes it."""
    np.savez(path, response=CURVE, metadata=np.array(json.dumps({"lnE_range": [-9.0, 1.0]})))


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    path.write_bytes(response_bytes(CURVE.reshape(256, 1, 3), {"seed": 3}))
    response, metadata = read_response_file(path)
    assert response.dtype == np.float32
    np.testing.assert_array_equal(response, CURVE)
    assert metadata == {"seed": 3, "channel_order": "BGR"}


def test_a_file_has_the_keys_and_types_of_the_original(tmp_path: Path) -> None:
    with np.load(io.BytesIO(response_bytes(CURVE)), allow_pickle=False) as ours:
        assert sorted(ours.files) == ["metadata", "response"]
        assert ours["response"].dtype == np.float32
        assert ours["response"].shape == (256, 3)
        assert ours["metadata"].shape == ()
        assert ours["metadata"].dtype.kind == "U"


def test_a_file_without_channel_order_is_rgb(tmp_path: Path) -> None:
    write_original(tmp_path / "original.npz")
    response, metadata = read_response_file(tmp_path / "original.npz")
    np.testing.assert_array_equal(response, CURVE)
    assert metadata["channel_order"] == "RGB"
    curve = load_curve(tmp_path / "original.npz")
    np.testing.assert_array_equal(curve.log_response, CURVE[:, ::-1])


def test_a_curve_is_named_by_its_content_and_cannot_change(tmp_path: Path) -> None:
    write_original(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(response_bytes(CURVE[:, ::-1], {"channel_order": "BGR"}))
    a, b = load_curve(tmp_path / "a.npz"), load_curve(tmp_path / "b.npz")
    assert a.curve_id == b.curve_id
    assert len(a.curve_id) == 16
    with pytest.raises(ValueError, match="read-only"):
        a.log_response[0, 0] = 1.0


def bad_files() -> dict[str, bytes]:
    def saved(**arrays: object) -> bytes:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    empty_zip = io.BytesIO()
    zipfile.ZipFile(empty_zip, "w").close()
    huge, bomb = io.BytesIO(), io.BytesIO()
    claim = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}"
    with zipfile.ZipFile(huge, "w") as archive:
        header = b"\x93NUMPY\x01\x00" + len(claim + b"\n").to_bytes(2, "little")
        archive.writestr("response.npy", header + claim + b"\n")
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("response.npy", bytes(20_000_000))
    return {
        "empty": b"",
        "text": b"response",
        "half": response_bytes(CURVE)[:900],
        "no response": saved(metadata=np.array("{}")),
        "pickled": saved(response=np.array([{}], dtype=object), metadata=np.array("{}")),
        "wrong shape": saved(response=np.zeros((255, 3)), metadata=np.array("{}")),
        "not finite": saved(response=np.full((256, 3), np.nan), metadata=np.array("{}")),
        "no json": saved(response=CURVE, metadata=np.array("{")),
        "json list": saved(response=CURVE, metadata=np.array("[]")),
        "odd order": saved(response=CURVE, metadata=np.array('{"channel_order": "GBR"}')),
        "text array": saved(response=np.array(["a"] * 256), metadata=np.array("{}")),
        "empty zip": empty_zip.getvalue(),
        "claims a terabyte": huge.getvalue(),
        "unpacks to much": bomb.getvalue(),
        "deep json": saved(response=CURVE, metadata=np.array("[" * 100_000)),
    }


@pytest.mark.parametrize("kind", bad_files())
def test_a_file_that_is_no_response_is_named_in_the_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(bad_files()[kind])
    with pytest.raises(ResponseFileError, match=r"bad\.npz"):
        read_response_file(path)


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ResponseFileError, match="asi-watch calibrate"):
        read_response_file(tmp_path / "no.npz")


def test_an_impossible_curve_is_refused_by_file_and_by_array(tmp_path: Path) -> None:
    path = tmp_path / "falling.npz"
    path.write_bytes(response_bytes(CURVE[::-1]))
    words = "not a response curve: blue, green, red: falls"
    with pytest.raises(ResponseFileError, match=rf"falling\.npz: {words}"):
        load_curve(path)
    with pytest.raises(ResponseFileError, match=f"response: {words}"):
        curve_of_array(CURVE[::-1], "BGR", "response")
    assert examine_curve(path)[1][0].severity == "refuse"


def test_an_odd_curve_is_used_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dented = CURVE.copy()
    dented[150] -= 0.2
    (tmp_path / "dented.npz").write_bytes(response_bytes(dented))
    load_curve(tmp_path / "dented.npz")
    words = "the response curve looks wrong: blue, green, red: falls at 1 of 255"
    assert f"dented.npz: {words}" in caplog.text
