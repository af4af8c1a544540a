"""What /openapi.json, the clients' docstrings and the refusals say, against a running site."""

from __future__ import annotations

import doctest
import http.client
import json
import re
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest

from tests.e2e.test_up import ROOT, Site
from tests.json_schema import faults
from tidal import client, client_async

pytestmark = pytest.mark.slow

CLIENTS_PAGE = ROOT / "docs" / "clients.md"
JSON = "application/json"
Operation = Mapping[str, Any]
Answer = tuple[int, str, bytes]
NOT_BY_EXAMPLE = {"cursor", "after", "like"}
"""Parameters whose examples are tokens, and one that belongs to SEARCH alone and needs vectors."""
FIRST = ("put", "patch", "post", "get", "delete")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a site with the default schema answers."""
    site = Site(tmp_path_factory.mktemp("reference") / "data")
    try:
        yield site.ready()["http"]
    finally:
        site.end()
        site.close()


@pytest.fixture(scope="module")
def document(url: str) -> dict[str, Any]:
    status, _, body = ask(url, "GET", "/openapi.json")
    assert status == 200
    found: dict[str, Any] = json.loads(body)
    return found


def ask(url: str, method: str, path: str, body: bytes | None = None, media: str = JSON) -> Answer:
    """Status, content type and body of the answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        connection.request(method, path, body, {} if body is None else {"Content-Type": media})
        response = connection.getresponse()
        return response.status, (response.getheader("Content-Type") or "").split(";")[0], response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("module", [client, client_async], ids=["blocking", "asyncio"])
def test_the_docstrings_show_what_happens(module: ModuleType, url: str) -> None:
    result = doctest.testmod(module, extraglobs={"URL": url})
    assert result.attempted > 0
    assert result.failed == 0


def test_the_page_on_clients_does_what_it_says(url: str) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", CLIENTS_PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block.replace("http://127.0.0.1:8080", url), str(CLIENTS_PAGE), "exec"), {})


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Operation]]:
    """Writes first, and what the deletes take away last."""
    found = [(m, path, op) for path, methods in document["paths"].items() for m, op in methods.items()]
    yield from sorted(found, key=lambda each: FIRST.index(each[0]))


def requests(path: str, operation: Operation) -> Iterator[tuple[str, bytes | None, str]]:
    """The operation's examples: with the required parameters, with each of the others, with each body."""
    parameters = operation["parameters"]
    for part in (p for p in parameters if p["in"] == "path"):
        path = path.replace(f"{{{part['name']}}}", quote(part["example"], safe=""))
    queries = [p for p in parameters if p["in"] == "query"]
    needed = {p["name"]: _flat(p["example"]) for p in queries if p["required"]}
    asked = [needed, *(needed | {p["name"]: _flat(p["example"])} for p in queries if _by_example(p))]
    for given in asked:
        yield f"{path}?{urlencode(given)}" if given else path, None, JSON
    bodies = operation.get("requestBody", {}).get("content", {})
    for media, content in bodies.items():
        example = content["example"]
        yield path, example.encode() if isinstance(example, str) else json.dumps(example).encode(), media


def _by_example(parameter: Operation) -> bool:
    return not parameter["required"] and parameter["name"] not in NOT_BY_EXAMPLE


def _flat(example: Any) -> str:
    return ",".join(example) if isinstance(example, list) else str(example)


def test_every_example_is_answered_as_described(url: str, document: dict[str, Any]) -> None:
    """Statuses are documented ones, replies are as their schemas say, and what can be served is served."""
    wrong, served = [], set()
    for method, path, operation in operations(document):
        for address, body, media in requests(path, operation):
            if operation.get("requestBody", {}).get("required") and body is None:
                continue
            status, content_type, reply = ask(url, method.upper(), address, body, media)
            described = operation["responses"].get(str(status), {}).get("content", {})
            where = f"{method.upper()} {address} answers {status}"
            if content_type not in described:
                wrong.append(f"{where} {content_type}, which is not described: {reply[:200]!r}")
            elif content_type.endswith("json"):
                schema = described[content_type]["schema"]
                wrong += [f"{where}: {fault}" for fault in faults(json.loads(reply), schema, document)]
            if status < 400:
                served.add(operation["operationId"])
    assert wrong == []
    every = {operation["operationId"] for _, _, operation in operations(document)}
    assert every - served == {"suggest"}  # not served yet


