"""The documents speak of the program that is there: links, commands, keys, names, code."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import attrs
import click
from twisted.trial.unittest import SynchronousTestCase

from protege_mta.cli import root
from protege_mta.cli.sendmail_options import NoSuchOption, parsed
from protege_mta.config.identities import IdentitiesFile
from protege_mta.config.model import Settings
from protege_mta.config.schema import TABLES, Named, Table, Tables, Variant
from protege_mta.config.toml import ConfigError, keys_of, load
from protege_mta.model.event import EVENTS
from protege_mta.observe.events import Event

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "protege_mta"
SHELL: Final = {"sh", "sh run", ""}
"""Languages of blocks that hold commands; ``sh run`` can be run as it stands, while the service of
the tutorial runs; the empty one is an indented block."""

FENCE: Final = re.compile(r"( *)```(.*)")
LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SPAN: Final = re.compile(r"`([^`\n]+)`")
TABLE_AND_KEY: Final = re.compile(r"\[\[?([a-z_]+)(?:\.[^\]]+)?\]\]?(?: ([a-z_]+))?(?: = .*)?\Z")
SNAKE: Final = re.compile(r"[a-z]+(?:_[a-z0-9]+)+\Z")
ELSEWHERE: Final = ("that can be read", "got nothing")
"""Complaints about an excerpt that only say that the rest, or a file of the reader's, is not here."""


@attrs.frozen
class Block:
    """:ivar language: what stands behind the opening fence."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


@attrs.frozen
class Page:
    """:ivar prose: lines outside of blocks, by number."""

    path: Path
    blocks: tuple[Block, ...]
    prose: tuple[tuple[int, str], ...]

    @property
    def name(self) -> str:
        return _name(self.path)

    def spans(self) -> Iterator[tuple[str, str]]:
        """Each piece of code in the prose, and where."""
        is_foreign = self.path.name == "from-postfix.md"
        for number, line in self.prose:
            ours = line.split("|", 2)[2] if is_foreign and line.startswith("|") else line
            for text in SPAN.findall(ours.replace(r"\|", "|")):
                yield f"{self.name}:{number}", text


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def read(path: Path) -> Page:
    """Cut a page into prose and blocks."""
    name = _name(path)
    blocks: list[Block] = []
    prose: list[tuple[int, str]] = []
    held: list[str] = []
    opened: tuple[int, int, str] | None = None  # line, indentation, language
    before = ""
    for number, line in enumerate([*path.read_text("utf-8").split("\n"), ""], start=1):
        fence = FENCE.match(line)
        if opened is not None:
            start, indent, language = opened
            is_end = (
                line.strip() == "```" if language else not line.startswith("    ") and line != ""
            )
            if not is_end:
                held.append(line[indent:])
                before = line
                continue
            blocks.append(Block(name, start, language, "\n".join(held) + "\n"))
            opened = None
            if language:
                before = line
                continue
        if fence is not None:
            opened, held = (number, len(fence[1]), fence[2].strip() or "text"), []
        elif line.startswith("    ") and not before:
            opened, held = (number, 4, ""), [line[4:]]
        else:
            prose.append((number, line))
        before = line
    if opened is not None:
        blocks.append(Block(name, opened[0], opened[2], "\n".join(held) + "\n"))
    return Page(path, tuple(blocks), tuple(prose))


@cache
def pages() -> tuple[Page, ...]:
    """The README and everything below ``docs``."""
    return tuple(map(read, [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]))


def blocks(*languages: str) -> Iterator[Block]:
    for page in pages():
        yield from (block for block in page.blocks if block.language in languages)


# --- commands ------------------------------------------------------------------------------------


def simple_commands(script: str) -> Iterator[list[str]]:
    """The words of each command of a script, without what only says how it is to be run."""
    script = re.sub(r"<<'(\w+)'(.*)\n(?:.*\n)*?\1\n", r"\2\n", script)  # here-documents
    script = re.sub(r"(?m)(^|\s)#.*$", "", script.replace("\\\n", " "))
    lexer = shlex.shlex(script, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    words: list[str] = []
    for word in [*lexer, "\n"]:
        if word.strip("();<>|&\n"):
            words.append(word)
        elif words:
            yield unwrapped(words)
            words = []


def unwrapped(words: list[str]) -> list[str]:
    """Without assignments, ``xargs`` and ``runuser`` in front."""
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if words and words[0] == "runuser":
        words = words[words.index("--") + 1 :]
    if words and words[0] == "xargs":
        words = [word for word in words[1:] if word != "-r"]
    return words


def fault_of(words: list[str], *, is_whole: bool) -> str | None:
    """Why the program would not take this command line; None where it would.

    :param words: behind the program's name.
    :param is_whole: whether no argument may be missing.
    """
    command: click.Command = root
    context = click.Context(root)
    while isinstance(command, click.Group):
        if words[:1] == ["--config"]:
            words = words[2:]
        if not words or words[0].startswith("--"):
            return None if words in ([], ["--help"], ["--version"]) else f"no option {words[0]}"
        found = command.get_command(context, words[0])
        if found is None:
            return f"no command {words[0]}"
        command, words = found, words[1:]
    try:
        if command.name == "sendmail" or "sendmail" in type(command).__module__:
            parsed(words)
        else:
            command.make_context("protege-mta", list(words))
    except click.exceptions.Exit:
        return None
    except click.MissingParameter as error:
        return error.format_message() if is_whole else None
    except click.UsageError as error:
        return error.format_message()
    except NoSuchOption as error:
        return str(error)
    return None


def fault_in_shell(words: list[str]) -> str | None:
    """What is wrong with a command in a block, as far as it is one of ours."""
    program = Path(words[0]).name if words else ""
    if any(word.startswith("[") for word in words):  # a synopsis
        return None
    match program:
        case "protege-mta":
            return fault_of(words[1:], is_whole=True)
        case "twistd" if "protege-mta" in words:
            rest = words[len(words) - words[::-1].index("protege-mta") :]
            return None if rest[:-1] in ([], ["--config"], ["--project"]) else f"no options {rest}"
        case "make":
            targets = re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"))
            return next((f"no target {word}" for word in words[1:] if word not in targets), None)
        case "trial":
            return next((f"no test {word}" for word in words[1:] if not is_test(word)), None)
        case "python3" if words[1] == "-c":
            return fault_of_python(words[2])
    return None


def is_test(dotted: str) -> bool:
    """Whether there is such a package, module, class or method of tests."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:count])
        if path.with_suffix(".py").is_file():
            text = path.with_suffix(".py").read_text("utf-8")
            return all(re.search(rf"(class|def) {name}\b", text) for name in parts[count:])
        if path.is_dir():
            return count == len(parts)
    return False


