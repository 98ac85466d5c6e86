"""Tensors on pages of the memory of the device that runs the models: one `onnxruntime.OrtValue` for all of them.

`DevicePages` is asked for by nobody here: the gateway hands it to whoever keeps an account of the pages. Tensors come
and go as OrtValues on that device and never by way of the host; with the CPU's provider the device is the host, and all
but its name is the same.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort

from models.onnx import device_of, session_of

IN: Final = Path(__file__).parent / "pages_in.onnx"
OUT: Final = Path(__file__).parent / "pages_out.onnx"
"""Made by `models.training.pages`."""
PAGE_BYTES: Final = 4096
"""A value wastes half a page on average, and how large pages are makes no difference to the time a copy takes."""
_NUMBER: Final = np.dtype(np.float32).itemsize


class DevicePages:
    """As many pages as `size` bytes hold, for float32 tensors of three dimensions. Every call blocks. Thread-safe as
    long as no page is written to that another uses."""

    def __init__(self, size: int, page_bytes: int = PAGE_BYTES, *, providers: Sequence[str] = ()) -> None:
        """`providers` as for a model: the pages are where the first of them really runs. Raises `ValueError` for a size
        of less than a page, `models.onnx.ModelFileError` as a session does, and `MemoryError` when the device has not
        so much left."""
        if page_bytes <= 0 or page_bytes % _NUMBER:
            raise ValueError(f"page_bytes is {page_bytes}: it must be a multiple of {_NUMBER}")
        if size < page_bytes:
            raise ValueError(f"size is {size}: one page has {page_bytes} bytes")
        self.count, self.page_bytes = size // page_bytes, page_bytes
        self._width = page_bytes // _NUMBER
        # Tensors of any size pass here: a plan for each would be 500 bytes that never go.
        self._in = session_of(IN, IN.read_bytes(), providers, 1)
        self._out = session_of(OUT, OUT.read_bytes(), providers, 1)
        self.device = device_of(self._out)
        """Where the pages are, as onnxruntime names it."""
        try:
            self._arena = ort.OrtValue.ortvalue_from_shape_and_type([self.count, self._width], np.float32, self.device)
        except Exception as error:  # onnxruntime's own exceptions have no base of their own
            raise MemoryError(f"{self.device} has no {size} bytes: {error}") from error

    def write(self, pages: array[int], value: ort.OrtValue) -> tuple[int, ...]:
        """Copies a float32 tensor onto these pages; returns its shape. ValueError when it does not fill them as it
        should."""
        shape = tuple(value.shape())
        size, room = value.tensor_size_in_bytes() // _NUMBER, len(pages) * self._width
        if not 0 < size <= room:
            raise ValueError(f"a tensor of shape {list(shape)} does not fit into {len(pages)} pages of {self._width}")
        binding = self._in.io_binding()
        binding.bind_ortvalue_input("arena", self._arena)
        binding.bind_ortvalue_input("tensor", value)
        binding.bind_cpu_input("pages", _numbers(pages)[:, None])
        binding.bind_cpu_input("padding", np.array([0, room - size], np.int64))
        binding.bind_cpu_input("rows", np.array([len(pages), self._width], np.int64))
        # ScatterND first copies all it does not change, unless the output is the input: then these pages alone.
        binding.bind_ortvalue_output("written", self._arena)
        self._in.run_with_iobinding(binding)
        return shape

    def read(self, pages: array[int], shape: tuple[int, ...]) -> ort.OrtValue:
        """The tensor of that shape on these pages: a copy in one piece, for a model to bind."""
        binding = self._out.io_binding()
        binding.bind_ortvalue_input("arena", self._arena)
        binding.bind_cpu_input("pages", _numbers(pages))
        binding.bind_cpu_input("size", np.array([np.prod(shape)], np.int64))
        binding.bind_cpu_input("shape", np.array(shape, np.int64))
        binding.bind_output("tensor", self.device)
        self._out.run_with_iobinding(binding)
        return binding.get_outputs()[0]


def _numbers(pages: array[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.frombuffer(pages, np.int64)
