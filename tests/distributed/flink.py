"""A Flink cluster on one machine, with a Beam worker pool beside each of its task managers.

Each pair of a task manager and a pool has a network of its own, as in a pod of Kubernetes: there
`localhost:50000` is the pool of the task manager that asks. The job manager has one, too, so that
its ports are free. A bridge joins them all, and `nst run` with them.

`python -m tests.distributed.flink` builds what the cluster needs, once: Flink itself, and the jar
that `nst run` hands jobs to it with. They are kept in the folder that NST_FLINK names, or else in
`~/.cache/nst-flink`.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .cluster import ROOT, kill, process

_POM = Path(__file__).parent / "pom.xml"
_VERSION = "1.19"
_FLINK = f"apache-flink-libraries=={_VERSION}.*"  # Flink's own jars
_POOL_PORT = 50000
_SECONDS_TO_START = 60
_AT_WORK = 300 * 2**20  # bytes; a worker takes 140 MB when it starts, and 1 GB with TensorFlow
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Of Java 17; Flink's own configuration has them.
_OPENED = (
    *("java.base/java.lang", "java.base/java.net", "java.base/java.io", "java.base/java.nio"),
    *("java.base/sun.nio.ch", "java.base/java.lang.reflect", "java.base/java.text"),
    *("java.base/java.time", "java.base/java.util", "java.base/java.util.concurrent"),
    *("java.base/java.util.concurrent.atomic", "java.base/java.util.concurrent.locks"),
)
_JAVA = [
    "java",
    "-Dlog4j2.level=INFO",
    "-Djava.net.preferIPv4Stack=true",
    # Jobs of a minute: the better compiler would take more than it gives.
    *("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"),
    *(f"--add-opens={name}=ALL-UNNAMED" for name in _OPENED),
]
# What a night waits for, a test does not.
_QUICK = {
    "heartbeat.interval": 1000,
    "heartbeat.timeout": 10000,
    "restart-strategy.exponential-delay.initial-backoff": "2 s",
}


@functools.cache
def missing() -> str:
    """What this machine lacks for a Flink cluster, in words; nothing if it has all of it."""
    lacks = [name for name in ("java", "mvn", "ip") if not shutil.which(name)]
    if not lacks:
        name = f"nst-{os.getpid()}-trial"
        if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
            lacks.append("the right to make network namespaces (root has it)")
        else:
            _ip("netns", "del", name)
    return f"NO FLINK CLUSTER: this machine lacks {', '.join(lacks)}" if lacks else ""


@dataclass(frozen=True)
class Built:
    """What a cluster is started from.

    Attributes:
      jar: Beam's job server for Flink.
      java: the command that starts a program of Flink, up to the program's name.
      sizes: the command that divides memory, up to its own name for what it divides.
    """

    jar: Path
    java: list[str]
    sizes: list[str]


def build() -> Built:
    """Builds what is not there yet: some minutes and half a gigabyte."""
    cache = Path(os.environ.get("NST_FLINK") or Path.home() / ".cache" / "nst-flink")
    cache.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(_POM.read_bytes() + _FLINK.encode()).hexdigest()[:12]
    folder = cache / key
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two sessions at once build it once
        if not folder.exists():
            partial = cache / f"{key}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            maven = ["mvn", "-q", "-B", "-f", str(_POM), f"-Dtarget={partial / 'jar'}", "package"]
            subprocess.run(maven, check=True)
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", _FLINK]
            subprocess.run([*pip, "--target", str(partial / "flink")], check=True)
            partial.rename(folder)
    flink = folder / "flink" / "pyflink"
    divider = flink / "bin" / "bash-java-utils.jar"
    return Built(
        folder / "jar" / "flink-job-server.jar",
        [*_JAVA, "-cp", f"{flink}/lib/*"],
        ["-cp", f"{flink}/lib/*:{divider}", "org.apache.flink.runtime.util.bash.BashJavaUtils"],
    )


@dataclass
class Machine:
    """A task manager and a worker pool, each the leader of a process group.

    Attributes:
      namespace: its network.
      address: in the cluster's network.
    """

    namespace: str
    address: str
    task_manager: subprocess.Popen = field(init=False)
    pool: subprocess.Popen = field(init=False)


@dataclass
class Flink:
    """A cluster at work.

    Attributes:
      address: of the job manager's REST interface.
      options: of Beam, for `nst run`.
      machines: which die when a test wants it.
      folder: of logs.
    """

    address: str
    options: list[str]
    machines: list[Machine]
    folder: Path
    _stack: contextlib.ExitStack
    _commands: dict[str, list[str]]
    _started: int = 0

    def ask(self, path: str) -> Any:
        """What the REST interface says of something."""
        with urllib.request.urlopen(f"{self.address}/{path}", timeout=10) as answer:
            return json.load(answer)

    def jobs(self) -> dict[str, str]:
        """The states of all jobs."""
        return {job["id"]: job["status"] for job in self.ask("jobs")["jobs"]}

    def failures(self) -> list[str]:
        """Of the last job so far: what went wrong before each time that it was begun again."""
        jobs = self.ask("jobs/overview")["jobs"]
        last = max(jobs, key=lambda job: job["start-time"])["jid"]
        history = self.ask(f"jobs/{last}/exceptions")["exceptionHistory"]
        return [entry["stacktrace"] for entry in history["entries"]]

    def wait(self, seconds: float) -> None:
        """For the end of all jobs.

        Raises:
          TimeoutError: they go on.
        """
        over = {"FINISHED", "FAILED", "CANCELED"}
        _until(lambda: set(self.jobs().values()) <= over, seconds, "the end of the cluster's jobs")

    def wait_for_slots(self) -> None:
        """Until each machine has its slot free: it is there, and no job uses it.

        Raises:
          TimeoutError: not all come.
        """
        count = len(self.machines)
        _until(
            lambda: self.ask("overview")["slots-available"] == count,
            _SECONDS_TO_START,
            f"{count} free slots",
        )

    def wait_for_workers_to_end(self, seconds: float) -> None:
        """Until no pool has any that was at work: what Beam's runner forgot before that stays.

        Raises:
          TimeoutError: some go on.
        """
        groups = {str(machine.pool.pid) for machine in self.machines}

        def ended() -> bool:
            # Without a process's name: its state, parent, group, ...
            stats = [path.read_text() for path in Path("/proc").glob("[0-9]*/stat")]
            facts = [stat.rpartition(")")[2].split() for stat in stats]
            return not any(f[2] in groups and int(f[21]) * _PAGE > _AT_WORK for f in facts)

        _until(ended, seconds, "the end of all workers")

    def start_task_manager(self, machine: Machine) -> None:
        """Starts one, for the first time or because the last one was lost."""
        host = f"-Dtaskmanager.host={machine.address}"
        command = [*self._commands["task-manager"], host]
        machine.task_manager = self._start(machine.namespace, "task-manager", command)

    def start_pool(self, machine: Machine) -> None:
        """Starts one, for the first time or because the last one was lost."""
        machine.pool = self._start(machine.namespace, "pool", self._commands["pool"])

    def _start(self, namespace: str, kind: str, command: list[str]) -> subprocess.Popen:
        self._started += 1
        log = self.folder / f"{kind}-{self._started}.log"
        return self._stack.enter_context(process(_inside(namespace, command), log))

    def lose(self, machine: Machine) -> None:
        """As when a machine loses its power: the task manager, the pool and its workers."""
        kill(machine.task_manager)
        kill(machine.pool)

    def replace(self, machine: Machine) -> None:
        """A new machine in the place of a lost one, as Kubernetes starts a new pod."""
        self.start_pool(machine)
        self.start_task_manager(machine)


@contextlib.contextmanager
def flink(
    folder: Path, machines: int = 2, settings: Mapping[str, object] | None = None
) -> Iterator[Flink]:
    """Starts a cluster, and ends all of its processes and networks, whatever happens.

    Args:
      folder: for logs.
      machines: task managers, each with one slot and a worker pool.
      settings: of Flink, where they are to differ from what deploy/kubernetes has.
    """
    built = build()
    with contextlib.ExitStack() as stack:
        manager, *pairs = _network(stack, ["manager", *map(str, range(machines))])
        configuration = folder / "conf"
        configuration.mkdir()
        given = _deployed("jobmanager") | _deployed("taskmanager") | _QUICK | dict(settings or {})
        given |= {
            "jobmanager.rpc.address": manager.address,
            # Nobody here knows their names.
            "jobmanager.retrieve-taskmanager-hostname": False,
            "io.tmp.dirs": str(folder / "flink"),
        }
        (configuration / "config.yaml").write_text(yaml.safe_dump(given))
        place = ["--configDir", str(configuration)]

        def command(what: str, program: str) -> list[str]:
            """Of a program of Flink, with its memory divided as Flink's own scripts do it."""
            divide = [*_JAVA, *built.sizes, f"GET_{what}_RESOURCE_PARAMS", *place]
            told = subprocess.run(divide, check=True, capture_output=True, text=True).stdout
            mark = "BASH_JAVA_UTILS_EXEC_RESULT:"
            java, options = (
                line.removeprefix(mark).split()
                for line in told.splitlines()
                if line.startswith(mark)
            )
            return [built.java[0], *java, *built.java[1:], program, *place, *options]

        runtime = "org.apache.flink.runtime"
        entrypoint = f"{runtime}.entrypoint.StandaloneSessionClusterEntrypoint"
        managing = _inside(manager.namespace, command("JM", entrypoint))
        module = "apache_beam.runners.worker.worker_pool_main"
        commands = {
            "task-manager": command("TM", f"{runtime}.taskexecutor.TaskManagerRunner"),
            "pool": [sys.executable, "-m", module, f"--service_port={_POOL_PORT}"],
        }
        address = f"http://{manager.address}:8081"
        options = [
            "--runner=FlinkRunner",
            f"--flink_master={address}",
            f"--flink_version={_VERSION}",
            f"--flink_job_server_jar={built.jar}",
            "--environment_type=EXTERNAL",
            f"--environment_config=localhost:{_POOL_PORT}",
            f"--parallelism={machines}",
        ]
        stack.enter_context(process(managing, folder / "job-manager.log"))
        cluster = Flink(address, options, pairs, folder, stack, commands)
        for machine in pairs:
            cluster.replace(machine)
        cluster.wait_for_slots()
        yield cluster


