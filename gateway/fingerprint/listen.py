"""A query's fingerprint: what a stored one holds, and what the network hears behind noise, rooms and codecs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gateway.fingerprint.bits import Fingerprint, energies_of, from_energies
from models.recall import embedded
from models.utterance import Samples


def listen(samples: Samples) -> Fingerprint | None:
    """The fingerprint of 16 kHz `samples`, float32 [n], with all that looking for it needs; None where `fingerprint`
    gives none."""
    energies = energies_of(samples)
    if energies is None:
        return None
    code = from_energies(*energies)
    if code is None or code.between is None:
        return None
    own = np.stack([code.bits, code.between[0]], axis=1).reshape(-1)
    return replace(code, heard=embedded().hear(energies[0], energies[1], own, code.level))
