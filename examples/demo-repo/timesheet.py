"""Adds up a timesheet: how long was worked on each project.

    python3 timesheet.py hours.txt

Each line of the file holds a date, a duration and a project:

    2025-03-03 1h30m website
    2025-03-03 45m   support
"""

import re
import sys

DURATION = re.compile(r"(\d+)h(?:(\d+)m)?")


def parse_duration(text):
    """Minutes in a duration such as `2h`, `1h30m` or `45m`."""
    match = DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"not a duration: {text!r}")
    hours, minutes = match.groups()
    return int(hours) * 60 + int(minutes or 0)


def format_duration(minutes):
    """A duration such as `1h30m`, always with both parts."""
    return f"{minutes // 60}h{minutes % 60:02}m"


def totals(lines):
    """Minutes per project, in the order in which projects first appear."""
    result = {}
    for line in lines:
        if not line.strip():
            continue
        _date, duration, project = line.split(maxsplit=2)
        project = project.strip()
        result[project] = result.get(project, 0) + parse_duration(duration)
    return result


def main(arguments):
    if len(arguments) != 2:
        print(f"usage: {arguments[0]} FILE", file=sys.stderr)
        return 2
    with open(arguments[1], encoding="utf-8") as file:
        for project, minutes in totals(file).items():
            print(f"{format_duration(minutes):>8}  {project}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
