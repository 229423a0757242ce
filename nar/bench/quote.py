"""Documents that quote reports: their tables and pictures are written, never typed."""

import pathlib
import re
from collections.abc import Mapping

from nar.bench.figures import figures
from nar.bench.report import Report
from nar.bench.table import tables
from nar.errors import NarError
from nar.files import write

TABLE = re.compile(r"(<!-- report (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
PICTURE = re.compile(r"\]\(([^)\s]*?([^/)\s]+)/([a-z_]+)\.svg)\)")


def quote(document: pathlib.Path, reports: Mapping[str, Report]) -> None:
    """Writes the tables and pictures of reports that a document shows.

    A table goes between `<!-- report NAME -->` and `<!-- end -->`; a picture is a link to
    `.../NAME/PICTURE.svg`, and its file is drawn.

    Args:
        document: Markdown.
        reports: by name.

    Raises:
        NarError: the document shows none, or one that is not given, or an unknown picture;
            nothing has been written then.
    """
    text = document.read_text()
    pictures = PICTURE.findall(text)
    names = [name for _, name, _ in TABLE.findall(text)] + [name for _, name, _ in pictures]
    if not names:
        raise NarError(f"{document} quotes no report: write <!-- report NAME --> and <!-- end -->")
    if missing := [name for name in names if name not in reports]:
        raise NarError(f"{document} quotes {missing[0]!r}: given were {', '.join(reports)}")
    drawn = {name: figures(reports[name]) for _, name, _ in pictures}
    for link, name, picture in pictures:
        if picture not in drawn[name]:
            raise NarError(f"{document} shows {link}: pictures are {', '.join(drawn[name])}")

    def block(match: re.Match[str]) -> str:
        found = "\n\n".join(table.markdown() for table in tables([reports[match[2]]]))
        return f"{match[1]}{found}\n{match[3]}"

    for link, name, picture in pictures:
        write(document.parent / link, drawn[name][picture])
    write(document, TABLE.sub(block, text))
