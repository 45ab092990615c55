"""Colours of heat maps: lightness changes evenly from near that of the background, so that equal steps look equal.

Computed in Oklch, the polar form of Oklab (Björn Ottosson, "A perceptual color space for image processing", 2020).
"""

import numpy as np
import numpy.typing as npt

STEPS = 64
# Lightness, chroma and hue at the minimum and the maximum.
_LIGHT = ((0.965, 0.008, 150.0), (0.30, 0.13, 285.0))
_DARK = ((0.27, 0.015, 270.0), (0.95, 0.13, 110.0))
_MIDDLE_CHROMA = 0.11
_TO_LMS = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def ramp(*, dark: bool = False) -> list[str]:
    """Return colours from the minimum to the maximum, such as "#0a7f6b", for light paper or a dark screen."""
    (low, low_chroma, low_hue), (high, high_chroma, high_hue) = _DARK if dark else _LIGHT
    along = np.linspace(0, 1, STEPS)
    lightness = np.interp(along, [0, 1], [low, high])
    chroma = np.interp(along, [0, 0.5, 1], [low_chroma, _MIDDLE_CHROMA, high_chroma])
    hue = np.radians(np.interp(along, [0, 1], [low_hue, high_hue]))
    rgb = _srgb(np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=1))
    return ["#" + bytes(colour.tolist()).hex() for colour in np.rint(255 * rgb).astype(np.uint8)]


def _srgb(oklab: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Convert Oklab to sRGB, [n, 3]; colours outside sRGB are clipped."""
    linear = np.clip((oklab @ _TO_LMS.T) ** 3 @ _TO_RGB.T, 0, 1)
    return np.asarray(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))
