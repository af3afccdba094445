"""Secrets that open nothing: made at random by their shapes, for none may stand in a repository as it is."""

from __future__ import annotations

import base64
import json
import random
import string

__all__ = ["IN_CONTEXT", "SECRETS", "Secret"]

from dataclasses import dataclass

_draw = random.Random(20261121)  # noqa: S311 - they open nothing
LETTERS, DIGITS = string.ascii_letters, string.digits
ALNUM, LOWER, UPPER = LETTERS + DIGITS, string.ascii_lowercase, string.ascii_uppercase
HEX = "0123456789abcdef"
URLSAFE = ALNUM + "-_"


@dataclass(frozen=True)
class Secret:
    """A secret as it stands in a text: what is around it, itself, and the kind it is found as."""

    kind: str
    secret: str
    before: str = ""
    after: str = ""

    @property
    def text(self) -> str:
        return self.before + self.secret + self.after

    @property
    def redacted(self) -> str:
        return f"{self.before}[redacted:{self.kind}]{self.after}"


def some(alphabet: str, length: int) -> str:
    """Draw letters; the first two are a letter and a digit, so that it looks like no word."""
    return (
        _draw.choice([*filter(str.isalpha, alphabet)] or alphabet)
        + _draw.choice([*filter(str.isdigit, alphabet)] or alphabet)
        + "".join(_draw.choices(alphabet, k=length - 2))
    )


def _encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _uuid() -> str:
    return "-".join(some(HEX, n) for n in (8, 4, 4, 4, 12))


_UPPER32 = UPPER + "234567"
_PEM_BODY = "\n".join(some(ALNUM + "+/", 64) for _ in range(5)) + "\n" + some(ALNUM, 20) + "==\n"


def pem(kind: str = "RSA ", newline: str = "\n") -> str:
    """Make a private key in PEM."""
    text = f"-----BEGIN {kind}PRIVATE KEY-----\n{_PEM_BODY}-----END {kind}PRIVATE KEY-----"
    return text.replace("\n", newline)


JWT = f"{_encoded({'alg': 'HS256'})}.{_encoded({'sub': 'me', 'iat': 1516239022})}.{some(URLSAFE, 43)}"

