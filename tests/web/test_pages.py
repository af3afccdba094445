"""The page shell, its files and who may ask for them, over a real socket."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import re
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from aiohttp import ClientSession, web
from yarl import URL

from otel_sessions.backend.api.problems import problem_middleware
from otel_sessions.backend.web.assets import load_assets
from otel_sessions.backend.web.errors import error_page_middleware
from otel_sessions.backend.web.guard import guard_middleware, host_is_ours
from otel_sessions.backend.web.pages import CONTENT_SECURITY_POLICY, page_routes

FILES = {
    "js/main.js": 'import { a } from "./api.js";\nimport {\n  h,\n  html,\n} from "../vendor/lib-1.js";\nconst lazy = () => import("./charts.js");\n'
    + "// padding, so that gzip gains something\n" * 20,
    "js/api.js": 'export { b } from "./state.js";\nexport const a = 1;\n',
    "js/state.js": "export const b = 2;\n",
    "js/charts.js": "export default 3;\n",
    "vendor/lib-1.js": "export const h = 1;\nexport const html = 2;\n",
    "css/app.css": "body { color: canvastext }\n",
    "icon.svg": "<svg xmlns='http://www.w3.org/2000/svg'/>",
    "js/types.d.ts": "export type A = string;\n",
}


@pytest.fixture
def folder(tmp_path):
    """Lay out a folder of page files."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


CSRF = "what-only-our-pages-know"


