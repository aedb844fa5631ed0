"""A CSV or TSV file as rows by column name. What would be lost or mixed up in silence is refused with its
line."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from feature_extraction.errors import UserError
from feature_extraction.files import read_text

SEPARATORS = ",;\t"


def read_table(
    path: Path, needed: Mapping[str, Sequence[str]], skip_blanks: bool = True
) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows as (line on which the row starts, cell by column), every column in every row; cells as written. Rows
    of blanks are passed over.

    Column names are told apart without letter case and outer blanks. `needed` maps what is needed, in words,
    to the columns of which one must be there. The separator is the comma, semicolon or tab with which the
    first line names most of them, then the one it holds most often. Blanks after a separator are no part of
    the cell with `skip_blanks`, or where the first line has such a blank. Raises `UserError` naming the line for a
    column that lacks or comes twice, a cell without a column, and a quote that is not closed.
    """
    text = read_text(path)
    header = re.split(r"[\r\n]", text, maxsplit=1)[0]
    separator = max(SEPARATORS, key=lambda mark: (_recognised(header.split(mark), needed), header.count(mark)))
    blanks = skip_blanks or f"{separator} " in header
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=blanks, strict=True)
    line = 1
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        _check_columns(path, columns, needed)
        while True:
            line = reader.line_num + 1
            cells = next(reader, None)
            if cells is None:
                return
            if not any(cell.strip() for cell in cells):
                continue
            if surplus := [cell for cell in cells[len(columns) :] if cell.strip()]:
                raise UserError(
                    f"{path}, line {line}: {surplus[0]!r} is in no column (the first line has {len(columns)}); "
                    "put a cell that holds the separator into quotes, or name the column"
                )
            yield line, dict.fromkeys(columns, "") | dict(zip(columns, cells, strict=False))
    except csv.Error as error:
        raise UserError(f"{path}, line {line}: not valid CSV ({error})") from None


def _recognised(names: list[str], needed: Mapping[str, Sequence[str]]) -> int:
    found = {name.strip().strip('"').lower() for name in names}
    return sum(bool(found & set(wanted)) for wanted in needed.values())


def _check_columns(path: Path, columns: list[str], needed: Mapping[str, Sequence[str]]) -> None:
    for what, names in needed.items():
        if not set(names) & set(columns):
            choice = f" (one of {', '.join(names)})" if len(names) > 1 else ""
            raise UserError(f"{path}: no column {what}{choice}; the first line has: {', '.join(columns) or 'nothing'}")
    if twice := [name for name in columns if name and columns.count(name) > 1]:
        raise UserError(
            f"{path}, line 1: the column {twice[0]!r} is there twice; rename one, or join them (labels: a;b)"
        )
