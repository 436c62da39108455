"""An image that starts as root: two lines in a bare Debian, and three capabilities.

The kernel keeps what runs as the agent from everything that is core's, in a container as it is
run in earnest: read-only, hardened, with the capabilities that have to be and no others.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import anyio
import attacks
import pytest
from boxes import STATE, UID, Box, open_box, until
from images import Images
from podman import Engine

from sidecar.client import CallError, Run

AGENT = 10002
PYTHON = "/opt/sidecar/libexec/python3"
IMAGE = "localhost/supervised:test"
CONTAINERFILE = """\
FROM {bare}
COPY --from={sidecar} /opt/sidecar /opt/sidecar
ENV SIDECAR_STATE={state} SIDECAR_WORKSPACE=/work
WORKDIR /work
HEALTHCHECK --interval=1h CMD ["/opt/sidecar/bin/sidecar", "health"]
ENTRYPOINT ["/opt/sidecar/bin/sidecar", "supervise", "--"]
CMD ["sleep", "600"]
"""
# CHOWN: the folders are those of a volume and a tmpfs that were just made.
CAPABILITIES = "--cap-add=SETUID,SETGID,KILL,CHOWN"
FLAGS = ("--user=0", CAPABILITIES, "--tmpfs=/work:mode=1777")

# One process: what has ended since the folder was listed is passed over, and nothing else is.
LIST = f"""exec {PYTHON} -I -c '
import pathlib
for file in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    try:
        words = file.read_bytes().split(bytes(1))
    except (FileNotFoundError, ProcessLookupError):
        continue
    print(file.parent.name, *(word.decode() for word in words))
'"""

with_and_without_init = pytest.mark.parametrize(
    "flags", [pytest.param((), id="alone"), pytest.param(("--init",), id="with an init")]
)


@pytest.fixture(scope="module")
def image(engine: Engine, images: Images, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("supervised")
    words = CONTAINERFILE.format(bare=images.bare, sidecar=images.sidecar, state=STATE)
    (folder / "Containerfile").write_text(words)
    engine.build(IMAGE, folder, network=False)
    return IMAGE


async def said(box: Box, word: str) -> list[str]:
    return [line for line in await box.log() if word in line]


async def shell(run: Run, line: str) -> str:
    return (await run.exec(["sh", "-c", line])).check().stdout.decode().strip()


async def pids_of(run: Run, what: str) -> list[int]:
    """Of our programs, by the verb in their command line."""
    lines = (await shell(run, LIST)).splitlines()
    assert any(line.startswith("1 ") for line in lines), lines
    return [int(line.split()[0]) for line in lines if f" -m sidecar {what}" in line]


@with_and_without_init
async def test_the_agent_gets_at_nothing_of_cores(
    engine: Engine, image: str, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    async with open_box(engine, image, tmp_path, *FLAGS, *flags) as box:
        run = await box.attach()
        assert (await run.info())["trust"] == "isolated"
        assert await shell(run, "id -u; id -G; pwd") == f"{AGENT}\n{AGENT}\n/work"
        [core] = await pids_of(run, "run")
        program = Path(attacks.__file__).read_text()
        for target in attacks.targets(core, UID, STATE, ["/run/secret/token"]):
            done = (await run.exec([PYTHON, "-I", "-c", program, json.dumps(target)])).check()
            assert len(json.loads(done.stdout)) > 35
            assert attacks.breaches(done.stdout) == {}, target
        assert await pids_of(run, "run") == [core]


async def test_nothing_that_runs_as_the_agent_or_core_has_a_capability(
    engine: Engine, image: str, tmp_path: Path
) -> None:
    async with open_box(engine, image, tmp_path, *FLAGS) as box:
        run = await box.attach()
        look = "grep -hE 'Uid|CapInh|CapPrm|CapEff|CapAmb|NoNewPrivs' /proc/{}/status"
        for what in ("run", "hands"):
            [pid] = await pids_of(run, what)
            words = (await shell(run, look.format(pid))).split()
            assert words[1:5] == [str(UID if what == "run" else AGENT)] * 4
            assert words[6::2] == [f"{0:016x}"] * 4 + ["1"]
        assert "Uid:\t0\t0" in await shell(run, look.format(1))


@with_and_without_init
async def test_what_crashes_comes_back_and_zombies_do_not_stay(
    engine: Engine, image: str, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    async with open_box(engine, image, tmp_path, *FLAGS, *flags) as box:
        run = await box.attach()
        [core] = await pids_of(run, "run")
        kill = ("sh", "-c", f"kill -9 {core}")  # by root, which has CAP_KILL
        await box.podman("exec", box.name, *kill)
        await until(lambda: said(box, "starting it again in 0.1 s"))

        async def is_back() -> bool:
            return await pids_of(run, "run") not in ([core], [])

        await until(is_back)
        [hands] = await pids_of(run, "hands")
        with pytest.raises(CallError):
            await run.exec(["sh", "-c", f"(setsid sleep 0.1 &); kill -9 {hands}; sleep 60"])
        await until(lambda: said(box, "hands ended with status 137"))
        assert await shell(run, "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null; true") == ""


@with_and_without_init
async def test_sigterm_drains_and_the_commands_status_is_the_containers(
    engine: Engine, image: str, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    async with open_box(engine, image, tmp_path, *FLAGS, *flags) as box:
        await box.attach()
        began = anyio.current_time()
        await box.podman("stop", "--time=25", box.name)
        assert anyio.current_time() - began < 15
        assert await box.ended() == 128 + signal.SIGTERM  # of `sleep`
        assert await said(box, "core ended with status 0")


async def test_a_health_check_of_root_needs_no_further_capability(
    engine: Engine, image: str, tmp_path: Path
) -> None:
    async with open_box(engine, image, tmp_path, *FLAGS) as box:
        await box.attach()
        assert await box.health() == 0
        await box.podman("healthcheck", "run", box.name)
        # The container may end under its feet.
        await box.podman("exec", box.name, "/opt/sidecar/bin/sidecar", "drain", check=False)
        assert await box.ended() == 0  # core's: it had the first word


@pytest.mark.parametrize(
    "flags, status, words",
    [
        (("--user=10002",), 77, "we are uid 10002, without CAP_SETUID"),
        (("--user=0",), 77, "without CAP_SETUID, without CAP_SETGID, without CAP_KILL"),
        (("--user=0", "--cap-add=SETUID,SETGID,KILL"), 77, "CAP_CHOWN is missing"),
        ((*FLAGS, "--env=SIDECAR_TOKEN=x"), 78, "SIDECAR_TOKEN is set: put the token into a file"),
        ((*FLAGS, "--read-only-tmpfs=false"), 77, "/run/sidecar cannot be made: Read-only file"),
    ],
)
async def test_the_first_line_says_what_is_wrong(
    engine: Engine, image: str, tmp_path: Path, flags: tuple[str, ...], status: int, words: str
) -> None:
    async with open_box(engine, image, tmp_path, *flags) as box:
        assert await box.ended() == status
        [line] = await box.log()
        assert line.startswith("sidecar supervise: ")
        assert words in line


async def test_a_token_that_everybody_may_read_is_refused(
    engine: Engine, image: str, tmp_path: Path
) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open/token").write_text("x")
    volume = f"--volume={tmp_path}/open:/open:ro"
    async with open_box(engine, image, tmp_path, *FLAGS, volume, token_file="/open/token") as box:
        assert await box.ended() == 77
        assert "the agent, uid 10002, may read /open/token: chown 10001" in (await box.log())[0]
