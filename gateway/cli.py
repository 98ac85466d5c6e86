"""The `refrain` command: serve, and everything a person would ask a gateway for by hand.

Whatever is slow to import is imported by the command that needs it, so that `refrain --help` answers at once. Other
packages add commands as entry points of the group `refrain.commands`: the entry point's name is the command's, and its
object is called with an ArgumentParser, to add arguments and `set_defaults(run=...)`; `run(arguments)` returns the exit
status. A call that fails is one line on standard error and status 1; a command line that makes no sense is status 2.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.arguments import real, server, whole
from gateway.doctor import Access, add_doctor, add_keys
from gateway.models_command import add_subcommands, print_running

if TYPE_CHECKING:
    from gateway.client import CacheOptions, RefrainClient
    from models.registry.store import Registry

GROUP: Final = "refrain.commands"
ENCODINGS: Final = ("LINEAR16", "WAV", "FLAC", "MULAW", "OGG_OPUS")
_BY_SUFFIX: Final = {
    ".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG_OPUS", ".opus": "OGG_OPUS", ".raw": "LINEAR16", ".pcm": "LINEAR16",
    ".ulaw": "MULAW", ".mulaw": "MULAW",
}  # fmt: skip
_HEADERLESS: Final = ("LINEAR16", "MULAW")
_LONGEST_S: Final = 366 * 86_400
"""Of --ttl and --max-age, as `gateway.wire.requests` has it, which is slow to import."""


class CommandError(Exception):
    """Something the person at the keyboard can put right; its text says what."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status. Wrong usage leaves by SystemExit(2), as argparse does."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser, own = _parser()
    if not words or words[0] not in own:  # looking for others' commands costs time that our own need not wait for
        _add_others(parser)
    chosen = parser.parse_args(words)
    try:
        return int(chosen.run(chosen))
    except CommandError as error:
        print(f"refrain: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        print(f"refrain: {of_file(error)}", file=sys.stderr)  # a folder that is not there, a disk that is full
        return 1
    except KeyboardInterrupt:
        return 130


def of_file(error: OSError) -> str:
    """What the system says of a file, without its number."""
    return f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)


