"""No template holds a text that nobody has marked for translation, whatever has to happen for it to be shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import messages, unmarked

TEMPLATES = messages.ROOT / "templates"
# The first line of a mail's text, and what is the same in every language.
SAME = re.compile(r"^Subject:|\b(?:UTC|IBAN|BIC|SKU|CSV|XLSX|Temporal|Vorkasse|ms)\b")
_MARKED = re.compile(
    r"{% (blocktranslate|comment)\b.*?{% end\1 %}|{% block (?:bodyclass|coltype) %}.*?{% endblock %}"
    r"|{%.*?%}|{{.*?}}|{#.*?#}",
    re.DOTALL,
)
# A text as the argument of a filter that shows it: `|default:"nobody"`, where `_("nobody")` would be marked.
_ARGUMENT = re.compile(r"""\|(?:default|default_if_none|yesno|pluralize|add|join):(["'])(.*?)\1""")


def unsaid(template: str) -> list[str]:
    """What of a template is neither marked nor the same in every language."""
    texts = unmarked.outside(_MARKED.sub(" ", template)) + [text for _q, text in _ARGUMENT.findall(template)]
    return [text for text in texts if re.search(r"[^\W\d_]{2,}", SAME.sub("", text))]


@pytest.mark.parametrize(
    "path", sorted(TEMPLATES.rglob("*.*")), ids=lambda path: str(path.relative_to(TEMPLATES))
)
def test_texts_of_the_template_are_marked(path: Path) -> None:
    assert unsaid(path.read_text()) == []


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ('<p>{% translate "Paid" %} {{ amount }} UTC</p>', []),
        ("<p>{% blocktranslate %}Paid by <b>them</b>.{% endblocktranslate %}</p>", []),
        ("<p>Paid {{ amount }}</p>", ["Paid"]),
        ('<input placeholder="Search">', ["Search"]),
        ('<input placeholder="{% translate "Search" %}" type="search">', []),
        ('<a href="{% url "admin:index" %}" title="Back">{{ name }}</a>', ["Back"]),
        ('<input type="submit" value="Send">', ["Send"]),
        ("{{ who|default:'nobody' }}{{ who|default:_('nobody') }}{{ who|default:'–' }}", ["nobody"]),
        ("<script>const text = 'Paid';</script>{# Paid #}{% comment %}Paid{% endcomment %}", []),
    ],
)
def test_unmarked_texts_are_found(template: str, found: list[str]) -> None:
    assert unsaid(template) == found
