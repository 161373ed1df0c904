"""Lists of rows with fields to type in, as HTML of the page.

What is typed in a list lives in the page until something is done with it: every event brings all
rows along, as JSON, so that nothing is lost between two of them.
"""

import json
import math
from collections.abc import Mapping, Sequence

import gradio as gr

from generation.errors import InvalidSpecError

LONGEST = 4000
"""Characters of a field that are read; what is longer is no row of ours."""

_READ = """[...where.querySelectorAll('[data-row]')].map((row) => ({
    key: row.dataset.row,
    ...Object.fromEntries([...row.querySelectorAll('input')].map((box) => [box.name, box.value])),
  }))"""
LIST_JS = f"""
const rows = () => {{
  const where = element;
  return JSON.stringify({_READ});
}};
element.addEventListener('change', (event) => {{
  event.stopPropagation();
  trigger('input', {{rows: rows()}});
}});
element.addEventListener('input', (event) => {{
  const box = event.target;
  if (box.name === 'text') box.closest('[data-row]').toggleAttribute(
    'data-edited', box.value.trim() !== box.defaultValue.trim());
}});
element.addEventListener('click', (event) => {{
  const press = event.target.closest('[data-remove]');
  if (press) trigger('click', {{rows: rows(), remove: press.dataset.remove}});
}});
"""
"""Tells of what is typed and which row is to go; marks rows whose words are not those of before."""


def rows_js(elem_id: str) -> str:
    """Put what stands in a list in the place of the last input, before an event is sent."""
    return f"""(...all) => {{
  const where = document.querySelector('#{elem_id}');
  return [...all.slice(0, -1), JSON.stringify(where ? {_READ} : [])];
}}"""


def read_rows(rows: str | None, names: Sequence[str], what: str) -> Mapping[str, dict[str, str]]:
    """Read what stands in a list: the texts of its fields for the key of each row.

    Args:
        rows: JSON of the page.
        names: Of the fields that each row has.
        what: The list for people.

    Raises:
        InvalidSpecError: It is not what the page sends.
    """
    try:
        told = {str(row["key"]): row for row in json.loads(rows or "[]")}
        return {
            key: {each: str(row[each])[:LONGEST] for each in names} for key, row in told.items()
        }
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidSpecError(f"the list of {what} came in pieces (reload the page)") from None


def list_event(event: gr.EventData) -> tuple[str, str]:
    """Read what the page's list tells: its rows, and the key of one that is to go."""
    data = event._data if isinstance(event._data, dict) else {}
    return str(data.get("rows", "[]")), str(data.get("remove", ""))


def new_key(letter: str, taken: Sequence[str]) -> str:
    """Give a row a key that no other one of its list has."""
    return next(f"{letter}{n}" for n in range(1, len(taken) + 2) if f"{letter}{n}" not in taken)


def number_of(text: object) -> float | None:
    """Read what was typed as a number; None where it is none."""
    try:
        value = float(str(text).replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def number_text(value: float | None) -> str:
    """Write a number so that it reads back as it was."""
    return "" if value is None else repr(float(value)).removesuffix(".0")
