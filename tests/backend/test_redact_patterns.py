"""What is taken for a secret, and what is not: each shape alone, and real text in which there is none."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import uuid
from pathlib import Path

import pytest
import re2
from fake_secrets import IN_CONTEXT, SECRETS, Secret
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from telemetry import span, traces

from otel_sessions.backend import redact
from otel_sessions.backend.records import Encoding, Signal
from otel_sessions.backend.redact import Redactor
from otel_sessions.backend.redact_own import patterns_with
from otel_sessions.backend.redact_patterns import DEFAULTS, Pattern, is_secret_name, loosened
from otel_sessions.errors import ConfigurationError

REDACTOR = Redactor(DEFAULTS)
ROOT = Path(__file__).parents[2]

every_secret = pytest.mark.parametrize(
    "one", [*SECRETS, *IN_CONTEXT], ids=lambda one: f"{one.kind}-{one.before[:20]}{len(one.secret)}"
)


@every_secret
def test_a_secret_is_replaced_and_what_is_around_it_stays(one: Secret) -> None:
    """Alone, and within a text of any script."""
    assert REDACTOR.text(one.text) == one.redacted
    assert REDACTOR.text(f"旅行 {one.text} » Größe") == f"旅行 {one.redacted} » Größe"


@every_secret
def test_what_was_redacted_is_not_redacted_again(one: Secret) -> None:
    """So a relay, or a second backend behind the first, changes nothing."""
    assert REDACTOR.text(one.redacted) == one.redacted


def test_every_kind_of_ours_has_an_example() -> None:
    """No pattern goes untested."""
    assert {one.kind for one in (*SECRETS, *IN_CONTEXT)} == {pattern.kind for pattern in DEFAULTS}


def test_secrets_side_by_side_are_each_replaced() -> None:
    """With one space, one comma or one line between."""
    for between in (" ", ",", "\n", '", "'):
        found = REDACTOR.text(between.join(one.secret for one in SECRETS[:-1]))
        assert found == between.join(one.redacted for one in SECRETS[:-1])


@pytest.mark.parametrize(
    "text",
    [
        "password: required", "Enter your password:", "the secret: be kind", "api_key=os.environ['KEY']",
        "api_key=self.config.api_key2", "password=getpass.getpass()", "token: str = ''", '"token": " the"',
        '{"password": {"type": "string"}}', '{"password": "string"}', "password: <your password>",
        "api_key: ${OPENAI_API_KEY}", "PASSWORD=$PASSWORD", "api_key = 'your-api-key'", "password: ********",
        "http://{user}:{password}@host", "https://user:${PASS}@host", "http://localhost:4318/v1/traces@x",
        "PWD=/root/project1", "/etc/passwd:root:x:0:0:root:/root:/bin/bash", "private_key: /etc/tls/key.pem",
        '"max_tokens": 4096, "input_tokens": 12345678901234567890', "next_page_token: abc", "sk-learn",
        "class sk-estimator-doc-link-hover-aaaaaaaaaaaaaaaaaaaaaa", "Bearer authentication of requests",
        "Basic authentication is what RFC 7617 tells", "Authorization: required", "a cookie: chocolate chips",
        "document.cookie", "git@github.com:user/repository.git", "task-sk-20261121", "eyJ0.not.a.token",
        "AKIA is how they begin", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJqk user@host", "secret_name=prod/database/main",
        "gen_ai.usage.input_tokens=1234567", "[redacted:jwt]", "xoxb-your-bot-token", "hf_transfer",
        'api_key="OPENAI_API_KEY"', '"grant_type": "x", "password": "reset_password"',
        "The password is required.", "your password was changed", "PASSWORD=getpass.getpass()", "API_KEY=settings.API_KEY",
        "API_KEY=read_key(path)", "the API key: required!", "a secret is something", "SECRET_KEY=os.environ[key]", "password ''", "it is identified by 'name1'",
        "--password PASSWORD  the password", "--api-key --dry-run", "--token TOKEN", "login name password required",
        "curl -u $USER:$PASSWORD https://example.com", "curl -u user https://example.com:8080/x1", '"auth": "oauth2"',
        "session_id=0192f1b2-7c1e-7a33-9d53-3a5d1e7f9c11", "token_count: 12345678901234567890123",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    """Prose, source code, placeholders, paths, names."""
    assert REDACTOR.text(text) == text


def test_ids_hashes_and_encoded_data_stay() -> None:
    """A trace is made of random letters: none of them is a key."""
    draw = random.Random(7)  # noqa: S311 - they open nothing
    for _ in range(300):
        data = draw.randbytes(40)
        texts = (
            data.hex(), data[:16].hex(), str(uuid.UUID(bytes=data[:16])), hashlib.sha1(data).hexdigest(),  # noqa: S324
            hashlib.sha512(data).hexdigest(), "call_" + base64.b32encode(data).decode()[:24],
            "chatcmpl-" + data.hex()[:29], "toolu_01" + base64.b32encode(data).decode()[:22], "msg_" + data.hex(),
            f"00-{data[:16].hex()}-{data[16:24].hex()}-01", "sha256:" + hashlib.sha256(data).hexdigest(),
            f"/home/me/.cache/{data.hex()}/file-{data.hex()[:8]}.py", f"https://host/{data.hex()}?page=2&id=7",
            "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/db-" + data.hex()[:6],
        )  # fmt: skip
        for text in texts:
            assert REDACTOR.text(text) == text
    image = "data:image/png;base64," + base64.b64encode(draw.randbytes(400_000)).decode()
    assert REDACTOR.text(image) == image


def test_our_own_documents_bear_no_secret() -> None:
    """But for the lines that show what one looks like."""
    texts = [(ROOT / "README.md"), (ROOT / "ARCHITECTURE.md"), *sorted((ROOT / "docs").rglob("*.md"))]
    shown = re.compile(r"(?m)^.*(?:authorization=|password@host).*$")
    for path in texts:
        text = shown.sub("", path.read_text())
        assert REDACTOR.text(text) == text, path


@pytest.mark.parametrize(
    "name",
    ["http.request.header.authorization", "http.request.header.set-cookie", "http.response.header.cookie",
     "x-api-key", "db.password", "userPassword", "client_secret", "OPENAI_API_KEY", "Authorization",
     "rpc.request.metadata.x-goog-api-key", "aws.secretAccessKey", "app.accessToken"],
)  # fmt: skip
def test_an_attribute_named_as_a_secret_is_one(name: str) -> None:
    """By the end of its name, however that is written."""
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    ["gen_ai.usage.input_tokens", "aws.secretsmanager.secret.arn", "gen_ai.token.type", "user.id",
     "http.request.header.accept", "password_policy", "secretary", "http.cookies.count", "token", "key"],
)  # fmt: skip
def test_an_attribute_of_another_name_is_none(name: str) -> None:
    """Usage above all."""
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "part",
    ["-----BEGIN PRIVATE KEY-----\n", "-----BEGIN PRIVATE KEY-----MIIE", "a://a:", "password='x", "sk-", "eyJ0eXAiOiJKV",
     "Authorization: Bearer ", "token=", 'password=\\"', "Cookie: a=", "AKIA", "secret_access_key="],
)  # fmt: skip
def test_no_text_takes_longer_than_its_length(part: str) -> None:
    """What a model may be talked into writing can't hold the backend up: quadratic time would take minutes here."""
    text = part * (2_000_000 // len(part))
    assert isinstance(REDACTOR.text(text), str)


def test_what_is_longer_than_any_placeholder_is_a_secret_unchecked() -> None:
    """A check is Python, which holds the lock of the interpreter for as long as its text is."""
    lengths: list[int] = []

    def check(before: str, secret: str) -> bool:
        lengths.append(len(before) + len(secret))
        return False

    redactor = Redactor([Pattern("own", "x*:(?P<secret>y+)", "here", check)])
    short, long = "y" * 4000, "y" * 5000
    assert redactor.text(f":{short} :{long}") == f":{short} :[redacted:own]"
    assert redactor.text("x" * 5000 + ":y") == "x" * 5000 + ":[redacted:own]"
    assert lengths == [4001]


def test_a_request_of_hits_is_looked_at_so_often_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """From there on whole texts are replaced: time and memory are bounded, and no secret stays."""
    looks: list[str] = []

    def check(_before: str, secret: str) -> bool:
        looks.append(secret)
        return secret != "none"

    monkeypatch.setattr(redact, "MOST_LOOKS", 100)
    redactor = Redactor([Pattern("own", "s=(?P<secret>[a-z0-9]+)", "here", check)])
    assert redactor.text("s=none " * 99 + "s=1") == "s=none " * 99 + "s=[redacted:own]"
    assert redactor.text("s=1 " * 1000) == "[redacted:own]"
    assert len(looks) == 201
    attributes = {f"a{n}": "s=1 s=none and more" for n in range(80)}
    body = traces([span(1, attributes={**attributes, "b": "nothing"})]).SerializeToString()
    clean = redactor.redact(Signal.TRACES, Encoding.PROTOBUF, body)
    assert b"s=1" not in clean.body
    assert b"nothing" in clean.body
    assert clean.body.count(b"s=[redacted:own] s=none and more") == 50
    assert clean.counts == {"own": 80}


@pytest.mark.parametrize("value", ["12345678", "-1234567", "1234567.5", "1.5e100"])
@pytest.mark.parametrize("depth", range(3))
def test_json_in_a_text_stays_json_where_a_number_is_replaced(value: str, depth: int) -> None:
    """A marker is no number, so it gets the quotes that the number lacks; a transcript reads them."""
    text = f'{{"a": 1, "secret": {value}, "b": 2}}'
    for _ in range(depth):
        text = json.dumps({"inner": text})
    clean = REDACTOR.text(text)
    assert REDACTOR.text(clean) == clean
    for _ in range(depth):
        clean = json.loads(clean)["inner"]
    marked = "[redacted:assignment]"
    assert json.loads(clean) == {"a": 1, "secret": marked, "b": 2}


# --- loosened -----------------------------------------------------------------------------------------------


def test_a_loosened_pattern_asks_nothing_of_its_neighbours() -> None:
    """What only looks like an assertion, escaped or within a class, stays."""
    assert loosened(r"\bfoo$") == "(?:)foo(?:)"
    assert loosened(r"(?:^|x)[^$\b]\$\^\\b") == r"(?:(?:)|x)[^$\b]\$\^\\b"
    assert loosened(r"[]^]$[^]$]^\Q$^\E[[:alpha:]^]") == r"[]^](?:)[^]$](?:)\Q$^\E[[:alpha:]^]"


@every_secret
def test_a_secret_is_found_whatever_bytes_are_beside_it(one: Secret) -> None:
    """Lengths and tags of protobuf look like letters; a body in which one is missed would be stored as it is."""
    for byte in range(256):
        assert REDACTOR.scan(bytes([byte]) + one.text.encode() + bytes([byte])), byte


@given(st.from_regex(r"[a-z0-9 ]{0,6}(\bAB[0-9]{2}\b|^CD|EF$)[a-z0-9 ]{0,6}"), st.binary(), st.binary())
def test_what_a_pattern_finds_its_loosened_form_finds_anywhere(
    text: str, before: bytes, after: bytes
) -> None:
    """For any text and any bytes around it."""
    pattern = r"\bAB[0-9]{2}\b|^CD|EF$"
    if re2.search(pattern, text):
        assert re2.search(loosened(pattern).encode(), before + text.encode() + after)


@pytest.mark.parametrize("number", [n for n, pattern in enumerate(DEFAULTS) if pattern.part])
def test_what_a_pattern_finds_the_scan_finds_by_its_part(number: int) -> None:
    """The part is necessary: a body whose secret the scan passes over would be stored as it is."""
    pattern = DEFAULTS[number]
    shape = re2.compile(pattern.regex.encode())

    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(st.from_regex(pattern.regex, alphabet=st.characters(codec="ascii")), st.binary(), st.binary())
    def check(text: str, before: bytes, after: bytes) -> None:
        if shape.search(text.encode()):
            assert number in REDACTOR.scan(before + text.encode() + after)

    check()


# --- patterns of users ----------------------------------------------------------------------------------------


def test_a_pattern_of_the_user_replaces_its_group_or_all_of_its_match() -> None:
    """Beside ours."""
    redactor = Redactor(patterns_with(["badge=BADGE-[0-9]{6}", r"pin=(?i)\bpin: (?P<secret>[0-9]{4})\b"]))
    text = f"BADGE-123456, PIN: 1234 {SECRETS[0].secret}"
    assert redactor.text(text) == f"[redacted:badge], PIN: [redacted:pin] {SECRETS[0].redacted}"


def test_a_name_of_ours_replaces_or_removes_our_pattern() -> None:
    """And lines that say nothing are passed over."""
    [jwt] = [one for one in SECRETS if one.kind == "jwt"]
    assert Redactor(patterns_with(["# none", "", "jwt="])).text(jwt.text) == jwt.text
    assert Redactor(patterns_with(["jwt=JWT[0-9]+"])).text("JWT1 " + jwt.text) == "[redacted:jwt] " + jwt.text


def test_patterns_that_are_too_large_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than searched for in part."""
    monkeypatch.setattr(redact, "_SCANNER_BYTES", 20_000)
    with pytest.raises(ConfigurationError, match="too large together"):
        Redactor(DEFAULTS)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("badge=BADGE-[0-9", "badge=BADGE-[0-9 can't be read by RE2: missing ]"),
        (r"twice=(a)\1", "can't be read by RE2: invalid escape sequence"),
        ("all=.*", "matches the empty text"),
        (r"edge=\b", "matches the empty text"),
        ("Badge=x", "'Badge=x' is no NAME=REGEX"),
        ("BADGE-[0-9]", "is no NAME=REGEX"),
        ("attribute=x", "is no NAME=REGEX"),
        ("jvt=", "switches off what is not there"),
    ],
)
def test_a_pattern_that_can_not_work_is_refused_by_name(line: str, told: str) -> None:
    """Before anything is listened to."""
    with pytest.raises(ValueError, match=re.escape(told)):
        patterns_with([line])
