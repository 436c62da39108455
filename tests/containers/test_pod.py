"""The pods of examples/kubernetes in real containers: core and hands apart, as their manifests say.

`kubelet` starts, exchanges and ends what the manifests name, with podman; the hub is in this
process. Only the images, the hub's address and the token are not those of the files.
"""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import attacks
import pytest
import yaml
from images import Images
from kubelet import Kubelet
from manifests import Document, container, load
from podman import Engine

from sidecar.client import CallError, Code, Controller, Cursor, Event, Run, Started, Terminal
from sidecar.hub import Hub, HubSettings, serve
from sidecar.protocol.names import controller_grant, sidecar_grant

NATIVE, PLAIN = "native-sidecar.yaml", "two-containers.yaml"
RUN = "demo-1"
SECRET = "sandbox-demo-1"
CORE, AGENT = 10001, 10002
TIME = 30.0  # seconds

in_thread = anyio.to_thread.run_sync


@dataclass
class Pod:
    """One pod that runs, and a controller of its run."""

    kubelet: Kubelet
    hub: Hub
    run: Run

    def token(self, lifetime: float = 300.0) -> str:
        return self.hub.mint(sidecar_grant(RUN), lifetime)

    async def status(self) -> dict[str, Any]:
        found = (await self.run.info())["channel"]
        assert isinstance(found, dict)
        return found


def fit(document: Document, images: Images, hub: str) -> Document:
    """What a user puts into the manifest: images and the hub."""
    pod = copy.deepcopy(document)
    for name in ("install", "sidecar"):
        container(pod, name)["image"] = images.sidecar
    container(pod, "agent")["image"] = images.bare
    for variable in container(pod, "sidecar")["env"]:
        if variable["name"] == "SIDECAR_HUB":
            variable["value"] = hub
    return pod


Open = Callable[..., Any]


@pytest.fixture
async def open_pod(engine: Engine, images: Images, tmp_path: Path) -> AsyncIterator[Open]:
    """Starts a pod; `change` may change its manifest before."""
    async with AsyncExitStack() as exits:

        async def start(
            name: str,
            *,
            change: Callable[[Document], None] = lambda pod: None,
            lifetime: float = 300.0,
            endpoint: bool = False,
        ) -> Pod:
            hub = Hub(HubSettings(platform=endpoint))
            hub.faults.enforce_expiry = True  # a connection ends with its token
            address = await exits.enter_async_context(serve(hub))
            document = fit(load(name), images, address.client_url)
            change(document)
            token = hub.mint(sidecar_grant(RUN), lifetime)
            if endpoint:
                ask_endpoint(document, address.endpoint)
                token = hub.mint_run_token(RUN)
            secrets = {SECRET: {"token": token}}
            kubelet = Kubelet(engine, document, tmp_path, secrets)
            exits.push_async_callback(in_thread, kubelet.remove)
            await in_thread(kubelet.start)
            access = hub.mint(controller_grant("me", [RUN]))
            url = f"{address.client_url}?access_token={access}"
            controller = await exits.enter_async_context(Controller.connect(url, controller="me"))
            run = await controller.attach(RUN, timeout=TIME)
            await connected(run)
            return Pod(kubelet, hub, run)

        yield start


async def connected(run: Run) -> None:
    """Until core has hands."""
    with anyio.fail_after(TIME):
        while (await run.info())["hands"]["state"] != "connected":  # noqa: ASYNC110
            await anyio.sleep(0.05)


def share_processes(pod: Document) -> None:
    pod["spec"]["shareProcessNamespace"] = True


# Both halves at work ----------------------------------------------------------------------


@pytest.mark.parametrize("name", [NATIVE, PLAIN])
async def test_core_and_hands_work_together_from_two_containers(open_pod: Open, name: str) -> None:
    pod = await open_pod(name)
    run: Run = pod.run
    info = await run.info()
    assert (info["form"], info["trust"]) == ("socket", "isolated")

    told = await run.exec("id -u; id -G; pwd; cat >&2; exit 5", input=b"in")
    assert told.stdout == b"10002\n10002 10003\n/workspace\n"
    assert (told.stderr, told.status) == (b"in", 5)

    shell = "stty size; read line; stty size; tty -s && exit 7"
    async with run.process(shell, terminal=Terminal(20, 70), stdin=True) as program:
        assert await program.stdout.receive() == b"20 70\r\n"
        await program.remote.resize(30, 90)
        await program.write(b"\r")
        rest = [chunk async for chunk in program.stdout]
        assert b"".join(rest).endswith(b"30 90\r\n")
        assert (await program.wait()).status == 7

    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert await in_thread(pod.kubelet.probe, "sidecar", kind) == 0
    assert "defect" not in await in_thread(pod.kubelet.logs, "sidecar")


