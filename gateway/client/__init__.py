"""The Python client: text, recordings and mels in, plain values out, and where each answer came from.

One synchronous client over one channel, safe to share between threads. Streams are iterators in and out. Whatever goes
wrong with a call is a `RefrainCallError`; options that no call could take are a ValueError.

`client` holds the calls, `values` and `explained` what they give, `convert` what they send, `errors` how they fail.
"""

from gateway.client.client import DEFAULT_TARGET, SERVICES, RefrainClient
from gateway.client.errors import RefrainCallError, Violation
from gateway.client.explained import Candidate, Explanation, Timeline
from gateway.client.values import (
    CacheOptions,
    Embedded,
    Erased,
    Heard,
    HeardWord,
    Info,
    Model,
    Speech,
    Voice,
    Warmed,
)

__all__ = [
    "DEFAULT_TARGET",
    "SERVICES",
    "CacheOptions",
    "Candidate",
    "Embedded",
    "Erased",
    "Explanation",
    "Heard",
    "HeardWord",
    "Info",
    "Model",
    "RefrainCallError",
    "RefrainClient",
    "Speech",
    "Timeline",
    "Violation",
    "Voice",
    "Warmed",
]
