"""The images, and the folder /opt/sidecar in images of others."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from images import ROOT, Images
from podman import HARDENED, Engine

from sidecar import __version__
from sidecar.cli.main import VERBS

SIZE = 70_000_000  # bytes of the image `sidecar`, unpacked
SIDECAR = ("/opt/sidecar/bin/sidecar",)
PYTHON = ["--entrypoint=/opt/sidecar/libexec/python3"]
QUICK = ("run", "--rm", "--network=none")

# An image that is hostile without meaning to be: its variables and files are for a Python and a C
# library of its own, and what it calls python3 is none.
ODD = """\
FROM {bare}
RUN mkdir /odd && printf 'raise SystemExit("odd")' >/odd/sitecustomize.py \\
    && cp /odd/sitecustomize.py /odd/os.py \\
    && for name in libc.so.6 libssl.so.3 libcrypto.so.3 libz.so.1 libffi.so.8 libgcc_s.so.1; do \\
           echo no library >/odd/$name; done \\
    && echo no library >/usr/lib/libnss_odd.so.2 \\
    && printf '#!/bin/sh\\necho this is odd\\n' >/usr/local/bin/python3 \\
    && chmod 755 /usr/local/bin/python3 \\
    && printf 'hosts: odd [!UNAVAIL=return] files\\npasswd: odd compat\\n' >/etc/nsswitch.conf \\
    && useradd --uid 10001 --create-home odd
COPY --from={folder} /opt/sidecar /opt/sidecar
ENV PYTHONPATH=/odd PYTHONHOME=/odd PYTHONSTARTUP=/odd/os.py OPENSSL_CONF=/odd/os.py \\
    LC_ALL=odd_ODD.UTF-8
USER 10001
WORKDIR /home/odd
ENTRYPOINT ["/opt/sidecar/bin/sidecar"]
CMD ["dev"]
"""
HARMFUL = "LD_LIBRARY_PATH=/odd"  # would stop all programs of a Debian, but not the sidecar


@pytest.fixture(scope="module")
def odd(engine: Engine, images: Images, tmp_path_factory: pytest.TempPathFactory) -> str:
    """With the folder of `dev`, which is that of `sidecar` and the hub."""
    context = tmp_path_factory.mktemp("odd")
    (context / "Containerfile").write_text(ODD.format(bare=images.bare, folder=images.dev))
    engine.build("localhost/odd:test", context, network=False)
    return "localhost/odd:test"


@contextmanager
def running(engine: Engine, image: str, *words: str) -> Iterator[str]:
    """A container whose sidecar serves: `sidecar dev`."""
    name = engine.output("run", "-d", "--network=none", *words, image)
    try:
        until = time.monotonic() + 20
        while engine.run("exec", name, *SIDECAR, "ping", check=False).returncode:
            assert time.monotonic() < until, engine.run("logs", name).stderr
            time.sleep(0.2)
        yield name
    finally:
        engine.remove(name)


def python(engine: Engine, image: str, code: str, *flags: str) -> str:
    """What our own Python prints, isolated as it is when it runs the sidecar."""
    return engine.output(*QUICK, *PYTHON, *flags, image, "-I", "-c", code)


# what is in it -------------------------------------------------------------------------------


def test_the_image_says_what_it_is_and_how_it_is_run(engine: Engine, images: Images) -> None:
    image = engine.inspect(images.sidecar)
    assert image["Healthcheck"]["Test"] == ["CMD", "/opt/sidecar/bin/sidecar", "health"]
    config = image["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["/opt/sidecar/bin/sidecar"]
    assert config["Cmd"] == ["run"]
    assert config["WorkingDir"] == "/workspace"
    assert config["StopSignal"] == "SIGTERM"
    assert list(config["Volumes"]) == ["/var/lib/sidecar"]
    assert "SIDECAR_STATE=/var/lib/sidecar" in config["Env"]
    label = "org.opencontainers.image."
    assert config["Labels"][f"{label}version"] == __version__
    assert config["Labels"][f"{label}title"] == "sidecar"
    assert config["Labels"][f"{label}licenses"] == "Apache-2.0"
    assert {f"{label}description", f"{label}revision"} <= set(config["Labels"])


def test_the_image_is_small(engine: Engine, images: Images) -> None:
    assert engine.inspect(images.sidecar)["Size"] <= SIZE


def test_there_is_nothing_else_in_the_image(engine: Engine, images: Images) -> None:
    code = """
import os
print(*sorted(os.listdir("/")), "|", *os.listdir("/opt"), "|", *sorted(os.listdir("/opt/sidecar")))
print(*os.listdir("/opt/sidecar/bin"), *os.listdir("/opt/sidecar/libexec"))
for place in "/tmp", "/workspace", "/var/lib/sidecar", "/opt/sidecar/bin/sidecar":
    found = os.stat(place)
    print(place, oct(found.st_mode & 0o7777), found.st_uid)
