"""Reading a page's data as its scripts do."""

import json
import re
from pathlib import Path
from typing import Any

RECEIVE = re.compile(r'receive\("([\w-]+)",(.*)\);\n')


def data(page: Path) -> dict[str, Any]:
    """What the files in data/ hand to the scripts, by name; each file under its own name."""
    found = {}
    for file in (page / "data").iterdir():
        call = RECEIVE.fullmatch(file.read_text(encoding="ascii"))
        assert call is not None and call[1] == file.stem
        found[file.stem] = json.loads(call[2])
    return found


def cells(page: Path) -> list[dict[str, Any]]:
    """The photographs of a gallery in their order, by the names of what is shown of them."""
    content = data(page)
    names = (
        "name",
        "folder",
        "thumb",
        "width",
        "height",
        "score",
        "group",
        "percentile",
        "rated",
        "slices",
    )
    details = ("link", "points", "votes", "rated_votes", "note")
    found = []
    for i in range(content["page"]["count"]):
        number, place = divmod(i, content["page"]["chunk"])
        cell = dict(zip(names, content[f"photographs-{number}"][place], strict=False))
        number, place = divmod(i, content["page"]["details"])
        cell |= dict(zip(details, content[f"details-{number}"][place], strict=True))
        found.append(cell | {"folder": content["page"]["folders"][cell["folder"]]})
    return found
