"""`sidecar install DIR`: this folder again, on a volume, for an image that we are not in.

An init container runs it, and the agent's container mounts the volume at the path that the folder
was made for. No image of the agent has to change for that.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sidecar.cli.foldercopy import Busy, NotOurs, build_of, copy_folder
from sidecar.cli.output import complain

EX_CANTCREAT, EX_TEMPFAIL, EX_CONFIG = 73, 75, 78  # sysexits(3)


@click.command(short_help="Put the sidecar into a volume.")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
def install(directory: Path) -> int:
    """Copy the self-contained folder that this sidecar runs from into DIR, an empty directory
    or one that has an earlier copy. Whoever mounts DIR where the folder stands here, at
    /opt/sidecar, can start /opt/sidecar/bin/sidecar, whatever image that is in.

    If DIR has this build already, nothing is done. bin/sidecar is there only when all of the rest
    is.

    \b
    Examples:
      sidecar install /target       in an init container that mounts the volume there
      podman run --rm -v sidecar:/target IMAGE install /target

    \b
    Exit status: 0 it is there, 1 it failed, 2 bad command line, 73 DIR has other things in it,
    75 another install is at work there, 78 this sidecar runs from no such folder.
    """
    source = Path(sys.prefix)
    if build_of(source) is None:
        complain(
            f"{source} is no self-contained folder: `sidecar install` runs in the image `sidecar`,"
            " or in one that has its /opt/sidecar"
        )
        return EX_CONFIG
    try:
        was_there = not copy_folder(source, directory, complain)
    except NotOurs as error:
        complain(str(error))
        return EX_CANTCREAT
    except Busy as error:
        complain(str(error))
        return EX_TEMPFAIL
    complain(
        f"{directory} has this build already"
        if was_there
        else f"{directory} is ready to be mounted at {source}"
    )
    return 0