@pytest.mark.parametrize("change", [share_processes, lambda pod: None], ids=["shared", "apart"])
async def test_files_are_read_written_searched_and_watched_across_the_border(
    open_pod: Open, change: Callable[[Document], None]
) -> None:
    """Core cannot touch the workspace: descriptors of the files come over the socket."""
    pod = await open_pod(NATIVE, change=change)
    run: Run = pod.run
    content = bytes(range(256)) * 4096 * 4  # 4 MiB
    async with run.files.watch() as watch:
        await run.files.write("folder/big", content, parents=True)
        seen: set[Any] = set()
        with anyio.fail_after(TIME):
            while "folder/big" not in seen:
                seen |= {change.path for change in (await watch.receive()).changes}
    assert await run.files.read("folder/big") == content
    there = pod.kubelet.volume("workspace") / "folder/big"
    assert (there.stat().st_uid, there.read_bytes() == content) == (AGENT, True)

    await run.files.write("folder/text", b"one\nneedle here\n")
    found = await run.files.search("needle")
    assert [(line.path, line.number) for line in found.lines] == [("folder/text", 2)]


async def test_a_program_is_killed_with_all_that_it_started(open_pod: Open) -> None:
    pod = await open_pod(NATIVE)
    remote = await pod.run.start("setsid sleep 4242 & sleep 4242")
    ended = await remote.kill(grace=1.0)
    assert ended.signal is not None
    left = await pod.run.exec("cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c '42[4]2'; true")
    assert left.stdout == b"0\n"


# One of them goes -------------------------------------------------------------------------


async def test_the_agents_container_may_be_killed_and_come_back(open_pod: Open) -> None:
    pod = await open_pod(PLAIN)  # its restartPolicy is OnFailure
    run, agent = pod.run, pod.kubelet.name("agent")
    events = run.events(after=Cursor())
    await next_event(events, "hands.connected")
    await in_thread(pod.kubelet.engine.run, "kill", "-s", "KILL", agent)
    assert (await next_event(events, "hands.away")).data["why"]
    assert (await run.info())["hands"]["state"] == "away"
    assert await in_thread(pod.kubelet.probe, "sidecar", "livenessProbe") == 0
    assert await in_thread(pod.kubelet.probe, "sidecar", "readinessProbe") == 0
    with pytest.raises(CallError) as caught:
        await run.exec("true")
    assert (caught.value.code, caught.value.started) == (Code.HANDS_AWAY, Started.NO)

    await in_thread(pod.kubelet.restart, "agent")
    met = await next_event(events, "hands.connected")
    assert (met.data["uid"], met.data["trust"]) == (AGENT, "isolated")
    assert (await run.exec("echo back")).stdout == b"back\n"


async def test_core_may_be_killed_and_comes_back_to_its_programs(open_pod: Open) -> None:
    pod = await open_pod(NATIVE)
    run, core = pod.run, pod.kubelet.name("sidecar")
    async with run.open("exec.run", {"shell": "echo before; sleep 3; echo after; exit 3"}) as call:
        stdout = call.receiver(1)
        assert await stdout.receive() == b"before\n"
        await in_thread(pod.kubelet.engine.run, "kill", "-s", "KILL", core)
        await in_thread(pod.kubelet.restart, "sidecar")
        with anyio.fail_after(TIME):
            assert await stdout.receive() == b"after\n"
            assert (await call.wait())["status"] == 3


async def next_event(events: Any, name: str) -> Event:
    with anyio.fail_after(TIME):
        while True:
            event = await events.receive()
            if isinstance(event, Event) and event.name == name:
                return event


# The token --------------------------------------------------------------------------------


def hand_over(pod: Document) -> None:
    container(pod, "sidecar")["env"].append({"name": "SIDECAR_HANDOVER", "value": "always"})


