"""The result of comparing precisions, without torch."""

from dataclasses import dataclass

from satpipe.sat.model.config import AUTO

WORTH = 1.1  # times as fast as fp32: less is not worth the rounded scores


@dataclass(frozen=True)
class Comparison:
    """Precisions compared on one machine.

    Attributes:
        speeds: How many times as fast as in fp32 the model is in each precision, except fp32 itself.
        host: Name of the machine.
    """

    speeds: dict[str, float]
    host: str

    @property
    def fastest(self) -> str:
        """The fastest precision; fp32 if no other is clearly faster."""
        best = max(self.speeds, key=self.speeds.__getitem__, default="fp32")
        return best if self.speeds.get(best, 0.0) >= WORTH else "fp32"

    def note(self, asked: str) -> str:
        """Return a note to a user who asked for `auto` or for a precision; "" if there is nothing to say."""
        each = ", ".join(f"{name} is {speed:.2g} times as fast as fp32" for name, speed in self.speeds.items())
        if asked == AUTO:
            return f"--precision auto: {self.fastest}{f' ({each} on {self.host})' if each else ''}"
        return f"{each} on {self.host}: --precision fp32 takes less time" if self.speeds[asked] < 1 else ""