def fault_of_python(text: str) -> str | None:
    try:
        ast.parse(text)
    except SyntaxError as error:
        return str(error)
    return None


class CheckTests(SynchronousTestCase):
    """The checks below find what they look for."""

    def test_wrong_commands(self) -> None:
        for line, fault in (
            ("protege-mta queue lst", "no command lst"),
            ("protege-mta queue show", "Missing argument 'ID'."),
            ("protege-mta queue list --sate held", "No such option '--sate'"),
            ("protege-mta sendmail -Z you@example.org", "-Z: no such option"),
            ("twistd protege-mta --konfig mta.toml", "no options"),
            ("make rum", "no target rum"),
            ("trial tests.unit.test_dosc", "no test tests.unit.test_dosc"),
            ("python3 -c 'print('", "never closed"),
        ):
            script = f"cd /tmp && {line} | head  # why\n"
            found = [fault_in_shell(words) or "" for words in simple_commands(script)]
            self.assertEqual([text != "" for text in found], [False, True, False], line)
            self.assertIn(fault, found[1])

    def test_words_of_a_script(self) -> None:
        script = "X=1 sudo-less; runuser -u mta -- queue 'a b' &&\n  cat <<'END' > x\nno\nEND\nend \\\n  it\n"
        self.assertEqual(
            list(simple_commands(script)),
            [["sudo-less"], ["queue", "a b"], ["cat"], ["x"], ["end", "it"]],
        )

    def test_cut_into_prose_and_blocks(self) -> None:
        path = Path(self.mktemp())
        path.write_text(
            "a `b`\n\n    c\n\n    d\n\n1. e\n\n   ```sh run\n   f\n   ```\ng\n", "utf-8"
        )
        page = read(path)
        self.assertEqual(
            [(block.line, block.language, block.text) for block in page.blocks],
            [(3, "", "c\n\nd\n\n"), (9, "sh run", "f\n")],
        )
        self.assertEqual([line for _, line in page.prose if line], ["a `b`", "1. e", "g"])


