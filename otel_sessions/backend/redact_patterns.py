r"""What a secret looks like: one table, each row with where that is written; and patterns of users.

A pattern is in RE2's syntax (time linear in the text, so none can hang the backend). What is replaced is its
group `secret`, or all that it matches. Shapes that are too plain to stand alone (40 letters of an AWS secret
key, any password) are taken only where a name or a scheme says what they are; ids, hashes, UUIDs and base64
have to pass, which `tests/backend/test_redact_patterns.py` claims with recorded telemetry.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

__all__ = [
    "ATTRIBUTE",
    "DEFAULTS",
    "SECRET_NAMES",
    "Pattern",
    "is_secret_name",
    "kinds_of",
    "loosened",
    "marker",
]

ATTRIBUTE: Final = "attribute"
"""Kind of a value that is redacted for the name of its attribute, whatever it is."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One shape of a secret. `check(before, secret)` may still say that it is none.

    `part` is what every match holds and the scan looks for in its stead, where the whole shape has a run of
    letters with a beginning that is found everywhere in base64: the automaton would remember where each of
    many such runs began, and build a state for nearly every byte.
    """

    kind: str
    regex: str
    source: str
    check: Callable[[str, str], bool] | None = None
    part: str = ""

    @property
    def scanned(self) -> str:
        """Return what is scanned for: found wherever the pattern matches, whatever its neighbours are."""
        return loosened(self.part or self.regex)


def marker(kind: str) -> str:
    """Return what stands in the place of a secret."""
    return f"[redacted:{kind}]"


# --- names -----------------------------------------------------------------------------------------

_NAMES: Final = (
    *("api_key", "x_goog_api_key", "password", "passwd", "passphrase", "secret", "secret_key"),
    *("secret_access_key", "client_secret", "app_secret", "webhook_secret", "private_key", "signing_key"),
    *("encryption_key", "access_token", "refresh_token", "auth_token", "bearer_token", "session_token"),
    *("security_token", "api_token", "bot_token", "mysql_pwd", "db_pwd"),
    *("private_token", "vault_token", "oauth_token", "csrf_token", "xsrf_token"),
)
_HEADERS: Final = ("authorization", "cookie")


def _any_of(names: Iterable[str]) -> str:
    return "|".join(name.replace("_", "[ _-]?") for name in sorted(names, key=len, reverse=True))


SECRET_NAMES: Final = f"(?i)(?:{_any_of((*_NAMES, *_HEADERS))})"
"""How an attribute's name ends whose whole value is a secret."""

_SECRET_NAME: Final = re.compile(f"(?:.*[^a-z])?{SECRET_NAMES[4:]}", re.IGNORECASE | re.DOTALL)
_NAME_END: Final = 64  # letters; more than twice the longest of these names
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def is_secret_name(name: str) -> bool:
    """Tell whether an attribute is named as a secret, as is `http.request.header.authorization`."""
    end = name[-_NAME_END:]
    return any(map(_SECRET_NAME.fullmatch, (end, _CAMEL.sub("_", end))))


# --- checks ----------------------------------------------------------------------------------------