async def test_a_token_that_the_kubelet_exchanges_is_used_before_the_old_one_lapses(
    open_pod: Open,
) -> None:
    """Without a restart, and without a pause of the channel."""
    pod = await open_pod(NATIVE, change=hand_over, lifetime=12.0)
    before = await pod.run.info()
    secrets = {SECRET: {"token": pod.token(300.0)}}
    await in_thread(pod.kubelet.exchange, "token", secrets)
    with anyio.fail_after(TIME):
        while (await pod.status())["handovers"] == 0:  # noqa: ASYNC110
            await anyio.sleep(0.1)
    after = await pod.run.info()
    assert after["incarnation"] == before["incarnation"]
    assert after["token"]["expires_in"] > 200
    assert (after["channel"]["recoveries"], after["channel"]["reason"]) == (0, None)


def ask_endpoint(pod: Document, url: str) -> None:
    """The other form of README.md: the Secret holds the first run token."""
    names = {"SIDECAR_HUB": "SIDECAR_ENDPOINT", "SIDECAR_TOKEN_FILE": "SIDECAR_RUN_TOKEN_FILE"}
    for variable in container(pod, "sidecar")["env"]:
        variable["name"] = names.get(variable["name"], variable["name"])
        if variable["name"] == "SIDECAR_ENDPOINT":
            variable["value"] = url


async def test_core_gets_its_tokens_at_the_endpoint_with_a_run_token_from_the_secret(
    open_pod: Open,
) -> None:
    pod = await open_pod(NATIVE, endpoint=True)
    info = await pod.run.info()
    assert (info["token"]["source"], info["trust"]) == ("endpoint", "isolated")
    kept = list(pod.kubelet.volume("state").rglob("run-token*"))
    assert [(file.stat().st_uid, oct(file.stat().st_mode & 0o777)) for file in kept] == [
        (CORE, "0o600")
    ]


# The hub ----------------------------------------------------------------------------------


async def test_a_pod_starts_and_stays_alive_without_a_hub(
    engine: Engine, images: Images, tmp_path: Path
) -> None:
    """It is not ready, and that is all."""
    hub = Hub(HubSettings())
    async with serve(hub) as address:
        secrets = {SECRET: {"token": hub.mint(sidecar_grant(RUN))}}
    document = fit(load(NATIVE), images, address.client_url)  # where nobody is any more
    kubelet = Kubelet(engine, document, tmp_path, secrets)
    try:
        await in_thread(kubelet.start)  # which waits for the startup probe before the agent
        assert await in_thread(kubelet.probe, "sidecar", "livenessProbe") == 0
        assert await in_thread(kubelet.probe, "sidecar", "readinessProbe") == 1
        assert "hands listens" in await in_thread(kubelet.logs, "agent")
    finally:
        await in_thread(kubelet.remove)


# The wall ---------------------------------------------------------------------------------

PYTHON = "/opt/sidecar/libexec/python3"
TOKEN, STATE = "/run/secrets/sidecar/token", "/var/lib/sidecar/run"
FIND_CORE = f"grep -l '^Uid:.{CORE}' /proc/[0-9]*/status | cut -d / -f 3"


async def attack(run: Run, target: dict[str, Any]) -> bytes:
    """As the agent, by way of hands."""
    source = Path(attacks.__file__).read_bytes()
    done = await run.exec([PYTHON, "-", json.dumps(target)], input=source)
    assert done.status == 0, done.stderr
    return done.stdout


async def test_with_a_shared_pid_namespace_no_way_leads_the_agent_to_core(open_pod: Open) -> None:
    pod = await open_pod(NATIVE, change=share_processes)
    [pid] = (await pod.run.exec(FIND_CORE)).stdout.split()
    root = f"/proc/{int(pid)}/root"
    answer = await attack(
        pod.run,
        {
            "pid": int(pid),
            "uid": CORE,
            "folders": [root + STATE, f"{root}{STATE}/journal"],
            "files": [root + TOKEN, f"{root}{STATE}/state.json"],
            "sockets": [f"{root}{STATE}/admin.sock", f"{root}{STATE}/agent.sock"],
        },
    )
    assert len(json.loads(answer)) > 50
    otherwise = attacks.breaches(answer)  # than a file that is seen: here no way leads to any
    assert {way.split()[0] for way in otherwise} == {"chmod"}
    assert set(otherwise.values()) == {"EACCES"}
    assert await in_thread(pod.kubelet.probe, "sidecar", "readinessProbe") == 0


async def test_without_one_the_agent_finds_nothing_of_core(open_pod: Open) -> None:
    pod = await open_pod(NATIVE)
    assert (await pod.run.exec(FIND_CORE)).stdout == b""
    own = {"folders": [STATE], "files": [TOKEN], "sockets": [f"{STATE}/admin.sock"], "uid": CORE}
    found = attacks.breaches(await attack(pod.run, own))
    assert set(found.values()) == {"ENOENT"}
    assert not [way for way in found if way.startswith("set")]


