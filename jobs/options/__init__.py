"""The options of every command, each defined once; one module for each group of commands.

Nothing here imports torch, Ray, pandas or click: `satpipe --help` and shell completion read these modules.
"""
