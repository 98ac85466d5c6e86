"""One model, four sources, and errors that name the key and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.settings import Settings, SettingsError, is_loopback, load


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("REFRAIN_")]:
        monkeypatch.delenv(name)


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "refrain.toml"
    path.write_text(text)
    return path


def test_defaults_are_for_this_machine_alone() -> None:
    settings = load()
    assert (settings.listen.host, settings.listen.port, settings.listen.http_port) == ("127.0.0.1", 50051, 9464)
    assert settings.device.size == 256 << 20
    assert settings.redis.maxmemory == 1 << 30
    assert settings.redis.url == ""
    assert settings.redis.ttl == 30 * 86400
    assert settings.tenant("anyone").wrong_hit_limit == 0.005


def test_every_table_and_field_says_what_it_means() -> None:
    undocumented = [
        f"{table}.{name}"
        for table, field in Settings.model_fields.items()
        if hasattr(field.annotation, "model_fields")
        for name, inner in field.annotation.model_fields.items()  # type: ignore[union-attr]
        if not inner.description and name not in ("level", "format", "size")
    ]
    assert undocumented == []


def test_command_line_beats_environment_beats_file_beats_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = toml(tmp_path, "[listen]\nport = 1001\nhttp_port = 1002\ngrace = 3\n")
    monkeypatch.setenv("REFRAIN_LISTEN__PORT", "2001")
    monkeypatch.setenv("REFRAIN_LISTEN__HTTP_PORT", "2002")
    settings = load(path, {"listen": {"port": 3001}})
    assert (settings.listen.port, settings.listen.http_port, settings.listen.grace) == (3001, 2002, 3.0)
    assert settings.listen.max_message_bytes == 64 << 20


def test_sizes_and_times_have_units(tmp_path: Path) -> None:
    path = toml(tmp_path, '[device]\nsize = "2 MiB"\n[redis]\nttl = "2 d"\nget_deadline = "20 ms"\n')
    settings = load(path)
    assert (settings.device.size, settings.redis.ttl, settings.redis.get_deadline) == (2 << 20, 172800.0, 0.02)


def test_home_is_understood_in_paths() -> None:
    assert load(overrides={"data_dir": "~/refrain"}).data_dir == Path.home() / "refrain"
    assert load(overrides={"data_dir": "/d"}).trace_dir == Path("/d/trace")


def test_registered_voices_have_an_embedding(tmp_path: Path) -> None:
    settings = load(toml(tmp_path, "[voices.amy]\nembedding = [1, 0, 0, 0, 0, 0, 0, 0.5]\n"))
    assert settings.voices["amy"].embedding[-1] == 0.5
    with pytest.raises(SettingsError, match=r"voices\.amy\.embedding"):
        load(overrides={"voices": {"amy": {"embedding": [1.0]}}})


def test_tenants_have_policies_and_tokens(tmp_path: Path) -> None:
    secrets = tmp_path / "tokens"
    secrets.write_text("# ours\ntoken-two beta  # theirs\n\n")
    path = toml(
        tmp_path,
        f'tokens_file = "{secrets}"\n[tokens]\ntoken-one = "acme"\n[tenants.acme]\nfuzzy = "never"\n',
    )
    settings = load(path)
    assert settings.tokens == {"token-one": "acme", "token-two": "beta"}
    assert (settings.tenant("acme").fuzzy, settings.tenant("beta").fuzzy) == ("never", "on_request")
    assert "token-one" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("max_entry_byte = 1", "max_entry_byte: no such setting (is max_entry_bytes meant?); allowed here: listen,"),
        ("[redis]\nmax_memory = 1", "redis.max_memory: no such setting (is maxmemory meant?); allowed here: url,"),
        ('[tenants.acme]\nfuzy = "never"', "tenants.acme.fuzy: no such setting (is fuzzy meant?)"),
        ("[listen]\nport = 99999", "listen.port = 99999: "),
        ('[device]\npolicy = "fifo"', "device.policy = 'fifo': Input should be 'worth', 'tinylfu', 'lfu' or 'lru'"),
        ('[redis]\nttl = "3 weeks"', "known are ms, s, min, h, d"),
        ("[redis]\nttl = 0", "redis.ttl = 0: "),
        ('[tenants."a b"]', "tenant 'a b': a name is"),
        ('tokens_file = "/nowhere/tokens"', "tokens_file /nowhere/tokens: "),
        ("this is not toml", "not TOML"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(toml(tmp_path, text))
    assert said in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_all_wrong_settings_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(toml(tmp_path, "[listen]\nprot = 1\nport = -1\n"))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("tokens", [{"secret-token": 3}, {"secret token": "acme"}, {"secret-token": ["acme"]}])
def test_no_error_shows_a_token(tokens: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        load(overrides={"tokens": tokens})
    assert "secret" not in str(caught.value)


def test_no_error_shows_a_redis_password() -> None:
    with pytest.raises(SettingsError) as caught:
        load(overrides={"redis": "redis://:hunter2@host"})
    assert "hunter2" not in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load(tmp_path / "none.toml")


def test_an_environment_that_is_no_json_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFRAIN_TOKENS", "{nonsense")
    with pytest.raises(SettingsError, match="tokens"):
        load()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "", "speech.example.org"])
def test_other_machines_are_served_only_with_tokens(host: str) -> None:
    with pytest.raises(SettingsError, match="can be reached from other machines, but no tokens are set"):
        load(overrides={"listen": {"host": host}})
    assert load(overrides={"listen": {"host": host}, "tokens": {"token-one": "acme"}}).listen.host == host


def test_loopback_has_many_names() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "unix:/run/refrain")))
