"""Templates of messages: Jinja2, cut down to what cannot run for long or grow without bound, and
Handlebars, read into the same trees.

The sandbox of Jinja2 keeps a template away from Python; it does not keep it from counting to ten to
the tenth.  So there are no calls, macros, imports, assignments and powers here, a choice of filters,
and what loops and joins may cost is counted.  Values, filters, tests, ``if`` and ``for`` are there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Literal, cast

import attrs
from jinja2 import TemplateError, Undefined, nodes
from jinja2.environment import Template
from jinja2.exceptions import SecurityError
from jinja2.runtime import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from . import handlebars

Dialect = Literal["jinja", "handlebars"]

SOURCE_CHARACTERS: Final = 1_048_576
NODES: Final = 5_000
"""So many parts a template may have."""

STEPS: Final = 200_000
"""So many parts may be gone through in one rendering, loops counted each time: some 50 ms."""

RESULT_CHARACTERS: Final = 8 * 1_048_576
TEXT_CHARACTERS: Final = 1_048_576
"""What a single value may grow to."""

_OPERANDS: Final = 8

_ALLOWED: Final = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Getattr,
    nodes.Getitem, nodes.Filter, nodes.Test, nodes.If, nodes.CondExpr, nodes.And, nodes.Or,
    nodes.Not, nodes.Neg, nodes.Pos, nodes.Compare, nodes.Operand, nodes.For, nodes.List,
    nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div,
    nodes.FloorDiv, nodes.Mod, nodes.Concat,
)  # fmt: skip
_FILTERS: Final = frozenset(
    [
        "abs",
        "capitalize",
        "d",
        "default",
        "dictsort",
        "e",
        "escape",
        "first",
        "float",
        "int",
        "items",
        "join",
        "last",
        "length",
        "count",
        "lower",
        "max",
        "min",
        "replace",
        "reverse",
        "round",
        "safe",
        "sort",
        "string",
        "striptags",
        "sum",
        "title",
        "tojson",
        "trim",
        "truncate",
        "unique",
        "upper",
        "urlencode",
        "wordcount",
    ]
)
_TESTS: Final = frozenset(
    [
        "boolean",
        "defined",
        "divisibleby",
        "eq",
        "even",
        "false",
        "float",
        "ge",
        "gt",
        "in",
        "integer",
        "iterable",
        "le",
        "lower",
        "lt",
        "mapping",
        "ne",
        "none",
        "number",
        "odd",
        "sequence",
        "string",
        "true",
        "undefined",
        "upper",
    ]
)
_COUNTED: Final = "_counted"
_BOUNDED: Final = "_bounded"


class BadTemplate(ValueError):
    """A template that is not one, or does too much.  The text says what, and may quote a tag of it."""


@attrs.define(eq=False)
class _Budget:
    steps: int = STEPS


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "*", "%"))

    def __init__(self, *, is_html: bool, is_strict: bool) -> None:
        super().__init__(
            autoescape=is_html,
            undefined=StrictUndefined if is_strict else Undefined,
            keep_trailing_newline=True,
            cache_size=0,
        )
        self.globals.clear()
        self.filters = {name: self.filters[name] for name in _FILTERS}
        self.filters |= {"join": _join(self.filters["join"]), "replace": _replace}
        self.filters |= {_COUNTED: _counted, _BOUNDED: _bounded}
        self.tests = {name: test for name, test in self.tests.items() if name in _TESTS}

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator in ("*", "%") and not (_is_number(left) and _is_number(right)):
            raise SecurityError("only numbers are multiplied")
        return _bounded(super().call_binop(context, operator, left, right))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _bounded(value: Any) -> Any:
    if isinstance(value, str | list | tuple) and len(value) > TEXT_CHARACTERS:
        raise SecurityError("a value grows too long")
    return value


def _counted(items: Any, budget: _Budget, weight: int) -> Iterator[Any]:
    for item in items:
        budget.steps -= weight
        if budget.steps < 0:
            raise SecurityError("the template takes too many steps")
        yield item


def _join(join: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(join)
    def bounded(eval_ctx: Any, value: Iterable[Any], d: str = "", attribute: Any = None) -> Any:
        listed = list(value)
        if len(listed) * len(str(d)) > TEXT_CHARACTERS:
            raise SecurityError("a value grows too long")
        return _bounded(join(eval_ctx, listed, d, attribute))

    return bounded


def _replace(value: Any, old: str, new: str) -> str:
    text = str(value)
    if not old or text.count(str(old)) * len(str(new)) > TEXT_CHARACTERS:
        raise SecurityError("a value grows too long")
    return text.replace(str(old), str(new))


@attrs.frozen
class Source:
    """A template that is ready to be filled in.

    :ivar _named: gives values the names by which the tree knows them.
    """

    _template: Template
    _named: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict

    def rendered(self, values: Mapping[str, Any]) -> str:
        """The text.  :raise BadTemplate:"""
        pieces, length = [], 0
        try:
            for piece in self._template.generate({**self._named(values), _BUDGET: _Budget()}):
                pieces.append(piece)
                length += len(piece)
                if length > RESULT_CHARACTERS:
                    raise BadTemplate("the text grows too long")
        except BadTemplate:
            raise
        except (SecurityError, TemplateError) as error:
            raise BadTemplate(_said(error)) from None
        except (
            ArithmeticError,
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
            RecursionError,
        ):
            raise BadTemplate("a value is not what the template takes it for") from None
        return "".join(pieces)


_BUDGET: Final = "_budget"


@functools.lru_cache(256)
def template(
    text: str, *, is_html: bool = False, is_strict: bool = True, dialect: Dialect = "jinja"
) -> Source:
    """Make a template ready.

    :param is_html: values are escaped.
    :param is_strict: a value that is not there is an error, and not empty; in Handlebars it is
        empty always.
    :raise BadTemplate:
    """
    if len(text) > SOURCE_CHARACTERS:
        raise BadTemplate("the template is too long")
    is_jinja = dialect == "jinja"
    environment = _environment(is_html, is_strict) if is_jinja else _handlebars()
    try:
        if is_jinja:
            tree = environment.parse(text)
            _check_all(tree)
        else:
            tree = handlebars.tree_of(text, is_html=is_html)
        _count(tree)
        _bound(tree)
        tree.set_environment(environment)
        code = environment.compile(tree)
        made = environment.template_class.from_code(environment, code, {})
        return Source(made, dict if is_jinja else handlebars.root)
    except TemplateError as error:
        raise BadTemplate(_said(error)) from None
    except (RecursionError, SyntaxError, MemoryError, ValueError, OverflowError):
        raise BadTemplate("the template is nested too deep") from None


@functools.lru_cache(4)
def _environment(is_html: bool, is_strict: bool) -> _Environment:
    return _Environment(is_html=is_html, is_strict=is_strict)


@functools.lru_cache(1)
def _handlebars() -> _Environment:
    """Its filters escape by themselves."""
    made = _Environment(is_html=False, is_strict=False)
    made.filters = {_COUNTED: _counted, **handlebars.FILTERS}
    return made


def _said(error: Exception) -> str:
    line = getattr(error, "lineno", None)
    where = f", line {line}" if line else ""
    if isinstance(error, SecurityError):
        return f"{error.message}{where}"
    if type(error).__name__ == "UndefinedError":
        return "a value that the template wants is not there"
    return f"the template cannot be read{where}"


def _check_all(tree: nodes.Template) -> None:
    """Refuse what is not allowed."""
    for size, node in enumerate(tree.find_all(nodes.Node)):
        if size >= NODES:
            raise SecurityError("the template has too many parts")
        _check(node)


def _count(tree: nodes.Template) -> None:
    """Have each turn of each loop counted, by how much there is in it."""
    for loop in list(tree.find_all(nodes.For)):
        weight = 1 + sum(1 for _ in loop.find_all(nodes.Node))
        budget = nodes.Name(_BUDGET, "load")
        loop.iter = _filter(loop.iter, _COUNTED, [budget, nodes.Const(weight)])


def _check(node: nodes.Node) -> None:
    line = getattr(node, "lineno", None)
    where = f", line {line}" if line else ""
    if not isinstance(node, _ALLOWED):
        raise SecurityError(f"templates here have no {type(node).__name__.lower()}{where}")
    if isinstance(node, nodes.Filter) and node.name not in _FILTERS:
        raise SecurityError(f"there is no such filter{where}")
    if isinstance(node, nodes.Test) and node.name not in _TESTS:
        raise SecurityError(f"there is no such test{where}")
    if isinstance(node, nodes.Name) and node.name.startswith("_"):
        raise SecurityError(f"names do not begin with an underscore{where}")
    if isinstance(node, nodes.For) and node.recursive:
        raise SecurityError(f"loops are not recursive{where}")
    if isinstance(node, nodes.Concat) and len(node.nodes) > _OPERANDS:
        raise SecurityError(f"too much is joined at once{where}")


def _bound(tree: nodes.Node) -> None:
    """What is joined by ``~`` is looked at each time."""
    for field, value in tree.iter_fields():
        if isinstance(value, nodes.Node):
            _bound(value)
            if isinstance(value, nodes.Concat):
                setattr(tree, field, _filter(value, _BOUNDED, []))
        elif isinstance(value, list):
            for index, child in enumerate(value):
                if isinstance(child, nodes.Node):
                    _bound(child)
                    if isinstance(child, nodes.Concat):
                        value[index] = _filter(child, _BOUNDED, [])


def _filter(node: nodes.Node, name: str, arguments: list[nodes.Expr]) -> nodes.Filter:
    return nodes.Filter(cast(nodes.Expr, node), name, arguments, [], None, None, lineno=node.lineno)