class CommandTests(SynchronousTestCase):
    def test_blocks(self) -> None:
        """Each command in a block is there, with its options and arguments."""
        wrong = [
            f"{block.place}: {shlex.join(words)}: {fault}"
            for block in blocks(*SHELL)
            if block.language or "protege-mta" in block.text
            for words in simple_commands(block.text)
            if (fault := fault_in_shell(words)) is not None
        ]
        self.assertEqual(wrong, [])

    def test_spans(self) -> None:
        """Each command in running text is there, with its options."""
        names = root.list_commands(click.Context(root))
        wrong = []
        for page in pages():
            for place, text in page.spans():
                words = text.removesuffix(" ...").split(" ")
                if words[0] == "protege-mta":
                    words = words[1:]
                elif words[0] not in names or len(words) == 1 or not words[1].isalpha():
                    continue
                words = [word for word in words if not word.startswith("[")]
                fault = fault_of(words, is_whole=False)
                if fault is not None:
                    wrong.append(f"{place}: {text}: {fault}")
        self.assertEqual(wrong, [])

    def test_shell(self) -> None:
        """A shell can read each block of commands."""
        for block in blocks("sh", "sh run"):
            shell = subprocess.run(
                ["/bin/sh", "-n"], input=block.text, text=True, capture_output=True, check=False
            )
            self.assertEqual(shell.stderr, "", block.place)

    def test_python(self) -> None:
        wrong = [
            f"{block.place}: {fault}"
            for block in blocks("python")
            if (fault := fault_of_python(block.text)) is not None
        ]
        self.assertEqual(wrong, [])


# --- configuration -------------------------------------------------------------------------------


def tables(model: type = Settings, name: str = "") -> Iterator[tuple[str, str]]:
    """Each key with the name of the table that it is in; for a table its own name."""
    for key, described, _ in keys_of(model):
        kind = described.kind
        yield name, key
        if not isinstance(kind, TABLES):
            continue
        each = kind.each if isinstance(kind, Tables | Named) else kind
        if isinstance(each, Variant):
            yield name or key, each.by
            for one in each.models.values():
                yield from tables(one, name or key)
        elif isinstance(each, Table):
            yield from tables(each.model, name or key)


class ConfigurationTests(SynchronousTestCase):
    def test_blocks(self) -> None:
        """Each excerpt of a configuration has keys that exist, with values that are taken."""
        path = Path(self.mktemp())
        wrong = []
        for block in blocks("toml"):
            path.write_text(block.text, "utf-8")
            try:
                load(path)
            except ConfigError as error:
                wrong += [
                    f"{block.place}: {complaint.place}: {complaint.text}"
                    for complaint in error.complaints
                    if not any(words in complaint.text for words in ELSEWHERE)
                ]
        self.assertEqual(wrong, [])

    def test_spans(self) -> None:
        """Each key in running text exists, in the table that is named with it."""
        known = {*tables(), *tables(IdentitiesFile)}
        names = {key for _, key in known}
        wrong = []
        for page in pages():
            for place, text in page.spans():
                match = TABLE_AND_KEY.match(text)
                alone = re.match(r"([a-z][a-z_]*) = ", text)
                if match is not None:
                    is_known = ("", match[1]) in known
                    if match[2]:
                        is_known = is_known and (match[1], match[2]) in known
                elif alone is not None:
                    is_known = alone[1] in names
                else:
                    continue
                if not is_known:
                    wrong.append(f"{place}: {text}")
        self.assertEqual(wrong, [])


# --- names ---------------------------------------------------------------------------------------


def is_there(path: str) -> bool:
    """Whether a path in the text is a file or folder of the tree."""
    bases = (ROOT, PACKAGE, ROOT / "tests")
    return any((base / path).exists() or (base / f"{path}.py").is_file() for base in bases)


