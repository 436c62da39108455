"""Makes a folder that has all a Python program needs, down to the C library and its loader.

    folder.py interpreter DIR             this Python, its standard library, its shared libraries
    folder.py packages DIR WHEELS NAMES   what pip finds of NAMES in WHEELS, a directory
    folder.py program DIR NAME MODULE     DIR/bin/NAME calls MODULE.main(); all is compiled

in this order. The folder then runs in any Linux image of its architecture, with whatever C library
or none, at the path where it was made: DIR stands in the ELF files (as interpreter and search path,
elf(5), ld.so(8)), in the first line of DIR/bin/NAME, and in the compiled files.

- DT_RPATH, not DT_RUNPATH: it goes before LD_LIBRARY_PATH, which may name libraries of the image.
- DF_1_NODEFLIB: none of the image's libraries is taken for one of ours (say, a plug-in of its
  nsswitch.conf, made for another C library).
- bin has nothing but NAME in it, so that PATH may name it and `python3` stays the image's.
- Sources stay beside the compiled files, for tracebacks and for whoever wants to read them.
- `.build` has the digest of all of it.
- Licences go to share/licenses, as far as dpkg knows them; packages carry their own.

Needs ldd, patchelf and pip. Runs on an environment (venv) of the Python that it copies, which may
be Debian's own or built from source.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

# Of the standard library: what only a developer at a desk uses, and what Python 3.12 and 3.13 no
# longer have (PEP 594 and others), so that no package can rely on it.
LEFT_OUT = re.compile(
    r"__pycache__|site-packages|dist-packages|sitecustomize\.py|EXTERNALLY-MANAGED|config-.*"
    r"|(curses|dbm|ensurepip|idlelib|pydoc_data|sqlite3|tests?|tkinter|turtle|turtledemo|venv)(\.py)?"
    r"|(_curses|_curses_panel|_dbm|_gdbm|_sqlite3|_tkinter|_test\w*|_ctypes_test|_?xx\w*|readline)"
    r"\..*so"
    r"|(aifc|asynchat|asyncore|cgi|cgitb|chunk|crypt|distutils|imghdr|imp|lib2to3|mailcap|msilib"
    r"|nntplib|pipes|smtpd|sndhdr|sunau|telnetlib|uu|xdrlib)(\.py)?"
    r"|(_crypt|audioop|nis|ossaudiodev|spwd)\..*so"
)
# Of the packages: what rich colours source code and draws Markdown with, a tenth of it all.
PACKAGES_LEFT_OUT = ("markdown_it*", "mdurl*", "pygments*")
# Asked for by the C library when it runs, so that ldd does not know of them.
ASKED_FOR_LATER = ("libgcc_s.so.1", "libnss_compat.so.2", "libnss_dns.so.2", "libnss_files.so.2")

# -I: nothing of PYTHONPATH, PYTHONHOME, the working directory and the user's own packages.
PROGRAM = """\
#!{folder}/libexec/python3 -I
from {module} import main

if __name__ == "__main__":
    main()
