"""A query's fingerprint: what a stored one holds, and what the network hears behind noise, rooms and codecs."""

from __future__ import annotations

from dataclasses import replace

from gateway.fingerprint.bits import Fingerprint, on_both_grids
from models.recall import embedded
from models.utterance import Samples


def listen(samples: Samples) -> Fingerprint | None:
    """The fingerprint of 16 kHz `samples`, float32 [n], with all that looking for it needs; None where `fingerprint`
    gives none."""
    found = on_both_grids(samples)
    if found is None:
        return None
    code, energies, bits = found
    return replace(code, heard=embedded().hear(energies, bits, code.level))
