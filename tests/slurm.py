"""A real SLURM of two nodes on one machine, and the proof on it: `python -m tests.slurm` (needs slurm-wlm, munge, and the extra `slurm`).

A node dies in the middle of a profile, a job is preempted, another runs past its time limit: the same command ends with the receipts
of an undisturbed run on this machine. Nothing outside the given folder is written, and no daemon outlives the script.
"""

import argparse
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from artifact import commands, experiment, jobs, receipts
from tests.artifact.tiny import TINY, told

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "sinfo")
SBIN = "/usr/sbin:/sbin"  # daemons lie where a user's PATH may not look
SECONDS_TO_START = 300  # all limits are for a machine that is slow and busy with other things: they end what hangs, they measure nothing


def missing() -> str | None:
    """Why SLURM cannot be started here, or None."""
    if sys.platform != "linux":
        return "SLURM runs on Linux"
    if absent := [name for name in PROGRAMS if not shutil.which(name, path=f"{os.environ['PATH']}:{SBIN}")]:
        return f"{', '.join(absent)} not found: apt-get install slurm-wlm munge"
    if find_spec("snakemake_executor_plugin_slurm") is None:
        return "snakemake-executor-plugin-slurm is not installed: pip install '.[slurm]'"
    if Path("/etc/slurm/slurm.conf").exists():
        return "this machine belongs to a SLURM already"
    return None


def wait_for(what, told: str, seconds: float = SECONDS_TO_START):
    """Ask until it is so; TimeoutError says what did not come."""
    ends = time.monotonic() + seconds
    while not (found := what()):
        if time.monotonic() > ends:
            raise TimeoutError(f"{told} did not come within {seconds:.0f} s")
        time.sleep(0.2)
    return found


def with_environment(text: str) -> list[int]:
    """The processes whose environment holds a text."""
    found = []
    for folder in os.listdir("/proc"):
        if folder.isdigit() and int(folder) != os.getpid():
            try:
                if text.encode() in Path(f"/proc/{folder}/environ").read_bytes():
                    found.append(int(folder))
            except OSError:
                continue
    return found