"""


def make_interpreter(folder: Path) -> None:
    """The interpreter in `libexec`, its libraries in `lib`, the standard library where it looks."""
    base = Path(sys.base_prefix)
    stdlib = Path(sysconfig.get_path("stdlib"))
    python = folder / "libexec/python3"
    python.parent.mkdir(parents=True)
    shutil.copy(Path(sys.executable).resolve(), python)
    shutil.copytree(stdlib, folder / stdlib.relative_to(base), ignore=_left_out)
    loader = Path(_patchelf("--print-interpreter", python))
    libraries = _add_libraries(folder, [python, *folder.rglob("*.so")])
    shutil.copy(loader, folder / "lib" / loader.name)
    _patchelf("--set-interpreter", folder / "lib" / loader.name, python)
    _patchelf("--force-rpath", "--set-rpath", folder / "lib", python)
    _add_licences(folder, [Path(sys.executable).resolve(), loader, *libraries])


def add_packages(folder: Path, wheels: Path, names: list[str]) -> None:
    """To where the interpreter looks for them, which differs between builders of Python."""
    asking = "import site; print(site.getsitepackages()[-1])"
    place = _output(folder / "libexec/python3", "-I", "-c", asking)
    pip = [sys.executable, "-m", "pip", "install", "--no-index", f"--find-links={wheels}"]
    subprocess.run([*pip, "--no-compile", f"--target={place}", *names], check=True)
    shutil.rmtree(Path(place, "bin"), ignore_errors=True)  # programs of this interpreter
    for pattern in PACKAGES_LEFT_OUT:
        for package in Path(place).glob(pattern):
            shutil.rmtree(package)


def add_program(folder: Path, name: str, module: str) -> None:
    """The last step: the program, and nothing that a reader or the loader would miss."""
    program = folder / "bin" / name
    program.parent.mkdir()
    program.write_text(PROGRAM.format(folder=folder, module=module))
    program.chmod(0o755)
    elves = [path for path in folder.rglob("*") if _is_elf(path)]
    _add_libraries(folder, [path for path in elves if path.parent != folder / "lib"])
    for path in elves:
        _search_here_only(folder, path)
    compiling = ["-m", "compileall", "-q", "-f", "-j0", "--invalidation-mode=unchecked-hash"]
    _output(folder / "libexec/python3", "-I", *compiling, folder / "lib")
    (folder / ".build").write_text(f"{_digest(folder)}\n")


def _left_out(directory: str, names: list[str]) -> set[str]:
    return {name for name in names if LEFT_OUT.fullmatch(name)}


def _add_libraries(folder: Path, elves: list[Path]) -> list[Path]:
    """Puts what `elves` are linked to into `lib`, unless it is there; where it came from."""
    found: dict[str, Path] = {}
    for elf in elves:
        for name, path in _linked_to(elf).items():
            if not (folder / "lib" / name).exists():
                found[name] = path
    for name in ASKED_FOR_LATER if "libc.so.6" in found else ():
        path = found["libc.so.6"].with_name(name)
        if path.exists():
            found[name] = path
    for name, path in found.items():
        shutil.copy(path.resolve(), folder / "lib" / name)
    return list(found.values())


def _linked_to(elf: Path) -> dict[str, Path]:
    """By name, as ldd(1) prints it: `libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x7f...)`."""
    told = subprocess.run(["ldd", elf], capture_output=True, text=True, check=True).stdout
    missing = re.findall(r"(\S+) => not found", told)
    if missing:
        raise SystemExit(f"{elf} needs {', '.join(missing)}, which this image does not have")
    return {name: Path(path) for name, path in re.findall(r"(\S+) => (/\S+) \(", told)}


def _search_here_only(folder: Path, elf: Path) -> None:
    """What has no search path of its own inherits the interpreter's, by being loaded by it."""
    name = elf.name
    if name == "libc.so.6" or elf == folder / "libexec/python3":
        _patchelf("--no-default-lib", elf)
    elif own := _patchelf("--print-rpath", elf):
        _patchelf("--force-rpath", "--set-rpath", f"{own}:{folder}/lib", elf)


def _is_elf(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _digest(folder: Path) -> str:
    """Tells builds apart, as `sidecar install` has to."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder)}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()


def _patchelf(*words: str | Path) -> str:
    return _output("patchelf", *words)


def _output(*command: str | Path) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def _add_licences(folder: Path, copied: list[Path]) -> None:
    """Of the packages that the files came from, and the common texts that those refer to."""
    target = folder / "share/licenses"
    target.mkdir(parents=True)
    if shutil.which("dpkg") is None:
        return
    for package in sorted({package for path in copied if (package := _package_of(path))}):
        text = Path("/usr/share/doc", package, "copyright").resolve()
        shutil.copy(text, target / package)
    said = "".join(path.read_text(errors="replace") for path in target.iterdir())
    for name in sorted(set(re.findall(r"/usr/share/common-licenses/([\w.-]*\w)", said))):
        if (common := Path("/usr/share/common-licenses", name)).exists():
            shutil.copy(common.resolve(), target / name)


def _package_of(path: Path) -> str | None:
    """Debian's; it may know a file by its name from before /lib became a link to /usr/lib."""
    for name in (path, path.resolve(), Path(str(path.resolve()).removeprefix("/usr"))):
        done = subprocess.run(["dpkg", "-S", name], capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout.partition(":")[0]
    return None


if __name__ == "__main__":
    os.umask(0o022)
    match sys.argv[1:]:
        case ["interpreter", folder]:
            make_interpreter(Path(folder))
        case ["packages", folder, wheels, *names]:
            add_packages(Path(folder), Path(wheels), names)
        case ["program", folder, name, module]:
            add_program(Path(folder), name, module)
        case _:
            raise SystemExit(__doc__)