SECRETS = (
    Secret("openai-key", "sk-" + some(ALNUM, 48)),
    Secret("openai-key", "sk-proj-" + some(URLSAFE, 60) + "T3BlbkFJ" + some(ALNUM, 60)),
    Secret("openai-key", "sk-or-v1-" + some(HEX, 64)),
    Secret("anthropic-key", "sk-ant-api03-" + some(URLSAFE, 93) + "AA"),
    Secret("langfuse-key", "sk-lf-" + _uuid()),
    Secret("groq-key", "gsk_" + some(ALNUM, 52)),
    Secret("xai-key", "xai-" + some(ALNUM, 80)),
    Secret("perplexity-key", "pplx-" + some(ALNUM, 48)),
    Secret("replicate-token", "r8_" + some(ALNUM, 37)),
    Secret("huggingface-token", "hf_" + some(LETTERS, 34)),
    Secret("langsmith-key", "lsv2_pt_" + some(HEX, 32) + "_" + some(HEX, 10)),
    Secret("tavily-key", "tvly-dev-" + some(ALNUM, 32)),
    Secret("aws-access-key", "AKIA" + some(_UPPER32, 16)),
    Secret("aws-access-key", "ASIA" + some(_UPPER32, 16)),
    Secret("github-token", "ghp_" + some(ALNUM, 36)),
    Secret("github-token", "github_pat_" + some(ALNUM, 22) + "_" + some(ALNUM, 59)),
    Secret("gitlab-token", "glpat-" + some(URLSAFE, 20)),
    Secret("slack-token", f"xoxb-{some(DIGITS, 12)}-{some(DIGITS, 12)}-{some(ALNUM, 24)}"),
    Secret("slack-token", f"xapp-1-{some(UPPER + DIGITS, 11)}-{some(DIGITS, 13)}-{some(HEX, 64)}"),
    Secret("stripe-key", "sk_live_" + some(ALNUM, 24)),
    Secret("stripe-key", "whsec_" + some(ALNUM, 32)),
    Secret("google-key", "AIza" + some(ALNUM, 35)),
    Secret("google-token", "ya29." + some(URLSAFE, 60)),
    Secret("google-secret", "GOCSPX-" + some(ALNUM, 28)),
    Secret("npm-token", "npm_" + some(ALNUM, 36)),
    Secret("pypi-token", "pypi-AgE" + some(URLSAFE, 120)),
    Secret("sendgrid-key", f"SG.{some(URLSAFE, 22)}.{some(URLSAFE, 43)}"),
    Secret("telegram-token", f"{some(DIGITS, 10)}:AA{some(ALNUM, 33)}"),
    Secret("age-key", "AGE-SECRET-KEY-1" + some("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58)),
    Secret("airtable-token", f"pat{some(ALNUM, 14)}.{some(HEX, 64)}"),
    Secret("atlassian-token", "ATATT3" + some(URLSAFE, 186)),
    Secret("databricks-token", "dapi" + some(HEX, 32)),
    Secret("digitalocean-token", "dop_v1_" + some(HEX, 64)),
    Secret("discord-token", f"M{some(ALNUM, 25)}.{some(ALNUM, 6)}.{some(URLSAFE, 38)}"),
    Secret("grafana-token", f"glsa_{some(ALNUM, 32)}_{some(HEX, 8)}"),
    Secret("linear-key", "lin_api_" + some(ALNUM, 40)),
    Secret("newrelic-key", "NRAK-" + some(UPPER + DIGITS, 27)),
    Secret("notion-token", f"ntn_{some(DIGITS, 11)}{some(ALNUM, 35)}"),
    Secret("sentry-token", "sntryu_" + some(HEX, 64)),
    Secret("shopify-token", "shpat_" + some(HEX, 32)),
    Secret("vault-token", "hvs." + some(URLSAFE, 95)),
    Secret("jwt", JWT),
    Secret("private-key", pem()),
    Secret("private-key", pem("")),
    Secret("private-key", pem("EC ", newline="\\n")),
    Secret("private-key", pem("OPENSSH ").partition("\n-----END")[0]),  # cut
)
"""Secrets that need nothing around them."""

_AWS = some(ALNUM + "/+", 40)
_VALUE = some(ALNUM, 12)

IN_CONTEXT = (
    Secret("aws-secret-key", _AWS, "aws_secret_access_key = "),
    Secret("aws-secret-key", _AWS, '{"SecretAccessKey": "', '"}'),
    Secret("slack-webhook", f"T{some(UPPER + DIGITS, 8)}/B{some(UPPER + DIGITS, 8)}/{some(ALNUM, 24)}",
           "post to https://hooks.slack.com/services/"),
    Secret("azure-key", some(ALNUM + "+/", 86) + "==", "AccountName=x;AccountKey=", ";Endpoint=y"),
    Secret("authorization", _VALUE, "Authorization: Basic ", "\r\nHost: example.com"),
    Secret("authorization", _VALUE, "-H 'authorization: token ", "'"),
    Secret("authorization", some(ALNUM, 24), '{"Authorization": ["', '"]}'),
    Secret("authorization", some(ALNUM, 24), "then send bearer ", " along"),
    Secret("url-password", _VALUE, "postgresql://me:", "@db.example.com:5432/x"),
    Secret("url-password", "p%40ss", "git clone https://oauth2:", "@gitlab.com/a/b.git"),
    Secret("url-password", "pw", "redis://:", "@cache:6379/0"),
    Secret("cookie", f"session={_VALUE}; theme=dark", "Cookie: ", "\r\nAccept: */*"),
    Secret("cookie", f"session={_VALUE}; Path=/", '{"set-cookie": "', '"}'),
    Secret("assignment", "hunter2", "the password: ", " is not good"),
    Secret("assignment", "hunter2", '{"password": "', '", "user": "me"}'),
    Secret("assignment", "correct-horse", '{"password":"', '"}'),
    Secret("assignment", 'hun\\"ter\\n2', '{"password": "', '"}'),
    Secret("assignment", "hunter2", '"{\\"api_key\\": \\"', '\\"}"'),
    Secret("assignment", 'hun\\\\\\"ter2', '"{\\"api_key\\": \\"', '\\"}"'),
    Secret("assignment", "hunter2", '"\\"{\\\\\\"client_secret\\\\\\": \\\\\\"', '\\\\\\"}\\""'),
    Secret("assignment", "hunter2", "connect(user='me', password='", "')"),
    Secret("assignment", "correcthorse", "DB_PASSWORD=", "\nDB_HOST=x"),
    Secret("assignment", "correcthorse", "https://example.com/?a=1&api_key=", "&b=2"),
    Secret("assignment", _VALUE, "dbPassword: ", ""),
    Secret("assignment", _VALUE, "Server=db;Uid=sa;Pwd=", ";Encrypt=yes"),
    Secret("assignment", some(ALNUM, 24), '{"token": "', '"}'),
    Secret("authorization", _VALUE, "$ curl -s -X POST -u admin:", " https://example.com"),
    Secret("assignment", _VALUE, "machine example.com login me password ", "\n"),
    Secret("assignment", _VALUE, "$ tool --verbose --api-key ", " --dry-run"),
    Secret("assignment", _VALUE, "$ tool --token '", "' --dry-run"),
    Secret("assignment", some(ALNUM, 24) + "==", '{"auths": {"example.com": {"auth": "', '"}}}'),
    Secret("assignment", "rest-of-my-password", "password = '", "'"),
    Secret("assignment", "p@ss(w;ord&1", "export DB_PASSWORD=", "\n"),
    Secret("assignment", "hunter2", "**Password:** `", "`"),
    Secret("assignment", "hunter2", "- *API key*: ", "\n- next"),
    Secret("assignment", "hunter2", "The password is ", ", keep it"),
    Secret("assignment", "correcthorse", "ALTER USER me WITH PASSWORD '", "';"),
    Secret("assignment", "correcthorse", "create user me identified by '", "'"),
    Secret("assignment", "pässwörd1", '{"password": "', '"}'),
)  # fmt: skip
"""Secrets that are known by what stands around them."""
