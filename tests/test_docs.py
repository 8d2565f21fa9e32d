"""The pages tell the truth: their Python runs, their links lead somewhere, the index is complete.

Every ```` ```python ```` block of a page runs, in order, in one namespace and an empty folder. A
block with ``>>>`` prompts is a doctest. A block that cannot run here says why in its fence:
```` ```python no-run: a sketch ````.
"""

import doctest
import linecache
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<info>.*)$")
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block: what its fence says, its text, the page's line before its first."""

    info: str
    text: str
    line: int


def blocks(page: str) -> Iterator[Block]:
    """Yields the fenced blocks of a page; an unclosed fence is an error."""
    lines = page.splitlines()
    at = 0
    while at < len(lines):
        opening = FENCE.match(lines[at])
        at += 1
        if opening is None:
            continue
        start = at
        closing = opening["indent"] + opening["ticks"]
        while at < len(lines) and lines[at].rstrip() != closing:
            at += 1
        if at == len(lines):
            raise ValueError(f"the fence of line {start} is not closed")
        text = "".join(line[len(opening["indent"]) :] + "\n" for line in lines[start:at])
        yield Block(opening["info"].strip(), text, start)
        at += 1


def check(block: Block, page: str, namespace: dict[str, object]) -> None:
    """Runs one block; raises what it raises, or AssertionError with a doctest's report."""
    if ">>>" in block.text:
        test = doctest.DocTestParser().get_doctest(block.text, namespace, page, page, block.line)
        test.globs = namespace  # the parser copies; a page's blocks share one namespace
        report: list[str] = []
        doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.append, clear_globs=False)
        assert not report, "".join(report)
        return
    source = "\n" * block.line + block.text  # so that a traceback gives the page's own lines
    name = f"{page}:{block.line + 1}"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec", dont_inherit=True), namespace)


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    fenced = {n for b in blocks(page) for n in range(b.line, b.line + b.text.count("\n") + 1)}
    titles = [
        line.lstrip("#").strip()
        for number, line in enumerate(page.splitlines())
        if line.startswith("#") and number not in fenced
    ]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_examples_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    name = page.relative_to(ROOT).as_posix()
    for block in blocks(page.read_text(encoding="utf-8")):
        language, _, rest = block.info.partition(" ")
        if language not in {"python", "py", "pycon"}:
            continue
        if rest.startswith("no-run"):
            assert re.fullmatch(r"no-run: \S.*", rest), f"{name}:{block.line}: no-run needs a why"
            continue
        assert not rest, f"{name}:{block.line}: what does {rest!r} mean?"
        check(block, name, namespace)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in blocks(text):
        text = text.replace(block.text, "")
    for match in LINK.finditer(re.sub(r"`[^`\n]*`", "", text)):
        target, _, anchor = match["target"].partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.is_relative_to(ROOT), f"{match[0]} leaves the repository"
        assert file.exists(), f"{match[0]} leads nowhere"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{match[0]}: no heading"


def test_index_lists_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    listed = {match["target"] for match in LINK.finditer(index.read_text(encoding="utf-8"))}
    pages = {
        path.relative_to(index.parent).as_posix()
        for path in index.parent.rglob("*.md")
        if path != index
    }
    assert pages <= listed, f"docs/index.md lacks {sorted(pages - listed)}"


def test_the_checker_finds_faults(tmp_path: Path) -> None:
    page = "# T\n```python\nx = 2\n```\n```python\n>>> x + 1\n3\n```\n```python\n>>> x\n3\n```\n"
    good, shares, wrong = blocks(page)
    namespace: dict[str, object] = {}
    check(good, "page.md", namespace)
    check(shares, "page.md", namespace)
    with pytest.raises(AssertionError, match="line 10"):
        check(wrong, "page.md", namespace)
    with pytest.raises(ZeroDivisionError) as raised:
        check(Block("python", "x = 1\n1 / 0\n", 41), "page.md", {})
    assert raised.traceback[-1].lineno == 42  # counted from 0: the page's line 43
    with pytest.raises(ValueError, match="not closed"):
        list(blocks("```python\nx\n"))
    assert anchors("# Files to touch\n```sh\n# not this\n```\n") == {"files-to-touch"}