def serve(folder, claim: Callable[[ClientSession, URL], Coroutine[Any, Any, None]], hosts=()) -> None:
    """Run a claim against a real server on a free port."""

    async def run() -> None:
        assets = load_assets(folder)
        app = web.Application(
            middlewares=[problem_middleware, error_page_middleware, guard_middleware(hosts, csrf=CSRF)]
        )

        async def echo(request: web.Request) -> web.Response:
            return web.Response(text=request.method)

        app.add_routes([*page_routes(assets), web.post("/api/v1/echo", echo), web.post("/v1/traces", echo)])
        app.add_routes([web.get("/healthz", echo)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            async with ClientSession(auto_decompress=False) as client:
                await claim(client, URL(f"http://127.0.0.1:{port}"))
        finally:
            await runner.cleanup()

    asyncio.run(run())


PATHS = [
    "/sessions",
    "/sessions/abc",
    "/sessions/a%2Fb%3Fc%23%25%20%7Bx%7D%F0%9F%A6%8A",
    "/spans/" + "a" * 32 + "/" + "b" * 16,
    "/search?q=x",
    "/status",
]


@pytest.mark.parametrize("path", PATHS)
def test_every_page_is_the_same_shell_with_all_security_headers(folder, path):
    """A page shows a skeleton, names its JSON twin, and allows nothing but its own files."""

    async def claim(client: ClientSession, url: URL) -> None:
        async with client.get(URL(str(url) + path, encoded=True)) as response:
            text = await response.text()
            assert response.status == 200
            assert response.content_type == "text/html"
            assert response.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Referrer-Policy"] == "no-referrer"
            assert f'<link rel="alternate" type="application/json" href="/api/v1{path}">' in text
            assert 'class="skeleton"' in text
            assert "<noscript>" in text
            assert not re.search(r"<script(?![^>]*\bsrc=)", text), "an inline script would be blocked"
            assert "style=" not in text, "an inline style would be blocked"

    serve(folder, claim)


def test_the_content_security_policy_is_the_agreed_one():
    """The policy is the promise of the page's security, word by word."""
    assert CONTENT_SECURITY_POLICY == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    )


def test_a_hostile_address_is_only_text_in_the_shell(folder):
    """What stands in the address comes back escaped."""

    async def claim(client: ClientSession, url: URL) -> None:
        target = URL(f"{url}/sessions/x?a=\"'><script>alert(1)</script>&b", encoded=True)
        async with client.get(target) as response:
            text = await response.text()
            assert "<script>alert" not in text
            assert len(re.findall("<script", text)) == 1

    serve(folder, claim)


def test_the_root_leads_to_the_sessions(folder):
    """`/` is the list of sessions."""

    async def claim(client: ClientSession, url: URL) -> None:
        async with client.get(url, allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (302, "/sessions")
            assert "Content-Security-Policy" in response.headers

    serve(folder, claim)


def test_all_files_of_a_page_are_found_typed_and_cached_for_ever(folder):
    """Every address in the head answers, with its type, and is immutable."""

    async def claim(client: ClientSession, url: URL) -> None:
        async with client.get(url / "sessions") as response:
            addresses = re.findall(r'(?:href|src)="(/static/[^"]+)"', await response.text())
        names = {re.sub(r"^/static/[0-9a-f]{16}/", "", address) for address in addresses}
        assert names == {
            "js/main.js",
            "js/api.js",
            "js/state.js",
            "vendor/lib-1.js",
            "css/app.css",
            "icon.svg",
        }
        for address in addresses:
            async with client.get(
                url.with_path(address), headers={"Accept-Encoding": "identity"}
            ) as response:
                assert response.status == 200, address
                assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
                assert response.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                kind = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}[
                    address.rpartition(".")[2]
                ]
                assert response.content_type == kind

    serve(folder, claim)


def test_a_file_is_compressed_for_those_who_take_it(folder):
    """The same bytes arrive with and without gzip."""
    address = load_assets(folder).url("js/main.js")

    async def claim(client: ClientSession, url: URL) -> None:
        async with client.get(url.with_path(address), headers={"Accept-Encoding": "gzip"}) as response:
            assert response.headers["Content-Encoding"] == "gzip"
            assert response.headers["Vary"] == "Accept-Encoding"
            assert gzip.decompress(await response.read()).decode() == FILES["js/main.js"]
        async with client.get(url.with_path(address), headers={"Accept-Encoding": "identity"}) as response:
            assert "Content-Encoding" not in response.headers
            assert (await response.read()).decode() == FILES["js/main.js"]

    serve(folder, claim)


def test_any_change_of_any_file_changes_every_address(folder):
    """The hash covers names and contents, so a cached file can never be the wrong one."""
    before = load_assets(folder).hash
    (folder / "js" / "state.js").write_text("export const b = 3;\n")
    changed = load_assets(folder).hash
    (folder / "js" / "state.js").rename(folder / "js" / "state2.js")
    assert len({before, changed, load_assets(folder).hash}) == 3


@pytest.mark.parametrize(
    "path",
    [
        "0123456789abcdef/js/main.js",
        "HASH/js/nothing.js",
        "HASH/../assets.py",
        "HASH/js/..%2F..%2Fx",
        "HASH/js/types.d.ts",
    ],
)
def test_what_is_not_a_file_of_this_version_is_not_found(folder, path):
    """Another version's address, a path out of the folder and a source for editors are 404."""

    async def claim(client: ClientSession, url: URL) -> None:
        target = URL(f"{url}/static/" + path.replace("HASH", load_assets(folder).hash), encoded=True)
        async with client.get(target) as response:
            assert response.status == 404
            assert response.content_type == "application/problem+json"

    serve(folder, claim)


def test_people_see_an_error_as_a_page_and_programs_as_a_problem(folder):
    """An error speaks the language of whoever asked, and never the one of the attacker's address."""

    async def claim(client: ClientSession, url: URL) -> None:
        people = {"Accept": "text/html,*/*;q=0.8"}
        async with client.get(url / "nowhere", headers=people) as response:
            assert (response.status, response.content_type) == (404, "text/html")
            text = await response.text()
            assert "There is no such page." in text
            style = text.partition("<style>")[2].partition("</style>")[0]
            digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
            policy = CONTENT_SECURITY_POLICY.replace("style-src 'self'", f"style-src 'sha256-{digest}'")
            assert policy != CONTENT_SECURITY_POLICY
            assert response.headers["Content-Security-Policy"] == policy
        async with client.get(url / "sessions", headers={**people, "Host": "<b>evil"}) as response:
            assert (response.status, response.content_type) == (421, "text/html")
            assert "&lt;b&gt;evil" in await response.text()
        async with client.get(url / "nowhere") as response:
            assert (response.status, response.content_type) == (404, "application/problem+json")
            problem = await response.json(content_type=None)
            assert problem["status"] == 404
            assert problem["request_id"] == response.headers["X-Request-Id"]
        for path in ("api/nowhere", "static/x/y.js"):
            async with client.get(url / path, headers=people) as response:
                assert response.content_type == "application/problem+json"

    serve(folder, claim)


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("localhost", True),
        ("localhost:4318", True),
        ("LOCALHOST:4318", True),
        ("localhost.:4318", True),
        ("app.localhost:4318", True),
        ("127.0.0.1:4318", True),
        ("[::1]:4318", True),
        ("10.0.0.7", True),
        ("traces.example", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("evil.example:4318", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.1@evil.example", False),
        ("evil.example@127.0.0.1", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_a_name_is_ours_if_it_is_local_a_number_or_configured(host, ours):
    """Only a name can be rebound, so only unknown names are foreign."""
    assert host_is_ours(host, {"traces.example"}) is ours


def test_a_rebound_name_is_turned_away_and_telemetry_is_not(folder):
    """A hostile name gets no page and no data; OTLP and probes pass under any name."""

    async def claim(client: ClientSession, url: URL) -> None:
        evil = {"Host": "evil.example"}
        for path in ("/sessions", "/api/v1/echo", "/static/x/y.js", "/nowhere"):
            async with client.get(url.with_path(path), headers=evil) as response:
                assert response.status == 421, path
                assert response.content_type == "application/problem+json"
                assert "evil.example" in (await response.json(content_type=None))["detail"]
        async with client.post(url / "v1/traces", headers=evil) as response:
            assert response.status == 200
        async with client.get(url / "healthz", headers=evil) as response:
            assert response.status == 200

    serve(folder, claim)


def test_a_write_is_taken_only_from_our_own_pages_or_no_page(folder):
    """A page of another site, or of another port here, can't write, even one that knows the token; a program can."""

    async def claim(client: ClientSession, url: URL) -> None:
        ours = f"http://{url.authority}"
        from_ours = [{"Origin": ours}, {"Origin": ours, "Sec-Fetch-Site": "same-origin"}]
        cases = [
            ({}, 200),
            *(({"X-CSRF-Token": CSRF, **headers}, 200) for headers in from_ours),
            *(
                ({"X-CSRF-Token": token, **headers}, 403)
                for headers in from_ours
                for token in ("", CSRF[:-1])
            ),
            *((headers, 403) for headers in from_ours),
            ({"Cookie": "otel_sessions=any"}, 403),
            ({"X-CSRF-Token": CSRF, "Origin": "http://evil.example"}, 403),
            ({"X-CSRF-Token": CSRF, "Origin": "http://127.0.0.1:1"}, 403),
            ({"X-CSRF-Token": CSRF, "Origin": "null"}, 403),
            ({"X-CSRF-Token": CSRF, "Sec-Fetch-Site": "cross-site"}, 403),
            ({"X-CSRF-Token": CSRF, "Sec-Fetch-Site": "same-site"}, 403),
        ]
        for headers, status in cases:
            async with client.post(url / "api/v1/echo", headers=headers) as response:
                assert response.status == status, headers

    serve(folder, claim)
