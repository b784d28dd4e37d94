"""The table and its figures as files: Markdown, CSV, LaTeX, and one page."""

from __future__ import annotations

import importlib.resources
import pathlib
from collections.abc import Sequence

from score_jax import files
from score_jax.journal import say
from score_jax.laboratory import comparison, reading, sheets, tables
from score_jax.laboratory.cells import FAILED, Plan
from score_jax.laboratory.comparison import Line
from score_jax.laboratory.sheets import Drawn
from score_jax.laboratory.tables import Grid
from score_jax.methods import catalogue
from score_jax.report import markup
from score_jax.report.build import write as write_bytes
from score_jax.report.page import POLICY

TITLE = 'Methods of self-correction side by side'
WHOLE_NAMES = 'th[scope=row] { white-space: nowrap; }'


def write(
  workdir: pathlib.Path, todo: Sequence[Plan], names: Sequence[str]
) -> list[Line]:
  """Writes the table and the figures of all finished cells; returns its rows.

  Args:
    workdir: where table.md, .csv, .tex, .html and figures/ go.
    todo: all cells.
    names: of the methods, in the order to print.
  """
  cells = reading.cells(todo)
  if not cells:
    return []
  others = cells.get(sheets.AGAINST, [])
  lines = [
    comparison.line(name, catalogue.METHODS[name][0], cells[name], others)
    for name in names
    if name in cells
  ]
  problems = len(next(iter(cells.values()))[0].right)
  drawn = [
    sheets.draw(sheet, cells)
    for sheet in sheets.sheets(todo[0].given.table, [x.name for x in lines])
  ]
  _write_figures(workdir / 'figures', drawn)
  grids, lacking = tables.grids(lines, problems), _lacking(todo)
  texts = {
    'md': _markdown(grids, lacking, drawn),
    'csv': tables.comma_separated(lines),
    'tex': tables.latex(grids[0]),
    'html': _page(grids, lacking, drawn),
  }
  for kind, text in texts.items():
    files.write_text(workdir / f'table.{kind}', text)
  say(f'table     {workdir / "table.html"}')
  return lines


def _write_figures(folder: pathlib.Path, drawn: Sequence[Drawn]) -> None:
  folder.mkdir(exist_ok=True)
  for figure in drawn:
    if figure.picture is None:
      for kind in ('png', 'svg'):  # Of a table that had more methods.
        (folder / f'{figure.name}.{kind}').unlink(missing_ok=True)
      continue
    write_bytes(folder / f'{figure.name}.png', figure.picture.png)
    svg = figure.picture.svg.encode()
    write_bytes(folder / f'{figure.name}.svg', svg)


def _lacking(todo: Sequence[Plan]) -> list[str]:
  """Returns words on each run that the table lacks, and why."""
  found = []
  for plan in todo:
    if plan.is_finished():
      continue
    path = plan.workdir / FAILED
    why = path.read_text().strip() if path.exists() else 'not finished yet'
    found.append(f'{plan.name}, seed {plan.seed}: {why}')
  return found


def _markdown(
  grids: Sequence[Grid], lacking: Sequence[str], drawn: Sequence[Drawn]
) -> str:
  """Returns the main table, all figures, and the other tables."""
  main, *others = grids
  parts = [tables.markdown(main)]
  if lacking:
    parts.append('Missing:\n\n' + '\n'.join(f'- {x}' for x in lacking) + '\n')
  for figure in drawn:
    if figure.picture is None:
      parts.append(f'{figure.lacks}\n')
      continue
    image = f'![{figure.title}](figures/{figure.name}.png)'
    caption = figure.picture.caption
    parts.append(f'## {figure.title}\n\n{image}\n\n{caption}\n')
  parts += [tables.markdown(grid) for grid in others]
  return '\n'.join(parts)


def _page(
  grids: Sequence[Grid], lacking: Sequence[str], drawn: Sequence[Drawn]
) -> str:
  """Returns all of it as one page that needs nothing else."""
  css = importlib.resources.files('score_jax') / 'assets' / 'report.css'
  shown = ''.join(
    f'<figure>{x.picture.svg}<figcaption id="{x.name}-caption">'
    f'{markup.escape(x.picture.caption)}</figcaption></figure>'
    for x in drawn
    if x.picture is not None
  )
  notes = [*lacking, *(x.lacks for x in drawn if x.picture is None)]
  items = ''.join(f'<li>{markup.escape(note)}</li>' for note in notes)
  main, *others = (tables.hypertext(grid) for grid in grids)
  missing = f'<div class="notes"><p>Missing:</p><ul>{items}</ul></div>'
  return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{TITLE}</title>
<style>{css.read_text('utf-8')}{WHOLE_NAMES}</style>
</head>
<body>
<main>
<h1>{TITLE}</h1>
{missing * bool(notes)}
{main}
<h2>Figures</h2>
<div class="figures">{shown}</div>
{''.join(others)}
</main>
</body>
</html>
"""
