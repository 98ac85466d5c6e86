"""The 1024-point transform of real frames and its inverse, as small matrix products that any runtime has.

onnxruntime's own DFT operators are missing on CUDA and slow elsewhere. A plain product with the 1024 x 1026 matrix
costs a million multiplications a frame; in two stages of 32 points (Cooley and Tukey, 1965) it costs an eighth of that.
With n = 32 n1 + n2 and k = k1 + 32 k2: X[k] = sum over n2 of w32^(n2 k2) w1024^(n2 k1) sum over n1 of w32^(n1 k1) x[n].
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.mel import N_FFT

_SIDE = 32
_UPPER = 17
"""Values of k2 that bins 0..512 need."""


class Transform(nn.Module):
    """`forward`: float32 [B, T, 1024] to real and imaginary parts [B, T, 513]; `inverse`: back again."""

    first: torch.Tensor
    second: torch.Tensor
    first_back: torch.Tensor
    second_back: torch.Tensor
    twiddle_real: torch.Tensor
    twiddle_imaginary: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        i = np.arange(_SIDE)
        turn = np.exp(-2j * np.pi * np.outer(i, i) / _SIDE)
        upper = turn[:, :_UPPER]
        # A complex row (real, imaginary) times a complex matrix m is a real row times [[Re m, Im m], [-Im m, Re m]].
        self._keep("first", np.concatenate([turn.real, turn.imag], axis=1))
        self._keep("second", np.block([[upper.real, upper.imag], [-upper.imag, upper.real]]))
        back = np.conj(upper).T
        self._keep("second_back", np.block([[back.real, back.imag], [-back.imag, back.real]]))
        self._keep("first_back", np.concatenate([turn.real, turn.imag], axis=0) / N_FFT)
        twiddle = np.exp(-2j * np.pi * np.outer(i, i) / N_FFT)
        self._keep("twiddle_real", twiddle.real)
        self._keep("twiddle_imaginary", twiddle.imag)

    def _keep(self, name: str, values: npt.NDArray[np.float64]) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)))

    def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Real and imaginary parts of the half spectrum."""
        batch, count = frames.shape[0], frames.shape[1]
        rows = frames.reshape(batch, count, _SIDE, _SIDE).transpose(2, 3)
        real, imaginary = (rows @ self.first).split(_SIDE, dim=3)
        turned = torch.cat(
            [
                real * self.twiddle_real - imaginary * self.twiddle_imaginary,
                real * self.twiddle_imaginary + imaginary * self.twiddle_real,
            ],
            dim=2,
        )
        both = (turned.transpose(2, 3) @ self.second).transpose(2, 3).reshape(batch, count, 2 * _UPPER * _SIDE)
        bins = N_FFT // 2 + 1
        return both[:, :, :bins], both[:, :, _UPPER * _SIDE : _UPPER * _SIDE + bins]

    def inverse(self, real: torch.Tensor, imaginary: torch.Tensor) -> torch.Tensor:
        """Frames [B, T, 1024]. Bins but the first and last must come doubled, for the half that is not given."""
        batch, count = real.shape[0], real.shape[1]
        rest = torch.zeros_like(real[:, :, : _UPPER * _SIDE - (N_FFT // 2 + 1)])
        both = torch.cat([real, rest, imaginary, rest], dim=2).reshape(batch, count, 2 * _UPPER, _SIDE)
        real, imaginary = (both.transpose(2, 3) @ self.second_back).split(_SIDE, dim=3)
        turned = torch.cat(
            [
                real * self.twiddle_real + imaginary * self.twiddle_imaginary,
                imaginary * self.twiddle_real - real * self.twiddle_imaginary,
            ],
            dim=2,
        )
        return (turned.transpose(2, 3) @ self.first_back).transpose(2, 3).reshape(batch, count, N_FFT)
