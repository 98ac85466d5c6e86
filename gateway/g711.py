"""Telephone companding by table: ITU-T G.711 (11/1988), mu-law both ways and A-law to linear.

Linear values are 16-bit: G.711's 14-bit mu-law and 13-bit A-law codes in the upper bits, as in Sun's g711.c.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

_BIAS: Final = 0x84
_CLIP: Final = 32_635


def _mulaw_to_linear() -> npt.NDArray[np.int16]:
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    magnitude = (((code & 0x0F) << 3) + _BIAS << (code >> 4 & 7)) - _BIAS
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw_to_linear() -> npt.NDArray[np.int16]:
    code = np.arange(256, dtype=np.int32) ^ 0x55
    segment = code >> 4 & 7
    step = (code & 0x0F) << 4
    magnitude = np.where(segment == 0, step + 8, step + 0x108 << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


def _linear_to_mulaw() -> npt.NDArray[np.uint8]:
    """Indexed by the sample's 16 bits read as unsigned."""
    linear = np.arange(65_536, dtype=np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.minimum(np.abs(linear), _CLIP) + _BIAS
    exponent = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    mantissa = magnitude >> exponent + 3 & 0x0F
    sign = np.where(linear < 0, 0x80, 0)
    return np.asarray(~(sign | exponent << 4 | mantissa) & 0xFF, np.uint8)


MULAW: Final = _mulaw_to_linear()
"""mu-law code to linear: int16 [256]."""
ALAW: Final = _alaw_to_linear()
"""A-law code to linear: int16 [256]."""
TO_MULAW: Final = _linear_to_mulaw()
"""Linear sample, viewed as uint16, to mu-law code: uint8 [65536]."""
