"""Satpipe: tags long audio recordings. The names here load what they need when first used."""

from importlib.metadata import version

__version__ = version("satpipe")
