"""The maps of an overview, as pictures."""


def pictures(found, folder):
    return []
