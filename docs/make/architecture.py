"""Print the rooms of the house, their floors and every arrow between them; exit code 1 where one points upwards.

    python -m docs.make.architecture            # prints them
    python -m docs.make.architecture --write    # writes them into docs/architecture.md, between the markers

The table of rooms is ``ROOMS`` of tests/test_layering.py; the arrows are read out of the source.
"""

import argparse
import re
import sys
from pathlib import Path

from tests.test_layering import DOORS, FILES, ROOMS, ROOT, circle, graph, room_graph, room_of, upwards

__all__ = ["arrows", "main", "rooms", "verdict", "written"]

PAGE = Path(__file__).parents[1] / "architecture.md"


def place(room: str) -> str:
    """The folder or file of a room."""
    path = room.replace(".", "/")
    return f"{path}/" if (ROOT / path).is_dir() else f"{path}.py"


def rooms() -> str:
    """The table of rooms, from the ground floor up."""
    lines = ["| floor | room | purpose |", "| ---: | --- | --- |"]
    for room, (floor, says) in sorted(ROOMS.items(), key=lambda item: item[1][0]):
        lines.append(f"| {floor} | `{place(room)}` | {says} |")
    lines += [f"| door | `{door}/__init__.py` | {reason} |" for door, (_, reason) in DOORS.items()]
    return "\n".join(lines)


def arrows() -> str:
    """One line for each room: its floor, its name and the rooms that it imports."""
    found = room_graph()
    width = max(map(len, ROOMS))
    order = sorted(ROOMS, key=lambda room: (ROOMS[room][0], room))
    lines = [f"{ROOMS[room][0]:>2} {room:<{width}} -> {_targets(room, found[room])}".rstrip(" ->") for room in order]
    return "\n".join(["```text", *lines, "```"])


def _targets(room: str, targets: set[str]) -> str:
    """Names of rooms, those of the same package without it."""
    own = f"{room.split('.')[0]}."
    return ", ".join(sorted((target.removeprefix(own) for target in targets), key=lambda name: ("." in name, name)))


def verdict() -> tuple[str, list[str]]:
    """What the graph is like, in one sentence, and its faults."""
    faults = upwards()
    for what, found in (("files", circle(graph())), ("rooms", circle(room_graph()))):
        faults += [f"a circle of {what}: {' -> '.join(found)}"] if found else []
    files = sum(room_of(name) is not None for name in graph())
    count = sum(map(len, room_graph().values()))
    floors = len({floor for floor, _ in ROOMS.values()})
    said = f"{files} of {len(FILES)} files in {len(ROOMS)} rooms on {floors} floors, {count} arrows"
    return f"{said}; {'; '.join(faults) if faults else 'no arrow upwards, no circle'}.", faults


def written(page: str) -> str:
    """The page with what stands between its markers made again."""
    parts = {"rooms": rooms(), "arrows": f"{arrows()}\n\n{verdict()[0]}"}
    for name, text in parts.items():
        block = f"<!-- {name} -->\n{text}\n<!-- end -->"
        page = re.sub(rf"<!-- {name} -->\n.*?<!-- end -->", lambda _, block=block: block, page, flags=re.DOTALL)
    return page


def main(argv: list[str] | None = None) -> int:
    """Print or write; 1 where the graph has faults."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} instead of printing")
    args = parser.parse_args(argv)
    said, faults = verdict()
    if args.write:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(rooms(), arrows(), sep="\n\n")
    print(said)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
