"""HTML from text that nobody may trust: what a model wrote, and its ids.

Every other file that writes HTML passes such text through `escape`.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

# Of the control characters, HTML allows the tab and the line ends alone.
CONTROL = dict.fromkeys([*range(32), *range(127, 160)], '\ufffd')
CONTROL |= {ord(char): char for char in '\t\n\r'}


def escape(text: str) -> str:
  """Returns text as HTML that shows it and does nothing else."""
  return html.escape(text.translate(CONTROL), quote=True)


def table(name: str, head: Iterable[str], rows: Iterable[str]) -> str:
  """Returns a table that scrolls by itself on a narrow screen.

  Args:
    name: what the table holds, for a screen reader.
    head: HTML of the cells of the first line.
    rows: HTML of whole lines, as `row` makes them.
  """
  cells = ''.join(f'<th scope="col">{cell}</th>' for cell in head)
  return (
    f'<div class="scroll" role="region" aria-label="{escape(name)}" '
    f'tabindex="0"><table><thead><tr>{cells}</tr></thead>'
    f'<tbody>{"".join(rows)}</tbody></table></div>'
  )


def row(head: str, cells: Iterable[str], main: bool = False) -> str:
  """Returns a line of a table; one that matters most stands out."""
  mark = ' class="main"' if main else ''
  data = ''.join(f'<td>{cell}</td>' for cell in cells)
  return f'<tr{mark}><th scope="row">{head}</th>{data}</tr>'
