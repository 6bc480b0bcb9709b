"""``GET /openapi.json``: what the endpoints take and answer (OpenAPI 3.1), and ``GET /docs``, the same
for people.

Both are made of the tables of endpoints and of the types that requests are read with, so that they
cannot say anything else than what is done.  The page needs no script and no other host.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, Final

import attrs
import msgspec
from jinja2 import DictLoader, Environment, StrictUndefined
from klein import Klein
from twisted.web.iweb import IRequest

from . import answer
from .endpoint import Answer, AnyOf, Endpoint

Json = dict[str, Any]

_REF: Final = "#/components/schemas/{name}"
_IN_BRACES: Final = re.compile(r"\{([a-z_]+)\}")
_IVAR: Final = re.compile(r"^\s*:ivar (\w+):\s*(.*?)(?=^\s*:ivar |\Z)", re.MULTILINE | re.DOTALL)
_ROLE: Final = re.compile(r":\w+:`[~.!]*(?:[\w.]*\.)?(\w+)`")

REFUSALS: Final[Mapping[int, str]] = {
    400: "The request cannot be read, or makes no sense",
    401: "No key, or a wrong one",
    403: "The key may not do this",
    404: "There is no such thing, or not for this key",
    409: "The Idempotency-Key is another request's, or that one is being worked on",
    413: "Too large",
    415: "The body is of a type, in a charset or packed in a way that is not taken here",
    422: "A member is not what it should be; `member` says which",
    429: "Too often; Retry-After says when to come back",
    503: "Not just now; Retry-After says when to come back",
}
"""What problems are about, by status."""

UNDESCRIBED: Final[Mapping[str, str]] = {
    "/ws": "where agents of a relay server leave HTTP for WebSocket, which OpenAPI has no words for"
}
"""What is served on ``http`` listeners besides, and why it is not in the document."""

_SCHEMES: Final[Json] = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, which `protege-mta apikey create` makes.",
    },
    "account": {
        "type": "http",
        "scheme": "basic",
        "description": "A submission account, which has the scope `send`; or `apikey`, or an API "
        "key's own name, with the key for the password, for the same as with Bearer.",
    },
}
"""Who asks, by name (RFC 6750; RFC 7617)."""

ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/openapi.json",
        summary="This description, for programs",
        answers={200: Answer(summary="OpenAPI 3.1", type=dict[str, Any])},
        tag="Service",
    ),
    Endpoint(
        method="GET",
        path="/docs",
        summary="This description, for people",
        answers={200: Answer(summary="A page", media_type="text/html; charset=utf-8")},
        tag="Service",
    ),
)


def document(endpoints: Sequence[Endpoint], *, version: str, server: str = "") -> Json:
    """The description of some endpoints.

    :param server: where they are reached; empty for where the description came from.
    """
    types = list(_types(endpoints))
    found, components = msgspec.json.schema_components(types, ref_template=_REF)
    schemas = iter(found)
    paths: dict[str, Json] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "protege-mta",
            "version": version,
            "license": {"name": "MIT"},
            "description": "Not described here: "
            + "; ".join(f"`{path}`, {why}" for path, why in UNDESCRIBED.items())
            + ".",
        },
        "servers": [{"url": server or "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(one.tag for one in endpoints)],
        "paths": paths,
        "components": {
            "schemas": {name: _told(schema) for name, schema in components.items()},
            "securitySchemes": _SCHEMES,
        },
    }


def _types(endpoints: Sequence[Endpoint]) -> Iterator[Any]:
    """Every type, in the order in which :func:`_operation` asks for their schemas."""
    for endpoint in endpoints:
        yield from (one.type for one in endpoint.parameters)
        for type in (endpoint.request, *(one.type for one in endpoint.answers.values())):
            if isinstance(type, AnyOf):
                yield from type
            elif type is not None:
                yield type
        if endpoint.refusals:
            yield answer.Problem


def _operation(endpoint: Endpoint, schemas: Iterator[Json]) -> Json:
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _IN_BRACES.findall(endpoint.path)
    ]
    parameters += [
        {
            "name": one.name,
            "in": one.place,
            "required": one.is_required,
            "description": one.summary,
            "schema": next(schemas),
        }
        for one in endpoint.parameters
    ]
    operation: Json = {
        "operationId": _name(endpoint),
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
    }
    if endpoint.description:
        operation["description"] = endpoint.description
    if parameters:
        operation["parameters"] = parameters
    bodies = {kind: {"schema": {"type": "string"}} for kind in endpoint.other_requests}
    if endpoint.request is not None:
        bodies = {"application/json": {"schema": _schema(endpoint.request, schemas)}, **bodies}
    if bodies:
        operation["requestBody"] = {"required": endpoint.request is not None, "content": bodies}
    responses: dict[str, Json] = {}
    for status, one in endpoint.answers.items():
        content: Json = {}
        if one.type is not None:
            content[one.media_type] = {"schema": _schema(one.type, schemas)}
        elif one.media_type and one.media_type != "application/json":
            content[one.media_type] = {"schema": {"type": "string"}}
        content |= {kind: {"schema": {"type": "string"}} for kind in one.others}
        responses[str(status)] = {"description": one.summary}
        if content:
            responses[str(status)]["content"] = content
    if endpoint.refusals:
        content = {answer.PROBLEM: {"schema": next(schemas)}}
        for status in endpoint.refusals:
            responses[str(status)] = {
                "description": endpoint.why.get(status, REFUSALS[status]),
                "content": content,
            }
    operation["responses"] = dict(sorted(responses.items()))
    if endpoint.scope is not None:
        ways: list[Json] = [{name: []} for name in _SCHEMES]
        operation["security"] = [*ways, {}] if endpoint.by_network else ways
        operation["x-scope"] = [one for one in (endpoint.scope, endpoint.or_scope) if one]
    return operation


def _schema(type: Any, schemas: Iterator[Json]) -> Json:
    return {"anyOf": [next(schemas) for _ in type]} if isinstance(type, AnyOf) else next(schemas)


def _name(endpoint: Endpoint) -> str:
    words = re.findall(r"[a-z0-9]+", endpoint.path)
    return "_".join((endpoint.method.lower(), *words))


def _told(schema: Json) -> Json:
    """A schema with what the type's docstring says of it and of its members."""
    text = schema.get("description", "")
    about = {match[1]: _line(match[2]) for match in _IVAR.finditer(text)}
    told = {**schema, "description": _line(text.partition(":ivar")[0])}
    properties = dict(schema.get("properties", {}))
    for name, what in about.items():
        name = name.removesuffix("_") if name not in properties else name
        if name in properties:
            properties[name] = {**properties[name], "description": what}
    if properties:
        told["properties"] = properties
    return told