"""
    root, places, *modes = python(engine, images.sidecar, code).splitlines()
    made_by_engine = {"dev", "etc", "proc", "run", "sys"}
    shown, opt, folder = (set(part.split()) for part in root.split("|"))
    assert shown - made_by_engine == {"opt", "tmp", "var", "workspace"}
    assert (opt, folder) == (
        {"sidecar"},
        {".build", "bin", "lib", "libexec", "share"},
    )
    assert places.split() == ["sidecar", "python3"]
    assert modes == [
        "/tmp 0o1777 0",
        "/workspace 0o755 10001",
        "/var/lib/sidecar 0o700 10001",
        "/opt/sidecar/bin/sidecar 0o755 0",
    ]


def test_the_folder_belongs_to_root_and_lends_nobody_rights(engine: Engine, images: Images) -> None:
    code = """
import os
for folder, _, names in os.walk("/opt/sidecar"):
    for path in [folder, *(os.path.join(folder, name) for name in names)]:
        found = os.lstat(path)
        if found.st_uid or found.st_gid or found.st_mode & 0o6022 or os.listxattr(path):
            print(path, oct(found.st_mode), found.st_uid)
"""
    assert python(engine, images.dev, code) == ""


def test_every_source_is_compiled_and_is_not_looked_at_again(
    engine: Engine, images: Images
) -> None:
    """The header of a .pyc: magic number, flags; 1 is `unchecked-hash` (PEP 552)."""
    code = """
import importlib.util, pathlib
count = 0
for source in pathlib.Path("/opt/sidecar/lib").rglob("*.py"):
    compiled = pathlib.Path(importlib.util.cache_from_source(source))
    if not compiled.exists() or compiled.read_bytes()[4:8] != bytes([1, 0, 0, 0]):
        print(source)
    count += 1
print(count > 500)
"""
    assert python(engine, images.dev, code) == "True"


def test_what_starts_comes_from_compiled_files(engine: Engine, images: Images) -> None:
    done = engine.run(
        *QUICK, *PYTHON, images.sidecar, "-I", "-v", "-c", "import sidecar.runtime"
    ).stderr
    loaded = [line for line in done.splitlines() if "code object from" in line]
    assert len(loaded) > 100
    assert [line for line in loaded if not line.endswith(".pyc'")] == []


def test_no_tools_of_builders_are_in_it(engine: Engine, images: Images) -> None:
    code = """
import importlib.util
names = "pip", "ensurepip", "setuptools", "venv", "hatchling", "tkinter", "test", "distutils"
print(*(name for name in names if importlib.util.find_spec(name)))
"""
    assert python(engine, images.dev, code) == ""


def test_licences_of_what_was_copied_are_there(engine: Engine, images: Images) -> None:
    found = python(
        engine, images.sidecar, 'import os; print(*os.listdir("/opt/sidecar/share/licenses"))'
    )
    assert {"libc6", "libssl3", "python3.11-minimal", "LGPL-2.1"} <= set(found.split())


# it needs nothing of its image -----------------------------------------------------------------


def test_all_modules_find_what_they_import(engine: Engine, images: Images) -> None:
    code = """