class Slurm:
    """slurmctld, munged and one slurmd a node, with ports, key and folders of their own; to be used in a `with`.

    `environment` is what a process needs to submit here. Each node has two cores and two devices that pass for GPUs.
    """

    def __init__(self, folder: Path, nodes=("node1", "node2")):
        self.folder, self.nodes, self.running = Path(folder).resolve(), list(nodes), {}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.environment = os.environ | {
            "SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": f"{self.folder}/bin:{os.environ['PATH']}:{SBIN}"}

    def __enter__(self):
        try:
            self._configure()
            key = self.folder / "munge.key"
            key.write_bytes(os.urandom(128))
            key.chmod(0o600)
            self.folder.chmod(0o755)  # of munge's socket
            self._start("munged", "munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", f"--key-file={key}",
                        f"--log-file={self.folder}/munged.log", f"--pid-file={self.folder}/munged.pid",
                        f"--seed-file={self.folder}/munged.seed")
            wait_for((self.folder / "munge.socket").exists, "munge's socket")
            self._start("slurmctld", "slurmctld", "-D", "-c")
            for node in self.nodes:
                self.start_node(node)
            ready = ["idle"] * len(self.nodes)
            wait_for(lambda: self("sinfo", "--noheader", "--Node", "--format=%T", "--partition=normal").split() == ready, "idle nodes")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name in reversed(list(self.running)):
            if name in self.nodes:
                self.kill_node(name)
            else:
                process = self.running.pop(name)
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def __call__(self, *command: str) -> str:
        """What a command of SLURM says; empty where it failed."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=SECONDS_TO_START)
        return done.stdout if done.returncode == 0 else ""

    def start_node(self, name: str) -> None:
        self._start(name, "slurmd", "-D", "-N", name, MMC_NODE=self._mark(name))

    def kill_node(self, name: str) -> None:
        """Power off: the node's daemon and all that runs on it, at once and without a word."""
        process = self.running.pop(name)
        for _ in range(5):  # what one of them was about to start
            for pid in self.processes(name):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.1)
        process.wait()

    def processes(self, name: str) -> list[int]:
        """All that runs on a node: daemons by their mark, jobs by SLURM's own variable and this folder."""
        return sorted({*with_environment(self._mark(name)),
                       *(set(with_environment(f"SLURMD_NODENAME={name}\0")) & set(with_environment(str(self.folder))))})

    def _mark(self, name):
        return f"{self.folder}/{name}"

    def _start(self, name, *command, **variables):
        with open(self.folder / f"{name}.out", "ab") as log:
            self.running[name] = subprocess.Popen(command, env=self.environment | variables, stdin=subprocess.DEVNULL, stdout=log,
                                                  stderr=subprocess.STDOUT, cwd=self.folder, start_new_session=True)

    def _configure(self):
        user, host, ports = getpass.getuser(), socket.gethostname().split(".")[0], _free_ports(1 + len(self.nodes))
        for name in ("state", "bin", *self.nodes):
            (self.folder / name).mkdir(exist_ok=True)
        lines = [
            "ClusterName=mmc", f"SlurmctldHost={host}(127.0.0.1)", f"SlurmctldPort={ports[0]}", f"SlurmUser={user}", f"SlurmdUser={user}",
            "AuthType=auth/munge", f"AuthInfo=socket={self.folder}/munge.socket", "CredType=cred/munge",
            f"StateSaveLocation={self.folder}/state", f"SlurmdSpoolDir={self.folder}/%n", f"SlurmctldPidFile={self.folder}/slurmctld.pid",
            f"SlurmdPidFile={self.folder}/%n.pid", "ProctrackType=proctrack/linuxproc", "TaskPlugin=task/none", "MpiDefault=none",
            "SelectType=select/cons_tres", "SelectTypeParameters=CR_Core_Memory,CR_LLN", "JobAcctGatherType=jobacct_gather/none",
            "AccountingStorageType=accounting_storage/none", "SlurmdParameters=config_overrides", "GresTypes=gpu", "JobRequeue=1",
            "PreemptType=preempt/partition_prio", "PreemptMode=REQUEUE", "SlurmdTimeout=20", "KillWait=5", "MinJobAge=7200",
            "SchedulerParameters=batch_sched_delay=1,sched_interval=5,bf_interval=5", "ReturnToService=2", "PropagateResourceLimits=NONE",
            *(f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=16000 Gres=gpu:2"
              for node, port in zip(self.nodes, ports[1:], strict=True)),
            "PartitionName=normal Nodes=ALL Default=YES PriorityTier=1 State=UP",
            "PartitionName=urgent Nodes=ALL Default=NO PriorityTier=2 State=UP",
        ]
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")
        (self.folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
        # The plugin's job step drops SLURM_CONF and would look into /etc/slurm, which is not ours to write to.
        srun = self.folder / "bin" / "srun"
        srun.write_text(f"#!/bin/sh\nSLURM_CONF='{self.folder}/slurm.conf' exec {shutil.which('srun')} \"$@\"\n")
        srun.chmod(0o755)


def _free_ports(count: int) -> list[int]:
    # Kept open until all are known, so that no two are the same.
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


PROFILE = (TINY.replace("train_on_the_spot: true", "train_on_the_spot: false")
           .replace("epochs: 4, milestones: [3]", "epochs: 20, milestones: [15]"))
EVERY_STEP = {"MMC_CHECKPOINT_SECONDS": "0.000001", "OMP_NUM_THREADS": "1"}  # a state a step: whatever is broken off has one
NAMES = ("train sce", "train mmc-10", "white box")


def two_gpus(slurm: Slurm) -> list[str]:
    """What two jobs on one node of two GPUs see as CUDA_VISIBLE_DEVICES, both at the same time."""
    node, outputs = slurm.nodes[0], [slurm.folder / f"gpu-{number}.out" for number in (0, 1)]
    for output in outputs:
        slurm("sbatch", "--gpus=1", "--mem=100", "--ntasks=1", "--time=10", f"--nodelist={node}", f"--output={output}", "--job-name=gpus",
              "--wrap", f"echo $CUDA_VISIBLE_DEVICES; until test -s {outputs[0]} && test -s {outputs[1]}; do sleep 0.2; done")
    both = ["COMPLETED"] * 2
    wait_for(lambda: slurm("squeue", "--noheader", "--name=gpus", "--states=all", "--format=%T").split() == both, "two jobs' end", 600)
    return [output.read_text().strip() for output in outputs]


def proof(folder: Path, say=print) -> tuple[dict, dict]:
    """A small profile here, undisturbed, and on SLURM with a job preempted, one out of time and a node dead; all receipts of both.

    What is compared leaves out when, where and in what time a receipt was made. RuntimeError where SLURM's run did not end well.
    """
    folder = Path(folder).resolve()
    (folder / "tiny.yaml").write_text(PROFILE, encoding="utf-8")
    here, there = ({"MMC_RESULTS": str(folder / name / "results"), "MMC_CHECKPOINTS": str(folder / name / "checkpoints")}
                   for name in ("here", "slurm"))
    profile, began = experiment.load_profile(str(folder / "tiny.yaml")), time.monotonic()

    def tell(text):
        say(f"{time.monotonic() - began:5.0f} s  {text}")

    for only in ("train *", "white box"):
        subprocess.run([sys.executable, "-m", "artifact", "run", "--profile", profile.source, "--only", only], env=os.environ | here,
                       cwd=experiment.ROOT, stdout=subprocess.DEVNULL, check=True)
    tell("the undisturbed run on this machine is done")
    with Slurm(folder / "cluster") as slurm, open(folder / "snakemake.log", "wb") as log:
        tell(f"two jobs with a GPU each, at the same time on {slurm.nodes[0]}, see CUDA_VISIBLE_DEVICES {' and '.join(two_gpus(slurm))}")
        with _environment(slurm.environment | there | EVERY_STEP):
            planned = [job for job in jobs.plan(profile) if job.name in NAMES]
            command = commands.snakemake(profile, planned, 2, tuple(job.receipt for job in planned), executor="slurm")
            running = subprocess.Popen(command, cwd=experiment.ROOT, stdout=log, stderr=subprocess.STDOUT)
        try:
            _disturb(slurm, profile, folder / "slurm", running, tell)
            running.wait(3600)
        finally:
            if running.poll() is None:
                running.terminate()
                running.wait(60)
        tell(f"Snakemake ended with exit status {running.returncode}; SLURM's jobs, their ends and nodes:")
        for line in slurm("squeue", "--noheader", "--states=all", "--format=%i %T %N %k", "--sort=i").splitlines():
            tell(f"  {line}")
    if running.returncode:
        raise RuntimeError(f"it did not end well:\n{(folder / 'snakemake.log').read_text()[-3000:]}")
    return outcomes(folder / "here" / "results"), outcomes(folder / "slurm" / "results")


def outcomes(results: Path) -> dict:
    """All receipts under a folder, by place, without the clock times that they hold."""
    def timeless(value):
        if isinstance(value, dict):
            return {key: timeless(inner) for key, inner in value.items() if key != "seconds"}
        return value

    return {str(path.relative_to(results)): timeless(told(receipts.read_receipt(path))) for path in results.rglob("*.json")}


@contextmanager
def _environment(variables):
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _disturb(slurm, profile, folder, running, tell):
    rules = {name: f"rule_{jobs.rule_name(jobs.find(profile, f'train {name}'))}" for name in ("sce", "mmc-10")}

    def of(model):  # (job, state, node) of its newest submission
        lines = [line.split("|") for line in slurm("squeue", "--noheader", "--states=all", "--format=%i|%T|%N|%k").splitlines()]
        return max(([int(job), state, node] for job, state, node, comment in lines if comment == rules[model]), default=[0, "", ""])

    def steps(model):  # of the newest state on disk
        return max((int(path.name.split("-")[1]) for path in (folder / "checkpoints").glob(f"*/{model}-*/state-*.safetensors")), default=0)

    def ended(model):
        return any((folder / "results").glob(f"*/models/{model}-*.json"))

    def under_way(model, beyond=0):
        """(job, node, step) of a training that is beyond a step."""
        def look():
            if steps(model) > beyond:
                return True
            if ended(model):
                raise RuntimeError(f"the training of {model} ended before it was met in the middle")
            if running.poll() is not None:
                raise RuntimeError("the run ended before it was disturbed")
            job, state, _ = of(model)
            if state == "PENDING":  # what is requeued waits two minutes by SLURM's own rule
                slurm("scontrol", "update", f"JobId={job}", "StartTime=now")
            time.sleep(0.3)
        wait_for(look, f"a state of {model} beyond step {beyond}", 1800)
        job, _, node = of(model)
        return job, node, steps(model)

    def halt(job):  # so that it is still in the middle when SLURM comes
        for pid in with_environment(f"SLURM_JOB_ID={job}\0"):
            if b"artifact.kernel" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGSTOP)

    job, node, _ = under_way("sce")
    halt(job)
    other, *_ = under_way("mmc-10")
    halt(other)
    kept = steps("sce")
    slurm("sbatch", "--partition=urgent", f"--nodelist={node}", "--exclusive", "--output=/dev/null", "--wrap", "sleep 1")
    wait_for(lambda: of("sce")[1] != "RUNNING", "preemption", 600)
    tell(f"job {job} (train sce) on {node}, its state at step {kept}, gives way to a job of higher priority: {of('sce')[1]}")

    job, node, step = under_way("sce", kept)
    halt(job)
    tell(f"job {job} (train sce) is on {node}, at step {step}")
    kept = steps("sce")
    slurm("scontrol", "update", f"JobId={job}", "EndTime=now")
    wait_for(lambda: of("sce")[1] not in ("RUNNING", "COMPLETING"), "the end of its time", 600)
    tell(f"job {job} (train sce) on {node}, its state at step {kept}, has no time left: {of('sce')[1]}")

    job, node, _ = under_way("mmc-10")
    slurm.kill_node(node)
    dead = steps("mmc-10")
    tell(f"{node} is dead, with job {job} (train mmc-10) on it, its state at step {dead}")
    waiting = {"sce": kept, "mmc-10": dead, node: 0}
    while waiting and running.poll() is None:
        time.sleep(0.3)
        if node in waiting and "down" in (said := slurm("sinfo", "--noheader", f"--nodes={node}", "--partition=normal", "--format=%T, %E")):
            tell(f"SLURM says of {node}: {said.strip()}")
            del waiting[node]
        for model in waiting.keys() - {node}:
            if steps(model) > waiting[model]:
                job, state, where = of(model)
                tell(f"job {job} (train {model}) is {state} on {where}, at step {steps(model)}")
                del waiting[model]
            elif ended(model):
                del waiting[model]
            elif of(model)[1] == "PENDING":
                slurm("scontrol", "update", f"JobId={of(model)[0]}", "StartTime=now")


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description="A profile on a real SLURM of two nodes: preemption, time limit, a node's death.")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave logs and receipts there")
    options = parser.parse_args(arguments)
    if why := missing():
        print(f"SLURM was not started: {why}")
        return 1
    with tempfile.TemporaryDirectory(prefix="mmc-slurm-") as scratch:
        folder = (options.keep or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        here, there = proof(folder, lambda text: print(text, flush=True))
    same = [name for name in here if here[name] == there.get(name)]
    print(f"{len(same)} of {len(here)} receipts of the undisturbed run are SLURM's too, {len(there.keys() - here.keys())} are SLURM's only")
    return 0 if here == there else 1


if __name__ == "__main__":
    sys.exit(main())