async def test_the_agent_cannot_be_core_of_its_hands(open_pod: Open) -> None:
    pod = await open_pod(NATIVE)
    knock = "import socket; s = socket.socket(1); s.connect('/run/sidecar/hands.sock'); s.recv(1)"
    await pod.run.exec([PYTHON, "-c", knock], timeout=10)
    logged = await in_thread(pod.kubelet.logs, "agent")
    assert f"of uid {AGENT}: it may not be core here" in logged
    assert (await pod.run.exec(["true"])).status == 0


# The end ----------------------------------------------------------------------------------

COUNT = "trap 'echo told; exit 9' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"


@pytest.mark.parametrize("name", [NATIVE, PLAIN])
async def test_a_pod_that_is_deleted_tells_all_of_it_to_the_end(open_pod: Open, name: str) -> None:
    """The agent is told to end, hands ends its programs, core tells how, and then ends itself."""
    pod = await open_pod(name)
    heard: list[str] = []
    output = bytearray()

    async def listen() -> None:
        async for event in pod.run.events(reader="audit"):
            heard.append(event.name)

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        async with pod.run.open("exec.run", {"shell": COUNT}) as call:
            stdout = call.receiver(1)
            output += await stdout.receive()
            statuses = await in_thread(pod.kubelet.terminate)
            async for chunk in stdout:
                output += chunk
            assert (await call.wait())["status"] == 9
        group.cancel_scope.cancel()
    assert output.endswith(b"\ntold\n")
    assert statuses == {"sidecar": 0, "agent": 128 + 15}  # of core, and of the agent's command
    hook = pod.kubelet.hooks["sidecar"]
    assert (hook.returncode, hook.stdout) == (0, "run demo-1 ended: nothing left over\n")
    # A durable reader has acked all of it, or the drain would have waited.
    assert {"exec.started", "sidecar.draining", "exec.ended"} <= set(heard)


# podman's own idea of a pod ---------------------------------------------------------------


def adapt(pod: Document, kubelet: Kubelet) -> Document:
    """For `podman kube play` 4.3: it takes 20 s for an init container, and knows neither projected
    volumes nor fsGroup nor hooks; a probe would need systemd."""
    adapted = copy.deepcopy(pod)
    adapted["spec"] |= {"hostNetwork": True, "initContainers": []}
    for one in adapted["spec"]["containers"]:
        for name in ("startupProbe", "livenessProbe", "readinessProbe", "lifecycle"):
            one.pop(name, None)
        one["securityContext"]["runAsGroup"] = kubelet.group  # for fsGroup
    adapted["spec"]["volumes"] = [
        {"name": one["name"], "hostPath": {"path": str(kubelet.volume(one["name"]))}}
        for one in pod["spec"]["volumes"]
    ]
    return adapted


async def test_podman_plays_the_pod_of_two_containers(
    engine: Engine, images: Images, tmp_path: Path
) -> None:
    hub = Hub(HubSettings())
    async with serve(hub) as address:
        document = fit(load(PLAIN), images, address.client_url)
        secrets = {SECRET: {"token": hub.mint(sidecar_grant(RUN))}}
        kubelet = Kubelet(engine, document, tmp_path, secrets)
        await in_thread(kubelet.make_volumes)
        await in_thread(kubelet.run_to_end, "install")
        manifest = tmp_path / "pod.yaml"
        manifest.write_text(yaml.safe_dump(adapt(document, kubelet)))
        await in_thread(lambda: engine.run("kube", "play", manifest, timeout=120))
        try:
            url = f"{address.client_url}?access_token={hub.mint(controller_grant('me', [RUN]))}"
            async with Controller.connect(url, controller="me") as controller:
                run = await controller.attach(RUN, timeout=TIME)
                await connected(run)
                assert (await run.info())["trust"] == "isolated"
                told = await run.exec("id -u; grep -hE 'CapBnd|NoNewPrivs' /proc/self/status")
                assert told.stdout.split() == [
                    b"10002",
                    b"CapBnd:",
                    b"0" * 16,
                    b"NoNewPrivs:",
                    b"1",
                ]
        finally:
            await in_thread(lambda: engine.run("kube", "down", manifest, timeout=120))
