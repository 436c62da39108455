"""The manifests of examples/kubernetes are what Kubernetes takes and what a reviewer asks for.

The schema knows names and types. What it does not know is here: the restricted profile of the
Pod Security Standards (kubernetes.io/docs/concepts/security/pod-security-standards), who has
which volume, and that each command is one of ours that can be understood.
tests/containers/test_pod.py does with real containers what they say.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
from manifests import FOLDER, Document, container, containers, environment, load, mounts

from sidecar import __version__
from sidecar.cli import hands
from sidecar.settings import Settings
from sidecar.settings import load as load_settings

PODS = ("native-sidecar.yaml", "two-containers.yaml")
OTHERS = ("networkpolicy.yaml", "secret.yaml")
CILIUM = "cilium-networkpolicy.yaml"
NEWEST = ".".join(kubernetes_validate.latest_version().split(".")[:2])
VERSIONS = ("1.29", NEWEST)

NONROOT = range(1, 2**32 - 1)
RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip


@pytest.fixture(params=PODS)
def pod(request: pytest.FixtureRequest) -> Document:
    return load(request.param)


def test_every_manifest_is_looked_at() -> None:
    assert {path.name for path in FOLDER.glob("*.yaml")} == {*PODS, *OTHERS, CILIUM}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [*PODS, *OTHERS])
def test_kubernetes_knows_every_field(name: str, version: str) -> None:
    assert kubernetes_validate.validate(load(name), version, strict=True) == version


def test_the_native_form_is_not_for_clusters_that_the_plain_one_is_for() -> None:
    native, plain = (load(name) for name in PODS)
    assert kubernetes_validate.validate(plain, "1.25", strict=True) == "1.25"
    with pytest.raises(kubernetes_validate.ValidationError, match="restartPolicy"):
        kubernetes_validate.validate(native, "1.27", strict=True)


# The restricted profile -------------------------------------------------------------------


def breaches(pod: Document) -> Iterator[str]:
    """What the restricted profile (and so the baseline one) does not allow."""
    spec = pod["spec"]
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield name
    for volume in spec["volumes"]:
        yield from (
            f"volume of type {kind}" for kind in volume.keys() - {"name"} - RESTRICTED_VOLUMES
        )
    yield from _breaches_of_context("pod", spec.get("securityContext", {}))
    for one in containers(pod):
        yield from _breaches_of_container(one, spec.get("securityContext", {}))


def _breaches_of_container(one: Document, of_pod: Document) -> Iterator[str]:
    name, own = one["name"], one.get("securityContext", {})
    effective = {**of_pod, **own}
    yield from _breaches_of_context(name, own)
    if any("hostPort" in port for port in one.get("ports", ())):
        yield f"{name}: host port"
    if own.get("privileged") or own.get("procMount", "Default") != "Default":
        yield f"{name}: privileged, or /proc unmasked"
    if any("host" in handler for handler in _handlers(one)):  # since 1.34
        yield f"{name}: a probe or hook that asks another host"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: privilege escalation"
    if effective.get("runAsNonRoot") is not True or effective.get("runAsUser") not in NONROOT:
        yield f"{name}: may be root"
    if effective.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield f"{name}: no seccomp profile"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", ()):
        yield f"{name}: capabilities are not dropped"
    if set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield f"{name}: capabilities are added"


def _handlers(one: Document) -> Iterator[Document]:
    """What probes and hooks do, whichever kind of thing it is."""
    probes = [
        one[name] for name in ("startupProbe", "livenessProbe", "readinessProbe") if name in one
    ]
    for each in [*probes, *one.get("lifecycle", {}).values()]:
        yield from (kind for kind in each.values() if isinstance(kind, dict))


def _breaches_of_context(where: str, context: Document) -> Iterator[str]:
    for name in ("seLinuxOptions", "appArmorProfile", "sysctls", "windowsOptions"):
        if name in context:  # some values would be allowed; these pods need none
            yield f"{where}: {name}"


def test_the_restricted_profile_is_kept(pod: Document) -> None:
    assert list(breaches(pod)) == []


@pytest.mark.parametrize(
    "change, breach",
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, "volume of type hostPath"),
        ({"securityContext": {}}, "agent: no seccomp profile"),
        ({"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}, "agent: may be root"),
    ],
)
def test_a_breach_is_found_in_a_pod(change: Document, breach: str) -> None:
    pod = load(PODS[1])
    pod["spec"] |= change
    assert breach in list(breaches(pod))


@pytest.mark.parametrize(
    "change, breach",
    [
        ({"allowPrivilegeEscalation": True}, "privilege escalation"),
        ({"privileged": True}, "privileged, or /proc unmasked"),
        ({"capabilities": {}}, "capabilities are not dropped"),
        ({"capabilities": {"drop": ["ALL"], "add": ["SYS_PTRACE"]}}, "capabilities are added"),
        ({"runAsUser": 0}, "may be root"),
    ],
)
def test_a_breach_is_found_in_a_container(change: Document, breach: str) -> None:
    pod = load(PODS[0])
    container(pod, "agent")["securityContext"] |= change
    assert f"agent: {breach}" in list(breaches(pod))


def test_a_probe_of_another_host_is_found() -> None:
    pod = load(PODS[0])
    container(pod, "sidecar")["livenessProbe"] = {"httpGet": {"host": "169.254.169.254"}}
    assert "sidecar: a probe or hook that asks another host" in list(breaches(pod))


# What is apart ----------------------------------------------------------------------------


def test_core_and_agent_are_different_users_and_neither_can_write_to_its_image(
    pod: Document,
) -> None:
    contexts = {one["name"]: one["securityContext"] for one in containers(pod)}
    assert contexts["sidecar"]["runAsUser"] == contexts["install"]["runAsUser"] == 10001
    assert contexts["agent"]["runAsUser"] == 10002
    groups = {contexts["sidecar"]["runAsGroup"], contexts["agent"]["runAsGroup"]}
    assert pod["spec"]["securityContext"]["fsGroup"] not in groups
    assert len(groups) == 2
    assert all(context["readOnlyRootFilesystem"] for context in contexts.values())


def test_they_share_a_socket_and_nothing_else_that_either_can_write(pod: Document) -> None:
    shared = {
        volume["name"]: set(mounts(pod, volume["name"]))
        for volume in pod["spec"]["volumes"]
        if {"sidecar", "agent"} <= set(mounts(pod, volume["name"]))
    }
    assert shared == {"socket": {"sidecar", "agent"}}
    assert mounts(pod, "folder")["agent"]["readOnly"] is True
    assert pod["spec"]["shareProcessNamespace"] is False


@pytest.mark.parametrize("volume", ["token", "state"])
def test_only_core_has_the_token_and_the_state(pod: Document, volume: str) -> None:
    assert set(mounts(pod, volume)) == {"sidecar"}


@pytest.mark.parametrize("volume", ["workspace", "tmp"])
def test_only_the_agent_has_its_files(pod: Document, volume: str) -> None:
    assert set(mounts(pod, volume)) == {"agent"}


def test_the_token_is_a_file_that_the_kubelet_exchanges(pod: Document) -> None:
    """It does not where `subPath` is (kubernetes.io/docs/concepts/storage/volumes, subPath)."""
    mount = mounts(pod, "token")["sidecar"]
    assert (mount["readOnly"], mount.get("subPath")) == (True, None)
    [volume] = [one for one in pod["spec"]["volumes"] if one["name"] == "token"]
    [source] = volume["projected"]["sources"]
    assert volume["projected"]["defaultMode"] == 0o400
    [item] = source["secret"]["items"]
    secret = load("secret.yaml")
    assert source["secret"]["name"] == secret["metadata"]["name"]
    assert item["key"] in secret["stringData"]
    file = environment(container(pod, "sidecar"))["SIDECAR_TOKEN_FILE"]
    assert file == f"{mount['mountPath']}/{item['path']}"


def test_no_secret_is_in_the_environment_and_none_of_the_cluster_is_mounted(pod: Document) -> None:
    assert not any("valueFrom" in one for each in containers(pod) for one in each.get("env", ()))
    assert not any("envFrom" in each for each in containers(pod))
    assert pod["spec"]["automountServiceAccountToken"] is False


# What the commands are --------------------------------------------------------------------


def settings(pod: Document) -> Settings:
    return load_settings(environment(container(pod, "sidecar")))


def test_the_settings_of_core_are_complete_and_name_what_is_mounted(pod: Document) -> None:
    found = settings(pod)
    assert found.hands.startswith(mounts(pod, "socket")["sidecar"]["mountPath"])
    # Below the volume: the volume's own folder belongs to root.
    assert str(found.state_folder.parent) == mounts(pod, "state")["sidecar"]["mountPath"]
    assert container(pod, "sidecar")["args"] == ["run"]


def test_hands_listens_where_core_connects_and_lets_in_core_alone(
    pod: Document, tmp_path: Path
) -> None:
    agent = container(pod, "agent")
    program, verb, *arguments = agent["command"]
    assert (program, verb) == ("/opt/sidecar/bin/sidecar", "hands")
    assert mounts(pod, "folder")["agent"]["mountPath"] == "/opt/sidecar"
    workspace = mounts(pod, "workspace")["agent"]["mountPath"]
    here = [str(tmp_path) if word == workspace else word for word in arguments]
    found = hands.parse([*here, *agent["args"]])
    assert found.socket == settings(pod).hands
    assert found.core_uids == [container(pod, "sidecar")["securityContext"]["runAsUser"]]
    assert found.workspace == str(tmp_path) and workspace == agent["workingDir"]
    assert found.command == agent["args"]


def probes(pod: Document) -> dict[str, list[str]]:
    core = container(pod, "sidecar")
    found = {name: core[name] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    found |= core["lifecycle"]
    return {name: one["exec"]["command"] for name, one in found.items()}


@pytest.mark.parametrize("name", ["livenessProbe", "readinessProbe", "preStop"])
def test_a_probe_is_a_verb_that_asks_the_sidecar(pod: Document, tmp_path: Path, name: str) -> None:
    """Here it finds none; for a flag that is none it would say so."""
    program, *words = probes(pod)[name]
    assert program == "/opt/sidecar/bin/sidecar"
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", *words],
        env={**os.environ, "SIDECAR_STATE": str(tmp_path), "SIDECAR_RUN": "demo-1"},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, "no sidecar answers" in done.stderr) == (2, True), done.stderr


def test_liveness_does_not_ask_for_the_hub_and_readiness_does(pod: Document) -> None:
    asked = {name: words[1:] for name, words in probes(pod).items()}
    assert asked["startupProbe"] == asked["livenessProbe"] == ["health", "--live"]
    assert asked["readinessProbe"] == ["health"]


def test_there_is_time_to_drain(pod: Document) -> None:
    assert pod["spec"]["terminationGracePeriodSeconds"] >= settings(pod).drain + 20


def test_images_have_a_version_and_ours_is_this_one(pod: Document) -> None:
    for one in containers(pod):
        name, _, tag = one["image"].partition("@")[0].rpartition(":")
        assert name and tag and tag != "latest" and "/" not in tag
        if one["name"] != "agent":
            assert tag == __version__


def test_everybody_has_requests_and_a_bound_of_memory(pod: Document) -> None:
    for one in containers(pod):
        assert {"cpu", "memory"} <= one["resources"]["requests"].keys()
        assert "memory" in one["resources"]["limits"]
    for volume in pod["spec"]["volumes"]:
        assert "emptyDir" not in volume or "sizeLimit" in volume["emptyDir"]


def test_services_of_the_namespace_do_not_become_settings(pod: Document) -> None:
    """A Service `sidecar-hub` would put SIDECAR_HUB_PORT in the environment, which is none."""
    assert pod["spec"]["enableServiceLinks"] is False


def test_both_forms_are_the_same_but_for_what_makes_a_sidecar_native() -> None:
    native, plain = (load(name) for name in PODS)
    core = native["spec"]["initContainers"].pop()
    assert core.pop("restartPolicy") == "Always"
    plain_core = plain["spec"]["containers"].pop(0)
    assert core == plain_core
    policies = native["spec"].pop("restartPolicy"), plain["spec"].pop("restartPolicy")
    assert policies == ("Never", "OnFailure")
    assert native == plain


def test_the_socket_is_there_before_the_native_sidecar_and_the_sidecar_before_the_agent() -> None:
    native = load(PODS[0])
    assert [one["name"] for one in containers(native)] == ["install", "sidecar", "agent"]


# Network policies -------------------------------------------------------------------------


@pytest.mark.parametrize("name", PODS)
def test_both_policies_select_the_pods(name: str) -> None:
    labels = load(name)["metadata"]["labels"].items()
    plain = load("networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"]
    cilium = load(CILIUM)["spec"]["endpointSelector"]["matchLabels"]
    assert plain == cilium
    assert plain.items() <= labels


def test_nobody_may_reach_the_pod_and_it_reaches_names_and_the_port_of_the_hub() -> None:
    spec = load("networkpolicy.yaml")["spec"]
    assert (spec["policyTypes"], spec["ingress"]) == (["Ingress", "Egress"], [])
    names, hub = spec["egress"]
    assert {(one["protocol"], one["port"]) for one in names["ports"]} == {("UDP", 53), ("TCP", 53)}
    assert hub["ports"] == [{"protocol": "TCP", "port": port_of_hub()}]
    excepted = {cidr for one in hub["to"] for cidr in one["ipBlock"]["except"]}
    assert {"10.0.0.0/8", "169.254.0.0/16", "fe80::/10"} <= excepted


def test_by_name_the_pod_reaches_the_hub_and_the_endpoint_once_dns_has_shown_where_they_are() -> (
    None
):
    document = load(CILIUM)
    assert (document["apiVersion"], document["kind"]) == ("cilium.io/v2", "CiliumNetworkPolicy")
    assert document["spec"].keys() == {"endpointSelector", "ingress", "egress"}
    assert document["spec"]["ingress"] == [{}]  # selects nobody, and so denies everybody
    names, hub = document["spec"]["egress"]
    assert names.keys() == {"toEndpoints", "toPorts"} and hub.keys() == {"toFQDNs", "toPorts"}
    asked, reached = names["toPorts"][0]["rules"]["dns"], hub["toFQDNs"]
    assert asked == reached  # toFQDNs knows the addresses that the DNS proxy has seen, no others
    hosts = [one["matchName"] for one in reached]
    assert hosts == [urlsplit(settings(load(PODS[0])).hub).hostname, "platform.example.com"]
    assert all(re.fullmatch(r"[a-z0-9.-]+", host) for host in hosts)
    ports = [port for rule in (names, hub) for one in rule["toPorts"] for port in one["ports"]]
    assert ports == [
        {"port": "53", "protocol": "ANY"},
        {"port": str(port_of_hub()), "protocol": "TCP"},
    ]


def port_of_hub() -> int:
    url: Any = urlsplit(settings(load(PODS[0])).hub)
    assert url.scheme == "wss"
    return url.port or 443