import importlib, pkgutil, sidecar
names = [found.name for found in pkgutil.walk_packages(sidecar.__path__, "sidecar.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names) > 150)
"""
    assert python(engine, images.dev, code) == "True"


def test_all_verbs_can_be_asked_for_help_with_nothing_around(
    engine: Engine, images: Images
) -> None:
    code = f"""
import subprocess
for verb in {list(VERBS)}:
    done = subprocess.run(["/opt/sidecar/bin/sidecar", verb, "--help"], capture_output=True)
    if done.returncode or done.stderr or not done.stdout.startswith(b"Usage"):
        print(verb, done)
"""
    assert python(engine, images.dev, code, *HARDENED) == ""


def test_it_runs_hardened_with_nothing_around_it(engine: Engine, images: Images) -> None:
    done = engine.run(*QUICK, *HARDENED, images.sidecar, check=False)
    assert done.returncode == 78
    assert "SIDECAR_RUN is missing" in done.stderr


def test_its_python_takes_nothing_from_an_odd_image(engine: Engine, odd: str) -> None:
    code = """
import ctypes, os, socket, ssl, sys, uuid
assert all(path.startswith("/opt/sidecar/") for path in sys.path), sys.path
socket.getaddrinfo("friend.test", 443)
ssl.create_default_context()
assert sys.getfilesystemencoding() == "utf-8"
assert ctypes.CDLL(None).getpid() == os.getpid()
with open("/proc/self/maps") as maps:
    mapped = {line.split()[5] for line in maps if len(line.split()) > 5}
print(*(path for path in mapped if path.startswith("/") and not path.startswith("/opt/sidecar/")))
"""
    flags = ["--add-host=friend.test:192.0.2.1", "-e", HARMFUL]
    assert python(engine, odd, code, *flags) == ""


def test_users_are_found_by_the_rules_of_an_odd_image(engine: Engine, odd: str) -> None:
    code = "import pwd; print(pwd.getpwuid(10001).pw_name, pwd.getpwnam('root').pw_uid)"
    assert python(engine, odd, code) == "odd 0"


def test_an_odd_image_keeps_its_own_python(engine: Engine, odd: str) -> None:
    told = engine.output(
        *QUICK,
        "--entrypoint=sh",
        odd,
        "-c",
        "PATH=/opt/sidecar/bin:$PATH; python3; which -a python3",
    )
    assert told.split("\n")[0] == "this is odd"
    assert "/opt/sidecar" not in told


def test_programs_in_an_odd_image_get_its_variables_and_none_of_ours(
    engine: Engine, odd: str, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    places = ("--tmpfs=/tmp", "-v", f"{tmp_path}:/home/odd")
    with running(engine, odd, *HARDENED, *places) as name:

        def sidecar(*words: str) -> str:
            return engine.output("exec", name, *SIDECAR, *words)

        told = dict(line.split("=", 1) for line in sidecar("exec", "--", "env").splitlines())
        theirs = dict(
            line.split("=", 1) for line in engine.output("exec", name, "env").splitlines()
        )
        assert set(told) - set(theirs) <= {"SIDECAR_EXEC_ID", "PWD", "HOSTNAME"}
        assert {name: theirs[name] for name in told if name in theirs} == {
            name: told[name] for name in told if name in theirs
        }
        assert sidecar("exec", "--", "python3") == "this is odd"

        done = engine.run("exec", name, *SIDECAR, "exec", "--", "sh", "-c", "echo needle >hay")
        assert done.stderr == ""
        assert "hay" in sidecar("ls")
        assert "needle" in sidecar("search", "needle")  # by a child of our own Python
        assert json.loads(sidecar("info", "--json"))["version"] == __version__


# building and spreading ---------------------------------------------------------------------


def test_it_is_built_without_a_network_from_a_directory_of_wheels(
    engine: Engine, images: Images, tmp_path: Path
) -> None:
    base, wheels = {"BASE_IMAGE": images.base}, tmp_path / "wheels"
    engine.build(
        "localhost/wheelhouse:test",
        ROOT,
        target="wheelhouse",
        arguments=base,
        flags=[f"--output=type=local,dest={wheels}"],
    )
    engine.build(
        "localhost/sidecar:offline",
        ROOT,
        arguments=base,
        flags=["--no-cache", f"--build-context=wheelhouse={wheels}"],
        network=False,
    )
    build = "print(open('/opt/sidecar/.build').read())"
    assert python(engine, "localhost/sidecar:offline", build) == python(
        engine, images.sidecar, build
    ), "the same sources make the same folder"


def test_it_is_baked_into_an_image_by_an_argument(engine: Engine, images: Images) -> None:
    tag = "localhost/baked:test"
    arguments = {"BASE_IMAGE": images.base, "FINAL_IMAGE": images.bare}
    engine.build(tag, ROOT, arguments=arguments)
    assert engine.output(*QUICK, *HARDENED, tag, "--version") == f"sidecar {__version__}"
    assert engine.output(
        *QUICK, "--entrypoint=stat", tag, "-c%a %u", "/tmp", "/var/lib", "/usr"
    ) == ("1777 0\n755 0\n755 0")


def test_a_volume_gets_it_once_and_any_image_can_use_it(
    engine: Engine, images: Images, tmp_path: Path
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o777)  # as fsGroup does for an emptyDir
    install = (*QUICK, *HARDENED, "-v", f"{volume}:/target", images.sidecar, "install", "/target")

    first, second = engine.run(*install), engine.run(*install)
    assert "/target is ready to be mounted at /opt/sidecar" in first.stderr
    assert "/target has this build already" in second.stderr

    mounted = ("-v", f"{volume}:/opt/sidecar:ro", "--entrypoint=/opt/sidecar/bin/sidecar")
    told = engine.output(*QUICK, *HARDENED, *mounted, images.bare, "--version")
    assert told == f"sidecar {__version__}"


def test_a_volume_with_other_things_is_left_alone(
    engine: Engine, images: Images, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    done = engine.run(
        *QUICK, "--user=0", "-v", f"{tmp_path}:/target", images.sidecar, "install", "/target",
        check=False,
    )  # fmt: skip
    assert done.returncode == 73
    assert "other things in it ('bin')" in done.stderr
