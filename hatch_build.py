"""Build hook: an editable install sees the folders of this repository as the packages of `satpipe`."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class LinkTree(BuildHookInterface):  # type: ignore[type-arg]
    """Link `.dev/satpipe` to the sources, in the layout that a wheel has; `dev-mode-dirs` puts `.dev` on the path."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the links for an editable install."""
        if version != "editable":
            return
        root = Path(self.root)
        package = root / ".dev" / "satpipe"
        package.mkdir(parents=True, exist_ok=True)
        for source in ("sat", "pipeline", "jobs", "reports", "jobs/api/__init__.py", "jobs/api/py.typed"):
            link = package / Path(source).name
            link.unlink(missing_ok=True)
            link.symlink_to(root / source)
