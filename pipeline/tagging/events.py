"""Events of a run: lines of its log with a name and values, which a log in JSON shows."""

from typing import Any


def event(name: str, **values: Any) -> dict[str, Any]:
    """Return the `extra` of a line of the log that is an event."""
    return {"event": name, "values": values}
