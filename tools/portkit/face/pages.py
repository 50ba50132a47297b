"""What all HTML pages are made with: the files of templates/, escaped, no name undefined."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_TEMPLATES = Path(__file__).parent / "templates"


def source(name: str) -> str:
    """The text of a file of the templates, such as a style sheet."""
    return (_TEMPLATES / name).read_text("utf-8")


def environment() -> Environment:
    """A new environment, to which a page may add its own helpers."""
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
