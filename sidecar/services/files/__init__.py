"""`files.*`: what is done to files, inside the workspace.

Hands opens, makes and renames; core moves the bytes. A file that is written is never seen half
done: the bytes go to its part, and the rename comes after size and digest were found right.
"""

from __future__ import annotations

from sidecar.context import Handler, Resumer
from sidecar.services.files import (
    appending,
    archive,
    changing,
    copying,
    editing,
    listing,
    looking,
    reading,
    searching,
    uploading,
    watching,
    writing,
)

HANDLERS: dict[str, Handler] = {
    "files.read": reading.read,
    "files.write": writing.write,
    "files.upload": uploading.upload,
    "files.append": appending.append,
    "files.edit": editing.edit,
    "files.list": listing.list_directory,
    "files.glob": listing.glob,
    "files.stat": looking.stat,
    "files.search": searching.search,
    "files.watch": watching.watch,
    "files.archive": archive.archive,
    "files.extract": archive.extract,
    "files.copy": copying.copy,
    "files.mkdir": changing.mkdir,
    "files.move": changing.move,
    "files.link": changing.link,
    "files.chmod": changing.chmod,
    "files.remove": changing.remove,
}
RESUMERS: dict[str, Resumer] = {
    "files.read": reading.resume_read,
    "files.write": uploading.resume_write,
    "files.archive": archive.resume_archive,
}