BIG, DEEP = "x" * 300, b"[" * 100_000
NESTED = b'{"x":' * 2_000 + b"1" + b"}" * 2_000
VIEW = {"kind": "view", "item": "a"}
HOSTILE: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/v1/signals", b"{", 400, "ends in the middle"),
    ("POST", "/v1/signals", b"", 400, "empty"),
    ("POST", "/v1/signals", b"\xff\xfe", 400, "byte 0"),
    ("POST", "/v1/signals", DEEP, 400, "too deep"),
    ("POST", "/v1/signals", b'{"kind":"view","item":"a","weight":NaN}', 422, "finite"),
    ("POST", "/v1/signals", VIEW | {"weight": 1e9}, 422, "range of 'view'"),
    ("POST", "/v1/signals", VIEW | {"item": BIG}, 422, "at most 256"),
    ("POST", "/v1/signals", VIEW | {"item": 5}, 422, "got 5"),
    ("POST", "/v1/signals", VIEW | {"kind": "vew"}, 422, "did you mean 'view'"),
    ("POST", "/v1/signals", VIEW | {"ts": 1e18}, 422, "1e+18"),
    ("POST", "/v1/signals", [VIEW] * 1001, 422, "max_array_events"),
    ("POST", "/v1/signals", b"x" * ((1 << 20) + 1), 413, "max_body_bytes"),
    ("POST", "/v1/signals?wait=1", VIEW, 400, "no parameter 'wait'"),
    ("PUT", "/v1/items/a", [], 422, "expected a JSON object"),
    ("PUT", "/v1/items/a", {"id": "b"}, 422, "got 'b'"),
    ("PUT", "/v1/items/a", {"title": 5}, 422, "title: expected a text"),
    ("PUT", "/v1/items/a", {"status": "wat"}, 422, "active, archived, deleted"),
    ("PUT", "/v1/items/a", {"embeddings": {"content": [1, 2]}}, 422, "the slot has 384"),
    ("PUT", "/v1/items/a", b'{"title":"\xff"}', 400, "not UTF-8"),
    ("PUT", "/v1/items/a", NESTED, 400, "too deep"),
    ("PUT", "/v1/items/%ff", {"title": "x"}, 400, "not UTF-8"),
    ("PUT", f"/v1/items/{BIG}", {}, 422, "at most 256"),
    ("PATCH", "/v1/items/none-such", {"title": "x"}, 404, "'none-such'"),
    ("GET", f"/v1/items/{BIG}", None, 404, "…"),
    ("GET", "/v1/items/a?limt=1", None, 400, "no parameter 'limt'"),
    ("POST", "/v1/items:batch", {}, 422, "array"),
    ("POST", "/v1/items:batch", [{}], 422, "$[0].id"),
    ("PUT", "/v1/relationships/folows/a/b", None, 404, "did you mean 'follows'"),
    ("PUT", "/v1/relationships/x/a/b", None, 404, "there is follows"),
    ("PUT", "/v1/relationships/follows/a/b", {"wight": 1}, 422, "wight"),
    ("PUT", "/v1/relationships/follows/a/b", {"weight": 1e300}, 422, "$.weight"),
    ("PUT", "/v1/relationships/follows/a/b", {"ts": 99999999999999999}, 422, "future_skew_ms"),
    ("PUT", "/v1/relationships/follows/a/b", {"ts": -1}, 422, "$.ts"),
    ("GET", "/v1/relationships/follows/a?limit=1001", None, 400, "maximum of 1000"),
    ("POST", "/v1/query", {"query": "RETRIEVE items", "after": "x"}, 400, "$.after"),
    ("POST", "/v1/query", {"query": "RETRIEVE items LIMIT 0"}, 422, "0 is below 1"),
    ("POST", "/v1/query", {"query": "RETRIEVE items LIMIT 501"}, 422, "max_query_limit"),
    ("POST", "/v1/query", {"query": "RETRIEVE items FILTER " + "NOT " * 50 + "unseen"}, 422, "depth"),
    ("POST", "/v1/query", {"query": "RETRIEVE items FILTER " + "(" * 3000}, 400, "too early"),
    ("POST", "/v1/query", {"query": "x" * 9000}, 400, "max_query_text_bytes"),
    ("POST", "/v1/query", {"retrieve": "items", "limt": 5}, 400, "limt"),
    ("POST", "/v1/query", {"retrieve": "items", "using_profile": "for_yu"}, 400, "did you mean 'for_you'"),
    ("GET", "/v1/retrieve?filter=%ff", None, 400, "not UTF-8"),
    ("GET", f"/v1/retrieve?limit={'9' * 5000}", None, 400, "at most 20 digits"),
    ("GET", "/v1/retrieve?limit=1&limit=2", None, 400, "given 2 times"),
    ("GET", "/v1/items/a/signals?signal=view&at=99999999999999999999", None, 400, "at: "),
    ("GET", "/v1/items/a/signals?signal=view&at=4102444800000", None, 400, "lies in the future"),
    ("GET", "/v1/items/a/signals?signal=vew", None, 404, "did you mean 'view'"),
    ("GET", "/v1/items/a/signals?signal=view&cohort=locle:US", None, 400, "did you mean 'locale'"),
    ("GET", "/v1/users/u/state?cursor=x", None, 400, "cursor"),
    ("GET", "/v1/users/u/state?after=nonsense", None, 400, "position"),
    ("GET", "/v1/users/u/two-hop?type=follows&fan_out=101", None, 400, "maximum of 100"),
    ("GET", "/v1/erasures/99999999999999999999-1", None, 404, "no erasure"),
    ("GET", f"/v1/cohorts/size?cohort={'(' * 5000}", None, 400, "too early"),
    ("GET", "/livez?x=1", None, 400, "no parameter 'x'"),
    ("GET", "/v1/item/a", None, 404, "did you mean /v1/items/{id}"),
    ("POST", "/livez", None, 405, "it takes GET"),
]