_MARKER: Final = re.compile(r"\[redacted:[^\]]*\]")
_NO_SECRETS: Final = frozenset(
    (
        *(
            "string",
            "str",
            "text",
            "number",
            "integer",
            "boolean",
            "object",
            "array",
            "true",
            "false",
            "none",
        ),
        *("null", "undefined", "password", "passwd", "secret", "token", "hidden", "required", "optional"),
        *("redacted", "removed", "masked", "filtered", "example", "placeholder", "value"),
    )
)
_STANDS_FOR: Final = re.compile(
    r"""[*x.•_-]+ | <.*> | \$.* | %.* | [^{]*\{\{?[\w .-]*\}?\}.* | (?:your|my|the)[_-].* | os\.environ.*
    | process\.env.* | \[(?:redacted|filtered|masked|removed).*
    | (?:~|\.\.?)/.* | /(?:app|etc|home|mnt|opt|private|root|run|srv|tmp|usr|Users|var)/.* | [A-Za-z]:\\.*
    | :[a-z]+:.*
    | .*\.(?:pem|key|crt|json|ya?ml|toml|txt|env|py|[jt]s)""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_IDENTIFIER: Final = re.compile(r"[A-Za-z_.]+")  # api_key="OPENAI_API_KEY"
_QUERY: Final = re.compile(r"[?&][\w.-]*=")
_SHELL: Final = re.compile(r"[A-Z0-9_]+=")
_EXPRESSION: Final = re.compile(r"[A-Za-z_][\w.]*[(\[].*|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+[)\],;]*")
_DOTTED: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")


def _is_value(_before: str, secret: str) -> bool:
    """Tell a secret from what stands for one: a placeholder, a type, a path, the name of a variable."""
    return (
        secret.lower() not in _NO_SECRETS
        and _STANDS_FOR.fullmatch(secret) is None
        and _MARKER.fullmatch(secret) is None
        and (_IDENTIFIER.fullmatch(secret) is None or _SECRET_NAME.fullmatch(secret[-_NAME_END:]) is None)
    )


def _is_bare_value(before: str, secret: str) -> bool:
    """Tell a secret without quotes from a word of prose and from an expression of some program."""
    if not _is_value(before, secret) or before.startswith(("/", ":")):  # as in /etc/passwd:, arn:…:secret:
        return False
    if _QUERY.fullmatch(before) or _SHELL.fullmatch(before):
        return True
    word = secret.rstrip(".!?:*…")
    return not word.replace("_", "").isalpha() and _DOTTED.fullmatch(word) is None


def _is_variable_value(before: str, secret: str) -> bool:
    """Tell what is given to a variable of the environment from an expression of some program."""
    return _is_value(before, secret) and _EXPRESSION.fullmatch(secret) is None


def _is_option_value(_before: str, secret: str) -> bool:
    """Tell the value of a command's option from a word of its help."""
    return _is_bare_value("", secret) and not secret.startswith(("-", "@"))


def _is_mixed(_before: str, secret: str) -> bool:
    """Tell a key from words joined by hyphens."""
    return any(map(str.isdigit, secret)) and any(map(str.isalpha, secret))


def _is_credential(before: str, secret: str) -> bool:
    """Tell a key from words, and from the expression of some program."""
    return _is_mixed(before, secret) and _DOTTED.fullmatch(secret.rstrip(".")) is None


# --- assignments -----------------------------------------------------------------------------------

_LISTED: Final = r"[\s\[]*"
_ASSIGNED: Final = rf"\s*(?::=|=>|[:=]){_LISTED}"
_OPENS: Final = rf"\\*[\"']?{_ASSIGNED}\\*[\"']?"  # after a name: quotes or none, in JSON within a string too
_UNQUOTED: Final = r"[^\s\"'\\,;&(){}\[\]<>|`]"


def _assigned(names: str, source: str) -> Iterator[Pattern]:
    r"""Yield the patterns of a value that is assigned to a name.

    In quotes, in quotes within JSON within a string (`\"name\": \"value\"`), there with quotes of its own
    escaped again, and without quotes.
    """
    named = f"(?i:{names})"
    for quote in ('"', "'"):
        value = rf"{quote}(?P<secret>(?:[^{quote}\\\s]|\\.){{4,}}){quote}"
        yield Pattern("assignment", rf"{named}\\*[\"']?{_ASSIGNED}{value}", source, _is_value)
    once = r"\\\"(?P<secret>(?:[^\"\\\s]|\\\\(?:\\[\"\\]|[^\"\\])){4,})\\\""
    yield Pattern("assignment", rf"{named}\\+[\"']{_ASSIGNED}{once}", source, _is_value)
    deeper = r"\\\\+\"(?P<secret>[^\"\\\s]{4,})\\"
    yield Pattern("assignment", rf"{named}\\+[\"']{_ASSIGNED}{deeper}", source, _is_value)
    bare = rf"(?P<secret>{_UNQUOTED}{{6,}})(?:[\s\"'\\,;&)}}\]`]|$)"
    gives = r"\\*[\"'*]*\s*(?::=|=>|[:=]|\b(?:is|was)\b:?)[\s*]*`*"  # with the marks of Markdown
    assigned = f"{named}{gives}{bare}"
    yield Pattern("assignment", rf"[?&/:]?[A-Za-z0-9_.-]*{assigned}", source, _is_bare_value, part=assigned)
    shell = rf"(?:{names.upper()})=(?P<secret>[^\s\"'`\\]{{4,}})"
    yield Pattern("assignment", rf"\b[A-Z0-9_]*{shell}", "environ(7)", _is_variable_value, part=shell)
    statement = r"\s+(?:by\s+)?'(?P<secret>[^'\s]{4,})'"
    yield Pattern(
        "assignment", rf"(?i:\bpassword|\buser\s+\S+\s+identified){statement}", "SQL, CREATE USER", _is_value
    )


# --- the table -------------------------------------------------------------------------------------

_GITLEAKS: Final = "gitleaks, config/gitleaks.toml"
_TRUFFLEHOG: Final = "trufflehog, pkg/detectors"
_USERINFO: Final = r"://[^\s/?#:@\"'<>\\]*:(?P<secret>[^\s/?#@\"'<>\\]+)@"
_PEM: Final = r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
_PEM_LINE: Final = r"(?:\s|\\+[nr])*(?:[A-Za-z-]+: [^\s\\]*|[A-Za-z0-9+/=]{16,})"
_PEM_END: Final = r"-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"

DEFAULTS: Final = (
    Pattern(
        "private-key",
        # What is cut before its end is a secret as well. No two hyphens within: a text of beginnings alone
        # would else be searched to its end for each of them.
        rf"{_PEM}(?:(?:[^-]|-[^-])*{_PEM_END}|(?:{_PEM_LINE})*(?:(?:\s|\\+[nr])*[A-Za-z0-9+/=]+)?)",
        "RFC 7468, section 10; RFC 4880, section 6.2",
    ),
    Pattern("anthropic-key", r"\bsk-ant-[a-z0-9]+-[A-Za-z0-9_-]{20,}", _GITLEAKS),
    Pattern("langfuse-key", r"\bsk-lf-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "Langfuse, API keys"),
    Pattern(
        "openai-key",  # and whoever writes keys alike: OpenRouter, DeepSeek, LiteLLM
        r"\bsk-(?:[A-Za-z0-9_-]*[-_])?[A-Za-z0-9]{20,}[A-Za-z0-9_-]*",
        _GITLEAKS,
        _is_mixed,
        part=r"sk-[A-Za-z0-9_-]{20}",
    ),
    Pattern("groq-key", r"\bgsk_[A-Za-z0-9]{40,}", _TRUFFLEHOG),
    Pattern("xai-key", r"\bxai-[A-Za-z0-9]{60,}", _TRUFFLEHOG),
    Pattern("perplexity-key", r"\bpplx-[A-Za-z0-9]{40,}", _GITLEAKS),
    Pattern("replicate-token", r"\br8_[A-Za-z0-9]{37}\b", _TRUFFLEHOG),
    Pattern("huggingface-token", r"\b(?:hf|api_org)_[A-Za-z0-9]{34,}", _GITLEAKS),
    Pattern("langsmith-key", r"\blsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}\b", _TRUFFLEHOG),
    Pattern("tavily-key", r"\btvly-(?:[a-z]+-)?[A-Za-z0-9]{20,}", _TRUFFLEHOG, _is_mixed),
    Pattern(
        "aws-access-key",
        r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b",
        "AWS IAM, unique identifiers; gitleaks",
    ),
    Pattern(
        "aws-secret-key",
        rf"(?i:secret[_-]?(?:access[_-]?)?key){_OPENS}(?P<secret>[A-Za-z0-9/+]{{40}})(?:[^A-Za-z0-9/+]|$)",
        "AWS IAM, access keys; trufflehog",
    ),
    Pattern("github-token", r"\bgh[pousr]_[A-Za-z0-9_]{36,}", "GitHub, authentication token formats"),
    Pattern("github-token", r"\bgithub_pat_[A-Za-z0-9_]{60,}", "GitHub, authentication token formats"),
    Pattern(
        "gitlab-token",
        r"\bgl(?:pat|ptt|dt|rt|rtr|cbt|ft|imt|agent|oas|soat|ffct|wt)-[A-Za-z0-9_-]{20,}"
        r"(?:\.[0-9a-z]{2}\.[0-9a-z]{7,})?",
        "GitLab, token prefixes",
    ),
    Pattern("slack-token", r"\bxox[a-z](?:\.xox[a-z])?-[A-Za-z0-9-]{10,}", _GITLEAKS, _is_mixed),
    Pattern("slack-token", r"\bxapp-\d-[A-Z0-9]+-\d+-[a-z0-9]{10,}", _GITLEAKS),
    Pattern(
        "slack-webhook",
        r"hooks\.slack\.com/(?:services|workflows|triggers)/(?P<secret>[A-Za-z0-9+/]{20,})",
        _GITLEAKS,
    ),
    Pattern("stripe-key", r"\b(?:sk|rk)_(?:test|live|prod)_[A-Za-z0-9]{10,}", _GITLEAKS),
    Pattern("stripe-key", r"\bwhsec_[A-Za-z0-9+/]{32,}=*", "Stripe, webhook signing secrets"),
    Pattern("google-key", r"\b(?P<secret>AIza[A-Za-z0-9_-]{35})(?:[^A-Za-z0-9_-]|$)", _GITLEAKS),
    Pattern("google-token", r"\bya29\.[A-Za-z0-9_.-]{20,}", _TRUFFLEHOG),
    Pattern("google-secret", r"\bGOCSPX-[A-Za-z0-9_-]{28}", _TRUFFLEHOG),
    Pattern("npm-token", r"\bnpm_[A-Za-z0-9]{36}\b", _GITLEAKS),
    Pattern("pypi-token", r"\bpypi-AgE[A-Za-z0-9_-]{50,}", _GITLEAKS),
    Pattern("sendgrid-key", r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}", _GITLEAKS),
    Pattern(
        "telegram-token",
        r"\b(?P<secret>\d{8,10}:AA[A-Za-z0-9_-]{33})(?:[^A-Za-z0-9_-]|$)",
        _TRUFFLEHOG,
        part=":AA[A-Za-z0-9_-]{33}",
    ),
    Pattern("age-key", r"\bAGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58}\b", _GITLEAKS),
    Pattern("airtable-token", r"\bpat[A-Za-z0-9]{14}\.[a-f0-9]{64}\b", _GITLEAKS),
    Pattern("atlassian-token", r"\bATATT3[A-Za-z0-9_=-]{150,}", _GITLEAKS),
    Pattern("databricks-token", r"\bdapi[a-f0-9]{32}(?:-\d)?\b", _GITLEAKS),
    Pattern("digitalocean-token", r"\bdo[opr]_v1_[a-f0-9]{64}\b", _GITLEAKS),
    Pattern(
        "discord-token",
        r"\b[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}",
        _TRUFFLEHOG,
        part=r"\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27}",
    ),
    Pattern("grafana-token", r"\bglsa_[A-Za-z0-9]{32}_[A-Fa-f0-9]{8}\b", _GITLEAKS),
    Pattern("linear-key", r"\blin_api_[A-Za-z0-9]{40}\b", _GITLEAKS),
    Pattern("newrelic-key", r"\bNRAK-[A-Za-z0-9]{27}\b", _GITLEAKS),
    Pattern("notion-token", r"\bntn_[0-9]{11}[A-Za-z0-9]{35}\b", _GITLEAKS),
    Pattern("sentry-token", r"\bsntry(?:s_eyJ[A-Za-z0-9+/=_-]{40,}|u_[a-f0-9]{64})", _GITLEAKS),
    Pattern("shopify-token", r"\bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}\b", _GITLEAKS),
    Pattern("vault-token", r"\bhv[sb]\.[A-Za-z0-9_-]{90,}", _GITLEAKS),
    Pattern("azure-key", r"(?i:\baccountkey)=(?P<secret>[A-Za-z0-9+/]{86}==)", _GITLEAKS),
    Pattern(
        "jwt",
        r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]+){1,3}",
        "RFC 7519, section 3; RFC 7516, section 7.1",
        part="eyJ[A-Za-z0-9_-]{10}",
    ),
    Pattern(
        "authorization",
        rf"(?i:authorization{_OPENS}(?:basic|bearer|token|digest|negotiate|apikey)\s+)"
        r"(?P<secret>[^\s\"'\\]{6,})",
        "RFC 9110, section 11.6.2",
        _is_value,
    ),
    Pattern(
        "authorization",
        rf"(?i:authorization{_OPENS})(?P<secret>[^\s\"'\\(){{}}\[\]<>$]{{16,}})",
        "RFC 9110, section 11.6.2",
        _is_credential,
    ),
    Pattern(
        "authorization",
        r"(?i:\bbearer\s+)(?P<secret>[A-Za-z0-9._~+/-]{16,}=*)",
        "RFC 6750, section 2.1",
        _is_mixed,
    ),
    Pattern(
        "url-password",
        rf"\b[A-Za-z][A-Za-z0-9+.-]*{_USERINFO}",
        "RFC 3986, section 3.2.1",
        _is_value,
        part=_USERINFO,
    ),
    Pattern(
        "authorization",
        r"\bcurl\b[^\n]*?\s(?:-u|--user)[\s=]\s*\\*[\"']?[^\s:\"'\\]+:(?P<secret>[^\s\"'\\]+)",
        "curl(1)",
        _is_value,
    ),
    Pattern(
        "cookie",
        rf"(?i:cookie{_OPENS})(?P<secret>[^\s=;,\"'\\(){{}}]+=[^\r\n\"'\\]+)",
        "RFC 6265, section 4",
    ),
    Pattern(
        "assignment",
        r"(?i:;\s*pwd\s*=\s*)(?P<secret>[^;\s\"'\\]{4,})",
        "SqlConnection.ConnectionString",
        _is_value,
    ),
    Pattern(
        "assignment",
        r"(?i:\blogin\s+\S+\s+password\s+)(?P<secret>[^\s\"'\\]+)",
        "netrc(5)",
        _is_bare_value,
    ),
    Pattern(
        "assignment",
        rf"--[A-Za-z0-9-]*(?i:token|{_any_of(_NAMES)})\s+\\*[\"']?(?P<secret>{_UNQUOTED}{{6,}})",
        "detect-secrets, keyword detector",
        _is_option_value,
    ),
    Pattern(
        "assignment",
        rf"(?i:[_\"']auth){_OPENS}(?P<secret>[A-Za-z0-9+/]{{20,}}={{0,2}})",
        "Docker, config.json; npmrc(5)",
        _is_mixed,
    ),
    Pattern(
        "assignment",
        rf"(?:^|[^A-Za-z0-9_-])(?i:token){_OPENS}(?P<secret>[A-Za-z0-9_.~+/-]{{20,}}=*)",
        _GITLEAKS,
        _is_credential,
    ),
    *_assigned(_any_of(_NAMES), "gitleaks, generic-api-key; detect-secrets, keyword detector"),
)
"""What is redacted unless `--no-redact` is given. A row of users with the same kind stands in for these."""


# --- reading ---------------------------------------------------------------------------------------

_PARTS: Final = re.compile(
    r"""\\Q.*?(?:\\E|$) | \[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\] | \\. | [$^] | [^\\\[$^]+""",
    re.VERBOSE | re.DOTALL,
)
_PLACES: Final = frozenset((r"\b", r"\B", r"\A", r"\z", "^", "$"))


def loosened(regex: str) -> str:
    r"""Return a pattern without what it asks of the neighbours of its match: `\b`, `^`, `$`.

    In a request's bytes the neighbours of a text are lengths and tags, which may look like letters: a key
    of 51 characters is preceded by "3". What is found by the pattern is always found by the loosened one.
    """
    return "".join("(?:)" if part in _PLACES else part for part in _PARTS.findall(regex))


def kinds_of(patterns: Iterable[Pattern]) -> tuple[str, ...]:
    """Return the kinds there may be, each once, in order."""
    return tuple(dict.fromkeys((*(pattern.kind for pattern in patterns), ATTRIBUTE)))
