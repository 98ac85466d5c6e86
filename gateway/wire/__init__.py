"""Protos in, canonical utterances out; chunks in, serialised responses out. Past this package nobody sees a proto.

`values` are what requests become; `requests` decodes whole requests and stream configs; `streams` assembles what a
stream sends; `responses` encodes; `messages` holds what is no answer of an engine; `stored` is for people who look
at what is kept.
"""

from gateway.wire.requests import (
    costly,
    costly_sample,
    decode_embed,
    decode_recognize,
    decode_streaming_recognize_config,
    decode_streaming_synthesize_config,
    decode_streaming_vocode_config,
    decode_synthesize,
    decode_vocode,
    reads_cache,
    utterance_content,
)
from gateway.wire.responses import (
    Status,
    age_suffix,
    audio_frames,
    embed_frame,
    info_suffix,
    recognize_frame,
    shift_words,
    streaming_recognize_frame,
    synthesize_frame,
    to_streaming,
    vocode_frame,
)
from gateway.wire.stored import Sound, sound_of, words_of
from gateway.wire.streams import MelCollector, audio_collector, completed, mel_collector, sentences
from gateway.wire.values import (
    CONFIDENCE,
    DEFAULT_CONTROL,
    OFFSETS,
    Control,
    Decoded,
    Likeness,
    Limits,
    Match,
    Mode,
)

__all__ = [
    "CONFIDENCE",
    "DEFAULT_CONTROL",
    "OFFSETS",
    "Control",
    "Decoded",
    "Likeness",
    "Limits",
    "Match",
    "MelCollector",
    "Mode",
    "Sound",
    "Status",
    "age_suffix",
    "audio_collector",
    "audio_frames",
    "completed",
    "costly",
    "costly_sample",
    "decode_embed",
    "decode_recognize",
    "decode_streaming_recognize_config",
    "decode_streaming_synthesize_config",
    "decode_streaming_vocode_config",
    "decode_synthesize",
    "decode_vocode",
    "embed_frame",
    "info_suffix",
    "mel_collector",
    "reads_cache",
    "recognize_frame",
    "sentences",
    "shift_words",
    "sound_of",
    "streaming_recognize_frame",
    "synthesize_frame",
    "to_streaming",
    "utterance_content",
    "vocode_frame",
    "words_of",
]