def _deployed(component: str) -> dict[str, object]:
    """The settings of the cluster in deploy/kubernetes, so that they are tried here."""
    for document in yaml.safe_load_all((ROOT / "deploy/kubernetes/flink.yaml").read_text()):
        if document["metadata"]["name"] == f"flink-{component}":
            (variable, *_) = document["spec"]["template"]["spec"]["containers"][0]["env"]
            return yaml.safe_load(variable["value"])
    raise LookupError(component)


def _network(stack: contextlib.ExitStack, names: Sequence[str]) -> list[Machine]:
    """Network namespaces, joined by a bridge; all is gone when the stack unwinds.

    Returns:
      A machine for each name, where nothing runs yet.
    """
    _sweep()
    # Several sessions at once have different ones.
    number = os.getpid()
    subnet, bridge = f"10.{200 + number // 250 % 50}.{number % 250}", f"nst{number}"
    _ip("link", "add", bridge, "type", "bridge")
    stack.callback(_ip, "link", "del", bridge)
    _ip("addr", "add", f"{subnet}.1/24", "dev", bridge)
    _ip("link", "set", bridge, "up")
    machines = []
    for index, name in enumerate(names):
        machine = Machine(f"nst-{number}-{name}", f"{subnet}.{10 + index}")
        cable = f"nst{number}.{index}"
        _ip("netns", "add", machine.namespace)
        stack.callback(_ip, "netns", "del", machine.namespace)
        _ip("link", "add", cable, "type", "veth", "peer", "eth0", "netns", machine.namespace)
        # With the namespace it would go, too, but later, when the next cluster may need the name.
        stack.callback(_ip, "link", "del", cable)
        _ip("link", "set", cable, "master", bridge, "up")
        _ip("-n", machine.namespace, "addr", "add", f"{machine.address}/24", "dev", "eth0")
        _ip("-n", machine.namespace, "link", "set", "eth0", "up")
        _ip("-n", machine.namespace, "link", "set", "lo", "up")
        machines.append(machine)
    return machines


def _sweep() -> None:
    """Ends what sessions left that were killed: their processes and networks."""
    told = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True)
    for name, number in re.findall(r"^(nst-(\d+)-\S+)", told.stdout, re.MULTILINE):
        if Path(f"/proc/{number}").exists():
            continue
        inside = ["ip", "netns", "pids", name]
        for pid in subprocess.run(inside, capture_output=True, text=True).stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _ip("netns", "del", name)
        # The first of them takes the bridge along.
        subprocess.run(["ip", "link", "del", f"nst{number}"], capture_output=True)


def _inside(namespace: str, command: Sequence[str]) -> list[str]:
    return ["ip", "netns", "exec", namespace, *command]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _until(true, seconds: float, what: str) -> None:
    """Waits; what does not answer yet is not true yet."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if true():
                return
        time.sleep(1)
    raise TimeoutError(f"{what}: not in {seconds} s")


if __name__ == "__main__":
    if missing():
        print(missing(), file=sys.stderr)
    else:
        build()
