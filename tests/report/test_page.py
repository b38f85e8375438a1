"""What is written into a page, and how; ``test_page_in_browser`` opens pages."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from blip2cli.report import page
from tests.report.pages import TOKEN

RUN = {"format": 1, "outputs": [{"name": "</script><b>", "token": TOKEN}], "notes": ["<!--"]}
TABLE = {"rows": {"file_name": ["</script>.jpg", "\u202egpj.a", "é\x00"]}, "extra": []}


class Elements(HTMLParser):
    """The elements of a page, with their attributes and texts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))
        self.open = True

    def handle_endtag(self, tag: str) -> None:
        self.open = False

    def handle_data(self, data: str) -> None:
        if self.open:
            self.found[-1][2].append(data)

    def text(self, tag: str, **attributes: str) -> str:
        (one,) = [
            text
            for name, found, text in self.found
            if name == tag and attributes.items() <= found.items()
        ]
        return "".join(one)


def test_data_comes_back_as_it_was_given() -> None:
    elements = Elements(page.assemble("a <b>", RUN, TABLE))
    assert json.loads(elements.text("script", id="run")) == RUN
    packed = base64.b64decode(elements.text("script", id="columns"))
    assert json.loads(gzip.decompress(packed)) == TABLE
    assert elements.text("title") == "a <b>"


def test_texts_make_no_elements() -> None:
    def tags(text: str) -> list[str]:
        return [tag for tag, _, _ in Elements(text).found]

    plain = {"format": 1, "outputs": []}
    assert tags(page.assemble('"><img src=x>', RUN, TABLE)) == tags(page.assemble("a", plain, {}))


def test_equal_data_give_equal_bytes() -> None:
    assert page.assemble("a", RUN, TABLE) == page.assemble("a", RUN, TABLE)


def test_the_policy_allows_what_is_inlined_and_nothing_else() -> None:
    elements = Elements(page.assemble("a", RUN, TABLE))
    policy = next(
        found["content"] or ""
        for tag, found, _ in elements.found
        if tag == "meta" and found.get("http-equiv") == "Content-Security-Policy"
    )
    rules = {
        name: rest for name, _, rest in (rule.strip().partition(" ") for rule in policy.split(";"))
    }
    assert rules["default-src"] == "'none'"
    for tag, rule, attributes in (
        ("script", "script-src", {"type": "module"}),
        ("style", "style-src", {}),
    ):
        text = elements.text(tag, **attributes)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert not {"connect-src", "font-src", "frame-src", "object-src"} & rules.keys()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_json_lacks_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        page.assemble("a", RUN, {"rows": {"confidence": [number]}})


def test_the_scripts_need_nothing_from_elsewhere() -> None:
    text = page.assemble("a", RUN, TABLE)
    assert not re.search(r"^(import|export)\b", text, re.MULTILINE)
    addresses = set(re.findall(r"https?://[^\s\"'`]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, never opened


def test_every_file_of_the_page_holds_one_idea() -> None:
    folder = page._FOLDER
    assert {f"{name}.js" for name in page._MODULES} == {one.name for one in folder.glob("*.js")}
    lengths = {one.name: len(one.read_text().splitlines()) for one in folder.glob("*.js")}
    assert {name: lines for name, lines in lengths.items() if lines > 300} == {}