def slug(heading: str) -> str:
    """A heading's anchor."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


class NameTests(SynchronousTestCase):
    def test_links(self) -> None:
        """Each relative link leads to a file, and each anchor to a heading."""
        wrong = []
        for page in pages():
            for number, line in page.prose:
                for target in LINK.findall(line):
                    if re.match(r"[a-z]+:", target):
                        continue
                    file, _, anchor = target.partition("#")
                    found = (page.path.parent / file).resolve() if file else page.path
                    is_right = found.exists()
                    if is_right and anchor:
                        headings = re.findall(r"(?m)^#+ (.+)$", found.read_text("utf-8"))
                        is_right = anchor in map(slug, headings)
                    if not is_right:
                        wrong.append(f"{page.name}:{number}: {target}")
        self.assertEqual(wrong, [])

    def test_decisions_are_counted(self) -> None:
        """One after the other, and those that are cited are there."""
        text = (ROOT / "docs/adr.md").read_text("utf-8")
        numbers = [int(one) for one in re.findall(r"(?m)^## (\d+)\. ", text)]
        self.assertEqual(numbers, list(range(1, len(numbers) + 1)))
        cited = {int(one) for one in re.findall(r"decision (\d+)", text)}
        self.assertEqual(cited - set(numbers), set())

    def test_every_page_is_linked(self) -> None:
        linked = {
            (page.path.parent / target.partition("#")[0]).resolve()
            for page in pages()
            for _, line in page.prose
            for target in LINK.findall(line)
        }
        lost = [page.name for page in pages()[1:] if page.path.resolve() not in linked]
        self.assertEqual(lost, ["docs/README.md"] if "docs/README.md" in lost else [])

    def test_paths(self) -> None:
        """Each file and folder of the tree that is named exists."""
        folders = {
            each.name for base in (ROOT, PACKAGE, ROOT / "tests") for each in base.glob("[a-z]*/")
        } - {"build", "dist"}  # there or not, as it comes
        wrong = []
        for page in pages():
            for place, text in page.spans():
                is_path = re.fullmatch(r"[\w.-]+(/[\w.-]*)+", text)
                if is_path and text.partition("/")[0] in folders and not is_there(text):
                    wrong.append(f"{place}: {text}")
            written = re.findall(r"\b[a-z_]+/[a-z_/]+\.py\b", page.path.read_text("utf-8"))
            wrong += [f"{page.name}: {path}" for path in written if not is_there(path)]
        self.assertEqual(wrong, [])

    def test_metrics(self) -> None:
        """Each metric that is named is in the reference, which has a test of its own."""
        reference = (ROOT / "docs/reference/metrics.md").read_text("utf-8")
        known = set(re.findall(r"\| `(protege_mta_\w+)` \|", reference))
        wrong = [
            f"{page.name}: {name}"
            for page in pages()
            for name in re.findall(r"\bprotege_mta_\w+", page.path.read_text("utf-8"))
            if re.sub("_(bucket|sum|count)$", "", name) not in known
        ]
        self.assertEqual(wrong, [])

    def test_events(self) -> None:
        """Events in examples and in running text have names and members that exist."""
        wrong = []
        for block in blocks("json"):
            for line in block.text.splitlines():
                event = json.loads(line)
                if event["event"] not in EVENTS or set(event) - set(Event.__struct_fields__):
                    wrong.append(f"{block.place}: {line}")
        for page in pages():
            text = " ".join(line for _, line in page.prose)
            named = re.findall(r"`([a-z]+)` events?\b", text)
            wrong += [f"{page.name}: {name}" for name in named if name not in EVENTS]
        self.assertEqual(wrong, [])

    def test_snake_case(self) -> None:
        """A name with an underscore is one of the program's."""
        sources = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), ROOT / "pyproject.toml"]
        known = {word for path in sources for word in re.findall(r"\w+", path.read_text("utf-8"))}
        wrong = [
            f"{place}: {text}"
            for page in pages()
            for place, text in page.spans()
            if SNAKE.match(text) and text not in known and not text.startswith("protege_mta_")
        ]
        self.assertEqual(wrong, [])
