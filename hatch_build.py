"""Build hook: `jobs/api` becomes the package `satpipe` itself, in a wheel and in an editable install."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

API = ("__init__.py", "py.typed")


class Layout(BuildHookInterface):  # type: ignore[type-arg]
    """Makes `jobs/api` the package itself. An editable install uses links in `.dev`, in the layout of a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files of the API to a wheel, or create the links of an editable install."""
        if version != "editable":
            build_data["force_include"].update({f"jobs/api/{name}": f"satpipe/{name}" for name in API})
            return
        root = Path(self.root)
        package = root / ".dev" / "satpipe"
        package.mkdir(parents=True, exist_ok=True)
        for source in ("sat", "pipeline", "jobs", "reports", *(f"jobs/api/{name}" for name in API)):
            link = package / Path(source).name
            link.unlink(missing_ok=True)
            link.symlink_to(root / source)