def _parser() -> tuple[argparse.ArgumentParser, frozenset[str]]:
    parser = argparse.ArgumentParser(
        prog="refrain", description="A gateway that answers speech requests from memory, and this machine's way to it."
    )
    parser.add_argument("--version", action="version", version=f"refrain {program_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    serve = commands.add_parser("serve", help="run the gateway")
    serve.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML, such as refrain.toml")
    serve.add_argument("--host", help="address for gRPC; other than this machine's own needs tokens")
    serve.add_argument("--port", type=int, help="port for gRPC; 0 for any free one")
    serve.add_argument("--http-port", type=int, help="port for metrics and health; 0 for any free one")
    serve.add_argument("--data-dir", type=Path, metavar="DIR", help="where keys, trace and the private Redis are kept")
    serve.add_argument("--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    serve.add_argument("--log-format", choices=("text", "json"))
    serve.set_defaults(run=_serve)

    say = _call(commands, "say", _say, "speak a text into a file")
    say.add_argument("text")
    voice, mood = say.add_mutually_exclusive_group(), say.add_mutually_exclusive_group()
    voice.add_argument("--voice", default="", help="name from `refrain voices`")
    voice.add_argument(
        "--voice-like", type=Path, metavar="FILE", help="the voice nearest to the one in a recording, or in a .npy file"
    )
    mood.add_argument("--emotion", default="", help="such as neutral or cheerful; see `refrain voices`")
    mood.add_argument("--mood-like", type=Path, metavar="FILE", help="the mood nearest to the one in a recording")
    say.add_argument("--speed", type=float, default=0.0, help="0.5 to 2, relative to the voice's own")
    _audio_out(say)

    hear = _call(commands, "hear", _hear, "recognize a recording")
    hear.add_argument("file", type=Path)
    hear.add_argument("--fuzzy", action="store_true", help="an earlier recording of the same speech may answer")
    hear.add_argument("--words", action="store_true", help="print each word's place and confidence as well")
    hear.add_argument("--explain", action="store_true", help="say and draw why memory did or did not answer")
    hear.add_argument(
        "--picture", type=Path, metavar="FILE.svg", help="where to draw it; default NAME.explain.svg in this folder"
    )
    _audio_in(hear)

    embed = _call(commands, "embed", _embed, "whose voice a recording is, as numbers")
    embed.add_argument("file", type=Path, help="0.5 s to 60 s of one speaker")
    embed.add_argument(
        "--dimensions", type=whole(0, 256), default=0, metavar="D", help="8, 16, 32, 64, 128 or 256; default 256"
    )
    embed.add_argument("-o", "--out", type=Path, metavar="FILE", help="write the numbers to a .npy file")
    _audio_in(embed)

    vocode = _call(commands, "vocode", _vocode, "turn a log-mel [80, T] in a .npy file into speech")
    vocode.add_argument("mel", type=Path)
    _audio_out(vocode)
    for parser_of in (say, hear, embed, vocode):
        _cache_options(parser_of)

    stats = _call(commands, "stats", _stats, "what came from where, and what it saved")
    stats.add_argument("--json", metavar="OUT", help="write the figures to a file instead; - for standard output")
    stats.add_argument(
        "--price", type=real(), default=0.0, metavar="P", help="of a GPU hour, to count savings in money"
    )
    stats.add_argument("--pairs", action="store_true", help="fuzzy answers that audits judged too, the worst first")
    wrong = _call(commands, "wrong", _wrong, "say that a fuzzy answer was wrong: its pair is never matched again")
    wrong.add_argument("entry_id", help="of the answer, as its cache_info or `refrain stats --pairs` tells it")
    _call(commands, "voices", _voices, "list the voices and their moods")
    models = _call(commands, "models", _models, "list the models that run, and manage those that could")
    add_subcommands(models, _models, _registry)
    _call(commands, "health", _health, "ask whether the gateway serves; status 0 if it does")
    for name, add in (("doctor", add_doctor), ("keys", add_keys)):
        about = (add.__doc__ or "").strip()
        add(commands.add_parser(name, help=about.partition(";")[0].rstrip("."), description=about), redis_access)
    return parser, frozenset(commands.choices)


def _call(commands: Any, name: str, run: Callable[[Any], int], what: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
    target = os.environ.get("REFRAIN_TARGET", "127.0.0.1:50051")
    parser.add_argument(
        "--target", type=server, default=target, metavar="HOST:PORT", help="or REFRAIN_TARGET; default %(default)s"
    )
    parser.add_argument("--token", help="credentials; better given as REFRAIN_TOKEN, which no process list shows")
    parser.add_argument("--tls", action="store_true", help="call over TLS")
    parser.add_argument("--timeout", type=real(above=True), default=60.0, metavar="S", help="default %(default)g s")
    parser.set_defaults(run=run)
    return parser


def _audio_in(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoding", choices=ENCODINGS, default="", help="of a file without a header")
    parser.add_argument("--rate", type=whole(0, 48_000), default=0, help="Hz, of a file without a header")


def _audio_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--encoding", choices=ENCODINGS, help="default: what the file's ending says, else WAV")
    parser.add_argument("--rate", type=whole(0, 48_000), default=0, help="Hz; default the model's own")


def _cache_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("cache")
    modes = group.add_mutually_exclusive_group()
    modes.add_argument("--bypass", dest="mode", action="store_const", const="BYPASS", help="neither read it nor write")
    modes.add_argument("--refresh", dest="mode", action="store_const", const="REFRESH", help="compute anew and replace")
    modes.add_argument(
        "--only-if-cached", dest="mode", action="store_const", const="ONLY_IF_CACHED", help="never run a model"
    )
    group.add_argument("--no-store", action="store_true", help="read it, but add nothing")
    group.add_argument("--ttl", type=real(0, _LONGEST_S), metavar="S", help="how long the answer may stay")
    group.add_argument("--max-age", type=real(0, _LONGEST_S), metavar="S", help="take no older answer")
    group.add_argument("--subject", metavar="ID", help="person whose data this is, for erasure")


def _chosen_cache(arguments: argparse.Namespace) -> CacheOptions:
    chosen = {
        "mode": arguments.mode, "no_store": arguments.no_store or None, "ttl": arguments.ttl,
        "max_age": arguments.max_age, "subject_id": arguments.subject,
    }  # fmt: skip
    return {name: value for name, value in chosen.items() if value is not None}  # type: ignore[return-value]


def _add_others(parser: argparse.ArgumentParser) -> None:
    commands: Any = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            add = point.load()
        except Exception as error:  # another package's fault must not take the command away
            print(f"refrain: the command {point.name!r} cannot be loaded: {error}", file=sys.stderr)
            continue
        about = (add.__doc__ or "").strip().partition("\n")[0]
        add(commands.add_parser(point.name, help=about, description=about))


@contextmanager
def _client(arguments: argparse.Namespace) -> Iterator[RefrainClient]:
    """A connected client; its errors become one line each."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # else gRPC tells the same beside that line, at length
    from gateway.client import RefrainCallError, RefrainClient

    token = arguments.token or os.environ.get("REFRAIN_TOKEN")
    if token and not (token.isascii() and token.isprintable()):
        raise CommandError("--token, REFRAIN_TOKEN: allowed are printable ASCII characters")
    with RefrainClient(arguments.target, token, tls=arguments.tls, timeout=arguments.timeout) as client:
        try:
            client.connect(min(arguments.timeout, 5.0))  # so that no first call's time has the connection's in it
            yield client
        except OSError as error:
            raise CommandError(of_file(error)) from None
        except (RefrainCallError, ValueError) as error:
            raise CommandError(str(error)) from None


def _serve(arguments: argparse.Namespace) -> int:
    from gateway.settings import SettingsError, load

    overrides: dict[str, Any] = {}
    for table, key, value in (
        ("listen", "host", arguments.host),
        ("listen", "port", arguments.port),
        ("listen", "http_port", arguments.http_port),
        ("log", "level", arguments.log_level),
        ("log", "format", arguments.log_format),
    ):
        if value is not None:
            overrides.setdefault(table, {})[key] = value
    if arguments.data_dir is not None:
        overrides["data_dir"] = arguments.data_dir
    try:
        settings = load(arguments.config, overrides)
    except SettingsError as error:
        raise CommandError("\nrefrain: ".join(str(error).splitlines())) from None
    # Before NumPy is loaded. Its products here are small, and threads that wait for each other in them take ten times
    # the processor time on a machine with other work to do.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    from cache_tiers.embedded import EmbeddedRedisError
    from cache_tiers.link import Unavailable
    from cache_tiers.master_key import MasterKeyError
    from gateway.app import serve
    from gateway.server import PortTaken
    from models.onnx import ModelFileError

    try:
        asyncio.run(serve(settings))
    except (
        EmbeddedRedisError,
        MasterKeyError,
        ModelFileError,
        OSError,
        PortTaken,
        SettingsError,
        Unavailable,
    ) as error:
        # What an operator can put right; anything else is ours, with a trace.
        raise CommandError(of_file(error) if isinstance(error, OSError) else str(error)) from None
    return 0


def _say(arguments: argparse.Namespace) -> int:
    like, mood_like = arguments.voice_like, arguments.mood_like
    with _client(arguments) as client:
        voice: Any = arguments.voice
        if like is not None:
            voice = _numbers(like) if like.suffix == ".npy" else client.embed_voice(like).values
        speech = client.synthesize(
            arguments.text, voice, arguments.emotion, emotion_audio=mood_like,
            fuzzy=like is not None or mood_like is not None, speed=arguments.speed,
            encoding=_encoding(arguments), rate=arguments.rate, **_chosen_cache(arguments),
        )  # fmt: skip
        _save(speech, arguments.out)
    return 0


def _vocode(arguments: argparse.Namespace) -> int:
    with _client(arguments) as client:
        mel = _numbers(arguments.mel)
        speech = client.vocode(mel, encoding=_encoding(arguments), rate=arguments.rate, **_chosen_cache(arguments))
        _save(speech, arguments.out)
    return 0


def _hear(arguments: argparse.Namespace) -> int:
    options = {
        "fuzzy": arguments.fuzzy, "encoding": _encoding_in(arguments), "rate": arguments.rate, "words": arguments.words,
        **_chosen_cache(arguments),
    }  # fmt: skip
    explain = arguments.explain or arguments.picture is not None
    with _client(arguments) as client:
        if explain:
            from gateway.explain_command import draw, picture_path, print_explanation

            drawn = picture_path(arguments.file, arguments.picture)
            told = client.explain(arguments.file, **options)  # first, so that what is now stored is not in it
        heard = client.recognize(arguments.file, **options)
    print(heard.transcript or "(nothing was recognized)")
    for word in heard.words:
        print(f"  {word.start_s:7.2f} to {word.end_s:6.2f} s  {word.confidence:4.2f}  {word.text}")
    if heard.info is not None:
        print(heard.info.describe())
    if explain:
        print()
        print_explanation(told)
        _write(drawn, draw(told, arguments.file))
        print(f"{drawn}: the picture of it")
    return 0


def _embed(arguments: argparse.Namespace) -> int:
    encoding = _encoding_in(arguments)
    with _client(arguments) as client:
        heard = client.embed_voice(
            arguments.file, dimensions=arguments.dimensions, encoding=encoding, rate=arguments.rate,
            **_chosen_cache(arguments),
        )  # fmt: skip
    if arguments.out is None:
        print(" ".join(f"{value:.6f}" for value in heard.values))
    else:
        _write(arguments.out, _npy(heard.values))
        print(f"{arguments.out}: {len(heard.values)} numbers")
    print(f"nearest voice: {heard.nearest} (cosine {heard.cosine:.3f})" if heard.nearest else "no voice is near")
    print(heard.info.describe())
    return 0


def _stats(arguments: argparse.Namespace) -> int:
    from gateway.stats import as_json, as_table, pairs_table

    with _client(arguments) as client:
        stats = client.stats()
        pairs = client.audited_pairs() if arguments.pairs else None
    if arguments.json is None:
        from rich.console import Console

        Console().print(as_table(stats, price_per_gpu_hour=arguments.price))
        if pairs is not None:
            Console().print(pairs_table(pairs), soft_wrap=True)  # a name in two pieces could not be copied
        return 0
    document = as_json(stats, price_per_gpu_hour=arguments.price)
    if pairs is not None:
        document["audited_pairs"] = [asdict(pair) for pair in pairs]
    text = json.dumps(document, indent=2) + "\n"
    if arguments.json == "-":
        sys.stdout.write(text)
    else:
        _write(Path(arguments.json), text.encode())
    return 0


def _wrong(arguments: argparse.Namespace) -> int:
    with _client(arguments) as client:
        new = client.report_wrong_hit(arguments.entry_id)
    print("This pair is never matched again." if new else "This pair had been found to be wrong before.")
    return 0


def _voices(arguments: argparse.Namespace) -> int:
    with _client(arguments) as client:
        for voice in client.list_voices():
            print(f"{voice.name:20} {', '.join(voice.languages):8} {voice.rate} Hz  {', '.join(voice.emotions)}")
    return 0


def _models(arguments: argparse.Namespace) -> int:
    with _client(arguments) as client:
        print_running(client.list_models())
    return 0


def redis_access(arguments: argparse.Namespace) -> Access:
    """What the settings say of Redis and its keys, by the options of `doctor.add_access`. Raises `CommandError`."""
    from gateway.settings import SettingsError, load

    overrides: dict[str, Any] = {"redis": {"url": arguments.redis}} if arguments.redis else {}
    if arguments.data_dir is not None:
        overrides["data_dir"] = arguments.data_dir
    try:
        settings = load(arguments.config, overrides)
    except SettingsError as error:
        raise CommandError("\nrefrain: ".join(str(error).splitlines())) from None
    masters = (settings.keys.master or settings.data_dir / "master.key", *settings.keys.other_masters)
    return Access(settings.redis.url, settings.data_dir, settings.redis.get_deadline, masters)


def _registry(arguments: argparse.Namespace) -> Registry:
    from gateway.settings import SettingsError, load
    from models.registry.store import Registry

    try:
        settings = load(arguments.config)
    except SettingsError as error:
        raise CommandError("\nrefrain: ".join(str(error).splitlines())) from None
    folder = arguments.models_dir or settings.models_dir
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"{folder}: not a folder, so no registry of models")
    if folder != settings.engines.models_dir:
        folder.mkdir(parents=True, exist_ok=True)
    return Registry(folder, settings.engines.trusted_keys)


def _health(arguments: argparse.Namespace) -> int:
    from gateway.client import SERVICES

    with _client(arguments) as client:
        states = {service or "gateway": client.health(service) for service in ("", *SERVICES)}
    for service, state in states.items():
        print(f"{service:24} {state}")
    return 0 if states["gateway"] == "SERVING" else 1


def _encoding_in(arguments: argparse.Namespace) -> str:
    """Of a file without a header; empty where the header says it."""
    encoding = arguments.encoding or _BY_SUFFIX.get(arguments.file.suffix.lower(), "")
    if encoding not in _HEADERLESS:
        return ""
    if not arguments.rate:
        raise CommandError(f"{arguments.file}: {encoding} has no header; give its --rate")
    return str(encoding)


def _numbers(path: Path) -> Any:
    """The array in a .npy file."""
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError):
        raise CommandError(f"{path}: not a .npy file of numbers") from None


def _npy(values: Any) -> bytes:
    import io

    import numpy as np

    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def _encoding(arguments: argparse.Namespace) -> str:
    return arguments.encoding or _BY_SUFFIX.get(arguments.out.suffix.lower(), "WAV")


def _save(speech: Any, path: Path) -> None:
    _write(path, speech.audio)
    print(f"{path}: {len(speech.audio):,} bytes of {speech.encoding} at {speech.rate} Hz")
    print(speech.info.describe())


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None


def program_version() -> str:
    """The installed version, or 0 where Refrain runs from a folder it was not installed from."""
    try:
        return version("refrain")
    except PackageNotFoundError:
        return "0+uninstalled"


if __name__ == "__main__":
    from gateway import cli  # so that the errors which other packages' commands raise are of the class caught here

    sys.exit(cli.main())