def test_refusals_say_what_where_which_value_and_what_to_do(url: str, document: dict[str, Any]) -> None:
    with client.Client(url, timeout_s=60) as tidal_client:
        tidal_client.ledger("item", "a", "view", after=tidal_client.publish(VIEW))
    schema = {"$ref": "#/components/schemas/ProblemDocument"}
    wrong = []
    for method, path, body, wanted, words in HOSTILE:
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        status, media, reply = ask(url, method, path, raw)
        problem = json.loads(reply)
        told = f"{problem.get('detail')} {problem.get('errors')}"
        where = f"{method} {path[:60]} {str(body)[:60]}: {status} {told[:300]}"
        if (status, media) != (wanted, "application/problem+json") or words not in told:
            wrong.append(f"{where}; expected {wanted} and {words!r}")
        wrong += [f"{where}: {fault}" for fault in faults(problem, schema, document)]
    assert wrong == []


def test_the_reference_page_needs_no_network(url: str) -> None:
    """Everything that it loads is its own document."""
    status, media, page = ask(url, "GET", "/docs")
    assert (status, media) == (200, "text/html")
    assert not re.search(rb"(src|href)=[\"']?https?:|@import|url\(", page)
    assert re.findall(rb"fetch\(\"([^\"]+)\"", page) == [b"openapi.json"]
