"""Initial latents from .npy and .safetensors files: read, checked, hashed, and stored by hash.

Canonical contents: little-endian float32, C order, shape [channels, height/scale, width/scale].
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from jobs.errors import LatentsError, OutputError
from jobs.models.models import ModelRef
from jobs.output.durable import write_atomically
from jobs.plain_file import NotPlain, TooLarge, read_plain
from jobs.wording import shortened

MAX_BYTES: Final = 512 << 20
"""A larger file is refused. 16 channels of 2048x2048 float64 have this size."""

Latents = NDArray[np.float32]

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""Versions of .npy -> what reads their header; 3.0 is of arrays with named fields alone."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


def read_latents(path: Path) -> Latents:
    """The initial latents in a .npy or .safetensors file, canonical: float32 [channels, h, w].

    A safetensors file must hold one tensor, or one named "latents". float64 is rounded to float32; a leading
    dimension of 1 is removed. Raises LatentsError.
    """
    try:
        return _latents(path)
    except OSError as error:
        raise LatentsError(f"{path}: cannot be read: {error.strerror}") from None


def _latents(path: Path) -> Latents:
    """As `read_latents`, but raises OSError for an existing file that cannot be read."""
    try:
        contents = read_plain(path, MAX_BYTES)
    except FileNotFoundError:
        raise LatentsError(f"{path}: there is no such file") from None
    except (NotPlain, TooLarge) as error:
        raise LatentsError(f"{path}: is {error.strerror}: is it the right file?") from None
    if path.suffix == ".npy":
        return _canonical(path, _from_npy(path, contents))
    if path.suffix == ".safetensors":
        return _canonical(path, _from_safetensors(path, contents))
    raise LatentsError(f"{path}: must end in .npy or .safetensors: save it with numpy.save or safetensors")


def _canonical(path: Path | str, array: NDArray[np.generic]) -> Latents:
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise LatentsError(f"{path}: holds {array.dtype}: save it as float32")
    shape = _shape(array)
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3 or 0 in array.shape:
        raise LatentsError(f"{path}: has shape {shape}: save one image's latents, [channels, height, width]")
    with np.errstate(over="ignore"):
        latents = np.ascontiguousarray(array, dtype="<f4")
    if not np.isfinite(latents).all():
        raise LatentsError(f"{path}: holds values that are not finite in float32: save finite ones")
    return latents


def check_latents(path: Path, latents: Latents, model: ModelRef, height: int, width: int) -> None:
    """Raise LatentsError if `latents` do not fit an image of `model`, as far as its form is known."""
    channels, scale = model.latent_channels, model.latent_scale
    if channels is None or scale is None:
        return
    expected = (channels, height // scale, width // scale)
    if latents.shape == expected:
        return
    remedy = "save latents of that shape"
    if latents.shape[0] == channels:
        remedy += f", or set width {latents.shape[2] * scale} and height {latents.shape[1] * scale}"
    raise LatentsError(
        f"{path}: has shape {_shape(latents)}, but {model.label} at {width}x{height} takes"
        f" {list(expected)}: {remedy}"
    )


def latents_sha256(latents: Latents) -> str:
    """The hex SHA-256 of the shape and the canonical contents; it does not depend on the file's format."""
    digest = hashlib.sha256(f"float32 {_shape(latents)}\n".encode())
    digest.update(np.ascontiguousarray(latents, dtype="<f4").tobytes())
    return digest.hexdigest()


def write_input(folder: Path, latents: Latents) -> str:
    """Store latents in `folder` as HASH.npy and return the hash; a crash leaves no partial file of that name.

    Raises OSError.
    """
    latents = np.ascontiguousarray(latents, dtype="<f4")
    sha = latents_sha256(latents)
    folder.mkdir(parents=True, exist_ok=True)
    contents = io.BytesIO()
    np.save(contents, latents, allow_pickle=False)
    write_atomically(folder / f"{sha}.npy", contents.getvalue())
    return sha


def read_input(folder: Path, sha: str) -> Latents:
    """The latents that `write_input` stored under `sha`.

    Raises LatentsError if they are missing or altered, OutputError if the system cannot read them.
    """
    if not _DIGEST.fullmatch(sha):
        raise LatentsError(f"init_latents = {sha!r}: is not a SHA-256")
    path = folder / f"{sha}.npy"
    try:
        latents = _latents(path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be read ({error.strerror}): make the output readable for this worker's user, "
            "and check its disk or mount"
        ) from None
    return _verified(path, latents, sha)


def parsed_input(place: str, contents: bytes, sha: str) -> Latents:
    """The latents in the file that `write_input` stored under `sha`, of which messages call the place so.

    Raises LatentsError if they are altered.
    """
    return _verified(place, _canonical(place, _from_npy(place, contents)), sha)


def _verified(place: Path | str, latents: Latents, sha: str) -> Latents:
    if latents_sha256(latents) != sha:
        raise LatentsError(f"{place}: does not hold what its name says: submit the manifest again")
    return latents


def _from_npy(path: Path | str, contents: bytes) -> NDArray[np.generic]:
    if not contents.startswith(b"\x93NUMPY"):
        raise LatentsError(f"{path}: is not a .npy file: save it with numpy.save")
    stream = io.BytesIO(contents)
    try:
        read_header = _HEADERS[np.lib.format.read_magic(stream)]
        shape, by_columns, dtype = read_header(stream)
        # No memory is taken for whatever the header says, and no array of objects is made of bytes.
        values = np.frombuffer(contents, dtype, math.prod(shape), stream.tell())
        array: NDArray[np.generic] = values.reshape(shape, order="F" if by_columns else "C").copy()
    # numpy reads the header as Python: ast and tokenize raise nearly anything for what is none.
    except Exception as error:
        why = shortened(str(error).partition("\n")[0], 200) or type(error).__name__
        raise LatentsError(f"{path}: cannot be read as .npy: {why}: save it with numpy.save") from None
    return array


def _from_safetensors(path: Path, contents: bytes) -> NDArray[np.generic]:
    from safetensors import SafetensorError, deserialize

    try:
        tensors = dict(deserialize(contents))  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise LatentsError(f"{path}: is not a .safetensors file: {error}") from None
    name = "latents" if "latents" in tensors else next(iter(tensors), None)
    if name is None or (len(tensors) > 1 and name != "latents"):
        raise LatentsError(f'{path}: holds {len(tensors)} tensors: save one, or name it "latents"')
    tensor = tensors[name]
    kind, raw = tensor["dtype"], bytes(tensor["data"])
    if kind == "BF16":  # numpy has no such type: a bfloat16 is the upper half of a float32.
        flat = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
    elif kind in ("F16", "F32", "F64"):
        flat = np.frombuffer(raw, "<f" + str(int(kind[1:]) // 8))
    else:
        raise LatentsError(f"{path}: {name!r} holds {kind}: save it as float32")
    array: NDArray[np.generic] = flat.reshape(tensor["shape"])
    return array


def _shape(array: NDArray[np.generic]) -> list[int]:
    return [int(size) for size in array.shape]