def _line(text: str) -> str:
    return " ".join(_ROLE.sub(r"\1", text).replace("``", "`").split())


# --- the page ------------------------------------------------------------------------------------


@attrs.frozen
class Member:
    """A member of an object, as the page shows it."""

    name: str
    kind: str
    is_required: bool
    about: str


def page(described: Json) -> str:
    """The description as HTML."""
    folder = resources.files(__package__) / "pages"
    sources = {name: (folder / name).read_text("utf-8") for name in ("api.html", "style.css")}
    environment = Environment(
        loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    schemas: Json = described["components"]["schemas"]
    tags = [one["name"] for one in described["tags"]]
    operations = [
        {"method": method.upper(), "path": path, **operation}
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]
    return environment.get_template("api.html").render(
        title=described["info"]["title"],
        version=described["info"]["version"],
        about=described["info"]["description"],
        schemes=described["components"]["securitySchemes"].values(),
        tags=tags,
        operations=operations,
        schemas={name: (one, list(members(one))) for name, one in sorted(schemas.items())},
        kind=_kind,
        refs=refs,
    )


def members(schema: Json) -> Iterator[Member]:
    """The members of an object's schema."""
    required = schema.get("required", ())
    for name, one in schema.get("properties", {}).items():
        yield Member(name, _kind(one), name in required, one.get("description", ""))


def _kind(schema: Json) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name: str = schema["$ref"].rpartition("/")[2]
        return name
    if "enum" in schema:
        return " | ".join(f'"{one}"' for one in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(map(_kind, schema["anyOf"])))
    if schema.get("type") == "array":
        return f"array of {_kind(schema.get('items', {}))}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"{{name: {_kind(schema['additionalProperties'])}}}"
    kind = schema.get("type", "any")
    return kind if isinstance(kind, str) else " | ".join(kind)


def refs(schema: Mapping[str, Any] | Sequence[Any]) -> list[str]:
    """The names of the types that a schema speaks of."""
    found = []
    values: Sequence[Any] = list(schema.values()) if isinstance(schema, Mapping) else schema
    if isinstance(schema, Mapping) and "$ref" in schema:
        found.append(schema["$ref"].rpartition("/")[2])
    for value in values:
        if isinstance(value, Mapping | list):
            found += refs(value)
    return list(dict.fromkeys(found))


def add(app: Klein, endpoints: Sequence[Endpoint], *, version: str, server: str = "") -> None:
    """Serve both, for everybody."""
    described = document(endpoints, version=version, server=server)
    octets = msgspec.json.encode(described)
    html = page(described)
    style = html.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'"

    @app.route("/openapi.json", methods=["GET"])
    def description(request: IRequest) -> bytes:
        request.setHeader(b"Content-Type", b"application/json")
        return octets

    @app.route("/docs", methods=["GET"])
    def shown(request: IRequest) -> bytes:
        request.setHeader(b"Content-Type", b"text/html; charset=utf-8")
        request.setHeader(b"Content-Security-Policy", policy.encode("ascii"))
        request.setHeader(b"Referrer-Policy", b"no-referrer")
        return html.encode("utf-8")
